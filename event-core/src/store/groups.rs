//! What a store keeps for groups: who their instances are, which of them owns which partition, and
//! how far it is handled.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{
    Append, AppendError, Appended, DeadLetter, DeadLetterId, FeedEntry, ReadError, Reset,
    ResetError, StoreError,
};

/// Shares the work of groups among their instances.
///
/// # Contract
/// A partition has one owner in each group at a time. Each time it is acquired, its epoch grows, and
/// whoever holds an older epoch can write nothing more: [`commit`](Groups::commit) looks at the epoch
/// and writes in one step.
#[async_trait]
pub trait Groups: Send + Sync + 'static {
    /// Says that an instance of the group is there, for as long as `lease`. Gives all that are, by
    /// name, itself included.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn join(
        &self,
        group: &str,
        instance: &str,
        lease: Duration,
    ) -> Result<Vec<Member>, StoreError>;

    /// Says that an instance has gone.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn leave(&self, group: &str, instance: &str) -> Result<(), StoreError>;

    /// Gives the instances that are there, by name.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn members(&self, group: &str) -> Result<Vec<Member>, StoreError>;

    /// Forgets what a group has done in a partition, or moves it, in one step. Owners that it had before
    /// can write nothing more, though nobody has taken the partition since, and consumers of its
    /// handlers finish nothing that they took before. Whether instances are there is the caller's to
    /// know: see [`reset_group`](crate::reset_group).
    ///
    /// # Errors
    /// [`ResetError::Owned`] where an instance owns the partition; [`ResetError::Store`] with
    /// [`StoreError::FeedTrimmed`] where the group would go on in a part that was trimmed away. Nothing is
    /// written then.
    async fn reset(
        &self,
        group: &str,
        partition: &Partition,
        reset: Reset,
    ) -> Result<(), ResetError>;

    /// Makes the group known for a partition, if it is not: from `start` on, everything there is for
    /// this group. Gives how far it is handled.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer; [`StoreError::FeedTrimmed`] where a new group
    /// would begin in a part that was trimmed away. It is not made known then.
    async fn open(
        &self,
        group: &str,
        partition: &Partition,
        start: Start,
    ) -> Result<Progress, StoreError>;

    /// Makes an instance the owner of a partition for as long as `lease`, unless another owns it.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn acquire(
        &self,
        group: &str,
        partition: &Partition,
        instance: &str,
        lease: Duration,
    ) -> Result<Acquired, StoreError>;

    /// Prolongs a lease, from now on for as long as `lease`; `false` where it is lost.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<bool, StoreError>;

    /// Gives a lease back, so that others can acquire the partition at once.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Stores what the owner of a partition has done, all of it or nothing: the progress, the events
    /// that were emitted, and the dead letters. A commit whose number was stored already in this
    /// epoch is a success that writes nothing, so that a lost reply is no lost commit.
    ///
    /// # Errors
    /// [`CommitError`]; nothing is written then, but for [`CommitError::Store`], after which it is not
    /// known.
    async fn commit(&self, lease: &Lease, commit: &Commit) -> Result<Committed, CommitError>;

    /// How many entries of a partition the group has yet to finish: those that it has not reached, and
    /// those that are open. A group that is not known yet has all of them before it.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn lag(&self, group: &str, partition: &Partition) -> Result<u64, StoreError>;

    /// The instance that owns a partition now; `None` where nobody does.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn owner(&self, group: &str, partition: &Partition)
    -> Result<Option<String>, StoreError>;

    /// Reads partitions for a group.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, StoreError>;
}

/// Follows several partitions at once, over one connection. Made by [`Groups::group_reader`].
#[async_trait]
pub trait GroupReader: Send {
    /// Waits until there is something to read in one of the partitions, or something has changed in
    /// the group: an instance came or went, a partition was given back, a dead letter is to be
    /// redriven.
    ///
    /// It may be dropped while it waits: nothing is lost, and the next call may want others.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store has not answered for longer than it may.
    async fn next(&mut self, wanted: &[Wanted]) -> Result<GroupBatch, ReadError>;
}

/// What is wanted of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The partition.
    pub partition: Partition,
    /// Entries that lie after this position.
    pub after: Position,
    /// At most so many.
    pub limit: usize,
}

/// What a [`GroupReader`] has read.
#[derive(Debug, Default)]
pub struct GroupBatch {
    /// Entries of each partition that has some.
    pub entries: Vec<(Partition, Vec<FeedEntry>)>,
    /// Whether something has changed in the group.
    pub changed: bool,
}

/// An instance of a group that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub instance: String,
    /// For how long it is there, unless it says so again.
    pub remaining: Duration,
}

/// The right to handle a partition for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The group.
    pub group: Arc<str>,
    /// The partition.
    pub partition: Partition,
    /// Who owns it.
    pub instance: Arc<str>,
    /// Which owner this is, counted from 1.
    pub epoch: u64,
}

/// What has come of acquiring a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is owned now.
    Yes {
        /// The lease.
        lease: Lease,
        /// From where to go on.
        progress: Progress,
        /// The events before it that the feed has lost: it has none at the position up to which
        /// everything is handled, or another one.
        history_lost: bool,
    },
    /// Another instance owns it.
    No {
        /// For how long, unless it prolongs the lease.
        remaining: Duration,
    },
}

/// How far a group has handled a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The checkpoint: everything up to here is finished.
    pub checkpoint: Position,
    /// The id of the event at the checkpoint, by which a lost history is noticed.
    pub event_id: Option<Uuid>,
    /// Everything up to here is finished, but for what is open. Never before the checkpoint.
    pub reached: Position,
    /// What is not finished between the checkpoint and `reached`, in order.
    pub open: Vec<Open>,
}

/// An entry that is not finished, though one behind it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Where it lies.
    pub position: Position,
    /// The handlers that are through with it.
    pub done: Vec<Arc<str>>,
}

/// What the owner of a partition has done since the last commit.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Counts the commits of an epoch, from 1.
    pub number: u64,
    /// How far it has come.
    pub progress: Progress,
    /// How many entries this progress has as finished, and the last commit had not.
    pub finished: u64,
    /// What handlers emitted: for each run of a handler its events, by where they go. Stored
    /// whatever the version of an aggregate is.
    pub emitted: Vec<Vec<Append>>,
    /// New dead letters.
    pub parked: Vec<DeadLetter>,
    /// Those of the new ones that were not tried, because of an earlier one of their key, each with the
    /// last that lay before it. Where that is none any more by now, or is to be handled again, somebody has
    /// decided on it without the owner having heard, and what follows is to be handled again, too.
    pub follows: Vec<(DeadLetterId, DeadLetterId)>,
    /// Dead letters that were redriven in vain; nothing where one was discarded meanwhile.
    pub retried: Vec<DeadLetter>,
    /// Dead letters that are handled now.
    pub resolved: Vec<DeadLetterId>,
    /// Whether somebody waits to know where the emitted events lie.
    pub wants_places: bool,
}

/// What a commit has stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Where the emitted events lie, in the order of [`Commit::emitted`]. Empty where the commit was
    /// a repetition. Of an append that is stored for good, but still on its way to its feed, there are no
    /// places; where [they are wanted](Commit::wants_places), the store waits for it first.
    pub emitted: Vec<Vec<Appended>>,
    /// How many dead letters the group has in this partition now.
    pub dead_letters: usize,
}

/// A commit that stored nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another instance owns the partition by now.
    #[error(
        "the lease of partition `{partition}` is lost to another instance of `{group}`; what was done since the last commit is done again there"
    )]
    LeaseLost {
        /// The group.
        group: Arc<str>,
        /// The partition.
        partition: Partition,
    },
    /// Some of what was emitted cannot be stored, and so nothing was.
    #[error("{} of the runs emitted what cannot be stored", refused.len())]
    Refused {
        /// Which of [`Commit::emitted`], counted from 0, and why.
        refused: Vec<(usize, AppendError)>,
    },
    /// The store does not answer, and whether it is stored is not known. The same commit may be
    /// repeated.
    #[error(transparent)]
    Store(#[from] StoreError),
}
