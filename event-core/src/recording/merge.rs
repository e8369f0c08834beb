//! Several partitions read as one, in the order in which the store took their events in.

use std::collections::VecDeque;

use crate::event::Category;
use crate::partition::Partition;
use crate::positions::Positions;
use crate::recorded::Position;
use crate::store::{EventStore, FeedEntry, ReadError};

/// How many entries of a partition are read at once.
const BATCH: usize = 500;

/// Reads feeds from one position to another, by the positions of their entries.
pub(super) struct Merge<'a> {
    store: &'a dyn EventStore,
    sources: Vec<Source>,
}

struct Source {
    partition: Partition,
    entries: VecDeque<FeedEntry>,
    /// Everything up to here is read.
    after: Position,
    /// Nothing behind this is read.
    end: Position,
}

impl<'a> Merge<'a> {
    /// Begins to read. What is appended from now on is not among it.
    pub(super) async fn begin(
        store: &'a dyn EventStore,
        categories: impl IntoIterator<Item = &Category>,
        positions: Positions,
    ) -> Result<Self, ReadError> {
        let mut sources = Vec::new();
        for category in categories {
            for number in 0..store.partitions(category).await? {
                let partition = Partition::new(category.clone(), number);
                sources.push(Source {
                    end: positions.end().min(store.head(&partition).await?),
                    partition,
                    entries: VecDeque::new(),
                    after: positions.begin(),
                });
            }
        }
        Ok(Self { store, sources })
    }

    /// The next entry of all; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(Partition, FeedEntry)>, ReadError> {
        let mut first: Option<(Position, usize)> = None;
        for (number, source) in self.sources.iter_mut().enumerate() {
            source.fill(self.store).await?;
            if let Some(entry) = source.entries.front() {
                let position = entry.position();
                if first.is_none_or(|(first, _)| position < first) {
                    first = Some((position, number));
                }
            }
        }
        let Some((_, number)) = first else {
            return Ok(None);
        };
        let source = &mut self.sources[number];
        let entry = source.entries.pop_front();
        Ok(entry.map(|entry| (source.partition.clone(), entry)))
    }
}

impl Source {
    async fn fill(&mut self, store: &dyn EventStore) -> Result<(), ReadError> {
        if !self.entries.is_empty() || self.after >= self.end {
            return Ok(());
        }
        let mut read = store.read_feed(&self.partition, self.after, BATCH).await?;
        match read.last() {
            Some(last) => self.after = last.position(),
            None => self.after = self.end,
        }
        read.retain(|entry| entry.position() <= self.end);
        self.entries = read.into();
        Ok(())
    }
}
