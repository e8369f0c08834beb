//! Inline projections: what events lead to is written by the append that stores them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

use super::definition::ProjectionDefinition;
use super::fill::{FillError, Kind, Silent, Target};
use super::writes::{ProjectionWrites, Writes};
use crate::BoxError;
use crate::codec::history::HistoryEntry;
use crate::event::Category;
use crate::partition::Partition;
use crate::recorded::{AggregateId, AggregateRef, Position, RecordedEvent, Version};
use crate::snapshot::Snapshot;
use crate::store::{
    Append, AppendError, Appended, Backend, CompactError, Compacted, Done, EventStore, FeedEntry,
    FeedReader, InlineStep, ReadError, Restore, RestoreError, StoreError, Versions,
};

/// A store whose appends write to projections in the same step.
pub(crate) struct InlineStore {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) projections: Vec<InlineProjection>,
    /// How long an append waits for a projection that was behind.
    pub(crate) timeout: Duration,
}

/// An inline projection.
pub(crate) struct InlineProjection {
    definition: Arc<ProjectionDefinition>,
    target: Target,
    opened: OnceCell<()>,
    /// One append catches up, the others wait for it.
    catching_up: Mutex<()>,
}

impl InlineProjection {
    /// Nothing where its state lies elsewhere.
    pub(crate) fn new(target: Target) -> Option<Self> {
        let Kind::Stored(definition) = &target.kind else {
            return None;
        };
        Some(Self {
            definition: Arc::clone(definition),
            target,
            opened: OnceCell::new(),
            catching_up: Mutex::new(()),
        })
    }

    /// What the events of an append lead to; nothing where a method fails, which is seen when they are read
    /// from the feed.
    fn step(&self, events: &[RecordedEvent]) -> Option<InlineStep> {
        let (mut writes, mut together) = (Writes::default(), ProjectionWrites::default());
        for event in events {
            self.definition.project(event, &mut writes).ok()?;
            together.add(&mut writes).ok()?;
        }
        Some(InlineStep {
            id: self.target.id.clone(),
            writes: together,
        })
    }

    /// Takes everything in up to a position, whoever does so; nothing where another version is read.
    async fn catch_up(&self, partition: &Partition, until: Position) -> Result<(), FillError> {
        let Target { backend, id, .. } = &self.target;
        if backend.served_projection(id.name()).await? != Some(id.version()) {
            return Ok(());
        }
        let _only_one = self.catching_up.lock().await;
        match self.target.fill(partition, until, &Silent).await {
            // It was dropped meanwhile.
            Ok(_) | Err(FillError::Unknown(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn open(&self) -> Result<(), StoreError> {
        let open = || async {
            self.target.open_if_first().await?;
            Ok(())
        };
        self.opened.get_or_try_init(open).await.map(|_| ())
    }
}

impl InlineStore {
    /// The events of an append as they will be recorded, as far as that is known.
    fn recorded(append: &Append) -> Vec<RecordedEvent> {
        let aggregate = append.aggregate().map(|aggregate| AggregateRef {
            aggregate_type: aggregate.aggregate_type().to_owned(),
            id: aggregate.id().to_owned(),
            version: 0,
        });
        let record = |event: &crate::codec::NewEvent| {
            RecordedEvent::new(
                event.event_type(),
                event.payload(),
                Position::START,
                aggregate.clone(),
                event.metadata().clone(),
            )
        };
        append.events().iter().map(record).collect()
    }

    /// Waits for a projection that did not take the events in with the append.
    async fn wait(
        &self,
        projection: &InlineProjection,
        appended: &Appended,
    ) -> Result<(), AppendError> {
        let Some(partition) = &appended.partition else {
            return Ok(());
        };
        let last = appended.events.iter().map(|event| event.position).max();
        let until = last.unwrap_or_default();
        let source: BoxError =
            match timeout(self.timeout, projection.catch_up(partition, until)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => Box::new(error),
                Err(elapsed) => Box::new(elapsed),
            };
        Err(AppendError::NotProjected {
            projection: projection.target.id.to_string(),
            partition: partition.to_string(),
            position: until,
            source,
        })
    }
}

#[async_trait]
impl EventStore for InlineStore {
    async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        let category = append.target().category();
        let meant =
            |projection: &&InlineProjection| projection.target.categories.contains(category);
        let meant: Vec<_> = self.projections.iter().filter(meant).collect();
        if meant.is_empty() {
            return self.backend.append(append).await;
        }
        let events = Self::recorded(append);
        let (mut steps, mut of_step, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for projection in meant {
            projection.open().await?;
            match projection.step(&events) {
                Some(step) => {
                    steps.push(step);
                    of_step.push(projection);
                }
                None => failed.push(projection),
            }
        }
        let stored = self.backend.append_projected(append, &steps).await?;
        for index in stored.behind {
            if let Some(projection) = of_step.get(index) {
                self.wait(projection, &stored.appended).await?;
            }
        }
        for projection in failed {
            self.wait(projection, &stored.appended).await?;
        }
        Ok(stored.appended)
    }

    async fn replay(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
        visit: &mut (dyn for<'a> FnMut(HistoryEntry<'a>) -> ControlFlow<()> + Send),
    ) -> Result<(), ReadError> {
        self.backend.replay(aggregate, versions, visit).await
    }

    async fn read_aggregate(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.backend.read_aggregate(aggregate, versions).await
    }

    async fn save_snapshot(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
    ) -> Result<bool, StoreError> {
        self.backend.save_snapshot(aggregate, snapshot).await
    }

    async fn load_snapshot(&self, aggregate: &AggregateId) -> Result<Option<Snapshot>, ReadError> {
        self.backend.load_snapshot(aggregate).await
    }

    async fn delete_snapshot(&self, aggregate: &AggregateId) -> Result<bool, StoreError> {
        self.backend.delete_snapshot(aggregate).await
    }

    async fn compact(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
        first_kept: Version,
    ) -> Result<Compacted, CompactError> {
        self.backend.compact(aggregate, snapshot, first_kept).await
    }

    async fn find_receipt(
        &self,
        aggregate: &AggregateId,
        command_id: &str,
    ) -> Result<Option<Done>, StoreError> {
        self.backend.find_receipt(aggregate, command_id).await
    }

    async fn partitions(&self, category: &Category) -> Result<u32, ReadError> {
        self.backend.partitions(category).await
    }

    async fn read_feed(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        self.backend.read_feed(partition, after, limit).await
    }

    async fn read_feed_back(
        &self,
        partition: &Partition,
        before: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        self.backend.read_feed_back(partition, before, limit).await
    }

    async fn follow(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<Box<dyn FeedReader>, ReadError> {
        self.backend.follow(partition, after).await
    }

    async fn restore(&self, restore: &Restore) -> Result<(), RestoreError> {
        self.backend.restore(restore).await
    }

    async fn head(&self, partition: &Partition) -> Result<Position, ReadError> {
        self.backend.head(partition).await
    }
}
