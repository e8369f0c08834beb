//! The store: what it is made of, and what it does.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use event_core::codec::history::HistoryEntry;
use event_core::{
    Acquired, AggregateId, Append, AppendError, Appended, AppendedProjected, ApplyError, Backlogs,
    Category, Chosen, Commit, CommitError, Committed, CompactError, Compacted, Consumer,
    DeadLetter, DeadLetterError, DeadLetterId, DeadLetters, Done, EventStore, FeedEntry,
    FeedReader, Finish, FinishError, Finished, GroupReader, Groups, HistoryPage, InlineStep,
    InspectedDeadLetter, Lease, Limits, Maintenance, Member, NewEvent, ParallelGroup,
    ParallelGroups, ParallelLag, ParallelReader, Partition, Pattern, Position, Progress,
    ProjectionCheckpoint, ProjectionId, ProjectionStep, ProjectionVersions, Projections, ReadError,
    Realtime, RealtimeSubscription, RecordedEvent, Reset, ResetError, Restore, RestoreError,
    ServeError, Snapshot, Start, StoreError, Swapped, TrimPolicy, Trimmed, Version, Versions,
};

use crate::builder::RedisStoreBuilder;
use crate::cache::{InvalidCacheName, RedisCache};
use crate::commit::Checks;
use crate::connection::{Connections, Connector};
use crate::courier::Couriers;
use crate::durability::Replication;
use crate::error::ConnectError;
use crate::feed::RedisFeedReader;
use crate::groups::RedisGroupReader;
use crate::keys::{FeedKeys, Keys};
use crate::parallel_groups::RedisParallelReader;
use crate::realtime::Publishing;
use crate::{
    append, commit, dead_letters, feed, groups, history, lag, parallel_groups, partitions,
    projections, realtime, repair, reset, restore, snapshots, trim,
};

/// Stores events in Redis or Valkey. Clones share their connections.
///
/// Lost connections are replaced without end, and what was asked is asked again until the
/// [patience](RedisStoreBuilder::patience) is over; since an append stores nothing twice, that is
/// safe.
#[derive(Clone)]
pub struct RedisStore {
    parts: Arc<Parts>,
    couriers: Arc<Couriers>,
}

/// What a store is made of.
pub(crate) struct Parts {
    pub(crate) keys: Keys,
    pub(crate) limits: Limits,
    pub(crate) connector: Connector,
    pub(crate) connections: Arc<Connections>,
    /// Where appends must be confirmed by replicas.
    pub(crate) replication: Option<Replication>,
    pub(crate) checks: Checks,
    /// Whether all feeds lie in one slot.
    pub(crate) shares_slots: bool,
    pub(crate) publish_on_commit: HashSet<Category>,
    pub(crate) backlogs: Backlogs,
    pub(crate) publishing: Publishing,
    pub(crate) realtime_capacity: usize,
    pub(crate) patience: Duration,
}

impl Parts {
    /// Whether one script may touch the keys of both feeds.
    pub(crate) fn same_slot(&self, source: &FeedKeys, target: &FeedKeys) -> bool {
        source.feed() == target.feed()
            || self.shares_slots && self.connections.same_slot(source.feed(), target.feed())
    }
}

impl RedisStore {
    /// Connects to a server, with everything else as it is by default.
    ///
    /// # Errors
    /// [`ConnectError`], within a few seconds: nothing answers, or the server cannot be used.
    pub async fn connect(url: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder(url).connect().await
    }

    /// A store to be described before it connects. The URL is `redis://HOST:PORT/DATABASE`,
    /// `rediss://…` for TLS (feature `tls`), or `redis+unix:///PATH`.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url.into())
    }

    /// A cache in the same server, which events invalidate. Its name is one word, as a category is.
    ///
    /// # Errors
    /// [`InvalidCacheName`] where it is not.
    pub fn cache(&self, name: &str) -> Result<RedisCache, InvalidCacheName> {
        RedisCache::new(Arc::clone(&self.parts), name)
    }

    pub(crate) fn new(parts: Parts) -> Self {
        let parts = Arc::new(parts);
        Self {
            couriers: Arc::new(Couriers::new(&parts)),
            parts,
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("address", &self.parts.connector.address().to_string())
            .field("limits", &self.parts.limits)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for RedisStore {
    async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        append::append(&self.parts, append).await
    }

    async fn replay(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
        visit: &mut (dyn for<'a> FnMut(HistoryEntry<'a>) -> ControlFlow<()> + Send),
    ) -> Result<(), ReadError> {
        history::replay(&self.parts, aggregate, versions, visit).await
    }

    async fn save_snapshot(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
    ) -> Result<bool, StoreError> {
        snapshots::save(&self.parts, aggregate, snapshot).await
    }

    async fn load_snapshot(&self, aggregate: &AggregateId) -> Result<Option<Snapshot>, ReadError> {
        snapshots::load(&self.parts, aggregate).await
    }

    async fn delete_snapshot(&self, aggregate: &AggregateId) -> Result<bool, StoreError> {
        snapshots::delete(&self.parts, aggregate).await
    }

    async fn compact(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
        first_kept: Version,
    ) -> Result<Compacted, CompactError> {
        snapshots::compact(&self.parts, aggregate, snapshot, first_kept).await
    }

    async fn find_receipt(
        &self,
        aggregate: &AggregateId,
        command_id: &str,
    ) -> Result<Option<Done>, StoreError> {
        append::find_receipt(&self.parts, aggregate, command_id).await
    }

    async fn partitions(&self, category: &Category) -> Result<u32, ReadError> {
        Ok(partitions::count(&self.parts, category).await?)
    }

    async fn read_feed(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        Ok(feed::read(&self.parts, partition, after, limit).await?)
    }

    async fn read_feed_back(
        &self,
        partition: &Partition,
        before: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        Ok(feed::read_back(&self.parts, partition, before, limit).await?)
    }

    async fn follow(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<Box<dyn FeedReader>, ReadError> {
        let reader = RedisFeedReader::new(&self.parts, partition, after).await?;
        Ok(Box::new(reader))
    }

    async fn head(&self, partition: &Partition) -> Result<Position, ReadError> {
        Ok(feed::head(&self.parts, partition).await?)
    }

    async fn restore(&self, restore: &Restore) -> Result<(), RestoreError> {
        restore::restore(&self.parts, restore).await
    }
}

#[async_trait]
impl Groups for RedisStore {
    async fn join(
        &self,
        group: &str,
        instance: &str,
        lease: Duration,
    ) -> Result<Vec<Member>, StoreError> {
        groups::join(&self.parts, group, instance, lease).await
    }

    async fn leave(&self, group: &str, instance: &str) -> Result<(), StoreError> {
        groups::leave(&self.parts, group, instance).await
    }

    async fn open(
        &self,
        group: &str,
        partition: &Partition,
        start: Start,
    ) -> Result<Progress, StoreError> {
        groups::open(&self.parts, group, partition, start).await
    }

    async fn members(&self, group: &str) -> Result<Vec<Member>, StoreError> {
        groups::members(&self.parts, group).await
    }

    async fn reset(
        &self,
        group: &str,
        partition: &Partition,
        reset: Reset,
    ) -> Result<(), ResetError> {
        self.couriers.clear(group, partition).await?;
        reset::reset(&self.parts, group, partition, reset).await
    }

    async fn acquire(
        &self,
        group: &str,
        partition: &Partition,
        instance: &str,
        lease: Duration,
    ) -> Result<Acquired, StoreError> {
        let acquired = groups::acquire(&self.parts, group, partition, instance, lease).await?;
        if let Acquired::Yes { .. } = acquired {
            self.couriers.of(group, partition).begin();
        }
        Ok(acquired)
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<bool, StoreError> {
        groups::renew(&self.parts, lease, duration).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        groups::release(&self.parts, lease).await?;
        self.couriers.settle(&lease.group, &lease.partition).await;
        Ok(())
    }

    async fn commit(&self, lease: &Lease, commit: &Commit) -> Result<Committed, CommitError> {
        commit::commit(&self.parts, &self.couriers, lease, commit).await
    }

    async fn lag(&self, group: &str, partition: &Partition) -> Result<u64, StoreError> {
        lag::in_order(&self.parts, group, partition).await
    }

    async fn owner(
        &self,
        group: &str,
        partition: &Partition,
    ) -> Result<Option<String>, StoreError> {
        groups::owner(&self.parts, group, partition).await
    }

    async fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, StoreError> {
        let reader = RedisGroupReader::new(&self.parts, group).await?;
        Ok(Box::new(reader))
    }
}

#[async_trait]
impl ParallelGroups for RedisStore {
    async fn open_parallel(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        start: Start,
    ) -> Result<(), StoreError> {
        parallel_groups::open(&self.parts, group, partition, start).await?;
        self.couriers.of(&group.group, partition).begin();
        Ok(())
    }

    async fn parallel_reader(
        &self,
        consumer: &Consumer,
        partitions: &[Partition],
    ) -> Result<Box<dyn ParallelReader>, StoreError> {
        let reader = RedisParallelReader::new(&self.parts, consumer, partitions);
        Ok(Box::new(reader))
    }

    async fn take_back(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        let back = parallel_groups::take_back(&self.parts, consumer, partition, after, limit);
        Ok(back.await?)
    }

    async fn claim(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        idle: Duration,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        let claimed = parallel_groups::claim(&self.parts, consumer, partition, idle, limit).await?;
        // Whoever was there may have left something in an outbox, too.
        self.couriers.of(&consumer.group.group, partition).look();
        Ok(claimed)
    }

    async fn keep_alive(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<(), StoreError> {
        parallel_groups::keep_alive(&self.parts, consumer, partition, positions).await
    }

    async fn let_go(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<(), StoreError> {
        parallel_groups::let_go(&self.parts, consumer, partition, positions).await
    }

    async fn finish(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        finish: &Finish,
    ) -> Result<Finished, FinishError> {
        parallel_groups::finish(&self.parts, &self.couriers, consumer, partition, finish).await
    }

    async fn is_finished(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        positions: RangeInclusive<Position>,
    ) -> Result<bool, StoreError> {
        parallel_groups::is_finished(&self.parts, group, partition, positions).await
    }

    async fn parallel_lag(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
    ) -> Result<ParallelLag, StoreError> {
        lag::parallel(&self.parts, group, partition).await
    }

    async fn leave_parallel(
        &self,
        consumer: &Consumer,
        partition: &Partition,
    ) -> Result<(), StoreError> {
        parallel_groups::leave(&self.parts, consumer, partition).await?;
        self.couriers.settle(&consumer.group.group, partition).await;
        Ok(())
    }

    async fn remove_consumers(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        idle: Duration,
    ) -> Result<usize, StoreError> {
        parallel_groups::remove_consumers(&self.parts, group, partition, idle).await
    }
}

#[async_trait]
impl DeadLetters for RedisStore {
    async fn list_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        dead_letters::list(&self.parts, group, partition, after, limit).await
    }

    async fn inspect_dead_letter(
        &self,
        group: &str,
        partition: &Partition,
        id: &DeadLetterId,
    ) -> Result<Option<InspectedDeadLetter>, StoreError> {
        dead_letters::inspect(&self.parts, group, partition, id).await
    }

    async fn redrive_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        chosen: &Chosen,
    ) -> Result<usize, DeadLetterError> {
        dead_letters::redrive(&self.parts, group, partition, chosen).await
    }

    async fn discard_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        chosen: &Chosen,
    ) -> Result<usize, DeadLetterError> {
        dead_letters::discard(&self.parts, group, partition, chosen).await
    }
}

#[async_trait]
impl Maintenance for RedisStore {
    async fn trim_partition(
        &self,
        partition: &Partition,
        policy: &TrimPolicy,
    ) -> Result<Trimmed, StoreError> {
        trim::trim(&self.parts, partition, policy).await
    }

    async fn first_available(&self, partition: &Partition) -> Result<Position, StoreError> {
        trim::first_available(&self.parts, partition).await
    }

    async fn histories(
        &self,
        partition: &Partition,
        from: Option<&str>,
    ) -> Result<HistoryPage, StoreError> {
        repair::histories(&self.parts, partition, from).await
    }

    async fn missing_in_history(
        &self,
        partition: &Partition,
        events: &[RecordedEvent],
    ) -> Result<Vec<Position>, StoreError> {
        repair::missing(&self.parts, partition, events).await
    }

    async fn adopt_events(
        &self,
        partition: &Partition,
        events: &[RecordedEvent],
    ) -> Result<u64, StoreError> {
        repair::adopt(&self.parts, partition, events).await
    }

    async fn adopted_versions(
        &self,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<Vec<Option<Version>>, StoreError> {
        repair::adopted(&self.parts, partition, positions).await
    }

    async fn stage_history(
        &self,
        aggregate: &AggregateId,
        staging: &str,
        events: &[(Version, RecordedEvent)],
    ) -> Result<(), StoreError> {
        repair::stage(&self.parts, aggregate, staging, events).await
    }

    async fn swap_history(
        &self,
        aggregate: &AggregateId,
        staging: &str,
        read_to: Position,
        version: Version,
    ) -> Result<Swapped, StoreError> {
        repair::swap(&self.parts, aggregate, staging, read_to, version).await
    }

    async fn discard_staged(
        &self,
        aggregate: &AggregateId,
        staging: &str,
    ) -> Result<(), StoreError> {
        repair::discard(&self.parts, aggregate, staging).await
    }
}

#[async_trait]
impl Projections for RedisStore {
    async fn open_projection(
        &self,
        id: &ProjectionId,
        categories: &[Category],
    ) -> Result<ProjectionVersions, StoreError> {
        projections::open(&self.parts, id, categories, false).await
    }

    async fn open_first_projection(
        &self,
        id: &ProjectionId,
        categories: &[Category],
    ) -> Result<ProjectionVersions, StoreError> {
        projections::open(&self.parts, id, categories, true).await
    }

    async fn projection_versions(&self, name: &str) -> Result<ProjectionVersions, StoreError> {
        projections::list(&self.parts, name).await
    }

    async fn served_projection(&self, name: &str) -> Result<Option<u32>, StoreError> {
        projections::served(&self.parts, name).await
    }

    async fn serve_projection(&self, id: &ProjectionId) -> Result<Option<u32>, ServeError> {
        projections::serve(&self.parts, id).await
    }

    async fn switch_projection(&self, id: &ProjectionId, served: u32) -> Result<bool, ServeError> {
        projections::switch(&self.parts, id, served).await
    }

    async fn drop_projection(&self, id: &ProjectionId) -> Result<bool, ServeError> {
        projections::drop(&self.parts, id).await
    }

    async fn hold_projection(
        &self,
        id: &ProjectionId,
        instance: &str,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        projections::hold(&self.parts, id, instance, lease).await
    }

    async fn release_projection(
        &self,
        id: &ProjectionId,
        instance: &str,
    ) -> Result<(), StoreError> {
        projections::release(&self.parts, id, instance).await
    }

    async fn projection_checkpoint(
        &self,
        id: &ProjectionId,
        partition: &Partition,
    ) -> Result<Position, StoreError> {
        projections::checkpoint(&self.parts, id, partition).await
    }

    async fn apply_projection(
        &self,
        id: &ProjectionId,
        partition: &Partition,
        step: &ProjectionStep,
    ) -> Result<(), ApplyError> {
        projections::apply(&self.parts, id, partition, step).await
    }

    async fn projection_document(
        &self,
        id: &ProjectionId,
        key: &str,
    ) -> Result<Option<String>, StoreError> {
        projections::document(&self.parts, id, key).await
    }

    async fn projection_field(
        &self,
        id: &ProjectionId,
        key: &str,
        field: &str,
    ) -> Result<Option<String>, StoreError> {
        projections::field(&self.parts, id, key, field).await
    }

    async fn projection_fields(
        &self,
        id: &ProjectionId,
        key: &str,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        projections::fields(&self.parts, id, key).await
    }

    async fn projection_keys(
        &self,
        id: &ProjectionId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        projections::keys(&self.parts, id, after, limit).await
    }

    async fn projection_checkpoints(
        &self,
        partition: &Partition,
    ) -> Result<Vec<ProjectionCheckpoint>, StoreError> {
        projections::checkpoints(&self.parts, partition).await
    }

    async fn entries_after(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<u64, StoreError> {
        projections::entries_after(&self.parts, partition, after).await
    }

    fn projects_inline(&self) -> bool {
        self.parts.shares_slots && !self.parts.connections.is_cluster()
    }

    async fn append_projected(
        &self,
        append: &Append,
        inline: &[InlineStep],
    ) -> Result<AppendedProjected, AppendError> {
        append::append_projected(&self.parts, append, inline).await
    }
}

#[async_trait]
impl Realtime for RedisStore {
    async fn publish_realtime(&self, events: &[NewEvent]) -> Result<(), StoreError> {
        realtime::publish(&self.parts, events).await
    }

    async fn subscribe(&self, patterns: &[Pattern]) -> Result<RealtimeSubscription, StoreError> {
        realtime::subscribe(&self.parts, patterns).await
    }
}
