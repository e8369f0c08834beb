//! What a store keeps for handlers with parallel delivery: which entries were delivered, to whom, and
//! which of them are not handled yet.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{Append, AppendError, Appended, DeadLetter, FeedEntry, ReadError, StoreError};

/// Spreads the entries of feeds over the consumers of a handler, each to one of them.
///
/// # Contract
/// A handler with parallel delivery has a group of its own in each partition, so that no two handlers
/// wait for each other. What is taken is *pending* for the consumer that took it, until it is
/// [finished](ParallelGroups::finish), or [claimed](ParallelGroups::claim) by another consumer after
/// the first has not kept it alive. Where the store has lost a group, it makes it again from what it
/// remembers of it, so that nothing is left out.
#[async_trait]
pub trait ParallelGroups: Send + Sync + 'static {
    /// Makes the group known for a partition, if it is not: from `start` on, everything there is for
    /// this group.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer; [`StoreError::FeedTrimmed`] where a new group
    /// would begin in a part that was trimmed away. It is not made known then.
    async fn open_parallel(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        start: Start,
    ) -> Result<(), StoreError>;

    /// Takes entries for a consumer, from all of these partitions.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn parallel_reader(
        &self,
        consumer: &Consumer,
        partitions: &[Partition],
    ) -> Result<Box<dyn ParallelReader>, StoreError>;

    /// Gives what is pending for this consumer already, as after a crash: at most `limit` entries that
    /// lie after `after`.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store does not answer.
    async fn take_back(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError>;

    /// Makes pending for this consumer what is pending for any and was not kept alive for as long as
    /// `idle`: at most `limit` entries, which it gives.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store does not answer.
    async fn claim(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        idle: Duration,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError>;

    /// Says that the consumer still works on these entries, as far as they are pending for it.
    /// `positions` must be sorted.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn keep_alive(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<(), StoreError>;

    /// Gives entries up that are pending for the consumer, so that any consumer can claim them at
    /// once. `positions` must be sorted.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn let_go(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<(), StoreError>;

    /// Stores what has come of entries, all of it or nothing. They are pending no more.
    ///
    /// An entry that emits something, or is a dead letter now, counts only where it is pending for
    /// this consumer. Else it was handled elsewhere, or this is a repetition after a lost reply, and
    /// nothing is stored of it.
    ///
    /// # Errors
    /// [`FinishError`]; nothing is written then, but for [`FinishError::Store`], after which it is not
    /// known.
    async fn finish(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        finish: &Finish,
    ) -> Result<Finished, FinishError>;

    /// Whether every entry in this range was delivered and is pending for nobody.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn is_finished(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        positions: RangeInclusive<Position>,
    ) -> Result<bool, StoreError>;

    /// How far the group is behind in a partition. One that is not known yet has all entries before it.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn parallel_lag(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
    ) -> Result<ParallelLag, StoreError>;

    /// Forgets a consumer, unless something is pending for it.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn leave_parallel(
        &self,
        consumer: &Consumer,
        partition: &Partition,
    ) -> Result<(), StoreError>;

    /// Forgets consumers that have done nothing for as long as `idle` and for which nothing is
    /// pending. Gives their number.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn remove_consumers(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        idle: Duration,
    ) -> Result<usize, StoreError>;
}

/// Takes entries for one consumer. Made by [`ParallelGroups::parallel_reader`].
#[async_trait]
pub trait ParallelReader: Send {
    /// Takes at most `limit` new entries of each partition. Waits for the first of them, for no longer
    /// than `wait`, and perhaps less. With a limit of 0 it takes nothing new, and waits for what is being
    /// taken.
    ///
    /// It may be dropped while it waits: nothing is lost, and the next call goes on with it, whatever
    /// its own limit is.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store has not answered for longer than it may.
    async fn take(&mut self, limit: usize, wait: Duration) -> Result<Taken, ReadError>;

    /// Whether a call before has begun to take entries of this partition that were not given yet: it was
    /// dropped, or has given those of other partitions. They may be pending for the consumer already.
    fn is_taking(&self, partition: &Partition) -> bool;

    /// From now on takes nothing new of these partitions, and of all others.
    fn leave_out(&mut self, partitions: &[Partition]);

    /// Takes nothing more, and gives what calls before have taken and not given.
    ///
    /// # Errors
    /// [`ReadError::Store`] where there is nothing to give, and the store has not answered for longer than
    /// it may.
    async fn close(&mut self) -> Result<Taken, ReadError>;
}

/// What a [`ParallelReader`] has taken.
#[derive(Debug, Default)]
pub struct Taken {
    /// Entries of each partition that has some.
    pub entries: Vec<(Partition, Vec<FeedEntry>)>,
    /// Partitions of which something may be pending for the consumer that never arrived here, and is to
    /// be [taken back](ParallelGroups::take_back).
    pub torn: Vec<Partition>,
}

/// The group of one handler.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParallelGroup {
    /// The group of the service.
    pub group: Arc<str>,
    /// The handler's name.
    pub handler: Arc<str>,
}

impl fmt::Display for ParallelGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.handler)
    }
}

/// An instance of a service that takes entries for a handler.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Consumer {
    /// For which handler.
    pub group: ParallelGroup,
    /// The instance.
    pub instance: Arc<str>,
}

/// How far the group of a handler is behind in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParallelLag {
    /// How many entries it has yet to finish, the pending ones among them.
    pub lag: u64,
    /// How many of these were delivered, and are pending.
    pub pending: u64,
}

/// What has come of entries of one partition.
#[derive(Clone, Debug, Default)]
pub struct Finish {
    /// Entries with which nothing more is to be done, whichever consumer has claimed them meanwhile. Only where
    /// the group was ever reset, they must be pending for this one.
    pub done: Vec<Position>,
    /// Entries for which the handler emitted something. It is stored whatever the version of an
    /// aggregate is.
    pub emitted: Vec<EntryEmits>,
    /// Entries that are dead letters now, of the ordinary ones of the group.
    pub parked: Vec<DeadLetter>,
    /// Whether somebody waits to know where the emitted events lie.
    pub wants_places: bool,
}

/// What a handler emitted for one entry.
#[derive(Clone, Debug)]
pub struct EntryEmits {
    /// Where the entry lies.
    pub position: Position,
    /// The events, by where they go.
    pub appends: Vec<Append>,
}

/// What was stored of entries that are finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Where the emitted events lie, in the order of [`Finish::emitted`]; `None` for an entry that was
    /// not pending for the consumer. Of an append that is stored for good, but still on its way to its
    /// feed, there are no places; where [they are wanted](Finish::wants_places), the store waits for it
    /// first.
    pub emitted: Vec<Option<Vec<Appended>>>,
    /// How many dead letters the group has in this partition now.
    pub dead_letters: usize,
}

/// Entries that could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// Some of what was emitted cannot be stored, and so nothing was.
    #[error("{} of the runs emitted what cannot be stored", refused.len())]
    Refused {
        /// Which of [`Finish::emitted`], counted from 0, and why.
        refused: Vec<(usize, AppendError)>,
    },
    /// The store does not answer, and whether it is stored is not known. The same may be repeated.
    #[error(transparent)]
    Store(#[from] StoreError),
}
