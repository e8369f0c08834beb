use std::fmt;

use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, Version};

/// What a [`verify`](crate::verify) has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// How many histories were looked at.
    pub histories: u64,
    /// How many events of histories.
    pub events: u64,
    /// How many entries of feeds.
    pub entries: u64,
    /// Events of histories that the feed does not have, though it is whole there.
    pub missing_in_feed: Found,
    /// Entries of an aggregate that its history does not have. [`adopt`](crate::adopt) puts there what
    /// another program has written.
    pub missing_in_history: Found,
    /// Events that the history has in another form than the feed.
    pub different: Found,
    /// Events of a history that lie before the one of the version before in the feed.
    pub out_of_order: Found,
    /// Histories in which a version is missing, or is there twice.
    pub holes: Found,
    /// What is not in the stored form, and payloads that the program's types cannot read.
    pub unreadable: Found,
    /// Events of types that this program does not know, so that it is not known whether they can be read.
    /// No mistake.
    pub unknown_types: Found,
    /// Events of histories whose entries were trimmed away, so that there is nothing to compare them with.
    /// No mistake.
    pub trimmed: u64,
    /// Histories whose beginning was dropped behind a snapshot. No mistake.
    pub compacted: u64,
}

impl Findings {
    /// Whether there is no mistake.
    pub fn is_sound(&self) -> bool {
        self.kinds().iter().all(|(_, found)| found.count == 0)
    }

    /// What was found of each kind of mistake.
    pub fn kinds(&self) -> [(&'static str, &Found); 6] {
        [
            ("missing in the feed", &self.missing_in_feed),
            ("missing in the history", &self.missing_in_history),
            ("different", &self.different),
            ("out of order", &self.out_of_order),
            ("holes", &self.holes),
            ("unreadable", &self.unreadable),
        ]
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} histories with {} events and {} entries of feeds",
            self.histories, self.events, self.entries
        )?;
        if self.is_sound() {
            f.write_str(": all sound")?;
        }
        for (kind, found) in self.kinds() {
            if found.count > 0 {
                write!(f, "; {kind}: {}", found.count)?;
            }
        }
        let said = [
            ("of unknown types", self.unknown_types.count),
            ("trimmed away in the feed", self.trimmed),
            ("compacted histories", self.compacted),
        ];
        for (what, count) in said {
            if count > 0 {
                write!(f, "; {what}: {count}")?;
            }
        }
        Ok(())
    }
}

/// What was found of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<Finding>,
}

impl Found {
    pub(super) fn add(&mut self, most: usize, finding: impl FnOnce() -> Finding) {
        self.count += 1;
        if self.first.len() < most {
            self.first.push(finding());
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub partition: Partition,
    /// Where the entry lies, or should.
    pub position: Option<Position>,
    /// Of which aggregate.
    pub aggregate: Option<AggregateId>,
    /// Which of its events.
    pub version: Option<Version>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.partition)?;
        if let Some(position) = self.position {
            write!(f, " at {position}")?;
        }
        if let Some(aggregate) = &self.aggregate {
            write!(f, ", `{aggregate}`")?;
        }
        if let Some(version) = self.version {
            write!(f, " version {version}")?;
        }
        write!(f, ": {}", self.what)
    }
}
