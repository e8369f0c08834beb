//! Positions: which stretch of a feed is read.

use chrono::{DateTime, Utc};

use crate::recorded::Position;

/// Which stretch of feeds to read: the same in each of their partitions.
///
/// Times are those at which the store took the events in, as positions have them, and not those that
/// the events have in their metadata.
///
/// ```
/// use event_core::Positions;
///
/// let everything = Positions::all();
/// let a_day = Positions::since("2025-11-22T00:00:00Z".parse()?).until("2025-11-23T00:00:00Z".parse()?);
/// let behind_one = Positions::after("1763900000000-3".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    after: Position,
    to: Position,
}

impl Positions {
    /// All of them.
    pub fn all() -> Self {
        Self::after(Position::START)
    }

    /// Those behind this position.
    pub fn after(position: Position) -> Self {
        Self {
            after: position,
            to: Position::END,
        }
    }

    /// Those of this time and later.
    pub fn since(time: DateTime<Utc>) -> Self {
        Self::after(first_of(time).before())
    }

    /// Not those behind this position.
    pub fn to(mut self, position: Position) -> Self {
        self.to = position;
        self
    }

    /// Not those of this time and later.
    pub fn until(self, time: DateTime<Utc>) -> Self {
        self.to(first_of(time).before())
    }

    /// The position that they begin behind.
    pub(crate) fn begin(&self) -> Position {
        self.after
    }

    /// The last position that is among them.
    pub(crate) fn end(&self) -> Position {
        self.to
    }
}

impl Default for Positions {
    fn default() -> Self {
        Self::all()
    }
}

/// The first position there can be at a time.
fn first_of(time: DateTime<Utc>) -> Position {
    Position::new(
        u64::try_from(time.timestamp_millis()).unwrap_or_default(),
        0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_begins_with_its_first_position() {
        let time = DateTime::from_timestamp_millis(1_000).unwrap();
        let positions = Positions::since(time).until(time);
        let last_before = Position::new(999, u64::MAX);
        assert_eq!(
            (positions.begin(), positions.end()),
            (last_before, last_before)
        );
        let from_the_beginning = Positions::since(DateTime::UNIX_EPOCH);
        assert_eq!(from_the_beginning, Positions::all());
    }
}
