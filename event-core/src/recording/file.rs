//! Recordings in files, read line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::restoring::Restoring;
use super::{RecordingError, RecordingLine};
use crate::store::EventStore;

/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 64 << 20;

/// Reads a recording line by line, so that one may be larger than memory. Empty lines are passed over.
///
/// ```no_run
/// # use event_core::{BoxError, MemoryStore, RecordingReader};
/// # async fn restore() -> Result<(), BoxError> {
/// let store = MemoryStore::new();
/// let restored = RecordingReader::open("large.jsonl")?.restore_into(&store).await?;
/// println!("{restored} events");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RecordingReader<R = BufReader<File>> {
    lines: R,
    path: Option<PathBuf>,
    number: u64,
    buffer: String,
    has_ended: bool,
}

impl RecordingReader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`RecordingError::File`] where it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| RecordingError::file(path, source))?;
        Ok(Self {
            path: Some(path.to_owned()),
            ..Self::new(BufReader::new(file))
        })
    }
}

impl<R: BufRead> RecordingReader<R> {
    /// Reads lines from anywhere.
    pub fn new(lines: R) -> Self {
        Self {
            lines,
            path: None,
            number: 0,
            buffer: String::new(),
            has_ended: false,
        }
    }

    /// As [`Recording::restore_into`](super::Recording::restore_into), without having all of it in
    /// memory; gives the number of events.
    ///
    /// # Errors
    /// As there, and those of reading.
    pub async fn restore_into(self, store: &dyn EventStore) -> Result<u64, RecordingError> {
        let mut restoring = Restoring::new(store);
        for line in self {
            restoring.take(line?).await?;
        }
        restoring.finish().await
    }

    fn read_line(&mut self) -> Result<Option<RecordingLine>, RecordingError> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let read = (&mut self.lines)
                .take(LONGEST_LINE)
                .read_line(&mut self.buffer);
            let bytes = match (read, &self.path) {
                (Ok(bytes), _) => bytes,
                (Err(source), Some(path)) => return Err(RecordingError::file(path, source)),
                (Err(source), None) => return Err(RecordingError::Io(source)),
            };
            if bytes == 0 {
                return Ok(None);
            }
            if bytes as u64 == LONGEST_LINE && !self.buffer.ends_with('\n') {
                let reason = format!("it is longer than {LONGEST_LINE} bytes");
                return Err(self.refused(bytes, reason));
            }
            if !self.buffer.trim().is_empty() {
                break;
            }
        }
        match RecordingLine::from_json(self.buffer.trim_end()) {
            Ok(line) => Ok(Some(line)),
            Err(error) => {
                let text = error.to_string();
                // The line is that of the text which the parser has seen: always 1.
                let reason = text.split(" at line 1 column").next().unwrap_or(&text);
                Err(self.refused(error.column(), reason.to_owned()))
            }
        }
    }

    fn refused(&self, column: usize, reason: String) -> RecordingError {
        RecordingError::Line {
            path: self.path.clone(),
            line: self.number,
            column,
            reason,
        }
    }
}

impl<R: BufRead> Iterator for RecordingReader<R> {
    type Item = Result<RecordingLine, RecordingError>;

    /// The next event. After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let read = self.read_line().transpose();
        self.has_ended = !matches!(read, Some(Ok(_)));
        read
    }
}
