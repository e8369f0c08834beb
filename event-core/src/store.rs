//! Stores: where events are appended and read.

mod append;
mod backpressure;
mod compact;
mod dead_letters;
mod error;
mod groups;
mod limits;
mod maintenance;
mod memory;
mod parallel_groups;
mod projections;
mod receipt;
mod reset;
mod restore;
mod trim;
mod versions;

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;

pub use append::{Append, Appended, AppendedEvent, Expected, Target};
pub use backpressure::{Backlogs, Backpressure, WhenBacklogged};
pub use compact::{CompactError, Compacted};
pub use dead_letters::{
    Chosen, DeadLetter, DeadLetterError, DeadLetterId, DeadLetterReason, DeadLetters,
    InspectedDeadLetter,
};
pub use error::{AppendError, ReadError, StoreError};
pub use groups::{
    Acquired, Commit, CommitError, Committed, GroupBatch, GroupReader, Groups, Lease, Member, Open,
    Progress, Wanted,
};
pub use limits::Limits;
pub use maintenance::{HistoryPage, Maintenance, Swapped};
pub use memory::MemoryStore;
pub use parallel_groups::{
    Consumer, EntryEmits, Finish, FinishError, Finished, ParallelGroup, ParallelGroups,
    ParallelLag, ParallelReader, Taken,
};
pub use projections::{
    AppendedProjected, ApplyError, InlineStep, InvalidProjectionName, MAX_PROJECTION_NAME_BYTES,
    ProjectionCheckpoint, ProjectionId, ProjectionStep, ProjectionVersion, ProjectionVersions,
    Projections, ServeError, is_projection_name,
};
pub use receipt::{Done, MAX_COMMAND_ID_BYTES, Receipt};
pub use reset::{Reset, ResetError, reset_group};
pub use restore::{Restore, RestoreEntry, RestoreError};
pub use trim::{HeldBack, TrimPolicy, Trimmed};
pub use versions::{Direction, Versions};

use crate::codec::CodecError;
use crate::codec::history::HistoryEntry;
use crate::event::Category;
use crate::partition::Partition;
use crate::realtime::Realtime;
use crate::recorded::{AggregateId, Position, RecordedEvent, Version};
use crate::snapshot::Snapshot;

/// Appends events and reads them: by aggregate, or by category in the order of their feed.
///
/// # Contract
/// What a store must do is written as tests in [`testing::store_contract`](crate::testing); every
/// store runs them.
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Append, Category, Codec, Expected, Versions};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("sdlc.project.opened")]
/// # struct Opened { name: String }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let gothic = AggregateId::new(Category::new("sdlc")?, "project", "gothic")?;
/// let opened = Codec::default().encode(&Opened { name: "Gothic".into() })?;
///
/// store.append(&Append::to(gothic.clone(), Expected::NoStream, vec![opened])).await?;
///
/// let history = store.read_aggregate(&gothic, &Versions::all()).await?;
/// assert_eq!(history[0].event_type(), "sdlc.project.opened");
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// Stores all events of `append`, or none.
    ///
    /// It may be repeated blindly: an event whose id is stored already, at the version where it
    /// would be stored now, is a success. So a reply that was lost is no write that was lost.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is written then, but for [`AppendError::NotReplicated`], and for
    /// [`AppendError::Store`], after which it is not known.
    async fn append(&self, append: &Append) -> Result<Appended, AppendError>;

    /// Hands the events of an aggregate to `visit`, in the order asked for, until it breaks off.
    /// This is what loads use: an entry is decoded straight from what the store holds.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] where the aggregate has no events at all;
    /// [`ReadError::HistoryTrimmed`] where one is asked for that was [dropped](EventStore::compact).
    /// Backwards, those that are there are handed out first.
    async fn replay(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
        visit: &mut (dyn for<'a> FnMut(HistoryEntry<'a>) -> ControlFlow<()> + Send),
    ) -> Result<(), ReadError>;

    /// Reads events of an aggregate, with their metadata.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] where the aggregate has no events at all; [`ReadError::Codec`] where
    /// one is not in the stored form.
    async fn read_aggregate(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut events = Vec::new();
        let mut failure = None;
        self.replay(
            aggregate,
            versions,
            &mut |entry| match entry.to_recorded(aggregate) {
                Ok(event) => {
                    events.push(event);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            },
        )
        .await?;
        match failure {
            None => Ok(events),
            Some(error) => Err(error.into()),
        }
    }

    /// Keeps the state of an aggregate, unless one of the same or a later version is kept; `false` then. Where
    /// the history was compacted, the state of a newer program stays, too: nothing else leads to it. A store without snapshots keeps none.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn save_snapshot(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
    ) -> Result<bool, StoreError> {
        let _ = (aggregate, snapshot);
        Ok(false)
    }

    /// The newest state of an aggregate that is kept, if one is. Whoever goes on from it must see that
    /// the history has its event.
    ///
    /// # Errors
    /// [`ReadError::Codec`] where what is kept is not in the stored form.
    async fn load_snapshot(&self, aggregate: &AggregateId) -> Result<Option<Snapshot>, ReadError> {
        let _ = aggregate;
        Ok(None)
    }

    /// Forgets the state of an aggregate that is kept; `false` where there was none.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn delete_snapshot(&self, aggregate: &AggregateId) -> Result<bool, StoreError> {
        let _ = aggregate;
        Ok(false)
    }

    /// Keeps a state of an aggregate, unless one of the same shape and a later version is kept, and drops
    /// the events of its history before `first_kept` and before the state's own, in one step. Versions are
    /// counted on.
    ///
    /// # Errors
    /// [`CompactError`]; nothing is changed then, but for [`CompactError::Store`], after which it is not
    /// known.
    async fn compact(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
        first_kept: Version,
    ) -> Result<Compacted, CompactError> {
        let _ = (aggregate, snapshot, first_kept);
        Err(CompactError::Store(StoreError::Refused {
            operation: "compact",
            source: "this store compacts no histories; leave them whole".into(),
        }))
    }

    /// The versions of the events that a command has led to, where its [`Receipt`] is kept still.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer, or keeps no receipts at all.
    async fn find_receipt(
        &self,
        aggregate: &AggregateId,
        command_id: &str,
    ) -> Result<Option<Done>, StoreError> {
        let _ = (aggregate, command_id);
        Err(StoreError::Refused {
            operation: "find_receipt",
            source: "this store keeps no receipts; execute the command without an id".into(),
        })
    }

    /// How many partitions the feed of a category has. That never changes once it has events.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store does not answer.
    async fn partitions(&self, category: &Category) -> Result<u32, ReadError>;

    /// Reads at most `limit` entries of a partition that lie after `after`; none where there are none.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store does not answer; with [`StoreError::FeedTrimmed`] where
    /// some of what lies after `after` was trimmed away.
    async fn read_feed(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError>;

    /// Reads at most `limit` entries of a partition that lie before `before`, the newest first: from
    /// [`Position::END`] on, its newest ones. It ends where the partition begins, or is trimmed.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store does not answer.
    async fn read_feed_back(
        &self,
        partition: &Partition,
        before: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError>;

    /// Reads a partition from after `after` on, and then follows it.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store does not answer; with [`StoreError::FeedTrimmed`] where
    /// some of what lies after `after` was trimmed away.
    async fn follow(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<Box<dyn FeedReader>, ReadError>;

    /// The position of the newest entry of a partition; [`Position::START`] where there is none.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store does not answer.
    async fn head(&self, partition: &Partition) -> Result<Position, ReadError>;

    /// Stores recorded events where they lay, in the feed and in the histories of their aggregates: all
    /// of them, or none. It may be repeated blindly. Nothing is published, and no id is remembered.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing is written then, but for [`RestoreError::Store`], after which it is
    /// not known. A store that cannot do it refuses.
    async fn restore(&self, restore: &Restore) -> Result<(), RestoreError> {
        let _ = restore;
        Err(RestoreError::Store(StoreError::Refused {
            operation: "restore",
            source: "this store takes in no recorded events; append them".into(),
        }))
    }
}

/// Follows a feed. Made by [`EventStore::follow`].
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Append, Category, Codec};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("github.push")]
/// # struct GithubPush { repository: String }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let store = MemoryStore::new();
/// let github = Category::new("github")?;
/// let mut reader = store.follow(&github.clone().into(), Position::START).await?;
///
/// let push = Codec::default().encode(&GithubPush { repository: "octo/hello".into() })?;
/// store.append(&Append::to_feed(github, vec![push])).await?;
///
/// for entry in reader.next_batch(100).await? {
///     assert_eq!(entry.into_event()?.event_type(), "github.push");
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait FeedReader: Send {
    /// The next entries of the feed, at least one and at most `limit`; waits for the first.
    ///
    /// It may be dropped while it waits: nothing is lost, the next call begins where this one did.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store has not answered for longer than it may; with
    /// [`StoreError::FeedTrimmed`] where what comes next was trimmed away before it was handed out.
    async fn next_batch(&mut self, limit: usize) -> Result<Vec<FeedEntry>, ReadError>;
}

/// What lies at one position of a feed.
#[derive(Debug)]
pub enum FeedEntry {
    /// An event.
    Event(RecordedEvent),
    /// Something that is no event in the stored form. It must not stop a reader.
    Undecodable {
        /// Where it lies.
        position: Position,
        /// What is wrong with it.
        error: CodecError,
    },
}

impl FeedEntry {
    /// Where it lies.
    pub fn position(&self) -> Position {
        match self {
            FeedEntry::Event(event) => event.position(),
            FeedEntry::Undecodable { position, .. } => *position,
        }
    }

    /// The bytes of its payload, where it is an event.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            FeedEntry::Event(event) => event.payload().len(),
            FeedEntry::Undecodable { .. } => 0,
        }
    }

    /// The event, or what is wrong with the entry.
    ///
    /// # Errors
    /// [`CodecError`] of an entry that is no event.
    pub fn into_event(self) -> Result<RecordedEvent, CodecError> {
        match self {
            FeedEntry::Event(event) => Ok(event),
            FeedEntry::Undecodable { error, .. } => Err(error),
        }
    }
}

/// Everything that a [`Service`](crate::Service) asks of a store. Never implemented by hand: what has
/// the seven traits has this one.
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Backend, BuildError};
///
/// /// The same service, whatever store it is given.
/// fn service(store: impl Backend) -> Result<Service, BuildError> {
///     Service::builder("repo-agent").store(store).build()
/// }
///
/// assert!(service(MemoryStore::new()).is_ok());
/// ```
pub trait Backend:
    EventStore + Groups + ParallelGroups + DeadLetters + Projections + Realtime + Maintenance
{
}

impl<T> Backend for T where
    T: EventStore + Groups + ParallelGroups + DeadLetters + Projections + Realtime + Maintenance
{
}

#[async_trait]
impl<T: EventStore + ?Sized> EventStore for Arc<T> {
    async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        (**self).append(append).await
    }

    async fn replay(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
        visit: &mut (dyn for<'a> FnMut(HistoryEntry<'a>) -> ControlFlow<()> + Send),
    ) -> Result<(), ReadError> {
        (**self).replay(aggregate, versions, visit).await
    }

    async fn read_aggregate(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        (**self).read_aggregate(aggregate, versions).await
    }

    async fn save_snapshot(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
    ) -> Result<bool, StoreError> {
        (**self).save_snapshot(aggregate, snapshot).await
    }

    async fn load_snapshot(&self, aggregate: &AggregateId) -> Result<Option<Snapshot>, ReadError> {
        (**self).load_snapshot(aggregate).await
    }

    async fn delete_snapshot(&self, aggregate: &AggregateId) -> Result<bool, StoreError> {
        (**self).delete_snapshot(aggregate).await
    }

    async fn compact(
        &self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
        first_kept: Version,
    ) -> Result<Compacted, CompactError> {
        (**self).compact(aggregate, snapshot, first_kept).await
    }

    async fn find_receipt(
        &self,
        aggregate: &AggregateId,
        command_id: &str,
    ) -> Result<Option<Done>, StoreError> {
        (**self).find_receipt(aggregate, command_id).await
    }

    async fn partitions(&self, category: &Category) -> Result<u32, ReadError> {
        (**self).partitions(category).await
    }

    async fn read_feed(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        (**self).read_feed(partition, after, limit).await
    }

    async fn read_feed_back(
        &self,
        partition: &Partition,
        before: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        (**self).read_feed_back(partition, before, limit).await
    }

    async fn follow(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<Box<dyn FeedReader>, ReadError> {
        (**self).follow(partition, after).await
    }

    async fn head(&self, partition: &Partition) -> Result<Position, ReadError> {
        (**self).head(partition).await
    }

    async fn restore(&self, restore: &Restore) -> Result<(), RestoreError> {
        (**self).restore(restore).await
    }
}
