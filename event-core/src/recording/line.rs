//! An event of a recording, and how a line of a file has it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::codec::{CodecError, entry};
use crate::event::{Category, is_event_type};
use crate::metadata::{ForeignMetadata, Metadata};
use crate::partition::Partition;
use crate::recorded::{AggregateRef, Position, RecordedEvent};

/// An event of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingLine {
    /// The partition that it lay in.
    pub partition: Partition,
    /// The event.
    pub event: RecordedEvent,
}

/// A line as it is written. The order of the fields is that of the keys.
#[derive(Serialize)]
struct Written<'a> {
    position: Position,
    #[serde(skip_serializing_if = "is_first")]
    partition: u32,
    #[serde(rename = "type")]
    event_type: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregate: Option<&'a AggregateRef>,
    metadata: &'a Metadata,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_first(number: &u32) -> bool {
    *number == 0
}

/// A line as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    position: Position,
    #[serde(default)]
    partition: u32,
    #[serde(rename = "type")]
    event_type: EventType,
    payload: Box<RawValue>,
    #[serde(default)]
    aggregate: Option<AggregateRef>,
    #[serde(default)]
    metadata: ForeignMetadata,
}

/// A full event type, so that a wrong one is reported in its place.
struct EventType {
    name: String,
    category: Category,
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match Category::of(&name) {
            Ok(category) if is_event_type(&name) => Ok(Self { name, category }),
            _ => Err(D::Error::custom(format_args!(
                "`{name}` is no event type; write all of it, such as `github.push`"
            ))),
        }
    }
}

impl RecordingLine {
    /// The line, without its end.
    ///
    /// # Errors
    /// [`CodecError`] where metadata or payload cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, CodecError> {
        let event = &self.event;
        event.metadata().check()?;
        let unfit = |source| CodecError::Encode {
            event_type: event.event_type().to_owned(),
            source,
        };
        let payload = RawValue::from_string(joined(event.payload())).map_err(unfit)?;
        serde_json::to_string(&Written {
            position: event.position(),
            partition: self.partition.number(),
            event_type: event.event_type(),
            payload: &payload,
            aggregate: event.aggregate(),
            metadata: event.metadata(),
        })
        .map_err(unfit)
    }

    /// The event, with a payload that has no ends of lines and nothing around it.
    pub(super) fn on_one_line(event: RecordedEvent) -> RecordedEvent {
        let payload = event.payload();
        if payload.trim().len() == payload.len() && !payload.contains(['\n', '\r']) {
            return event;
        }
        RecordedEvent::new(
            event.event_type(),
            joined(payload.trim()),
            event.position(),
            event.aggregate().cloned(),
            event.metadata().clone(),
        )
    }

    /// Reads a line.
    pub(super) fn from_json(line: &str) -> Result<Self, serde_json::Error> {
        let read: Read = serde_json::from_str(line)?;
        let partition = Partition::new(read.event_type.category, read.partition);
        let metadata = entry::complete(read.metadata, &partition, read.position);
        let event = RecordedEvent::new(
            read.event_type.name,
            read.payload.get(),
            read.position,
            read.aggregate,
            metadata,
        );
        Ok(Self { partition, event })
    }
}

/// JSON without ends of lines. Outside of JSON's texts, where they are written otherwise, they are white
/// space.
fn joined(payload: &str) -> String {
    payload.replace(['\n', '\r'], " ")
}
