//! From the lines of a recording to what a store takes in at once.

use std::collections::BTreeMap;

use super::{RecordingError, RecordingLine};
use crate::partition::Partition;
use crate::recorded::RecordedEvent;
use crate::store::{EventStore, Restore};

/// How many events of a partition are stored at once, at most.
const BATCH: usize = 500;

/// The bytes of their payloads above which fewer are.
const BATCH_BYTES: usize = 1 << 20;

/// Gathers events by partition, and stores them.
pub(super) struct Restoring<'a> {
    store: &'a dyn EventStore,
    gathered: BTreeMap<Partition, Gathered>,
    count: u64,
}

#[derive(Default)]
struct Gathered {
    events: Vec<RecordedEvent>,
    bytes: usize,
}

impl<'a> Restoring<'a> {
    pub(super) fn new(store: &'a dyn EventStore) -> Self {
        Self {
            store,
            gathered: BTreeMap::new(),
            count: 0,
        }
    }

    pub(super) async fn take(&mut self, line: RecordingLine) -> Result<(), RecordingError> {
        self.count += 1;
        let gathered = self.gathered.entry(line.partition.clone()).or_default();
        gathered.bytes += line.event.payload().len();
        gathered.events.push(line.event);
        if gathered.events.len() >= BATCH || gathered.bytes >= BATCH_BYTES {
            let events = std::mem::take(gathered).events;
            store(self.store, line.partition, events).await?;
        }
        Ok(())
    }

    /// Stores the rest; gives the number of all.
    pub(super) async fn finish(self) -> Result<u64, RecordingError> {
        for (partition, gathered) in self.gathered {
            store(self.store, partition, gathered.events).await?;
        }
        Ok(self.count)
    }
}

async fn store(
    store: &dyn EventStore,
    partition: Partition,
    events: Vec<RecordedEvent>,
) -> Result<(), RecordingError> {
    let restore = Restore::new(partition, events)?;
    Ok(store.restore(&restore).await?)
}
