//! Recordings: events of a store, kept in a file that a test can replay.

mod error;
mod file;
mod line;
mod merge;
mod recorder;
mod restoring;

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::str::FromStr;

pub use error::RecordingError;
pub use file::RecordingReader;
pub use line::RecordingLine;
pub use recorder::{Recorder, Redaction};

use crate::store::EventStore;
use restoring::Restoring;

/// Events as they lay in a store, in the order in which it took them in.
///
/// As a file it has one event a line, as JSON in the stored form: readable, editable by hand, and with
/// its keys always in the same order, so that two recordings can be compared line by line.
///
/// | key | holds |
/// |---|---|
/// | `position` | where it lay |
/// | `partition` | the number of its partition; left away where that is 0 |
/// | `type` | its type, whose first segment is the category |
/// | `payload` | its payload |
/// | `aggregate` | its aggregate's type and id and its version, where it has one |
/// | `metadata` | the rest; what is left out is filled in, as for entries of foreign writers |
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Category, Recording};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("github.push")]
/// # struct GithubPush { repository: String, author: String }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # let store = MemoryStore::new();
/// # let service = Service::builder("recorded").without_discovered_handlers().store(store.clone()).build()?;
/// # service.publish(GithubPush { repository: "octo/hello".into(), author: "Mona".into() }).await?;
/// let recording = Recording::of(&store)
///     .category(Category::new("github")?)
///     .redact(|event| event.payload["author"] = "somebody".into())
///     .record()
///     .await?;
///
/// // As it was, into a store that has none of it:
/// let other = MemoryStore::new();
/// recording.restore_into(&other).await?;
/// let again = Recording::of(&other).category(Category::new("github")?).record().await?;
/// assert_eq!(again, recording);
/// assert!(again.to_text()?.contains(r#""payload":{"author":"somebody","repository":"octo/hello"}"#));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    lines: Vec<RecordingLine>,
}

impl Recording {
    /// Begins to take one from a store.
    pub fn of(store: &dyn EventStore) -> Recorder<'_> {
        Recorder::new(store)
    }

    /// One of these events, in this order.
    pub fn from_lines(lines: Vec<RecordingLine>) -> Self {
        Self { lines }
    }

    /// Reads a file whole. For one that is larger than memory, see [`RecordingReader`].
    ///
    /// # Errors
    /// [`RecordingError::File`] where it cannot be read; [`RecordingError::Line`] where a line of it is no
    /// event, with its number.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        Self::gather(RecordingReader::open(path)?)
    }

    fn gather(
        lines: impl Iterator<Item = Result<RecordingLine, RecordingError>>,
    ) -> Result<Self, RecordingError> {
        Ok(Self {
            lines: lines.collect::<Result<_, _>>()?,
        })
    }

    /// Writes a file, in the place of one that is there.
    ///
    /// # Errors
    /// [`RecordingError::File`] where it cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), RecordingError> {
        let path = path.as_ref();
        let failed = |source| RecordingError::file(path, source);
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        for line in &self.lines {
            writeln!(file, "{}", line.to_json()?).map_err(failed)?;
        }
        file.flush().map_err(failed)
    }

    /// Its text, as a file has it.
    ///
    /// # Errors
    /// [`RecordingError::Codec`] where metadata cannot be written as JSON.
    pub fn to_text(&self) -> Result<String, RecordingError> {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&line.to_json()?);
            text.push('\n');
        }
        Ok(text)
    }

    /// Its events, in order.
    pub fn lines(&self) -> &[RecordingLine] {
        &self.lines
    }

    /// Its events, in order, to be changed.
    pub fn lines_mut(&mut self) -> &mut Vec<RecordingLine> {
        &mut self.lines
    }

    /// How many events it has.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Stores all events in a store as they were recorded: with their positions, times and versions, in
    /// the feeds and in the histories of their aggregates. Nothing is published or handled by that.
    ///
    /// # Errors
    /// [`RecordingError::Restore`] where the store has later positions already, or an aggregate's events
    /// do not follow on what it has; what came before in the recording may be stored then.
    pub async fn restore_into(&self, store: &dyn EventStore) -> Result<(), RecordingError> {
        let mut restoring = Restoring::new(store);
        for line in &self.lines {
            restoring.take(line.clone()).await?;
        }
        restoring.finish().await?;
        Ok(())
    }
}

impl FromStr for Recording {
    type Err = RecordingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::gather(RecordingReader::new(BufReader::new(text.as_bytes())))
    }
}
