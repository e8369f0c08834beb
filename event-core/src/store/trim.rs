//! Trimming: the beginning of a feed is removed when it is old enough and nobody needs it any more.

use std::fmt;
use std::time::Duration;

use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::ProjectionCheckpoint;

/// What is kept of a feed. What lies beyond one of the limits may go; without any, everything stays.
///
/// It says what *may* go. What a group or a projection has still to read stays all the same, and histories
/// keep all events of their aggregates.
///
/// ```
/// use std::time::Duration;
/// use event_core::TrimPolicy;
///
/// let month = Duration::from_secs(30 * 24 * 60 * 60);
/// // A month, but never more than ten million entries or about 4 GiB in each partition:
/// let policy = TrimPolicy::new().max_age(month).max_entries(10_000_000).max_bytes(4 << 30);
/// assert!(!policy.keeps_everything());
/// assert!(TrimPolicy::new().keeps_everything());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrimPolicy {
    age: Option<Duration>,
    entries: Option<u64>,
    bytes: Option<u64>,
}

impl TrimPolicy {
    /// Keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries that the store took in longer ago than this may go.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Of each partition, all but the newest `count` entries may go.
    pub fn max_entries(mut self, count: u64) -> Self {
        self.entries = Some(count);
        self
    }

    /// Of each partition, all but the newest entries that together take about so many bytes may go. These
    /// are bytes in the store's memory, which the store estimates.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// The age, where it has a limit.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// The number of entries of a partition, where it has a limit.
    pub fn entries(&self) -> Option<u64> {
        self.entries
    }

    /// The bytes of a partition, where they have a limit.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Whether nothing may go.
    pub fn keeps_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// What was trimmed of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// The partition.
    pub partition: Partition,
    /// How many entries were removed now.
    pub removed: u64,
    /// From this position on the feed is whole.
    pub first_available: Position,
    /// Who needs the first entry that would have been removed, too; `None` where nobody does.
    pub held_back_by: Option<HeldBack>,
}

/// Somebody who has still to read what would have been removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// Who: the name of a group, `group/handler` for a handler with parallel delivery, `projection` with a
    /// name and a version, or what another program has called its consumer group.
    pub by: String,
    /// What lies behind this position is needed.
    pub needs_after: Position,
}

impl HeldBack {
    /// Of some projections, the one that needs the most of a partition.
    pub fn of_projections(
        checkpoints: impl IntoIterator<Item = ProjectionCheckpoint>,
    ) -> Option<Self> {
        let furthest = checkpoints.into_iter().min_by_key(|one| one.position)?;
        Some(Self {
            by: format!("projection {}", furthest.id),
            needs_after: furthest.position,
        })
    }
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` has still to finish what lies behind {}",
            self.by, self.needs_after
        )
    }
}
