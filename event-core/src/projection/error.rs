//! What goes wrong with projections.

use std::sync::Arc;
use std::time::Duration;

use crate::BoxError;
use crate::codec::CodecError;
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{ProjectionId, ReadError, ServeError, StoreError};

/// An event that a projection cannot take in.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionFailure {
    /// The entry is no event. If it is none that anybody needs, delete it (`XDEL`).
    #[error("the entry is no event; delete it if nobody needs it: {0}")]
    Undecodable(#[source] CodecError),
    /// What it needs is gone.
    #[error(
        "what lies before it was trimmed away, and the projection cannot be made without; keep an older version of it, or restore the feed from a recording"
    )]
    Trimmed,
    /// The event does not fit what a method takes.
    #[error("the event cannot be read by the projection; mend its type or add an upcast: {0}")]
    Unreadable(#[source] CodecError),
    /// A method's own error.
    #[error("a method of the projection failed: {0}")]
    Failed(#[source] BoxError),
    /// A method panicked.
    #[error("a method of the projection panicked: {0}")]
    Panicked(String),
    /// Something was to be added to a field that holds no whole number, or the sum is too large.
    #[error(
        "field `{field}` of `{key}` cannot be incremented; it holds something other than a whole number, or would be larger than 2^53 - 1"
    )]
    NotACount {
        /// The key.
        key: String,
        /// The field.
        field: String,
    },
    /// The user's own database refused a batch.
    #[error("the sink did not take its events: {0}")]
    Sink(#[source] BoxError),
}

/// A projection that goes no further in a partition. What lies before the event is in its state, and the
/// event is tried again and again: nothing is skipped.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "projection `{id}` has stopped before the event at {position} of `{partition}`, and tries it again: {failure}"
)]
pub struct ProjectionStopped {
    /// The projection.
    pub id: ProjectionId,
    /// The partition.
    pub partition: Partition,
    /// Where the event lies.
    pub position: Position,
    /// What is wrong.
    #[source]
    pub failure: Arc<ProjectionFailure>,
}

/// Something that was not done with a projection.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The service has no projection of this name.
    #[error("this service has no projection `{name}`; add it by `.projection(…)` when it is built")]
    NotRegistered {
        /// The name.
        name: String,
    },
    /// No version of the projection is filled yet.
    #[error("no version of projection `{name}` is there yet; run the service that fills it")]
    NotServed {
        /// The name.
        name: String,
    },
    /// What was waited for is not there in time.
    #[error(
        "projection `{name}` has not come so far within {waited:?}: `{partition}` is at {reached}, and {wanted} is waited for; see in the service's health whether it is stopped"
    )]
    Behind {
        /// The name.
        name: String,
        /// What is behind.
        partition: Partition,
        /// Where it is.
        reached: Position,
        /// What was waited for.
        wanted: Position,
        /// For how long.
        waited: Duration,
    },
    /// A value is not in the form that was asked for.
    #[error("what projection `{name}` has for `{key}` has another form: {source}")]
    Form {
        /// The name.
        name: String,
        /// The key.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It goes no further.
    #[error(transparent)]
    Stopped(#[from] ProjectionStopped),
    /// The newest version that the service has is the one that is read.
    #[error(
        "projection `{id}` is the version that is read; register one with a higher version to rebuild it"
    )]
    NothingToRebuild {
        /// The version.
        id: ProjectionId,
    },
    /// Another process rebuilds it.
    #[error("projection `{id}` is being filled by another instance; wait for it")]
    Held {
        /// The version.
        id: ProjectionId,
    },
    /// It cannot be switched to, or not be dropped.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A feed could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Handlers that have not come so far in time.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// They are behind.
    #[error(
        "group `{group}` has not handled everything up to {wanted} of `{partition}` within {waited:?}: its checkpoint is at {reached}"
    )]
    Behind {
        /// The group.
        group: String,
        /// What is behind.
        partition: Partition,
        /// Where it is.
        reached: Position,
        /// What was waited for.
        wanted: Position,
        /// For how long.
        waited: Duration,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be read what partitions there are.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl WaitError {
    /// Whether it may be there later.
    pub fn is_behind(&self) -> bool {
        matches!(self, WaitError::Behind { .. })
    }
}
