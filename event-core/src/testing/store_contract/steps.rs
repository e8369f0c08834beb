//! Steps that many rules have in common.

use std::time::Duration;

use futures::FutureExt;
use uuid::Uuid;

use super::StoreHarness;
use super::bank::deposit;
use crate::codec::NewEvent;
use crate::event::Category;
use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, RecordedEvent, Version};
use crate::store::{
    Acquired, Append, AppendError, Appended, Commit, Committed, EventStore, Expected, FeedEntry,
    FeedReader, Groups, Lease, Limits, Progress, ReadError, Versions,
};

/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what must happen.
pub(in crate::testing) async fn within<T>(what: &str, happening: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happening).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("this has not happened for {PATIENCE:?}: {what}"),
    }
}

/// Takes one step of what waits and drops it; `None` where it was not ready at once.
pub(in crate::testing) fn poll_and_drop<T>(waiting: impl Future<Output = T>) -> Option<T> {
    waiting.now_or_never()
}

pub(in crate::testing) async fn fresh<H: StoreHarness>(harness: &H) -> H::Store {
    harness.store(Limits::default()).await
}

/// Appends what must be accepted.
pub(in crate::testing) async fn append(
    store: &impl EventStore,
    aggregate: &AggregateId,
    expected: Expected,
    events: Vec<NewEvent>,
) -> Appended {
    send(store, &Append::to(aggregate.clone(), expected, events)).await
}

/// Appends events without an aggregate.
pub(in crate::testing) async fn append_to_feed(
    store: &impl EventStore,
    category: &Category,
    events: Vec<NewEvent>,
) -> Appended {
    send(store, &Append::to_feed(category.clone(), events)).await
}

/// Sends an append that must be accepted.
pub(in crate::testing) async fn send(store: &impl EventStore, append: &Append) -> Appended {
    let count = append.events().len();
    let appended = match store.append(append).await {
        Ok(appended) => appended,
        Err(error) => panic!(
            "{count} events, with {} expected, must be accepted: {error}",
            append.expected()
        ),
    };
    assert_eq!(
        appended.events.len(),
        count,
        "an append must say of each of its events where it lies"
    );
    appended
}

/// An aggregate with so many events, each of its own append.
pub(in crate::testing) async fn with_events(
    store: &impl EventStore,
    aggregate: AggregateId,
    count: u64,
) -> AggregateId {
    for version in 0..count {
        append(store, &aggregate, Expected::Exact(version), vec![deposit()]).await;
    }
    aggregate
}

/// Appends what must be a conflict with an aggregate at version `actual`, and makes sure that
/// nothing is stored.
pub(in crate::testing) async fn expect_conflict(
    store: &impl EventStore,
    append: &Append,
    actual: Version,
) {
    let aggregate = append.aggregate().expect("only an aggregate has conflicts");
    let before = history(store, aggregate).await;
    let head = head(store, aggregate.category()).await;
    match store.append(append).await {
        Err(AppendError::Conflict {
            aggregate: named,
            expected,
            actual: found,
        }) => {
            assert_eq!(&named, aggregate, "a conflict must name its aggregate");
            assert_eq!(
                expected,
                append.expected(),
                "a conflict must say what was expected"
            );
            assert_eq!(
                found, actual,
                "a conflict must say what the aggregate is at"
            );
        }
        other => panic!(
            "an append that expects {} must be a conflict where the aggregate is at version {actual}, and came to {other:?}",
            append.expected()
        ),
    }
    assert_eq!(
        history(store, aggregate).await,
        before,
        "a conflict must leave the history as it was"
    );
    assert_eq!(
        self::head(store, aggregate.category()).await,
        head,
        "a conflict must leave the feed as it was"
    );
}

/// The whole history; empty where the aggregate is not found.
pub(in crate::testing) async fn history(
    store: &impl EventStore,
    aggregate: &AggregateId,
) -> Vec<RecordedEvent> {
    match store.read_aggregate(aggregate, &Versions::all()).await {
        Ok(events) => {
            assert!(
                !events.is_empty(),
                "an aggregate without events must be not found instead of empty"
            );
            for (event, version) in events.iter().zip(1..) {
                assert_eq!(
                    version_of(event),
                    version,
                    "versions of a history must be counted from 1 without holes"
                );
            }
            events
        }
        Err(ReadError::NotFound { aggregate: named }) => {
            assert_eq!(&named, aggregate, "`NotFound` must name the aggregate");
            Vec::new()
        }
        Err(error) => panic!("the history of `{aggregate}` must be readable: {error}"),
    }
}

/// Reads some of a history.
pub(in crate::testing) async fn read(
    store: &impl EventStore,
    aggregate: &AggregateId,
    versions: &Versions,
) -> Vec<RecordedEvent> {
    match store.read_aggregate(aggregate, versions).await {
        Ok(events) => events,
        Err(error) => panic!("{versions:?} of `{aggregate}` must be readable: {error}"),
    }
}

/// The versions of what is read.
pub(in crate::testing) async fn read_versions(
    store: &impl EventStore,
    aggregate: &AggregateId,
    versions: &Versions,
) -> Vec<Version> {
    read(store, aggregate, versions)
        .await
        .iter()
        .map(version_of)
        .collect()
}

pub(in crate::testing) async fn read_feed(
    store: &impl EventStore,
    category: &Category,
    after: Position,
    limit: usize,
) -> Vec<FeedEntry> {
    match store.read_feed(&category.into(), after, limit).await {
        Ok(entries) => {
            assert!(
                entries.len() <= limit,
                "a read of a feed must have at most {limit} entries, and has {}",
                entries.len()
            );
            entries
        }
        Err(error) => panic!("the feed of `{category}` must be readable: {error}"),
    }
}

/// A whole feed, in which everything is an event.
pub(in crate::testing) async fn feed(
    store: &impl EventStore,
    category: &Category,
) -> Vec<RecordedEvent> {
    let entries = read_feed(store, category, Position::START, usize::MAX).await;
    assert_ordered(&entries, Position::START);
    events(entries)
}

pub(in crate::testing) async fn head(store: &impl EventStore, category: &Category) -> Position {
    match store.head(&category.into()).await {
        Ok(position) => position,
        Err(error) => panic!("the head of `{category}` must be readable: {error}"),
    }
}

pub(in crate::testing) async fn follow(
    store: &impl EventStore,
    category: &Category,
    after: Position,
) -> Box<dyn FeedReader> {
    match store.follow(&category.into(), after).await {
        Ok(reader) => reader,
        Err(error) => panic!("the feed of `{category}` must be followed: {error}"),
    }
}

/// The next batch of a follower.
pub(in crate::testing) async fn next_batch(
    reader: &mut dyn FeedReader,
    limit: usize,
) -> Vec<FeedEntry> {
    let batch = within(
        "a follower gets what was appended",
        reader.next_batch(limit),
    )
    .await;
    check_batch(batch, limit)
}

/// What a follower has handed out, if it keeps to the bounds.
pub(in crate::testing) fn check_batch(
    batch: Result<Vec<FeedEntry>, ReadError>,
    limit: usize,
) -> Vec<FeedEntry> {
    let batch = match batch {
        Ok(batch) => batch,
        Err(error) => panic!("a follower must go on: {error}"),
    };
    assert!(
        !batch.is_empty(),
        "a follower must wait for an entry instead of handing out none"
    );
    assert!(
        batch.len() <= limit,
        "a batch must have at most {limit} entries, and has {}",
        batch.len()
    );
    batch
}

/// The next `count` entries of a follower, in batches of at most `limit`.
pub(in crate::testing) async fn next_entries(
    reader: &mut dyn FeedReader,
    count: usize,
    limit: usize,
) -> Vec<FeedEntry> {
    let mut entries = Vec::new();
    while entries.len() < count {
        entries.extend(next_batch(reader, limit.min(count - entries.len())).await);
    }
    entries
}

/// The next `count` events of a follower, in batches of at most `limit`.
pub(in crate::testing) async fn next_events(
    reader: &mut dyn FeedReader,
    count: usize,
    limit: usize,
) -> Vec<RecordedEvent> {
    events(next_entries(reader, count, limit).await)
}

/// The events among entries that are nothing else.
pub(in crate::testing) fn events(entries: Vec<FeedEntry>) -> Vec<RecordedEvent> {
    entries
        .into_iter()
        .map(|entry| {
            let position = entry.position();
            match entry.into_event() {
                Ok(event) => event,
                Err(error) => panic!("the entry at {position} must be an event: {error}"),
            }
        })
        .collect()
}

/// Positions must grow from one entry to the next.
pub(in crate::testing) fn assert_ordered(entries: &[FeedEntry], after: Position) {
    let mut last = after;
    for entry in entries {
        assert!(
            entry.position() > last,
            "positions must grow, and {} follows {last}",
            entry.position()
        );
        last = entry.position();
    }
}

/// The number of an event in its aggregate.
pub(in crate::testing) fn version_of(event: &RecordedEvent) -> Version {
    event
        .aggregate()
        .expect("an event of an aggregate must name it")
        .version
}

pub(in crate::testing) fn recorded_ids(events: &[RecordedEvent]) -> Vec<Uuid> {
    events
        .iter()
        .map(|event| event.metadata().event_id)
        .collect()
}

pub(in crate::testing) fn new_ids(events: &[NewEvent]) -> Vec<Uuid> {
    events
        .iter()
        .map(|event| event.metadata().event_id)
        .collect()
}

/// Numbers that look random and are the same in each run (SplitMix64, Steele et al. 2014).
pub(in crate::testing) struct Chance(u64);

impl Chance {
    pub(in crate::testing) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub(in crate::testing) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % bound as u64).unwrap_or_default()
    }

    /// Lets other tasks run, for as long as it happens.
    pub(in crate::testing) async fn pause(&mut self) {
        for _ in 0..self.below(12) {
            tokio::task::yield_now().await;
        }
    }
}

/// A lease, or the time of a member, that does not end while a rule runs.
pub(in crate::testing) const LONG: Duration = Duration::from_secs(600);

/// One that ends soon.
pub(in crate::testing) const SHORT: Duration = Duration::from_millis(200);

/// Opens a group for a partition.
pub(in crate::testing) async fn open(
    store: &impl Groups,
    group: &str,
    partition: &Partition,
    start: Start,
) -> Progress {
    match store.open(group, partition, start).await {
        Ok(progress) => progress,
        Err(error) => panic!("`{group}` must be opened for `{partition}`: {error}"),
    }
}

/// Acquires a partition that nobody owns.
pub(in crate::testing) async fn acquire(
    store: &impl Groups,
    group: &str,
    partition: &Partition,
    instance: &str,
    lease: Duration,
) -> (Lease, Progress) {
    match store.acquire(group, partition, instance, lease).await {
        Ok(Acquired::Yes {
            lease,
            progress,
            history_lost,
        }) => {
            assert!(!history_lost, "the feed of `{partition}` has lost nothing");
            (lease, progress)
        }
        other => {
            panic!("`{instance}` must get `{partition}`, which nobody owns, and got {other:?}")
        }
    }
}

/// Tries to acquire a partition that another owns; says for how long.
pub(in crate::testing) async fn refused_acquire(
    store: &impl Groups,
    group: &str,
    partition: &Partition,
    instance: &str,
) -> Duration {
    match store.acquire(group, partition, instance, LONG).await {
        Ok(Acquired::No { remaining }) => remaining,
        other => panic!("`{instance}` must not get `{partition}`, and got {other:?}"),
    }
}

/// Commits what must be accepted.
pub(in crate::testing) async fn commit(
    store: &impl Groups,
    lease: &Lease,
    commit: &Commit,
) -> Committed {
    match store.commit(lease, commit).await {
        Ok(committed) => committed,
        Err(error) => panic!("commit {} must be accepted: {error}", commit.number),
    }
}

/// All entries of a partition as events.
pub(in crate::testing) async fn partition_events(
    store: &impl EventStore,
    partition: &Partition,
) -> Vec<RecordedEvent> {
    match store
        .read_feed(partition, Position::START, usize::MAX)
        .await
    {
        Ok(entries) => {
            assert_ordered(&entries, Position::START);
            events(entries)
        }
        Err(error) => panic!("`{partition}` must be readable: {error}"),
    }
}

/// Progress without anything open.
pub(in crate::testing) fn up_to(position: Position) -> Progress {
    Progress {
        checkpoint: position,
        reached: position,
        ..Progress::default()
    }
}
