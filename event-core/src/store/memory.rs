mod dead_letters;
mod groups;
mod maintenance;
mod parallel_groups;
mod projections;
mod restore;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock::Clock;
use crate::codec::entry::{self, EntryFields};
use crate::codec::history::{self, HistoryEntry};
use crate::codec::{CodecError, NewEvent};
use crate::event::Category;
use crate::partition::Partition;
use crate::pattern::Pattern;
use crate::realtime::{
    AlwaysFlushed, DEFAULT_CAPACITY, Realtime, RealtimePublisher, RealtimeSink,
    RealtimeSubscription,
};
use crate::recorded::{AggregateId, Position, Version};
use crate::snapshot::Snapshot;
use crate::store::{
    Append, AppendError, Appended, AppendedEvent, Backlogs, Backpressure, CompactError, Compacted,
    Direction, Done, EventStore, Expected, FeedEntry, FeedReader, Groups, InlineStep, Limits,
    ReadError, Restore, RestoreError, StoreError, Target, Versions,
};
use groups::GroupContent;
use parallel_groups::ParallelContent;
use projections::ProjectionContent;

/// How long the ids of events are remembered.
const REMEMBERED_FOR: TimeDelta = TimeDelta::hours(24);

/// Keeps everything in memory, with the semantics of the Redis store down to conflicts, limits and
/// entries of foreign writers. For tests and for trying things; clones share what is stored.
#[derive(Clone, Default)]
pub struct MemoryStore {
    content: Arc<Mutex<Content>>,
    limits: Limits,
    clock: Clock,
    publish_on_commit: HashSet<Category>,
    backlogs: Arc<Backlogs>,
}

struct Content {
    feeds: HashMap<Partition, Feed>,
    /// How many partitions a category has, where it is more than one.
    partitions: HashMap<Category, u32>,
    groups: HashMap<String, GroupContent>,
    parallel: ParallelContent,
    projections: HashMap<String, ProjectionContent>,
    /// Counts what was written to feeds, for those who read several.
    written: watch::Sender<u64>,
    subscribers: Vec<Subscriber>,
    publisher: RealtimePublisher,
}

impl Default for Content {
    fn default() -> Self {
        Self {
            feeds: HashMap::new(),
            partitions: HashMap::new(),
            groups: HashMap::new(),
            parallel: ParallelContent::default(),
            projections: HashMap::new(),
            written: watch::Sender::new(0),
            subscribers: Vec::new(),
            publisher: RealtimePublisher::default(),
        }
    }
}

struct Subscriber {
    patterns: Vec<Pattern>,
    sink: RealtimeSink,
}

struct Feed {
    entries: Vec<(Position, EntryFields<'static>)>,
    /// Everything up to here may be trimmed away.
    trimmed: Position,
    histories: HashMap<AggregateId, History>,
    /// Histories that are being made anew.
    staged: HashMap<String, Vec<Element>>,
    /// Under which version entries of other programs were adopted.
    adopted: HashMap<Position, Version>,
    snapshots: HashMap<AggregateId, Snapshot>,
    /// What commands have led to, and until when that is kept.
    receipts: HashMap<(AggregateId, String), (DateTime<Utc>, Done)>,
    remembered: RememberedIds,
    head: watch::Sender<Position>,
}

/// The events of an aggregate.
#[derive(Default)]
struct History {
    /// How many were dropped behind a snapshot.
    dropped: Version,
    elements: Vec<Element>,
}

impl History {
    fn version(&self) -> Version {
        self.dropped + self.elements.len() as Version
    }

    /// The elements from a version on; `None` where some of them were dropped.
    fn since(&self, version: Version) -> Option<&[Element]> {
        let before = version.checked_sub(self.dropped + 1)?;
        let from = usize::try_from(before).unwrap_or(usize::MAX);
        Some(self.elements.get(from..).unwrap_or_default())
    }

    fn at(&self, version: Version) -> Option<&Element> {
        self.since(version)?.first()
    }
}

struct Element {
    event_id: Uuid,
    position: Position,
    json: String,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            trimmed: Position::START,
            histories: HashMap::new(),
            staged: HashMap::new(),
            adopted: HashMap::new(),
            snapshots: HashMap::new(),
            receipts: HashMap::new(),
            remembered: RememberedIds::default(),
            head: watch::Sender::new(Position::START),
        }
    }
}

/// The ids of the newest events of a feed, bounded in number and time.
#[derive(Default)]
struct RememberedIds {
    found: HashMap<Uuid, (Target, AppendedEvent)>,
    order: VecDeque<(DateTime<Utc>, Uuid)>,
}

impl RememberedIds {
    fn remember(
        &mut self,
        now: DateTime<Utc>,
        id: Uuid,
        place: (Target, AppendedEvent),
        most: usize,
    ) {
        self.found.insert(id, place);
        self.order.push_back((now, id));
        while let Some((since, oldest)) = self.order.front()
            && (self.order.len() > most || now - since > REMEMBERED_FOR)
        {
            self.found.remove(oldest);
            self.order.pop_front();
        }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses other limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Uses another clock for positions.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Gives the feed of a category so many partitions. To be called before it has events.
    pub fn partitions(self, category: Category, count: u32) -> Self {
        self.content().partitions.insert(category, count.max(1));
        self
    }

    /// Sends each event of a category by Pub/Sub, too, when it is stored.
    pub fn publish_on_commit(mut self, category: Category) -> Self {
        self.publish_on_commit.insert(category);
        self
    }

    /// Holds the producers of a category back while a group is too far behind.
    pub fn backpressure(mut self, rule: Backpressure) -> Self {
        self.backlogs = Arc::new(self.backlogs.with(rule));
        self
    }

    /// Adds an entry to a feed as a program of another kind would: any fields, unchecked.
    pub fn append_foreign(&self, category: &Category, fields: &[(&str, &str)]) -> Position {
        let mut entry = EntryFields::default();
        for (name, value) in fields {
            let value = Some(Cow::Owned(value.as_bytes().to_vec()));
            match *name {
                "type" => entry.event_type = value,
                "payload" => entry.payload = value,
                "aggregate" => entry.aggregate = value,
                "metadata" => entry.metadata = value,
                // A reader passes over fields that it does not know.
                _ => {}
            }
        }
        let mut content = self.content();
        let feed = content.feed(&Partition::from(category));
        let position = feed.next_position(&self.clock);
        feed.entries.push((position, entry));
        feed.head.send_replace(position);
        content.tell_readers();
        position
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // No code below panics while it holds the lock with something half done.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Content {
    fn feed(&mut self, partition: &Partition) -> &mut Feed {
        self.feeds.entry(partition.clone()).or_default()
    }

    /// The feed that an aggregate lies in.
    fn feed_of(&mut self, aggregate: &AggregateId) -> &mut Feed {
        let count = self.partitions(aggregate.category());
        self.feed(&Partition::of_aggregate(aggregate, count))
    }

    fn tell_readers(&self) {
        self.written.send_modify(|count| *count += 1);
    }

    fn partitions(&self, category: &Category) -> u32 {
        self.partitions.get(category).copied().unwrap_or(1)
    }

    /// The partition that all events of an append lie in.
    fn partition_of(&self, append: &Append) -> Result<Partition, AppendError> {
        let category = append.target().category();
        let count = self.partitions(category);
        append.partition(count)
    }

    fn deliver(&mut self, event: &NewEvent) -> Result<(), CodecError> {
        let message = self.publisher.encode(event)?;
        self.subscribers.retain(|s| !s.sink.is_closed());
        for subscriber in &self.subscribers {
            if subscriber
                .patterns
                .iter()
                .any(|pattern| pattern.matches(event.event_type()))
            {
                subscriber
                    .sink
                    .deliver(event.event_type(), message.as_bytes());
            }
        }
        Ok(())
    }
}

impl Feed {
    fn next_position(&self, clock: &Clock) -> Position {
        let now = u64::try_from(clock.now().timestamp_millis()).unwrap_or_default();
        let last = *self.head.borrow();
        if now > last.milliseconds() {
            Position::new(now, 0)
        } else {
            Position::new(last.milliseconds(), last.sequence() + 1)
        }
    }

    fn read(&self, partition: &Partition, after: Position, limit: usize) -> Vec<FeedEntry> {
        let start = self
            .entries
            .partition_point(|(position, _)| *position <= after);
        self.entries[start..]
            .iter()
            .take(limit)
            .map(|(position, fields)| decode(partition, *position, fields))
            .collect()
    }

    fn read_back(&self, partition: &Partition, before: Position, limit: usize) -> Vec<FeedEntry> {
        let end = self
            .entries
            .partition_point(|(position, _)| *position < before);
        self.entries[..end]
            .iter()
            .rev()
            .take(limit)
            .map(|(position, fields)| decode(partition, *position, fields))
            .collect()
    }

    fn read_at(&self, partition: &Partition, position: Position) -> Option<FeedEntry> {
        let at = self
            .entries
            .binary_search_by_key(&position, |(position, _)| *position);
        let (position, fields) = &self.entries[at.ok()?];
        Some(decode(partition, *position, fields))
    }

    fn head(&self) -> Position {
        *self.head.borrow()
    }

    /// The versions that a command has led to, where that is still kept.
    fn done(&self, aggregate: &AggregateId, command: &str, now: DateTime<Utc>) -> Option<Done> {
        let (until, done) = self
            .receipts
            .get(&(aggregate.clone(), command.to_owned()))?;
        (*until > now).then(|| done.clone())
    }

    /// The version of the aggregate of an append; 0 where it has none.
    fn version(&self, append: &Append) -> Version {
        append
            .aggregate()
            .and_then(|aggregate| self.histories.get(aggregate))
            .map_or(0, History::version)
    }

    /// What is stored already of an append that is repeated: for each event its place, if any.
    fn repeated(
        &self,
        append: &Append,
        version: Version,
    ) -> Result<Vec<Option<AppendedEvent>>, AppendError> {
        let events = append.events();
        let conflict = |aggregate: &AggregateId| AppendError::Conflict {
            aggregate: aggregate.clone(),
            expected: append.expected(),
            actual: version,
        };
        if let (Some(aggregate), Some(expected)) = (append.aggregate(), append.expected().exact()) {
            if expected == version {
                return Ok(vec![None; events.len()]);
            }
            let history = self.histories.get(aggregate);
            let stored = history.and_then(|history| history.since(expected + 1));
            let found: Vec<_> = stored
                .unwrap_or_default()
                .iter()
                .zip(events)
                .enumerate()
                .take_while(|(_, (element, event))| element.event_id == event.metadata().event_id)
                .map(|(index, (element, _))| {
                    Some(AppendedEvent {
                        position: element.position,
                        version: expected + index as u64 + 1,
                        repeated: true,
                    })
                })
                .collect();
            return if found.len() == events.len() {
                Ok(found)
            } else {
                Err(conflict(aggregate))
            };
        }
        if let Some(aggregate) = append.aggregate()
            && !append.expected().accepts(version)
        {
            return Err(conflict(aggregate));
        }
        events
            .iter()
            .map(|event| {
                let event_id = event.metadata().event_id;
                match self.remembered.found.get(&event_id) {
                    None => Ok(None),
                    Some((target, place)) if target == append.target() => Ok(Some(AppendedEvent {
                        repeated: true,
                        ..*place
                    })),
                    Some(_) => Err(AppendError::IdTaken {
                        category: append.target().category().to_string(),
                        event_id,
                    }),
                }
            })
            .collect()
    }
}

fn decode(partition: &Partition, position: Position, fields: &EntryFields<'static>) -> FeedEntry {
    match entry::decode(partition, position, fields) {
        Ok(event) => FeedEntry::Event(event),
        Err(error) => FeedEntry::Undecodable { position, error },
    }
}

/// What of an append can be made, and refused, without the store's content.
struct Prepared {
    metadata: Vec<String>,
    head: Option<String>,
    tails: Vec<String>,
}

impl Prepared {
    fn new(append: &Append, limits: &Limits) -> Result<Self, AppendError> {
        Ok(Self {
            metadata: append.check(limits)?,
            head: match append.aggregate() {
                Some(aggregate) => Some(entry::encode_aggregate_head(aggregate)?),
                None => None,
            },
            tails: append
                .events()
                .iter()
                .map(history::encode_tail)
                .collect::<Result<Vec<_>, _>>()?,
        })
    }
}

impl MemoryStore {
    /// Stores the events of an append, but for those that lie there already.
    fn write(
        &self,
        content: &mut Content,
        partition: &Partition,
        append: &Append,
        prepared: Prepared,
        repeated: &[Option<AppendedEvent>],
    ) -> Result<Appended, AppendError> {
        let Prepared {
            metadata,
            head,
            tails,
        } = prepared;
        let feed = content.feed(partition);
        let mut version = feed.version(append);
        let mut appended = Appended {
            partition: Some(partition.clone()),
            ..Appended::default()
        };
        let mut fresh = Vec::new();
        for (((event, metadata), tail), repeated) in append
            .events()
            .iter()
            .zip(metadata)
            .zip(tails)
            .zip(repeated)
        {
            if let Some(found) = repeated {
                appended.events.push(*found);
                continue;
            }
            let position = feed.next_position(&self.clock);
            let bytes = |text: &str| Some(Cow::Owned(text.as_bytes().to_vec()));
            let mut fields = EntryFields {
                event_type: bytes(event.event_type()),
                payload: bytes(event.payload()),
                aggregate: None,
                metadata: bytes(&metadata),
            };
            let event_id = event.metadata().event_id;
            if let (Target::Aggregate(aggregate), Some(head)) = (append.target(), &head) {
                version += 1;
                fields.aggregate = bytes(&format!("{head}{version}}}"));
                feed.histories
                    .entry(aggregate.clone())
                    .or_default()
                    .elements
                    .push(Element {
                        event_id,
                        position,
                        json: history::encode(event, version, position, &tail),
                    });
            }
            feed.entries.push((position, fields));
            feed.head.send_replace(position);
            let stored = AppendedEvent {
                position,
                version: if head.is_some() { version } else { 0 },
                repeated: false,
            };
            if append.aggregate().is_none() || append.expected().exact().is_none() {
                let most = self.limits.remembered_ids;
                feed.remembered.remember(
                    self.clock.now(),
                    event_id,
                    (append.target().clone(), stored),
                    most,
                );
            }
            appended.events.push(stored);
            fresh.push(event);
        }
        content.tell_readers();
        if self.publish_on_commit.contains(append.target().category()) {
            for event in fresh {
                content.deliver(event)?;
            }
        }
        Ok(appended)
    }

    /// Appends, and writes to projections in the same step; gives those that are behind.
    async fn append_and_project(
        &self,
        append: &Append,
        inline: &[InlineStep],
    ) -> Result<(Appended, Vec<usize>), AppendError> {
        let prepared = Prepared::new(append, &self.limits)?;
        if !self.backlogs.is_empty() {
            let partition = self.content().partition_of(append)?;
            let lag = |group: String, partition: Partition| async move {
                let in_parallel = self.content().parallel_backlog(&group, &partition);
                let is_open = self.content().is_open(&group, &partition);
                match in_parallel {
                    Some(lag) if !is_open => Ok(lag),
                    lag => {
                        let in_order = Groups::lag(self, &group, &partition).await?;
                        Ok(in_order.max(lag.unwrap_or_default()))
                    }
                }
            };
            self.backlogs
                .admit(&partition, append.events().len(), lag)
                .await?;
        }
        // Everything that can fail has been tried before the first write below.
        let mut content = self.content();
        let partition = content.partition_of(append)?;
        let now = self.clock.now();
        let feed = content.feed(&partition);
        if let (Some(aggregate), Some(receipt)) = (append.aggregate(), append.receipt())
            && let Some(done) = feed.done(aggregate, &receipt.command_id, now)
        {
            // A repetition of the very same append is a success.
            let expected = Expected::Exact(done.start() - 1);
            let same = Append::to(aggregate.clone(), expected, append.events().to_vec());
            if let Ok(repeated) = feed.repeated(&same, feed.version(append))
                && repeated.iter().all(Option::is_some)
                && done.clone().count() == repeated.len()
            {
                let events = repeated.into_iter().flatten().collect();
                let appended = Appended {
                    events,
                    partition: Some(partition.clone()),
                };
                let behind = content.project(&partition, &appended, inline, &[]);
                return Ok((appended, behind));
            }
            return Err(AppendError::AlreadyDone {
                aggregate: aggregate.clone(),
                command_id: receipt.command_id.clone(),
                done,
            });
        }
        let version = feed.version(append);
        let repeated = feed.repeated(append, version)?;
        let up_to_date = content.up_to_date(&partition, inline);
        let appended = self.write(&mut content, &partition, append, prepared, &repeated)?;
        if let (Some(aggregate), Some(receipt)) = (append.aggregate(), append.receipt())
            && let Some(first) = appended.events.first()
        {
            let feed = content.feed(&partition);
            feed.receipts.retain(|_, (until, _)| *until > now);
            let until = TimeDelta::from_std(receipt.keep)
                .ok()
                .and_then(|keep| now.checked_add_signed(keep))
                .unwrap_or(DateTime::<Utc>::MAX_UTC);
            feed.receipts.insert(
                (aggregate.clone(), receipt.command_id.clone()),
                (until, first.version..=appended.version()),
            );
        }
        let behind = content.project(&partition, &appended, inline, &up_to_date);
        Ok((appended, behind))
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        let (appended, _) = self.append_and_project(append, &[]).await?;
        Ok(appended)
    }

    async fn replay(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
        visit: &mut (dyn for<'a> FnMut(HistoryEntry<'a>) -> ControlFlow<()> + Send),
    ) -> Result<(), ReadError> {
        let content = self.content();
        let count = content.partitions(aggregate.category());
        let history = content
            .feeds
            .get(&Partition::of_aggregate(aggregate, count))
            .and_then(|feed| feed.histories.get(aggregate))
            .ok_or_else(|| ReadError::NotFound {
                aggregate: aggregate.clone(),
            })?;
        let Some((low, high)) = versions.within(history.version()) else {
            return Ok(());
        };
        let first_available = history.dropped + 1;
        let trimmed = (low < first_available).then(|| ReadError::HistoryTrimmed {
            aggregate: aggregate.clone(),
            first_available,
        });
        let count = high.saturating_sub(low.max(first_available) - 1);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let chosen = history.since(low.max(first_available));
        let chosen = chosen.unwrap_or_default().iter().take(count);
        let mut visit = |element: &Element| visit(HistoryEntry::new(element.json.as_bytes()));
        let flow = match (versions.direction(), &trimmed) {
            (Direction::Forwards, Some(_)) => ControlFlow::Continue(()),
            (Direction::Forwards, None) => chosen.into_iter().try_for_each(&mut visit),
            (Direction::Backwards, _) => chosen.rev().try_for_each(&mut visit),
        };
        // Broken off or come to the end: both are what the caller wanted.
        match trimmed {
            Some(trimmed) if flow.is_continue() => Err(trimmed),
            _ => Ok(()),
        }
    }

    async fn save_snapshot(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
    ) -> Result<bool, StoreError> {
        let mut content = self.content();
        let feed = content.feed_of(aggregate);
        let is_compacted = feed
            .histories
            .get(aggregate)
            .is_some_and(|history| history.dropped > 0);
        let stays = feed.snapshots.get(aggregate).is_some_and(|kept| {
            // Nothing else leads to the state of newer programs then.
            let is_needed = is_compacted && kept.state_version > snapshot.state_version;
            is_needed || kept.version >= snapshot.version
        });
        if !stays {
            feed.snapshots.insert(aggregate.clone(), snapshot.clone());
        }
        Ok(!stays)
    }

    async fn load_snapshot(&self, aggregate: &AggregateId) -> Result<Option<Snapshot>, ReadError> {
        let mut content = self.content();
        Ok(content.feed_of(aggregate).snapshots.get(aggregate).cloned())
    }

    async fn delete_snapshot(&self, aggregate: &AggregateId) -> Result<bool, StoreError> {
        let mut content = self.content();
        let snapshots = &mut content.feed_of(aggregate).snapshots;
        Ok(snapshots.remove(aggregate).is_some())
    }

    async fn compact(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
        first_kept: Version,
    ) -> Result<Compacted, CompactError> {
        let mut content = self.content();
        content
            .feed_of(aggregate)
            .compact(aggregate, snapshot, first_kept)
    }

    async fn find_receipt(
        &self,
        aggregate: &AggregateId,
        command_id: &str,
    ) -> Result<Option<Done>, StoreError> {
        let now = self.clock.now();
        let mut content = self.content();
        Ok(content.feed_of(aggregate).done(aggregate, command_id, now))
    }

    async fn partitions(&self, category: &Category) -> Result<u32, ReadError> {
        Ok(self.content().partitions(category))
    }

    async fn read_feed(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        let content = self.content();
        content.expect_available(partition, after)?;
        Ok(content
            .feeds
            .get(partition)
            .map_or_else(Vec::new, |feed| feed.read(partition, after, limit)))
    }

    async fn read_feed_back(
        &self,
        partition: &Partition,
        before: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        let content = self.content();
        let feed = content.feeds.get(partition);
        Ok(feed.map_or_else(Vec::new, |feed| feed.read_back(partition, before, limit)))
    }

    async fn follow(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<Box<dyn FeedReader>, ReadError> {
        let mut content = self.content();
        content.expect_available(partition, after)?;
        let head = content.feed(partition).head.subscribe();
        Ok(Box::new(MemoryFeedReader {
            store: self.clone(),
            partition: partition.clone(),
            after,
            head,
        }))
    }

    async fn head(&self, partition: &Partition) -> Result<Position, ReadError> {
        let content = self.content();
        Ok(content
            .feeds
            .get(partition)
            .map_or(Position::START, |feed| *feed.head.borrow()))
    }

    async fn restore(&self, restore: &Restore) -> Result<(), RestoreError> {
        self.restore_all(restore)
    }
}

struct MemoryFeedReader {
    store: MemoryStore,
    partition: Partition,
    after: Position,
    head: watch::Receiver<Position>,
}

#[async_trait]
impl FeedReader for MemoryFeedReader {
    async fn next_batch(&mut self, limit: usize) -> Result<Vec<FeedEntry>, ReadError> {
        let after = self.after;
        // The sender lives in the store, which this reader keeps: it cannot close.
        let _ = self.head.wait_for(|head| *head > after).await;
        let entries = self
            .store
            .read_feed(&self.partition, after, limit.max(1))
            .await?;
        if let Some(last) = entries.last() {
            self.after = last.position();
        }
        Ok(entries)
    }
}

#[async_trait]
impl Realtime for MemoryStore {
    async fn publish_realtime(&self, events: &[NewEvent]) -> Result<(), StoreError> {
        let mut content = self.content();
        for event in events {
            content
                .deliver(event)
                .map_err(|error| StoreError::Refused {
                    operation: "publish",
                    source: Box::new(error),
                })?;
        }
        Ok(())
    }

    async fn subscribe(&self, patterns: &[Pattern]) -> Result<RealtimeSubscription, StoreError> {
        let (sink, subscription) =
            RealtimeSubscription::channel(DEFAULT_CAPACITY, Box::new(AlwaysFlushed), Box::new(()));
        self.content().subscribers.push(Subscriber {
            patterns: patterns.to_vec(),
            sink,
        });
        Ok(subscription)
    }
}
