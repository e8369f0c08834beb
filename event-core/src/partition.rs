//! Partitions: the parts of a feed, among which its events are spread by what must stay in order.

use std::fmt;

use crc::{CRC_16_XMODEM, Crc};

use crate::codec::NewEvent;
use crate::event::Category;
use crate::recorded::{AggregateId, RecordedEvent};

/// The checksum by which Redis Cluster spreads keys, too.
const CHECKSUM: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// A part of a category's feed. By default a feed has only one, whose number is 0.
///
/// ```
/// use event_core::{Category, Partition};
///
/// let only = Partition::from(Category::new("sdlc")?);
/// assert_eq!(only.to_string(), "sdlc");
/// assert_eq!(Partition::new(Category::new("sdlc")?, 3).to_string(), "sdlc:3");
/// # Ok::<(), event_core::InvalidCategory>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    category: Category,
    number: u32,
}

impl Partition {
    /// The partition of this number, counted from 0.
    pub fn new(category: Category, number: u32) -> Self {
        Self { category, number }
    }

    /// Where the events of an aggregate lie, in a feed of `count` partitions.
    pub fn of_aggregate(aggregate: &AggregateId, count: u32) -> Self {
        let category = aggregate.category().clone();
        match count {
            0 | 1 => Self::new(category, 0),
            _ => Self::new(category, spread(aggregate.to_string().as_bytes(), count)),
        }
    }

    /// Where an event of no aggregate lies, in a feed of `count` partitions: by its key, or by its
    /// id where it has none.
    pub fn of_event(category: Category, event: &NewEvent, count: u32) -> Self {
        let number = match (count, &event.metadata().key) {
            (0 | 1, _) => 0,
            (_, Some(key)) => spread(key.as_bytes(), count),
            (_, None) => spread(event.metadata().event_id.to_string().as_bytes(), count),
        };
        Self::new(category, number)
    }

    /// Where a recorded event lies, in a feed of `count` partitions.
    pub(crate) fn of_recorded(category: Category, event: &RecordedEvent, count: u32) -> Self {
        let number = match (count, key_of(event)) {
            (0 | 1, _) => 0,
            (_, Some(key)) => spread(key.as_bytes(), count),
            (_, None) => spread(event.metadata().event_id.to_string().as_bytes(), count),
        };
        Self::new(category, number)
    }

    /// The category whose feed it is a part of.
    pub fn category(&self) -> &Category {
        &self.category
    }

    /// Its number, counted from 0.
    pub fn number(&self) -> u32 {
        self.number
    }
}

fn spread(key: &[u8], count: u32) -> u32 {
    u32::from(CHECKSUM.checksum(key)) % count
}

impl From<Category> for Partition {
    fn from(category: Category) -> Self {
        Self::new(category, 0)
    }
}

impl From<&Category> for Partition {
    fn from(category: &Category) -> Self {
        Self::new(category.clone(), 0)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(f, "{}", self.category),
            number => write!(f, "{}:{number}", self.category),
        }
    }
}

/// What must stay in order with an event: its aggregate, else its key; `None` where nothing must.
pub(crate) fn key_of(event: &RecordedEvent) -> Option<String> {
    match event.aggregate() {
        Some(aggregate) => Some(format!("{}:{}", aggregate.aggregate_type, aggregate.id)),
        None => event.metadata().key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_key_lies_in_one_partition() {
        // The checksum of the specification's own example.
        assert_eq!(CHECKSUM.checksum(b"123456789"), 0x31C3);
        let shop = Category::new("shop").unwrap();
        let order = |id: &str| AggregateId::new(shop.clone(), "order", id).unwrap();
        let all: std::collections::BTreeSet<_> = (0..100)
            .map(|id| Partition::of_aggregate(&order(&id.to_string()), 4))
            .collect();
        assert_eq!(all.len(), 4);
        assert_eq!(
            Partition::of_aggregate(&order("7"), 4),
            Partition::of_aggregate(&order("7"), 4)
        );
        assert_eq!(Partition::of_aggregate(&order("7"), 1).number(), 0);
    }
}
