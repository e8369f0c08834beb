//! Repositories: aggregates loaded by replay, and commands executed on them.

mod cache;
mod compaction;
mod error;
mod fold;
mod once;
mod states;

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::{DateTime, Utc};
use tracing::{Instrument, debug_span};

use crate::aggregate::{Aggregate, can_be_aggregate};
use crate::codec::{Codec, CodecError, NewEvent};
use crate::event::{Event, upcasts_are_whole};
use crate::metrics::SentMetrics;
use crate::recorded::{AggregateId, AggregateRef, RecordedEvent, Version};
use crate::snapshot::{SnapshotPolicy, SnapshotWriter};
use crate::store::{
    Append, AppendError, Appended, EventStore, Expected, ReadError, Receipt, Versions,
};
use crate::token::Token;

pub use error::RepositoryError;

use cache::StateCache;
use fold::Fold;

/// How often a command is decided anew because another writer was faster.
const DEFAULT_CONFLICT_RETRIES: usize = 32;

/// Loads aggregates of one type by replay, and executes commands on them. See [`Aggregate`] for an
/// example.
pub struct Repository<A> {
    store: Arc<dyn EventStore>,
    codec: Codec,
    conflict_retries: usize,
    metrics: SentMetrics,
    snapshots: SnapshotPolicy<A>,
    snapshot_writer: SnapshotWriter,
    cache: Option<StateCache<A>>,
    events_kept_for: Duration,
}

/// An aggregate as it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<A> {
    /// Its state.
    pub state: A,
    /// Its version: the number of events it is made of.
    pub version: Version,
}

/// What a command has led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Executed<A> {
    /// The state afterwards.
    pub state: A,
    /// The version afterwards.
    pub version: Version,
    /// The new events; none where there was nothing to do.
    pub events: Vec<RecordedEvent>,
    token: Token,
}

impl<A> Executed<A> {
    /// What must be reached to know of the new events; nothing where there are none.
    pub fn token(&self) -> Token {
        self.token.clone()
    }
}

/// An event of an aggregate's past.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEvent<E> {
    /// Its version. Events that one stored event was split into have the same.
    pub version: Version,
    /// The event, as it is read today.
    pub event: E,
    /// The event as it was recorded, with its metadata.
    pub recorded: RecordedEvent,
}

/// What has come of an aggregate from one version to another.
#[derive(Clone, Debug)]
pub struct Changes<A: Aggregate> {
    /// The state at the earlier version.
    pub before: A,
    /// The state at the later one.
    pub after: A,
    /// What has happened in between, the oldest first.
    pub events: Vec<HistoryEvent<A::Event>>,
}

/// A point in an aggregate's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// After the event of this version.
    Version(Version),
    /// Before the first event that was made later than this.
    Time(DateTime<Utc>),
}

impl<A: Aggregate> Repository<A> {
    /// A repository on a store, with the system's clock and random ids.
    pub fn new(store: impl EventStore) -> Self {
        Self::with_codec(Arc::new(store), Codec::default())
    }

    /// A repository whose events are made by `codec`.
    pub fn with_codec(store: Arc<dyn EventStore>, codec: Codec) -> Self {
        const {
            assert!(
                can_be_aggregate(A::Event::DEFINITIONS),
                "all events of an aggregate must be stored events of one category (the first \
                 segment of their types): change their #[event(\"…\")] types"
            );
            assert!(
                upcasts_are_whole(A::Event::DEFINITIONS),
                "an event of this aggregate has a version that no upcast leads from"
            );
        }
        Self {
            store,
            codec,
            conflict_retries: DEFAULT_CONFLICT_RETRIES,
            metrics: SentMetrics::default(),
            snapshots: A::SNAPSHOTS,
            snapshot_writer: SnapshotWriter::default(),
            cache: None,
            events_kept_for: compaction::EVENTS_KEPT_FOR,
        }
    }

    /// Decides a command anew at most so often when other writers are faster; 32 by default.
    pub fn with_conflict_retries(mut self, retries: usize) -> Self {
        self.conflict_retries = retries;
        self
    }

    /// Keeps the states that were loaded, in up to so many bytes, so that loads read only what came
    /// after, and commands are decided without reading. What other processes append is seen all the
    /// same: the history has the last word on every load and every command.
    ///
    /// A state is taken to be as large as the events it is made of; see
    /// [`with_weighed_cache`](Self::with_weighed_cache) where it is much smaller.
    ///
    /// ```
    /// # use event_core::prelude::*;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Serialize, Deserialize, Event)]
    /// # enum CounterEvent {
    /// #     #[event("counter.raised")]
    /// #     Raised { by: u32 },
    /// # }
    /// # #[derive(Clone, Default)]
    /// # struct Counter;
    /// # impl Aggregate for Counter {
    /// #     const TYPE: &'static str = "counter";
    /// #     type Event = CounterEvent;
    /// #     type Command = u32;
    /// #     type Error = std::convert::Infallible;
    /// #     fn apply(&mut self, _: &CounterEvent) {}
    /// #     fn handle(&self, by: u32) -> Result<Vec<CounterEvent>, Self::Error> {
    /// #         Ok(vec![CounterEvent::Raised { by }])
    /// #     }
    /// # }
    /// let counters = Repository::<Counter>::new(MemoryStore::new()).with_cache(64 << 20);
    /// ```
    pub fn with_cache(mut self, bytes: usize) -> Self
    where
        A: Clone,
    {
        self.cache = Some(StateCache::new(bytes, None));
        self
    }

    /// As [`with_cache`](Self::with_cache), where `weigh` says what a state takes, in bytes.
    pub fn with_weighed_cache(mut self, bytes: usize, weigh: fn(&A) -> usize) -> Self
    where
        A: Clone,
    {
        self.cache = Some(StateCache::new(bytes, Some(weigh)));
        self
    }

    /// Keeps snapshots by another policy than the aggregate's own.
    pub fn with_snapshots(mut self, policy: SnapshotPolicy<A>) -> Self {
        self.snapshots = policy;
        self
    }

    /// Waits until the snapshots that loads and commands have begun to write are written.
    pub async fn finish_snapshots(&self) {
        self.snapshot_writer.finish().await;
    }

    /// Rebuilds an aggregate: from its newest snapshot or its cached state where there is one, else from
    /// its whole history.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`] where it has no events; [`RepositoryError::Read`] with
    /// [`ReadError::HistoryTrimmed`] where its history was [compacted](Self::compact), and its snapshot is
    /// not there or cannot be read.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        let fold = self.newest(&aggregate).await?;
        Ok(Loaded {
            version: fold.version,
            state: fold.state,
        })
    }

    /// Rebuilds an aggregate as it was at a point in its past.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`] where it had no events by then;
    /// [`RepositoryError::NoSuchVersion`] where it has not got so far; [`RepositoryError::Read`] with
    /// [`ReadError::HistoryTrimmed`] where that needs an event that was [dropped](Self::compact), as at any
    /// time every one may be.
    pub async fn load_at(&self, id: &str, at: At) -> Result<Loaded<A>, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        let fold = match at {
            At::Version(version) => self.at_version(&aggregate, version).await?,
            At::Time(time) => {
                let mut fold = Fold::new(Some(time));
                self.replay(&aggregate, &Versions::all(), &mut fold).await?;
                fold.check().map_err(ReadError::from)?;
                fold
            }
        };
        if fold.version == 0 {
            return Err(RepositoryError::NotFound { aggregate });
        }
        Ok(Loaded {
            version: fold.version,
            state: fold.state,
        })
    }

    /// Reads events of an aggregate, each as it was recorded and as it is read today: a page at a time,
    /// by [`Versions::limit`].
    ///
    /// ```
    /// # use event_core::prelude::*;
    /// # use event_core::Versions;
    /// # async fn print<A: Aggregate>(repository: Repository<A>) -> Result<(), BoxError>
    /// # where A::Event: std::fmt::Debug {
    /// let mut next = 1;
    /// loop {
    ///     let page = repository.history("gothic", &Versions::from(next).limit(100)).await?;
    ///     let Some(last) = page.last() else { break };
    ///     next = last.version + 1;
    ///     for past in &page {
    ///         println!("{} {} {:?}", past.version, past.recorded.metadata().timestamp, past.event);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`] where it has no events; [`RepositoryError::Read`] where one cannot
    /// be read, with [`ReadError::HistoryTrimmed`] where it was [dropped](Self::compact).
    pub async fn history(
        &self,
        id: &str,
        versions: &Versions,
    ) -> Result<Vec<HistoryEvent<A::Event>>, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        let recorded = self.store.read_aggregate(&aggregate, versions).await;
        let mut events = Vec::new();
        for recorded in recorded.map_err(RepositoryError::of_read)? {
            let version = recorded.aggregate().map_or(0, |own| own.version);
            let decoded = recorded.decode_all::<A::Event>();
            for event in decoded.map_err(ReadError::from)? {
                events.push(HistoryEvent {
                    version,
                    event,
                    recorded: recorded.clone(),
                });
            }
        }
        Ok(events)
    }

    /// What has come of an aggregate from one version to a later one; 0 is before its first event.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`] where it has no events; [`RepositoryError::NoSuchVersion`] where it
    /// has not got so far.
    pub async fn changes(
        &self,
        id: &str,
        from: Version,
        to: Version,
    ) -> Result<Changes<A>, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        let after = self.at_version(&aggregate, to).await?;
        let before = match from {
            0 => Fold::new(None),
            from => self.at_version(&aggregate, from).await?,
        };
        let events = match from < to {
            true => self.history(id, &Versions::from(from + 1).to(to)).await?,
            false => Vec::new(),
        };
        Ok(Changes {
            before: before.state,
            after: after.state,
            events,
        })
    }

    /// Appends events to an aggregate without asking it.
    ///
    /// # Errors
    /// [`RepositoryError::Append`], above all where it is not as expected.
    pub async fn append(
        &self,
        id: &str,
        expected: Expected,
        events: &[A::Event],
    ) -> Result<Appended, RepositoryError> {
        let append = self.encode(AggregateId::of::<A>(id)?, expected, events)?;
        Ok(self.send(&append).await?)
    }

    /// Loads an aggregate (or takes a new one, where it has no events), lets it decide on a command
    /// and appends what that leads to. Where another writer was faster, it takes in what is new and
    /// decides again.
    ///
    /// # Errors
    /// [`RepositoryError::Rejected`] where the aggregate refuses; [`RepositoryError::Append`] with
    /// [`AppendError::Conflict`] where others were faster again and again.
    pub async fn execute(
        &self,
        id: &str,
        command: A::Command,
    ) -> Result<Executed<A>, RepositoryError> {
        self.execute_with(id, command, None).await
    }

    async fn execute_with(
        &self,
        id: &str,
        command: A::Command,
        receipt: Option<&Receipt>,
    ) -> Result<Executed<A>, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        // A cached state may be old: then the append says so.
        let cached = self.cache.as_ref().and_then(|cache| cache.resume(id));
        let mut is_newest = cached.is_none();
        let mut fold = match cached {
            Some(fold) => fold,
            None => self.newest_or_new(&aggregate).await?,
        };
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(1))
            .with_max_delay(Duration::from_millis(64))
            .with_max_times(self.conflict_retries)
            .with_jitter()
            .build();
        loop {
            let decided = fold.state.handle(command.clone());
            if !is_newest && !decided.as_ref().is_ok_and(|events| !events.is_empty()) {
                // Nothing is appended, so nothing would say that the state is old.
                fold = self.caught_up_or_new(&aggregate, fold).await?;
                is_newest = true;
                continue;
            }
            let events = decided.map_err(|reason| RepositoryError::Rejected {
                aggregate: aggregate.clone(),
                reason: reason.into(),
            })?;
            if events.is_empty() {
                return Ok(Executed {
                    state: fold.state,
                    version: fold.version,
                    events: Vec::new(),
                    token: Token::default(),
                });
            }
            let expected = Expected::Exact(fold.version);
            let mut append = self.encode(aggregate.clone(), expected, &events)?;
            if let Some(receipt) = receipt {
                append = append.once(receipt.clone());
            }
            match self.send(&append).await {
                Ok(appended) => {
                    for event in &events {
                        fold.state.apply(event);
                    }
                    fold.version = appended.version();
                    if let Some(last) = append.events().last() {
                        fold.event_id = last.metadata().event_id;
                    }
                    let size = |event: &NewEvent| event.payload().len();
                    fold.bytes += append.events().iter().map(size).sum::<usize>();
                    self.keep(&aggregate, &mut fold, Duration::ZERO);
                    return Ok(Executed {
                        state: fold.state,
                        version: fold.version,
                        events: recorded(&append, &appended),
                        token: appended.token(),
                    });
                }
                Err(error @ AppendError::Conflict { .. }) if is_newest => match delays.next() {
                    None => return Err(error.into()),
                    Some(delay) => {
                        tracing::debug!(%error, "deciding again");
                        tokio::time::sleep(delay).await;
                    }
                },
                Err(AppendError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            fold = self.caught_up_or_new(&aggregate, fold).await?;
            is_newest = true;
        }
    }

    fn encode(
        &self,
        aggregate: AggregateId,
        expected: Expected,
        events: &[A::Event],
    ) -> Result<Append, CodecError> {
        let events = events
            .iter()
            .map(|event| {
                let mut event = self.codec.encode(event)?;
                // Within an aggregate its id keeps the order.
                event.metadata_mut().key = None;
                Ok(event)
            })
            .collect::<Result<_, CodecError>>()?;
        Ok(Append::to(aggregate, expected, events))
    }

    async fn send(&self, append: &Append) -> Result<Appended, AppendError> {
        let span = debug_span!("store", aggregate = append.aggregate().map(AggregateId::id));
        let appended = self.store.append(append).instrument(span).await;
        self.metrics.appended(append, &appended);
        appended
    }

    async fn replay(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
        fold: &mut Fold<A>,
    ) -> Result<(), RepositoryError> {
        self.store
            .replay(aggregate, versions, &mut |entry| fold.take(entry))
            .await
            .map_err(RepositoryError::of_read)
    }
}

/// The events of an append, as they are recorded now.
pub(crate) fn recorded(append: &Append, appended: &Appended) -> Vec<RecordedEvent> {
    append
        .events()
        .iter()
        .zip(&appended.events)
        .map(|(event, place)| {
            let aggregate = append.aggregate().map(|aggregate| AggregateRef {
                aggregate_type: aggregate.aggregate_type().to_owned(),
                id: aggregate.id().to_owned(),
                version: place.version,
            });
            RecordedEvent::new(
                event.event_type(),
                event.payload(),
                place.position,
                aggregate,
                event.metadata().clone(),
            )
        })
        .collect()
}
