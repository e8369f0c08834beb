//! Dead letters: events that a group could not handle, kept in order until somebody decides.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::partition::Partition;
use crate::recorded::{InvalidPosition, Position};
use crate::store::StoreError;

/// The dead letters of groups. Every operation happens whole or not at all, whatever is killed
/// meanwhile.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// The dead letters of a group in a partition, by position: at most `limit` of those after
    /// `after`.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn list_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// One dead letter with the raw entry; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn inspect_dead_letter(
        &self,
        group: &str,
        partition: &Partition,
        id: &DeadLetterId,
    ) -> Result<Option<InspectedDeadLetter>, StoreError>;

    /// Has the chosen ones handled again, in order, by whoever owns the partition. Gives their
    /// number. Each stays a dead letter until it is handled.
    ///
    /// # Errors
    /// [`DeadLetterError::NotFirst`] where one is chosen and others of its key come before it.
    async fn redrive_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        chosen: &Chosen,
    ) -> Result<usize, DeadLetterError>;

    /// Removes the chosen ones for good. Gives their number.
    ///
    /// # Errors
    /// [`DeadLetterError::Store`] where the store does not answer.
    async fn discard_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        chosen: &Chosen,
    ) -> Result<usize, DeadLetterError>;
}

/// Which dead letter: where its entry lies, and which handler could not handle it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadLetterId {
    /// Where the entry lies.
    pub position: Position,
    /// The handler; empty where the entry is no event and so reached none.
    pub handler: String,
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.position, self.handler)
    }
}

impl FromStr for DeadLetterId {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (position, handler) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self {
            position: position.parse()?,
            handler: handler.to_owned(),
        })
    }
}

/// An event that a handler could not handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Where the entry lies.
    pub position: Position,
    /// The handler; empty where the entry is no event and so reached none.
    pub handler: String,
    /// What keeps it in order with others, if anything.
    pub key: Option<String>,
    /// The event's type, where it is an event.
    pub event_type: Option<String>,
    /// The event's id, where it is an event.
    pub event_id: Option<Uuid>,
    /// Why it is one.
    pub reason: DeadLetterReason,
    /// What went wrong the last time, and below it what that came from.
    pub errors: Vec<String>,
    /// How often the handler was called for it.
    pub attempts: u32,
    /// When it failed first.
    pub first_failed_at: DateTime<Utc>,
    /// When it failed last.
    pub last_failed_at: DateTime<Utc>,
    /// Whether it is to be handled again.
    pub redrive: bool,
}

impl DeadLetter {
    /// Which one it is.
    pub fn id(&self) -> DeadLetterId {
        DeadLetterId {
            position: self.position,
            handler: self.handler.clone(),
        }
    }
}

/// Why an event is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeadLetterReason {
    /// The handler failed as often as it may.
    Exhausted,
    /// The handler rejected it.
    Rejected,
    /// The handler panicked as often as it may fail.
    Panicked,
    /// The handler took longer than it may, as often as it may fail.
    TimedOut,
    /// The payload does not fit what the handler takes.
    Unreadable,
    /// The payload is of a version that this program does not know, or that no upcast leads from.
    UnknownVersion,
    /// The entry is no event in the stored form.
    Undecodable,
    /// An earlier event of the same key is a dead letter of the same handler.
    Follows,
}

/// A dead letter, and the entry as it lay in the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedDeadLetter {
    /// The dead letter.
    pub letter: DeadLetter,
    /// The fields of the entry and their values, byte by byte.
    pub raw: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Which dead letters of a group and partition are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// One.
    One(DeadLetterId),
    /// All of a key, of all handlers.
    Key(String),
    /// All of a handler.
    Handler(String),
    /// All.
    All,
}

impl Chosen {
    /// Whether a dead letter is among them.
    pub fn contains(&self, letter: &DeadLetter) -> bool {
        match self {
            Chosen::One(id) => letter.position == id.position && letter.handler == id.handler,
            Chosen::Key(key) => letter.key.as_ref() == Some(key),
            Chosen::Handler(handler) => letter.handler == *handler,
            Chosen::All => true,
        }
    }
}

/// Dead letters that were not redriven or discarded.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// Others of the same key and handler come before it.
    #[error(
        "dead letter `{first}` of key `{key}` comes before `{chosen}`; redrive or discard it first, or redrive the key"
    )]
    NotFirst {
        /// The one that was chosen.
        chosen: DeadLetterId,
        /// The key.
        key: String,
        /// The first one of the key.
        first: DeadLetterId,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
