//! Recorded events: an event as it lies in a store.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::codec::{self, CodecError, Decoded};
use crate::event::{Category, Event, EventDefinition, InvalidCategory};
use crate::metadata::Metadata;

/// The number of an event of one aggregate, counted from 1 without holes; 0 is before the first.
pub type Version = u64;

/// Where an event lies in its feed: as Redis writes it, milliseconds and a number within them.
///
/// ```
/// use event_core::Position;
///
/// let position: Position = "1763900000000-3".parse()?;
/// assert!(position > Position::START);
/// assert_eq!(position.to_string(), "1763900000000-3");
/// # Ok::<(), event_core::InvalidPosition>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    milliseconds: u64,
    sequence: u64,
}

impl Position {
    /// Before every event; also the position of a realtime event, which lies nowhere.
    pub const START: Position = Position {
        milliseconds: 0,
        sequence: 0,
    };

    /// After every event.
    pub const END: Position = Position {
        milliseconds: u64::MAX,
        sequence: u64::MAX,
    };

    /// A position from its two parts.
    pub const fn new(milliseconds: u64, sequence: u64) -> Self {
        Self {
            milliseconds,
            sequence,
        }
    }

    /// When the store took the event in, in milliseconds since 1970.
    pub const fn milliseconds(&self) -> u64 {
        self.milliseconds
    }

    /// The number of the event within its millisecond.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The position right before this one: what lies after that begins here.
    pub const fn before(self) -> Self {
        match self.sequence.checked_sub(1) {
            Some(sequence) => Self::new(self.milliseconds, sequence),
            None => match self.milliseconds.checked_sub(1) {
                Some(milliseconds) => Self::new(milliseconds, u64::MAX),
                None => Self::START,
            },
        }
    }

    /// The position right after this one.
    pub const fn next(self) -> Self {
        match self.sequence.checked_add(1) {
            Some(sequence) => Self::new(self.milliseconds, sequence),
            None => match self.milliseconds.checked_add(1) {
                Some(milliseconds) => Self::new(milliseconds, 0),
                None => Self::END,
            },
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

impl serde::Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once('-')
            .and_then(|(ms, seq)| Some(Self::new(ms.parse().ok()?, seq.parse().ok()?)))
            .ok_or_else(|| InvalidPosition {
                text: text.to_owned(),
            })
    }
}

/// A text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no position; write two numbers such as `1763900000000-0`")]
pub struct InvalidPosition {
    /// What was given.
    pub text: String,
}

/// Which aggregate: its category, its type and its own id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AggregateId {
    category: Category,
    aggregate_type: Cow<'static, str>,
    id: String,
}

/// The longest id of an aggregate, in bytes.
pub const MAX_AGGREGATE_ID_BYTES: usize = 512;

impl AggregateId {
    /// Names an aggregate. `aggregate_type` is one word as a category is; `id` may be any text.
    ///
    /// # Errors
    /// [`InvalidAggregateId`] where the type is no word, or the id is empty or longer than
    /// [`MAX_AGGREGATE_ID_BYTES`].
    pub fn new(
        category: Category,
        aggregate_type: impl Into<Cow<'static, str>>,
        id: impl Into<String>,
    ) -> Result<Self, InvalidAggregateId> {
        let (aggregate_type, id) = (aggregate_type.into(), id.into());
        if Category::new(&*aggregate_type).is_err() {
            return Err(InvalidAggregateId::Type {
                aggregate_type: aggregate_type.into_owned(),
            });
        }
        if id.is_empty() || id.len() > MAX_AGGREGATE_ID_BYTES {
            return Err(InvalidAggregateId::Length {
                aggregate_type: aggregate_type.into_owned(),
                bytes: id.len(),
            });
        }
        Ok(Self {
            category,
            aggregate_type,
            id,
        })
    }

    /// The category that its events are of.
    pub fn category(&self) -> &Category {
        &self.category
    }

    /// The aggregate's type, such as `project`.
    pub fn aggregate_type(&self) -> &str {
        &self.aggregate_type
    }

    /// The aggregate's own id, such as `gothic`.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for AggregateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.aggregate_type, self.id)
    }
}

/// A name that no aggregate can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAggregateId {
    /// The type is not one word.
    #[error(
        "`{aggregate_type}` is no aggregate type; write one word of lower-case letters, digits and `_` that begins with a letter, such as `project`"
    )]
    Type {
        /// What was given.
        aggregate_type: String,
    },
    /// The id is empty or too long.
    #[error(
        "the id of a `{aggregate_type}` has {bytes} bytes; give one of 1 to {MAX_AGGREGATE_ID_BYTES}"
    )]
    Length {
        /// The aggregate's type.
        aggregate_type: String,
        /// The length that was given, in bytes.
        bytes: usize,
    },
    /// The events of an aggregate type are of no category, or of several.
    #[error("the events of aggregate `{aggregate_type}` must be of one category")]
    Categories {
        /// The aggregate's type.
        aggregate_type: String,
    },
    /// The category is none.
    #[error(transparent)]
    Category(#[from] InvalidCategory),
}

/// The aggregate that a recorded event belongs to, and its number there.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AggregateRef {
    /// The aggregate's type.
    #[serde(rename = "type")]
    pub aggregate_type: String,
    /// The aggregate's own id.
    pub id: String,
    /// The number of the event there; 0 where a foreign writer gave none.
    #[serde(default)]
    pub version: Version,
}

/// An event as it lies in a store: its type, its payload as JSON, its position and its metadata.
///
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedEvent {
    parts: Arc<Parts>,
}

#[derive(Debug, PartialEq)]
struct Parts {
    event_type: Box<str>,
    payload: Box<str>,
    position: Position,
    aggregate: Option<AggregateRef>,
    metadata: Metadata,
}

impl RecordedEvent {
    /// Puts a recorded event together. `payload` must be JSON.
    pub fn new(
        event_type: impl Into<Box<str>>,
        payload: impl Into<Box<str>>,
        position: Position,
        aggregate: Option<AggregateRef>,
        metadata: Metadata,
    ) -> Self {
        Self {
            parts: Arc::new(Parts {
                event_type: event_type.into(),
                payload: payload.into(),
                position,
                aggregate,
                metadata,
            }),
        }
    }

    /// The full dotted type.
    pub fn event_type(&self) -> &str {
        &self.parts.event_type
    }

    /// The payload, as JSON text.
    pub fn payload(&self) -> &str {
        &self.parts.payload
    }

    /// Where it lies in the feed of its category; [`Position::START`] for a realtime event.
    pub fn position(&self) -> Position {
        self.parts.position
    }

    /// The aggregate it belongs to, if any.
    pub fn aggregate(&self) -> Option<&AggregateRef> {
        self.parts.aggregate.as_ref()
    }

    /// The whole name of its aggregate, if it has one.
    ///
    /// # Errors
    /// [`InvalidAggregateId`] where another program has written what no aggregate can be called.
    pub fn aggregate_id(&self) -> Result<Option<AggregateId>, InvalidAggregateId> {
        match self.aggregate() {
            None => Ok(None),
            Some(named) => {
                let category = Category::of(self.event_type())?;
                let (aggregate_type, id) = (named.aggregate_type.clone(), named.id.clone());
                AggregateId::new(category, aggregate_type, id).map(Some)
            }
        }
    }

    /// What is known of it beside its payload.
    pub fn metadata(&self) -> &Metadata {
        &self.parts.metadata
    }

    /// Reads it as a Rust type.
    ///
    /// # Errors
    /// [`CodecError`] where `E` has no such type, the payload does not fit it, or it is read as other
    /// than one event ([`decode_all`](Self::decode_all)).
    pub fn decode<E: Event>(&self) -> Result<E, CodecError> {
        match self.decoded()? {
            Decoded::One(event) => Ok(event),
            Decoded::Several(mut events) => match (events.pop(), events.len()) {
                (Some(event), 0) => Ok(event),
                (last, others) => Err(CodecError::NotOne {
                    event_type: self.event_type().to_owned(),
                    rust_type: type_name::<E>(),
                    count: others + usize::from(last.is_some()),
                }),
            },
        }
    }

    /// Reads it as a Rust type: as several events where its type was split, as none where it is
    /// retired.
    ///
    /// # Errors
    /// [`CodecError`] where `E` has no such type, or the payload does not fit it.
    pub fn decode_all<E: Event>(&self) -> Result<Vec<E>, CodecError> {
        Ok(self.decoded()?.into_iter().collect())
    }

    fn decoded<E: Event>(&self) -> Result<Decoded<E>, CodecError> {
        codec::decode(
            self.event_type(),
            self.metadata().schema_version,
            self.payload(),
        )
    }

    /// Reads it as a Rust type if that has such an event type: `None` if it has not, also where it is
    /// of the past.
    ///
    /// # Errors
    /// [`CodecError`] where the payload does not fit the type.
    pub fn view<E: Event>(&self) -> Result<Option<E>, CodecError> {
        let is_own = |definition: &EventDefinition| definition.is_stored_as(self.event_type());
        if E::DEFINITIONS.iter().any(is_own) {
            self.decode().map(Some)
        } else {
            Ok(None)
        }
    }

    /// The same event in the place of this one, as `E` is written today.
    pub(crate) fn restated<E: Event>(&self, event: &E) -> Result<Self, CodecError> {
        let definition = event.definition();
        let mut metadata = self.metadata().clone();
        metadata.schema_version = definition.schema_version();
        Ok(Self::new(
            definition.name(),
            codec::payload_of(event)?,
            self.position(),
            self.aggregate().cloned(),
            metadata,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_ordered_as_numbers() {
        let position = |text: &str| text.parse::<Position>().unwrap();
        assert!(position("9-0") < position("10-0"));
        assert!(position("10-2") < position("10-10"));
        for bad in ["", "1", "1-", "-1", "a-b", "1-2-3"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }

    #[test]
    fn aggregate_ids_are_checked() {
        let id = |aggregate_type: &'static str, id: &str| {
            AggregateId::new(Category::new("sdlc").unwrap(), aggregate_type, id)
        };
        assert_eq!(
            id("project", "octo/hello").unwrap().to_string(),
            "project:octo/hello"
        );
        assert!(matches!(
            id("Project", "x"),
            Err(InvalidAggregateId::Type { .. })
        ));
        assert!(matches!(
            id("project", ""),
            Err(InvalidAggregateId::Length { bytes: 0, .. })
        ));
        assert!(id("project", &"x".repeat(513)).is_err());
    }
}
