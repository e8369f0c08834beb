use std::collections::BTreeMap;

use uuid::Uuid;

use super::PAGE;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, RecordedEvent, Version};
use crate::store::{FeedEntry, Maintenance, ReadError, StoreError, Swapped};

/// It begins anew so often at most where somebody else changes the history meanwhile.
const ATTEMPTS: usize = 5;

/// A history that was made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuiltHistory {
    /// The version of its newest event.
    pub version: Version,
    /// How many entries of the aggregate were left out, since no history has ever had them: see
    /// [`adopt`](crate::adopt).
    pub not_adopted: u64,
}

/// A history that was not made anew. It stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum RebuildHistoryError {
    /// The feed has no event of the aggregate.
    #[error(
        "the feed `{partition}` has no events of `{aggregate}`, so that there is nothing to make a history of"
    )]
    NotFound {
        /// The aggregate.
        aggregate: AggregateId,
        /// Where they should lie.
        partition: Partition,
    },
    /// The feed lacks an event of the aggregate.
    #[error(
        "the feed `{partition}` lacks version {version} of `{aggregate}`, and is whole from {first_available} on only; leave the history as it is, or restore the feed from a backup"
    )]
    Incomplete {
        /// The aggregate.
        aggregate: AggregateId,
        /// Where it should lie.
        partition: Partition,
        /// The first version that is missing.
        version: Version,
        /// From this position on nothing of the feed was trimmed away.
        first_available: Position,
    },
    /// Two entries say that they are the same event of the aggregate.
    #[error(
        "two entries of `{partition}` are version {version} of `{aggregate}`, the second at {position}; delete the one that is wrong from the feed"
    )]
    Twice {
        /// The aggregate.
        aggregate: AggregateId,
        /// Where they lie.
        partition: Partition,
        /// The version.
        version: Version,
        /// Where the second one lies.
        position: Position,
    },
    /// The history has newer events than the feed.
    #[error(
        "the history of `{aggregate}` is at version {version}, and the feed has no more than {found}; leave the history as it is"
    )]
    Newer {
        /// The aggregate.
        aggregate: AggregateId,
        /// The version of the history.
        version: Version,
        /// The last version in the feed.
        found: Version,
    },
    /// What was made was gone before it could be put in place, again and again.
    #[error(
        "what was made of the history of `{aggregate}` was gone before it was in place; see that the store evicts nothing, and make it anew"
    )]
    Lost {
        /// The aggregate.
        aggregate: AggregateId,
    },
    /// The feed cannot be read, or the store does not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<StoreError> for RebuildHistoryError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

/// Makes the history of an aggregate anew from the feed, where that has all its events. It takes the place
/// of the old one in one step, and only where nothing was appended that it does not have; others may write
/// and read meanwhile.
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Category, RebuildHistoryError, rebuild_history};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let store = MemoryStore::new();
/// let gothic = AggregateId::new(Category::new("sdlc")?, "project", "gothic")?;
/// match rebuild_history(&store, &gothic).await {
///     Ok(rebuilt) => println!("it is at version {}", rebuilt.version),
///     Err(RebuildHistoryError::Incomplete { version, .. }) => println!("version {version} is gone"),
///     Err(error) => println!("{error}"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`RebuildHistoryError`]; the history is as it was then.
pub async fn rebuild_history<S: Maintenance + ?Sized>(
    store: &S,
    aggregate: &AggregateId,
) -> Result<RebuiltHistory, RebuildHistoryError> {
    let count = store.partitions(aggregate.category()).await?;
    let partition = Partition::of_aggregate(aggregate, count);
    let (mut attempt, mut newer) = (0, None);
    loop {
        attempt += 1;
        let staging = Uuid::now_v7().simple().to_string();
        let mut rebuild = Rebuild {
            store,
            aggregate,
            partition: &partition,
            staging: &staging,
            first_available: store.first_available(&partition).await?,
            ready: Vec::new(),
            waiting: BTreeMap::new(),
            next: 1,
            not_adopted: 0,
        };
        let outcome = rebuild.run().await;
        if outcome.is_ok() {
            return outcome;
        }
        // What is left of it goes by itself, too, if this does not arrive.
        if let Err(error) = store.discard_staged(aggregate, &staging).await {
            tracing::warn!(%aggregate, %error, "what was made of a history is not removed; it goes by itself");
        }
        match outcome {
            // Something was adopted meanwhile, unless it is the same as before.
            Err(RebuildHistoryError::Newer { version, found, .. })
                if attempt < ATTEMPTS && newer != Some((version, found)) =>
            {
                newer = Some((version, found));
            }
            // It may be in its place, and only the reply was lost.
            Err(RebuildHistoryError::Lost { .. }) if attempt < ATTEMPTS => {}
            // Something was trimmed away.
            Err(RebuildHistoryError::Read(ReadError::Store(StoreError::FeedTrimmed {
                ..
            }))) if attempt < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

/// A history that is being made.
struct Rebuild<'r, S: ?Sized> {
    store: &'r S,
    aggregate: &'r AggregateId,
    partition: &'r Partition,
    staging: &'r str,
    first_available: Position,
    /// What is to be staged next.
    ready: Vec<(Version, RecordedEvent)>,
    /// What was adopted lies before events of lower versions.
    waiting: BTreeMap<Version, RecordedEvent>,
    next: Version,
    not_adopted: u64,
}

impl<S: Maintenance + ?Sized> Rebuild<'_, S> {
    async fn run(&mut self) -> Result<RebuiltHistory, RebuildHistoryError> {
        let mut after = self.first_available.before();
        loop {
            let entries = self.store.read_feed(self.partition, after, PAGE).await?;
            let is_end = entries.len() < PAGE;
            if let Some(last) = entries.last() {
                after = last.position();
            }
            self.take(entries).await?;
            if !is_end {
                continue;
            }
            if !self.waiting.is_empty() {
                return Err(self.incomplete());
            }
            let version = self.next - 1;
            if version == 0 {
                return Err(match self.first_available {
                    first if first == Position::START.next() => RebuildHistoryError::NotFound {
                        aggregate: self.aggregate.clone(),
                        partition: self.partition.clone(),
                    },
                    _ => self.incomplete(),
                });
            }
            let swap = self
                .store
                .swap_history(self.aggregate, self.staging, after, version);
            match swap.await? {
                Swapped::Done => {
                    return Ok(RebuiltHistory {
                        version,
                        not_adopted: self.not_adopted,
                    });
                }
                Swapped::ReadOn => {}
                Swapped::Lost => {
                    return Err(RebuildHistoryError::Lost {
                        aggregate: self.aggregate.clone(),
                    });
                }
                Swapped::Newer { version: newer } => {
                    return Err(RebuildHistoryError::Newer {
                        aggregate: self.aggregate.clone(),
                        version: newer,
                        found: version,
                    });
                }
            }
        }
    }

    async fn take(&mut self, entries: Vec<FeedEntry>) -> Result<(), RebuildHistoryError> {
        let mut own = Vec::new();
        for entry in entries {
            if let FeedEntry::Event(event) = entry
                && let Ok(Some(aggregate)) = event.aggregate_id()
                && aggregate == *self.aggregate
            {
                own.push(event);
            }
        }
        if own.is_empty() {
            return Ok(());
        }
        let positions: Vec<_> = own.iter().map(RecordedEvent::position).collect();
        let adopted = self
            .store
            .adopted_versions(self.partition, &positions)
            .await?;
        for (event, adopted) in own.into_iter().zip(adopted) {
            let claimed = event.aggregate().map_or(0, |own| own.version);
            let version = adopted.unwrap_or(claimed);
            if version == 0 {
                self.not_adopted += 1;
                continue;
            }
            let position = event.position();
            if version < self.next || self.waiting.insert(version, event).is_some() {
                return Err(RebuildHistoryError::Twice {
                    aggregate: self.aggregate.clone(),
                    partition: self.partition.clone(),
                    version,
                    position,
                });
            }
            while let Some(event) = self.waiting.remove(&self.next) {
                self.ready.push((self.next, event));
                self.next += 1;
            }
        }
        if self.ready.is_empty() {
            return Ok(());
        }
        let ready = std::mem::take(&mut self.ready);
        self.store
            .stage_history(self.aggregate, self.staging, &ready)
            .await?;
        Ok(())
    }

    fn incomplete(&self) -> RebuildHistoryError {
        RebuildHistoryError::Incomplete {
            aggregate: self.aggregate.clone(),
            partition: self.partition.clone(),
            version: self.next,
            first_available: self.first_available,
        }
    }
}
