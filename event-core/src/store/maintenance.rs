//! What keeps a store in order: trimming of feeds, and repair of histories.

use async_trait::async_trait;

use crate::event::Category;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, RecordedEvent, Version};
use crate::store::{EventStore, ReadError, StoreError, TrimPolicy, Trimmed};

/// Keeps feeds and histories in order, while others write and read.
#[async_trait]
pub trait Maintenance: EventStore {
    /// Removes the beginning of a partition, as far as the policy allows and nobody needs it: no group
    /// whose checkpoint lies before, no entry that is pending for a handler with parallel delivery. What
    /// they need is looked at in the step that removes, so that nothing comes in between.
    ///
    /// Dead letters keep their entries, and histories their events, whatever is trimmed.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer. What was removed before stays removed.
    async fn trim_partition(
        &self,
        partition: &Partition,
        policy: &TrimPolicy,
    ) -> Result<Trimmed, StoreError>;

    /// The position from which on a partition is whole: nothing behind it was trimmed away.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn first_available(&self, partition: &Partition) -> Result<Position, StoreError>;

    /// Some of the aggregates of a partition that have a history: from the beginning, or from where the
    /// page before ended. Those that are new meanwhile may be among them or not, and one may be told
    /// twice.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn histories(
        &self,
        partition: &Partition,
        from: Option<&str>,
    ) -> Result<HistoryPage, StoreError>;

    /// Of these events of a partition, each of an aggregate that lies there, the positions of those that
    /// its history does not have. One of a version that was [dropped](EventStore::compact) is taken to have
    /// been there.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn missing_in_history(
        &self,
        partition: &Partition,
        events: &[RecordedEvent],
    ) -> Result<Vec<Position>, StoreError>;

    /// Puts those of these events that their histories do not have at the end of these, with new versions,
    /// and remembers where they lie in the feed, so that each is adopted once. Gives how many that were.
    /// What the feed does not have any more is left out.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer. It may be repeated.
    async fn adopt_events(
        &self,
        partition: &Partition,
        events: &[RecordedEvent],
    ) -> Result<u64, StoreError>;

    /// For each of these positions the version under which its entry was adopted, if it was.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn adopted_versions(
        &self,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<Vec<Option<Version>>, StoreError>;

    /// Adds events to a history that is being made under a name, which nobody reads yet. The first version
    /// is 1, and each is one higher than the one before. What nobody goes on with goes by itself.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer. It may be repeated: what is there is not added again,
    /// and what does not follow on what is there is left out.
    async fn stage_history(
        &self,
        aggregate: &AggregateId,
        staging: &str,
        events: &[(Version, RecordedEvent)],
    ) -> Result<(), StoreError>;

    /// Puts what was made in the place of the history, where the feed has no event of the aggregate behind
    /// `read_to`, and the history none above `version`, with which what was made ends.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn swap_history(
        &self,
        aggregate: &AggregateId,
        staging: &str,
        read_to: Position,
        version: Version,
    ) -> Result<Swapped, StoreError>;

    /// Removes what was made of a history.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn discard_staged(
        &self,
        aggregate: &AggregateId,
        staging: &str,
    ) -> Result<(), StoreError>;

    /// Trims all partitions of a category; see [`trim_partition`](Maintenance::trim_partition).
    ///
    /// ```
    /// use event_core::prelude::*;
    /// use event_core::{Category, Maintenance, TrimPolicy};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let store = MemoryStore::new();
    /// let policy = TrimPolicy::new().max_entries(1_000_000);
    /// for trimmed in store.trim(&Category::new("github")?, &policy).await? {
    ///     println!("{}: {} entries removed", trimmed.partition, trimmed.removed);
    ///     if let Some(held_back) = trimmed.held_back_by {
    ///         println!("more would have been, but {held_back}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store does not answer. What was removed before stays removed.
    async fn trim(
        &self,
        category: &Category,
        policy: &TrimPolicy,
    ) -> Result<Vec<Trimmed>, ReadError> {
        let mut trimmed = Vec::new();
        for number in 0..self.partitions(category).await? {
            let partition = Partition::new(category.clone(), number);
            trimmed.push(self.trim_partition(&partition, policy).await?);
        }
        Ok(trimmed)
    }
}

/// Some of the aggregates that have a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// The aggregates; perhaps none, though others follow.
    pub aggregates: Vec<AggregateId>,
    /// From where on the next page is; `None` where this is the last one.
    pub next: Option<String>,
}

/// Whether a history that was made anew is in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// It is.
    Done,
    /// No: the feed goes on, and has, or may have, more events of the aggregate.
    ReadOn,
    /// No: the history that is there has more events.
    Newer {
        /// Its version.
        version: Version,
    },
    /// No: what was made is not there, or not with so many events. It may be in its place already, where the
    /// reply to that was lost.
    Lost,
}
