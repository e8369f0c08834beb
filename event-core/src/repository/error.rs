//! What goes wrong with loads and commands.

use std::fmt;

use crate::BoxError;
use crate::codec::CodecError;
use crate::recorded::{AggregateId, InvalidAggregateId, Version};
use crate::store::{AppendError, CompactError, ReadError};

/// A load or a command that failed.
#[derive(thiserror::Error)]
pub enum RepositoryError {
    /// The aggregate refuses the command.
    #[error("`{aggregate}` refuses: {reason}")]
    Rejected {
        /// The aggregate.
        aggregate: AggregateId,
        /// Its own error.
        #[source]
        reason: BoxError,
    },
    /// The aggregate has no events, or had none by then.
    #[error("there is no aggregate `{aggregate}`")]
    NotFound {
        /// The aggregate.
        aggregate: AggregateId,
    },
    /// The aggregate has not got so far.
    #[error("`{aggregate}` has no version {wanted}; its newest is {highest}")]
    NoSuchVersion {
        /// The aggregate.
        aggregate: AggregateId,
        /// The version that was asked for.
        wanted: Version,
        /// The newest there is.
        highest: Version,
    },
    /// A history is compacted behind a snapshot, and the repository keeps none.
    #[error(
        "`{aggregate}` cannot be compacted, since its repository keeps no snapshots; give the aggregate `SNAPSHOTS`, or the repository `with_snapshots`"
    )]
    WithoutSnapshots {
        /// The aggregate.
        aggregate: AggregateId,
    },
    /// The state cannot be written as JSON.
    #[error("the state of `{aggregate}` cannot be written as JSON, so that there is no snapshot")]
    State {
        /// The aggregate.
        aggregate: AggregateId,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The history could not be compacted.
    #[error(transparent)]
    Compact(CompactError),
    /// A name that no aggregate can have.
    #[error(transparent)]
    InvalidId(#[from] InvalidAggregateId),
    /// An event could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The store did not take the events.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The history could not be read.
    #[error(transparent)]
    Read(ReadError),
}

/// As [`Display`](fmt::Display), with the sources: a `main` that returns an error, and a test that
/// unwraps one, print this, and the sentence is for those who read it there.
impl fmt::Debug for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = std::error::Error::source(self);
        if let RepositoryError::Rejected { reason, .. } = self {
            // It is in the sentence already.
            source = reason.source();
        }
        while let Some(error) = source {
            write!(f, "\n  because: {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl From<ReadError> for RepositoryError {
    fn from(error: ReadError) -> Self {
        Self::of_read(error)
    }
}

impl RepositoryError {
    pub(super) fn of_read(error: ReadError) -> Self {
        match error {
            ReadError::NotFound { aggregate } => Self::NotFound { aggregate },
            other => Self::Read(other),
        }
    }

    /// Whether what was asked for needs an event that was dropped.
    pub(super) fn is_history_trimmed(&self) -> bool {
        matches!(self, Self::Read(ReadError::HistoryTrimmed { .. }))
    }

    /// The aggregate's own error, where it refused the command and `E` is that error's type.
    pub fn rejection<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            RepositoryError::Rejected { reason, .. } => reason.downcast_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Category;
    use crate::store::StoreError;

    fn aggregate() -> AggregateId {
        AggregateId::new(Category::new("sdlc").unwrap(), "project", "gothic").unwrap()
    }

    #[test]
    fn debug_is_the_sentence_and_its_sources() {
        let rejected = RepositoryError::Rejected {
            aggregate: aggregate(),
            reason: "it is done".into(),
        };
        assert_eq!(format!("{rejected:?}"), rejected.to_string());

        let refused = RepositoryError::from(AppendError::from(StoreError::Refused {
            operation: "append",
            source: "NOPERM no".into(),
        }));
        assert_eq!(
            format!("{refused:?}"),
            format!("{refused}\n  because: NOPERM no")
        );
    }
}
