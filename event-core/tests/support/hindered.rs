//! A store that a test hinders: some of what it is asked waits, or is refused.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::{ControlFlow, RangeInclusive};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use event_core::codec::history::HistoryEntry;
use event_core::{
    Acquired, AggregateId, Append, AppendError, Appended, AppendedProjected, ApplyError, Category,
    Chosen, Commit, CommitError, Committed, Consumer, DeadLetter, DeadLetterError, DeadLetterId,
    DeadLetters, EventStore, FeedEntry, FeedReader, Finish, FinishError, Finished, GroupReader,
    Groups, HistoryPage, InlineStep, InspectedDeadLetter, Lease, Maintenance, Member, MemoryStore,
    NewEvent, ParallelGroup, ParallelGroups, ParallelLag, ParallelReader, Partition, Pattern,
    Position, Progress, ProjectionCheckpoint, ProjectionId, ProjectionStep, ProjectionVersions,
    Projections, ReadError, Realtime, RealtimeSubscription, RecordedEvent, Reset, ResetError,
    ServeError, Snapshot, Start, StoreError, Swapped, Taken, TrimPolicy, Trimmed, Version,
    Versions,
};
use tokio::sync::watch;

/// What the store is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) operation: &'static str,
    pub(crate) instance: String,
    pub(crate) partition: Option<Partition>,
}

type Waiting = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// What comes before the store is asked, and may keep it from that. After a `released` the store has
/// been asked already.
type Hinder = Arc<dyn Fn(Asked) -> Waiting + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Hindered {
    inner: MemoryStore,
    hinder: Hinder,
    /// What is taken of this partition is given once that is so.
    withheld: Option<(Partition, watch::Receiver<bool>)>,
}

impl Hindered {
    pub(crate) fn new<F>(
        inner: MemoryStore,
        hinder: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        Self {
            inner,
            hinder: Arc::new(move |asked| Box::pin(hinder(asked))),
            withheld: None,
        }
    }

    /// What consumers take of a partition is given only once that is so, as over a connection of its
    /// own.
    pub(crate) fn withholding(
        mut self,
        partition: Partition,
        is_over: watch::Receiver<bool>,
    ) -> Self {
        self.withheld = Some((partition, is_over));
        self
    }

    async fn before(
        &self,
        operation: &'static str,
        instance: &str,
        partition: Option<&Partition>,
    ) -> Result<(), StoreError> {
        let asked = Asked {
            operation,
            instance: instance.to_owned(),
            partition: partition.cloned(),
        };
        (self.hinder)(asked).await
    }
}

#[async_trait]
impl EventStore for Hindered {
    async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        self.inner.append(append).await
    }

    async fn replay(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
        visit: &mut (dyn for<'a> FnMut(HistoryEntry<'a>) -> ControlFlow<()> + Send),
    ) -> Result<(), ReadError> {
        self.inner.replay(aggregate, versions, visit).await
    }

    async fn save_snapshot(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
    ) -> Result<bool, StoreError> {
        self.inner.save_snapshot(aggregate, snapshot).await
    }

    async fn load_snapshot(&self, aggregate: &AggregateId) -> Result<Option<Snapshot>, ReadError> {
        self.inner.load_snapshot(aggregate).await
    }

    async fn delete_snapshot(&self, aggregate: &AggregateId) -> Result<bool, StoreError> {
        self.inner.delete_snapshot(aggregate).await
    }

    async fn partitions(&self, category: &Category) -> Result<u32, ReadError> {
        EventStore::partitions(&self.inner, category).await
    }

    async fn read_feed(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        self.inner.read_feed(partition, after, limit).await
    }

    async fn read_feed_back(
        &self,
        partition: &Partition,
        before: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        self.inner.read_feed_back(partition, before, limit).await
    }

    async fn follow(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<Box<dyn FeedReader>, ReadError> {
        self.inner.follow(partition, after).await
    }

    async fn head(&self, partition: &Partition) -> Result<Position, ReadError> {
        self.inner.head(partition).await
    }
}

#[async_trait]
impl Maintenance for Hindered {
    async fn trim_partition(
        &self,
        partition: &Partition,
        policy: &TrimPolicy,
    ) -> Result<Trimmed, StoreError> {
        self.inner.trim_partition(partition, policy).await
    }

    async fn first_available(&self, partition: &Partition) -> Result<Position, StoreError> {
        self.inner.first_available(partition).await
    }

    async fn histories(
        &self,
        partition: &Partition,
        from: Option<&str>,
    ) -> Result<HistoryPage, StoreError> {
        self.inner.histories(partition, from).await
    }

    async fn missing_in_history(
        &self,
        partition: &Partition,
        events: &[RecordedEvent],
    ) -> Result<Vec<Position>, StoreError> {
        self.inner.missing_in_history(partition, events).await
    }

    async fn adopt_events(
        &self,
        partition: &Partition,
        events: &[RecordedEvent],
    ) -> Result<u64, StoreError> {
        self.inner.adopt_events(partition, events).await
    }

    async fn adopted_versions(
        &self,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<Vec<Option<Version>>, StoreError> {
        self.inner.adopted_versions(partition, positions).await
    }

    async fn stage_history(
        &self,
        aggregate: &AggregateId,
        staging: &str,
        events: &[(Version, RecordedEvent)],
    ) -> Result<(), StoreError> {
        self.inner.stage_history(aggregate, staging, events).await
    }

    async fn swap_history(
        &self,
        aggregate: &AggregateId,
        staging: &str,
        read_to: Position,
        version: Version,
    ) -> Result<Swapped, StoreError> {
        let swap = self
            .inner
            .swap_history(aggregate, staging, read_to, version);
        swap.await
    }

    async fn discard_staged(
        &self,
        aggregate: &AggregateId,
        staging: &str,
    ) -> Result<(), StoreError> {
        self.inner.discard_staged(aggregate, staging).await
    }
}

#[async_trait]
impl Groups for Hindered {
    async fn join(
        &self,
        group: &str,
        instance: &str,
        lease: Duration,
    ) -> Result<Vec<Member>, StoreError> {
        self.before("join", instance, None).await?;
        self.inner.join(group, instance, lease).await
    }

    async fn leave(&self, group: &str, instance: &str) -> Result<(), StoreError> {
        self.before("leave", instance, None).await?;
        self.inner.leave(group, instance).await
    }

    async fn members(&self, group: &str) -> Result<Vec<Member>, StoreError> {
        self.inner.members(group).await
    }

    async fn reset(
        &self,
        group: &str,
        partition: &Partition,
        reset: Reset,
    ) -> Result<(), ResetError> {
        self.inner.reset(group, partition, reset).await
    }

    async fn open(
        &self,
        group: &str,
        partition: &Partition,
        start: Start,
    ) -> Result<Progress, StoreError> {
        self.inner.open(group, partition, start).await
    }

    async fn acquire(
        &self,
        group: &str,
        partition: &Partition,
        instance: &str,
        lease: Duration,
    ) -> Result<Acquired, StoreError> {
        self.before("acquire", instance, Some(partition)).await?;
        self.inner.acquire(group, partition, instance, lease).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<bool, StoreError> {
        let Lease {
            instance,
            partition,
            ..
        } = lease;
        self.before("renew", instance, Some(partition)).await?;
        self.inner.renew(lease, duration).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let Lease {
            instance,
            partition,
            ..
        } = lease;
        self.inner.release(lease).await?;
        self.before("released", instance, Some(partition)).await
    }

    async fn commit(&self, lease: &Lease, commit: &Commit) -> Result<Committed, CommitError> {
        self.inner.commit(lease, commit).await
    }

    async fn lag(&self, group: &str, partition: &Partition) -> Result<u64, StoreError> {
        self.inner.lag(group, partition).await
    }

    async fn owner(
        &self,
        group: &str,
        partition: &Partition,
    ) -> Result<Option<String>, StoreError> {
        self.inner.owner(group, partition).await
    }

    async fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, StoreError> {
        self.inner.group_reader(group).await
    }
}

#[async_trait]
impl ParallelGroups for Hindered {
    async fn open_parallel(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        start: Start,
    ) -> Result<(), StoreError> {
        self.before("open_parallel", "", Some(partition)).await?;
        self.inner.open_parallel(group, partition, start).await
    }

    async fn parallel_reader(
        &self,
        consumer: &Consumer,
        partitions: &[Partition],
    ) -> Result<Box<dyn ParallelReader>, StoreError> {
        let inner = self.inner.parallel_reader(consumer, partitions).await?;
        let Some((partition, is_over)) = self.withheld.clone() else {
            return Ok(inner);
        };
        Ok(Box::new(Withholding {
            inner,
            partition,
            is_over,
            withheld: Vec::new(),
        }))
    }

    async fn take_back(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        self.before("take_back", &consumer.instance, Some(partition))
            .await?;
        self.inner
            .take_back(consumer, partition, after, limit)
            .await
    }

    async fn claim(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        idle: Duration,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        self.before("claim", &consumer.instance, Some(partition))
            .await?;
        self.inner.claim(consumer, partition, idle, limit).await
    }

    async fn keep_alive(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<(), StoreError> {
        self.before("keep_alive", &consumer.instance, Some(partition))
            .await?;
        self.inner.keep_alive(consumer, partition, positions).await
    }

    async fn let_go(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<(), StoreError> {
        self.before("let_go", &consumer.instance, Some(partition))
            .await?;
        self.inner.let_go(consumer, partition, positions).await
    }

    async fn finish(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        finish: &Finish,
    ) -> Result<Finished, FinishError> {
        self.before("finish", &consumer.instance, Some(partition))
            .await?;
        self.inner.finish(consumer, partition, finish).await
    }

    async fn is_finished(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        positions: RangeInclusive<Position>,
    ) -> Result<bool, StoreError> {
        self.inner.is_finished(group, partition, positions).await
    }

    async fn parallel_lag(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
    ) -> Result<ParallelLag, StoreError> {
        self.inner.parallel_lag(group, partition).await
    }

    async fn leave_parallel(
        &self,
        consumer: &Consumer,
        partition: &Partition,
    ) -> Result<(), StoreError> {
        self.before("leave_parallel", &consumer.instance, Some(partition))
            .await?;
        self.inner.leave_parallel(consumer, partition).await
    }

    async fn remove_consumers(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        idle: Duration,
    ) -> Result<usize, StoreError> {
        self.inner.remove_consumers(group, partition, idle).await
    }
}

/// A reader that gives what it takes of one partition later.
struct Withholding {
    inner: Box<dyn ParallelReader>,
    partition: Partition,
    is_over: watch::Receiver<bool>,
    withheld: Vec<FeedEntry>,
}

#[async_trait]
impl ParallelReader for Withholding {
    async fn take(&mut self, limit: usize, wait: Duration) -> Result<Taken, ReadError> {
        let is_over = async {
            match self.withheld.is_empty() {
                true => std::future::pending().await,
                false => self.is_over.wait_for(|is_over| *is_over).await.is_ok(),
            }
        };
        tokio::select! {
            biased;
            _ = is_over => {
                let entries = std::mem::take(&mut self.withheld);
                Ok(Taken {
                    entries: vec![(self.partition.clone(), entries)],
                    ..Taken::default()
                })
            }
            taken = self.inner.take(limit, wait) => {
                let mut taken = taken?;
                let entries = std::mem::take(&mut taken.entries);
                for (partition, entries) in entries {
                    if partition == self.partition {
                        self.withheld.extend(entries);
                    } else {
                        taken.entries.push((partition, entries));
                    }
                }
                Ok(taken)
            }
        }
    }

    fn is_taking(&self, partition: &Partition) -> bool {
        *partition == self.partition && !self.withheld.is_empty()
    }

    fn leave_out(&mut self, partitions: &[Partition]) {
        self.inner.leave_out(partitions);
    }

    async fn close(&mut self) -> Result<Taken, ReadError> {
        self.inner.close().await
    }
}

#[async_trait]
impl DeadLetters for Hindered {
    async fn list_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let inner = &self.inner;
        inner
            .list_dead_letters(group, partition, after, limit)
            .await
    }

    async fn inspect_dead_letter(
        &self,
        group: &str,
        partition: &Partition,
        id: &DeadLetterId,
    ) -> Result<Option<InspectedDeadLetter>, StoreError> {
        self.inner.inspect_dead_letter(group, partition, id).await
    }

    async fn redrive_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        chosen: &Chosen,
    ) -> Result<usize, DeadLetterError> {
        let inner = &self.inner;
        inner.redrive_dead_letters(group, partition, chosen).await
    }

    async fn discard_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        chosen: &Chosen,
    ) -> Result<usize, DeadLetterError> {
        let inner = &self.inner;
        inner.discard_dead_letters(group, partition, chosen).await
    }
}

#[async_trait]
impl Projections for Hindered {
    async fn open_projection(
        &self,
        id: &ProjectionId,
        categories: &[Category],
    ) -> Result<ProjectionVersions, StoreError> {
        self.inner.open_projection(id, categories).await
    }

    async fn projection_versions(&self, name: &str) -> Result<ProjectionVersions, StoreError> {
        self.inner.projection_versions(name).await
    }

    async fn open_first_projection(
        &self,
        id: &ProjectionId,
        categories: &[Category],
    ) -> Result<ProjectionVersions, StoreError> {
        self.inner.open_first_projection(id, categories).await
    }

    async fn serve_projection(&self, id: &ProjectionId) -> Result<Option<u32>, ServeError> {
        self.inner.serve_projection(id).await
    }

    async fn switch_projection(&self, id: &ProjectionId, served: u32) -> Result<bool, ServeError> {
        self.inner.switch_projection(id, served).await
    }

    async fn drop_projection(&self, id: &ProjectionId) -> Result<bool, ServeError> {
        self.inner.drop_projection(id).await
    }

    async fn hold_projection(
        &self,
        id: &ProjectionId,
        instance: &str,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        self.inner.hold_projection(id, instance, lease).await
    }

    async fn release_projection(
        &self,
        id: &ProjectionId,
        instance: &str,
    ) -> Result<(), StoreError> {
        self.inner.release_projection(id, instance).await
    }

    async fn projection_checkpoint(
        &self,
        id: &ProjectionId,
        partition: &Partition,
    ) -> Result<Position, StoreError> {
        self.inner.projection_checkpoint(id, partition).await
    }

    async fn apply_projection(
        &self,
        id: &ProjectionId,
        partition: &Partition,
        step: &ProjectionStep,
    ) -> Result<(), ApplyError> {
        self.inner.apply_projection(id, partition, step).await
    }

    async fn projection_document(
        &self,
        id: &ProjectionId,
        key: &str,
    ) -> Result<Option<String>, StoreError> {
        self.inner.projection_document(id, key).await
    }

    async fn projection_field(
        &self,
        id: &ProjectionId,
        key: &str,
        field: &str,
    ) -> Result<Option<String>, StoreError> {
        self.inner.projection_field(id, key, field).await
    }

    async fn projection_fields(
        &self,
        id: &ProjectionId,
        key: &str,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        self.inner.projection_fields(id, key).await
    }

    async fn projection_keys(
        &self,
        id: &ProjectionId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        self.inner.projection_keys(id, after, limit).await
    }

    async fn projection_checkpoints(
        &self,
        partition: &Partition,
    ) -> Result<Vec<ProjectionCheckpoint>, StoreError> {
        self.inner.projection_checkpoints(partition).await
    }

    async fn entries_after(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<u64, StoreError> {
        self.inner.entries_after(partition, after).await
    }

    async fn append_projected(
        &self,
        append: &Append,
        inline: &[InlineStep],
    ) -> Result<AppendedProjected, AppendError> {
        self.inner.append_projected(append, inline).await
    }

    fn projects_inline(&self) -> bool {
        self.inner.projects_inline()
    }
}

#[async_trait]
impl Realtime for Hindered {
    async fn publish_realtime(&self, events: &[NewEvent]) -> Result<(), StoreError> {
        self.inner.publish_realtime(events).await
    }

    async fn subscribe(&self, patterns: &[Pattern]) -> Result<RealtimeSubscription, StoreError> {
        self.inner.subscribe(patterns).await
    }
}
