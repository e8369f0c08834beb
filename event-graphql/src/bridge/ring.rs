//! The newest entries of a partition, for all clients that keep up.

use std::collections::VecDeque;
use std::sync::Arc;

use event_core::Position;

use super::entry::Entry;

/// How many entries clients may be behind and still be served from memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

/// The newest entries of a partition, without a gap: all that lie behind `floor`, up to `head`.
pub(crate) struct Ring {
    window: Window,
    entries: VecDeque<Arc<Entry>>,
    floor: Position,
    head: Position,
    bytes: usize,
    /// How many entries have left. It numbers those that are there.
    left: u64,
}

/// What a client that has come to a position finds.
pub(crate) enum Look {
    /// What comes next, at least one; and the number of what follows on it.
    Next(Vec<Arc<Entry>>, u64),
    /// Nothing yet; and the number of what will come.
    UpToDate(u64),
    /// What comes next has left the ring, or was never in it. What is there begins with this number.
    Behind(u64),
}

impl Ring {
    /// A ring that knows nothing of what lies up to `floor`.
    pub(crate) fn new(window: Window, floor: Position) -> Self {
        Self {
            window,
            entries: VecDeque::new(),
            floor,
            head: floor,
            bytes: 0,
            left: 0,
        }
    }

    pub(crate) fn floor(&self) -> Position {
        self.floor
    }

    pub(crate) fn head(&self) -> Position {
        self.head
    }

    /// Adds what comes next; the oldest leave.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.pass(entry.event().position());
        self.bytes += entry.bytes();
        self.entries.push_back(Arc::new(entry));
        while self.entries.len() > self.window.entries || self.bytes > self.window.bytes {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
            self.floor = oldest.event().position();
            self.left += 1;
        }
    }

    /// What lies there is nothing for clients.
    pub(crate) fn pass(&mut self, position: Position) {
        self.head = position.max(self.head);
    }

    /// At most `limit` of what lies behind `position`.
    pub(crate) fn after(&self, position: Position, limit: usize) -> Look {
        if position < self.floor {
            return Look::Behind(self.left);
        }
        let seen = |entry: &Arc<Entry>| entry.event().position() <= position;
        let first = self.entries.partition_point(seen);
        let next: Vec<_> = self
            .entries
            .iter()
            .skip(first)
            .take(limit)
            .cloned()
            .collect();
        let number = self.left + (first + next.len()) as u64;
        if next.is_empty() {
            return Look::UpToDate(number);
        }
        Look::Next(next, number)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use event_core::prelude::*;
    use event_core::{Codec, RecordedEvent};
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, Event)]
    #[event("ring.turned")]
    struct Turned {
        text: String,
    }

    fn entry(at: u64, length: usize) -> Entry {
        let text = "x".repeat(length);
        let new = Codec::default().encode(&Turned { text }).unwrap();
        let position = Position::new(at, 0);
        let metadata = new.metadata().clone();
        Entry::new(RecordedEvent::new(
            new.event_type(),
            new.payload(),
            position,
            None,
            metadata,
        ))
    }

    proptest! {
        /// Whoever follows by `after`, and reads elsewhere what has left, sees everything once.
        #[test]
        fn nothing_is_missing_and_nothing_comes_twice(
            steps in proptest::collection::vec((0_u8..3, 0_usize..4_000), 1..80),
            capacity in 1_usize..8,
        ) {
            let window = Window { entries: capacity, bytes: 8_000 };
            let mut ring = Ring::new(window, Position::START);
            let (mut pushed, mut seen, mut at) = (Vec::new(), Vec::new(), Position::START);
            for (what, length) in steps {
                match what {
                    0 | 1 => {
                        let next = pushed.len() as u64 + 1;
                        ring.push(entry(next, length));
                        pushed.push(Position::new(next, 0));
                    }
                    _ => match ring.after(at, 3) {
                        Look::Next(entries, _) => {
                            for entry in entries {
                                at = entry.event().position();
                                seen.push(at);
                            }
                        }
                        Look::UpToDate(_) => prop_assert_eq!(&seen, &pushed),
                        Look::Behind(_) => {
                            let missed = pushed.iter().filter(|p| **p > at && **p <= ring.floor());
                            seen.extend(missed.copied());
                            at = ring.floor();
                        }
                    },
                }
                prop_assert!(ring.len() <= capacity);
                prop_assert!(pushed.starts_with(&seen));
            }
        }
    }
}
