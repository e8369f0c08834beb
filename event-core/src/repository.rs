//! Repositories: aggregates loaded by replay, and commands executed on them.

mod cache;
mod compaction;
mod fold;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::{DateTime, Utc};
use tracing::{Instrument, debug_span};

use crate::BoxError;
use crate::aggregate::{Aggregate, can_be_aggregate};
use crate::codec::{Codec, CodecError, NewEvent};
use crate::event::{Event, upcasts_are_whole};
use crate::metrics::{self, SentMetrics};
use crate::partition::Partition;
use crate::recorded::{AggregateId, AggregateRef, InvalidAggregateId, RecordedEvent, Version};
use crate::snapshot::{SnapshotPolicy, SnapshotWriter};
use crate::store::{
    Append, AppendError, Appended, CompactError, Done, EventStore, Expected, ReadError, Receipt,
    Versions,
};
use crate::token::Token;

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

    /// Executes a command once: if the command of this id has led to events before, these are its outcome
    /// again, whatever the aggregate would decide today. For requests that are sent again.
    ///
    /// The receipt is stored together with the events, and kept for as long as `keep`. A command that is
    /// refused, or leads to nothing, leaves none, and is decided anew. Each aggregate has ids of its own.
    ///
    /// Where the history was [compacted](Self::compact) since, and the state of then cannot be made any more,
    /// the outcome has the newest state and its version, and of its events those that were not dropped.
    ///
    /// ```
    /// # use event_core::prelude::*;
    /// # use std::time::Duration;
    /// # async fn pay<A: Aggregate>(accounts: Repository<A>, command: A::Command) -> Result<(), BoxError> {
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// let first = accounts.execute_once("a", "request-4711", day, command.clone()).await?;
    /// let again = accounts.execute_once("a", "request-4711", day, command).await?;
    /// assert_eq!(first.events, again.events);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`execute`](Self::execute); [`RepositoryError::Append`] with [`AppendError::InvalidCommandId`]
    /// where the id is empty or too long.
    pub async fn execute_once(
        &self,
        id: &str,
        command_id: &str,
        keep: Duration,
        command: A::Command,
    ) -> Result<Executed<A>, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        if let Some(done) = self.find_receipt(&aggregate, command_id).await? {
            return self.outcome(&aggregate, done).await;
        }
        let receipt = Receipt {
            command_id: command_id.to_owned(),
            keep,
        };
        let executed = self.execute_with(id, command, Some(&receipt)).await;
        let is_decided = match &executed {
            Ok(done) => !done.events.is_empty(),
            Err(RepositoryError::Append(AppendError::NotProjected { .. })) => true,
            Err(_) => false,
        };
        if is_decided {
            return executed;
        }
        if let Err(RepositoryError::Append(AppendError::AlreadyDone { done, .. })) = executed {
            return self.outcome(&aggregate, done).await;
        }
        // It may have been done meanwhile, and be refused because of that.
        match self.find_receipt(&aggregate, command_id).await? {
            Some(done) => self.outcome(&aggregate, done).await,
            None => executed,
        }
    }

    async fn find_receipt(
        &self,
        aggregate: &AggregateId,
        command_id: &str,
    ) -> Result<Option<Done>, RepositoryError> {
        let found = self.store.find_receipt(aggregate, command_id).await;
        Ok(found.map_err(ReadError::from)?)
    }

    /// What a command has led to.
    async fn outcome(
        &self,
        aggregate: &AggregateId,
        done: Done,
    ) -> Result<Executed<A>, RepositoryError> {
        let fold = match self.at_version(aggregate, *done.end()).await {
            Err(error) if error.is_history_trimmed() => self.newest(aggregate).await?,
            fold => fold?,
        };
        let events = self.left_of(aggregate, &done).await?;
        let last = match events.last() {
            Some(last) => Some(last.clone()),
            // Whoever waits for a later one waits for these, too.
            None => {
                let newest = Versions::last(1);
                let newest = self.store.read_aggregate(aggregate, &newest).await?;
                newest.into_iter().next()
            }
        };
        let mut token = Token::default();
        if let Some(last) = last {
            let count = self.store.partitions(aggregate.category()).await?;
            token.reach(Partition::of_aggregate(aggregate, count), last.position());
        }
        Ok(Executed {
            state: fold.state,
            version: fold.version,
            events,
            token,
        })
    }

    /// The events of these versions, as far as they were not dropped.
    async fn left_of(
        &self,
        aggregate: &AggregateId,
        done: &Done,
    ) -> Result<Vec<RecordedEvent>, RepositoryError> {
        let mut first = *done.start();
        while first <= *done.end() {
            let versions = Versions::from(first).to(*done.end());
            match self.store.read_aggregate(aggregate, &versions).await {
                Err(ReadError::HistoryTrimmed {
                    first_available, ..
                }) => first = first_available.max(first + 1),
                events => return Ok(events?),
            }
        }
        Ok(Vec::new())
    }

    /// The newest state.
    async fn newest(&self, aggregate: &AggregateId) -> Result<Fold<A>, RepositoryError> {
        let begun = Instant::now();
        let cached = self.cache.as_ref();
        let fold = match cached.and_then(|cache| cache.resume(aggregate.id())) {
            Some(fold) => Some(fold),
            None => self.of_snapshot(aggregate, Version::MAX).await?,
        };
        let mut fold = match fold {
            Some(fold) => self.caught_up(aggregate, fold, Version::MAX).await?,
            None => self.replayed(aggregate, Version::MAX).await?,
        };
        self.keep(aggregate, &mut fold, begun.elapsed());
        Ok(fold)
    }

    async fn newest_or_new(&self, aggregate: &AggregateId) -> Result<Fold<A>, RepositoryError> {
        match self.newest(aggregate).await {
            Err(RepositoryError::NotFound { .. }) => Ok(Fold::new(None)),
            newest => newest,
        }
    }

    /// Takes in what has come since, up to a version, if the history is still the same; else reads it from
    /// its beginning.
    async fn caught_up(
        &self,
        aggregate: &AggregateId,
        fold: Fold<A>,
        to: Version,
    ) -> Result<Fold<A>, RepositoryError> {
        let mut fold = fold.again();
        let versions = Versions::from(fold.first()).to(to);
        let read = self.replay(aggregate, &versions, &mut fold).await;
        match read {
            // The history was compacted behind a newer state than this.
            Err(error) if error.is_history_trimmed() => {
                self.forget(aggregate);
                return self.behind_snapshot(aggregate, to, error).await;
            }
            Err(error) => {
                if matches!(error, RepositoryError::NotFound { .. }) {
                    self.forget(aggregate);
                }
                return Err(error);
            }
            Ok(()) => {}
        }
        if fold.check().map_err(ReadError::from)? {
            return Ok(fold);
        }
        self.forget(aggregate);
        self.passed_over(
            aggregate,
            "the history has another event at its version, or none",
        );
        self.replayed(aggregate, to).await
    }

    async fn caught_up_or_new(
        &self,
        aggregate: &AggregateId,
        fold: Fold<A>,
    ) -> Result<Fold<A>, RepositoryError> {
        if fold.version == 0 {
            return self.newest_or_new(aggregate).await;
        }
        match self.caught_up(aggregate, fold, Version::MAX).await {
            Ok(mut fold) => {
                self.keep(aggregate, &mut fold, Duration::ZERO);
                Ok(fold)
            }
            Err(RepositoryError::NotFound { .. }) => Ok(Fold::new(None)),
            Err(error) => Err(error),
        }
    }

    /// The state as the history makes it, up to a version.
    async fn replayed(
        &self,
        aggregate: &AggregateId,
        to: Version,
    ) -> Result<Fold<A>, RepositoryError> {
        let mut fold = Fold::new(None);
        let versions = Versions::all().to(to);
        match self.replay(aggregate, &versions, &mut fold).await {
            // It was compacted since the snapshot was looked for.
            Err(error) if error.is_history_trimmed() => {
                return self.behind_snapshot(aggregate, to, error).await;
            }
            read => read?,
        }
        fold.check().map_err(ReadError::from)?;
        Ok(fold)
    }

    async fn at_version(
        &self,
        aggregate: &AggregateId,
        version: Version,
    ) -> Result<Fold<A>, RepositoryError> {
        let fold = match self.of_snapshot(aggregate, version).await? {
            Some(fold) => self.caught_up(aggregate, fold, version).await?,
            None => self.replayed(aggregate, version).await?,
        };
        if fold.version < version {
            return Err(RepositoryError::NoSuchVersion {
                aggregate: aggregate.clone(),
                wanted: version,
                highest: fold.version,
            });
        }
        Ok(fold)
    }

    /// The state of the newest snapshot, if there is one that can be read and is not too new.
    async fn of_snapshot(
        &self,
        aggregate: &AggregateId,
        newest: Version,
    ) -> Result<Option<Fold<A>>, RepositoryError> {
        if !self.snapshots.is_on() {
            return Ok(None);
        }
        let snapshot = match self.store.load_snapshot(aggregate).await {
            Ok(Some(snapshot)) if snapshot.version <= newest => snapshot,
            Ok(_) => return Ok(None),
            Err(ReadError::Codec(error)) => {
                self.passed_over(aggregate, &error.to_string());
                return Ok(None);
            }
            Err(error) => return Err(RepositoryError::of_read(error)),
        };
        match self.snapshots.read(&snapshot) {
            Ok(state) => {
                let (version, event_id) = (snapshot.version, snapshot.event_id);
                let fold = Fold::resume(state, version, event_id, snapshot.state.len());
                Ok(Some(fold.with_snapshot(version)))
            }
            Err(reason) => {
                self.passed_over(aggregate, &reason);
                Ok(None)
            }
        }
    }

    /// Says that a snapshot or a cached state is not used.
    fn passed_over(&self, aggregate: &AggregateId, reason: &str) {
        tracing::warn!(%aggregate, reason, "a state that was kept is passed over; the whole history is read");
        metrics::states_passed_over(A::TYPE).increment(1);
    }

    fn forget(&self, aggregate: &AggregateId) {
        if let Some(cache) = &self.cache {
            cache.forget(aggregate.id());
        }
    }

    /// Keeps a state for the next load, and as a snapshot if one is due.
    fn keep(&self, aggregate: &AggregateId, fold: &mut Fold<A>, took: Duration) {
        let events = fold.version.saturating_sub(fold.snapshot);
        if self.snapshots.is_due(events, took) {
            let begun = self.snapshot_writer.begin(&self.store, aggregate, || {
                self.snapshots
                    .write(&fold.state, fold.version, fold.event_id)
            });
            if begun {
                fold.snapshot = fold.version;
            }
        }
        if let Some(cache) = &self.cache {
            cache.keep(aggregate.id(), fold);
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

/// A load or a command that failed.
#[derive(thiserror::Error)]
pub enum RepositoryError {
    /// The aggregate refuses the command.
    #[error("`{aggregate}` refuses: {reason}")]
    Rejected {
        /// The aggregate.
        aggregate: AggregateId,
        /// Its own error.
        #[source]
        reason: BoxError,
    },
    /// The aggregate has no events, or had none by then.
    #[error("there is no aggregate `{aggregate}`")]
    NotFound {
        /// The aggregate.
        aggregate: AggregateId,
    },
    /// The aggregate has not got so far.
    #[error("`{aggregate}` has no version {wanted}; its newest is {highest}")]
    NoSuchVersion {
        /// The aggregate.
        aggregate: AggregateId,
        /// The version that was asked for.
        wanted: Version,
        /// The newest there is.
        highest: Version,
    },
    /// A history is compacted behind a snapshot, and the repository keeps none.
    #[error(
        "`{aggregate}` cannot be compacted, since its repository keeps no snapshots; give the aggregate `SNAPSHOTS`, or the repository `with_snapshots`"
    )]
    WithoutSnapshots {
        /// The aggregate.
        aggregate: AggregateId,
    },
    /// The state cannot be written as JSON.
    #[error("the state of `{aggregate}` cannot be written as JSON, so that there is no snapshot")]
    State {
        /// The aggregate.
        aggregate: AggregateId,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The history could not be compacted.
    #[error(transparent)]
    Compact(CompactError),
    /// A name that no aggregate can have.
    #[error(transparent)]
    InvalidId(#[from] InvalidAggregateId),
    /// An event could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The store did not take the events.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The history could not be read.
    #[error(transparent)]
    Read(ReadError),
}

/// As [`Display`](fmt::Display), with the sources: a `main` that returns an error, and a test that
/// unwraps one, print this, and the sentence is for those who read it there.
impl fmt::Debug for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = std::error::Error::source(self);
        if let RepositoryError::Rejected { reason, .. } = self {
            // It is in the sentence already.
            source = reason.source();
        }
        while let Some(error) = source {
            write!(f, "\n  because: {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl From<ReadError> for RepositoryError {
    fn from(error: ReadError) -> Self {
        Self::of_read(error)
    }
}

impl RepositoryError {
    fn of_read(error: ReadError) -> Self {
        match error {
            ReadError::NotFound { aggregate } => Self::NotFound { aggregate },
            other => Self::Read(other),
        }
    }

    /// Whether what was asked for needs an event that was dropped.
    fn is_history_trimmed(&self) -> bool {
        matches!(self, Self::Read(ReadError::HistoryTrimmed { .. }))
    }

    /// The aggregate's own error, where it refused the command and `E` is that error's type.
    pub fn rejection<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            RepositoryError::Rejected { reason, .. } => reason.downcast_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Category;
    use crate::store::StoreError;

    fn aggregate() -> AggregateId {
        AggregateId::new(Category::new("sdlc").unwrap(), "project", "gothic").unwrap()
    }

    #[test]
    fn debug_is_the_sentence_and_its_sources() {
        let rejected = RepositoryError::Rejected {
            aggregate: aggregate(),
            reason: "it is done".into(),
        };
        assert_eq!(format!("{rejected:?}"), rejected.to_string());

        let refused = RepositoryError::from(AppendError::from(StoreError::Refused {
            operation: "append",
            source: "NOPERM no".into(),
        }));
        assert_eq!(
            format!("{refused:?}"),
            format!("{refused}\n  because: NOPERM no")
        );
    }
}
