//! The scan: the newest events of all categories, read back from the end.

use std::collections::VecDeque;

use event_core::{Backend, Category, FeedEntry, Partition, Position, ReadError};

use super::{Correlated, SCANNED};

/// How many entries are read at once: few at first, since what is asked for is new as a rule.
const PAGES: (usize, usize) = (64, 2_000);

/// By how much the clocks of two nodes may differ, in milliseconds: so far behind the first event of a
/// correlation its others are looked for still.
const CLOCKS_DIFFER: u64 = 5_000;

/// A partition that is being read back.
struct Back {
    partition: Partition,
    before: Position,
    page: usize,
    read: VecDeque<FeedEntry>,
    is_at_its_beginning: bool,
}

impl Back {
    fn new(partition: Partition) -> Self {
        Self {
            partition,
            before: Position::END,
            page: PAGES.0,
            read: VecDeque::new(),
            is_at_its_beginning: false,
        }
    }

    /// Where the next entry lies; `None` where there is none.
    async fn next(&mut self, store: &dyn Backend) -> Result<Option<Position>, ReadError> {
        if self.read.is_empty() && !self.is_at_its_beginning {
            let read = store.read_feed_back(&self.partition, self.before, self.page);
            self.read = read.await?.into();
            self.is_at_its_beginning = self.read.len() < self.page;
            self.page = (self.page * 2).min(PAGES.1);
            if let Some(last) = self.read.back() {
                self.before = last.position();
            }
        }
        Ok(self.read.front().map(FeedEntry::position))
    }
}

/// Looks through the newest events, all categories together, from the newest back.
pub(super) async fn find(
    store: &dyn Backend,
    categories: &[Category],
    correlation_id: &str,
) -> Result<Correlated, ReadError> {
    let mut parts = Vec::new();
    for category in categories {
        let count = store.partitions(category).await?;
        parts.extend((0..count).map(|number| Back::new(Partition::new(category.clone(), number))));
    }
    let mut found = Correlated {
        events: Vec::new(),
        complete: false,
        read: 0,
        indexed: false,
    };
    let mut oldest = 0;
    while found.read < SCANNED {
        let mut newest: Option<(Position, usize)> = None;
        for (index, part) in parts.iter_mut().enumerate() {
            if let Some(position) = part.next(store).await? {
                newest = newest.max(Some((position, index)));
            }
        }
        let Some((position, index)) = newest else {
            found.complete = true;
            break;
        };
        if position.milliseconds() < oldest {
            found.complete = true;
            break;
        }
        found.read += 1;
        let entry = parts.get_mut(index).and_then(|part| part.read.pop_front());
        let Some(FeedEntry::Event(event)) = entry else {
            continue;
        };
        let metadata = event.metadata();
        if metadata.correlation_id == correlation_id {
            // The correlation is named after the event that began it.
            if metadata.event_id.to_string() == correlation_id {
                oldest = position.milliseconds().saturating_sub(CLOCKS_DIFFER);
            }
            found.events.push(event);
        }
    }
    Ok(found)
}
