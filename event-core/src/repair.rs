//! Repair: feeds and histories compared, histories made anew, and entries of other programs adopted. All
//! of it while others write and read.

mod adopt;
mod checks;
mod compare;
mod findings;
mod rebuild;
mod verify;

pub use adopt::{Adoption, adopt};
pub use checks::Checks;
pub use findings::{Finding, Findings, Found};
pub use rebuild::{RebuildHistoryError, RebuiltHistory, rebuild_history};
pub use verify::{verify, verify_aggregate};

use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{FeedEntry, Maintenance, ReadError, StoreError};

/// Entries that are read at once.
const PAGE: usize = 500;

/// Reads a partition page by page, from where it is whole up to where it ended when that began.
struct Pages<'s, S: ?Sized> {
    store: &'s S,
    partition: Partition,
    after: Position,
    end: Position,
}

impl<'s, S: Maintenance + ?Sized> Pages<'s, S> {
    async fn new(store: &'s S, partition: &Partition) -> Result<Self, ReadError> {
        Ok(Self {
            end: store.head(partition).await?,
            after: store.first_available(partition).await?.before(),
            store,
            partition: partition.clone(),
        })
    }

    /// The next entries; none at the end.
    async fn next(&mut self) -> Result<Vec<FeedEntry>, ReadError> {
        while self.after < self.end {
            let read = self.store.read_feed(&self.partition, self.after, PAGE);
            match read.await {
                Ok(mut entries) => {
                    entries.retain(|entry| entry.position() <= self.end);
                    self.after = entries.last().map_or(self.end, FeedEntry::position);
                    return Ok(entries);
                }
                // It was trimmed meanwhile: what is gone is nobody's any more.
                Err(ReadError::Store(StoreError::FeedTrimmed {
                    first_available, ..
                })) => self.after = self.after.max(first_available.before()),
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }
}
