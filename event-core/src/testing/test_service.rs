use chrono::{DateTime, Utc};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use crate::BoxError;
use crate::aggregate::Aggregate;
use crate::clock::{Clock, Ids};
use crate::emit::Emit;
use crate::event::{Category, Event};
use crate::partition::Partition;
use crate::publisher::Published;
use crate::realtime::{RealtimeItem, RealtimeSubscription};
use crate::recorded::{Position, RecordedEvent};
use crate::repository::Repository;
use crate::service::{Dispatched, Handled, Service, ServiceBuilder, ServiceError};
use crate::store::{Backend, FeedEntry, MemoryStore, ReadError};

/// When every test begins: 2026-01-01T00:00:00Z.
const BEGINNING: DateTime<Utc> = match DateTime::from_timestamp(1_767_225_600, 0) {
    Some(time) => time,
    None => DateTime::UNIX_EPOCH,
};

/// How many entries are read at once.
const BATCH: usize = 1_000;

/// A service in a test: on a memory store of its own, with a clock that stands still until it is
/// moved, and ids that count from 1.
///
/// ```standalone_crate
/// use event_core::prelude::*;
/// use event_core::testing::TestService;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
/// # #[event("github.push")]
/// # struct GithubPush { commits: u32 }
/// # #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
/// # #[event("repository.analyzed")]
/// # struct RepositoryAnalyzed { findings: u32 }
/// #[event_handler(on = "github.push", emits = "repository.analyzed", group = "analyzer")]
/// async fn analyze(push: GithubPush) -> RepositoryAnalyzed {
///     RepositoryAnalyzed { findings: push.commits }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let test = TestService::start(Service::builder("analyzer")).await?;
/// test.publish(GithubPush { commits: 3 }).await?;
/// test.run_until_idle().await?;
/// assert_eq!(test.emitted::<RepositoryAnalyzed>().await?, [RepositoryAnalyzed { findings: 3 }]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestService<S = MemoryStore> {
    service: Service,
    store: S,
    clock: Clock,
    ids: Ids,
    realtime: Mutex<Heard>,
}

/// Every realtime event since the start.
struct Heard {
    subscription: RealtimeSubscription,
    events: Vec<RecordedEvent>,
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.events.fmt(f)
    }
}

impl TestService {
    /// Builds the service on a memory store, with a clock and ids of the test's own.
    ///
    /// # Errors
    /// [`BuildError`](crate::BuildError) with all mistakes there are.
    pub async fn start(builder: ServiceBuilder) -> Result<Self, BoxError> {
        let clock = Clock::standing_at(BEGINNING);
        let store = MemoryStore::new().with_clock(clock.clone());
        Self::start_with(store, clock, builder).await
    }
}

impl<S: Backend + Clone> TestService<S> {
    /// Builds the service on this store, which should be empty, with a clock and ids of the test's own. The
    /// store goes by its own clock.
    ///
    /// # Errors
    /// [`BuildError`](crate::BuildError) with all mistakes there are.
    pub async fn start_on(store: S, builder: ServiceBuilder) -> Result<Self, BoxError> {
        Self::start_with(store, Clock::standing_at(BEGINNING), builder).await
    }

    async fn start_with(store: S, clock: Clock, builder: ServiceBuilder) -> Result<Self, BoxError> {
        let ids = Ids::counting();
        let service = builder
            .store(store.clone())
            .clock(clock.clone())
            .ids(ids.clone())
            .concurrency(1)
            .build()?;
        let subscription = store.subscribe(&["*".parse()?]).await?;
        Ok(Self {
            service,
            store,
            clock,
            ids,
            realtime: Mutex::new(Heard {
                subscription,
                events: Vec::new(),
            }),
        })
    }

    /// The service.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Its store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Its clock, to be moved.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A repository on its store.
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        self.service.repository()
    }

    /// As [`Service::publish`].
    ///
    /// # Errors
    /// As there.
    pub async fn publish(&self, events: impl Emit) -> Result<Published, ServiceError> {
        self.service.publish(events).await
    }

    /// As [`Service::dispatch`].
    ///
    /// # Errors
    /// As there.
    pub async fn dispatch(&self, events: impl Emit) -> Result<Dispatched, ServiceError> {
        self.service.dispatch(events).await
    }

    /// As [`Service::run_until_idle`].
    ///
    /// # Errors
    /// As there.
    pub async fn run_until_idle(&self) -> Result<Handled, ServiceError> {
        self.service.run_until_idle().await
    }

    /// Everything of type `E` that was recorded or sent, oldest first; stored events before realtime
    /// ones.
    ///
    /// # Errors
    /// Where something does not fit `E`.
    pub async fn recorded<E: Event>(&self) -> Result<Vec<E>, BoxError> {
        self.matching(|_| true).await
    }

    /// What of type `E` was made while an event was handled: emitted by a handler, or by a command
    /// that it executed.
    ///
    /// # Errors
    /// Where something does not fit `E`.
    pub async fn emitted<E: Event>(&self) -> Result<Vec<E>, BoxError> {
        self.matching(|event| event.metadata().causation_id.is_some())
            .await
    }

    async fn matching<E: Event>(
        &self,
        wanted: impl Fn(&RecordedEvent) -> bool,
    ) -> Result<Vec<E>, BoxError> {
        let mut events = Vec::new();
        let mut categories: Vec<Category> = E::DEFINITIONS
            .iter()
            .map(|definition| definition.category())
            .collect();
        categories.sort();
        categories.dedup();
        for category in &categories {
            for number in 0..self.store.partitions(category).await? {
                let partition = Partition::new(category.clone(), number);
                events.extend(self.events_behind(&partition, Position::START).await?);
            }
        }
        let heard = self.hear().await?;
        events.extend(heard.iter().cloned());
        let mut typed = Vec::new();
        for event in events.iter().filter(|event| wanted(event)) {
            typed.extend(event.view::<E>()?);
        }
        Ok(typed)
    }

    /// The events of a partition that lie behind a position.
    pub(super) async fn events_behind(
        &self,
        partition: &Partition,
        mut after: Position,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut events = Vec::new();
        loop {
            let entries = self.store.read_feed(partition, after, BATCH).await?;
            let Some(last) = entries.last() else {
                return Ok(events);
            };
            after = last.position();
            events.extend(entries.into_iter().filter_map(|entry| match entry {
                FeedEntry::Event(event) => Some(event),
                FeedEntry::Undecodable { .. } => None,
            }));
        }
    }

    /// Takes in what was sent meanwhile.
    pub(super) async fn hear(&self) -> Result<MappedMutexGuard<'_, Vec<RecordedEvent>>, BoxError> {
        let mut heard = self.realtime.lock().await;
        let new = heard.subscription.drain().await?;
        heard
            .events
            .extend(new.into_iter().filter_map(|item| match item {
                RealtimeItem::Event(event) => Some(event),
                RealtimeItem::Missed { .. } => None,
            }));
        Ok(MutexGuard::map(heard, |heard| &mut heard.events))
    }

    /// Its ids, to be moved on.
    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }
}
