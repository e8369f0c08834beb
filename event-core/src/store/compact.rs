//! Compaction: the beginning of one aggregate's history is dropped, behind a snapshot.

use crate::recorded::{AggregateId, Version};
use crate::store::StoreError;

/// What a compaction has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// How many events were dropped now.
    pub removed: u64,
    /// The version of the first event that is still there.
    pub first_available: Version,
}

/// A history that was not compacted. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The aggregate has no events.
    #[error("there is no aggregate `{aggregate}`")]
    NotFound {
        /// The aggregate.
        aggregate: AggregateId,
    },
    /// The snapshot is not of this history.
    #[error(
        "the history of `{aggregate}` has another event at version {version} than the snapshot, or none; load it anew, and then compact it again"
    )]
    OtherHistory {
        /// The aggregate.
        aggregate: AggregateId,
        /// The version of the snapshot.
        version: Version,
    },
    /// A snapshot is kept that a newer program has written, and that one could load nothing any more.
    #[error(
        "the snapshot that is kept of `{aggregate}` is of version {kept} of the state, and this program knows version {known}; compact it with the newer program"
    )]
    NewerState {
        /// The aggregate.
        aggregate: AggregateId,
        /// The version of the state that is kept.
        kept: u32,
        /// The version that this program knows.
        known: u32,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
