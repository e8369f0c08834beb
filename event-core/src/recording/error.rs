use std::io;
use std::path::{Path, PathBuf};

use crate::codec::CodecError;
use crate::store::{ReadError, RestoreError};

/// A recording that could not be made, read, written or restored.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Nothing says what is to be recorded.
    #[error("there is nothing to record; name a category: `.category(Category::new(\"github\")?)`")]
    NoCategory,
    /// A file cannot be read or written.
    #[error("the recording `{}` cannot be read or written: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that is read or written fails, and is no file.
    #[error("the recording cannot be read or written: {0}")]
    Io(#[source] io::Error),
    /// A line is no event.
    #[error(
        "line {line}, column {column} of the recording{}: {reason}; mend the line, or remove it", path.as_ref().map(|path| format!(" `{}`", path.display())).unwrap_or_default()
    )]
    Line {
        /// The file, where it is one.
        path: Option<PathBuf>,
        /// The number of the line, counted from 1.
        line: u64,
        /// The column, in bytes, counted from 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// An event cannot be written as JSON.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store did not take the events in.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl RecordingError {
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }
}
