//! An event in a feed: four fields, which any client in any language can read and write.
//!
//! | field | holds |
//! |---|---|
//! | `type` | the full dotted type |
//! | `payload` | the payload, as JSON |
//! | `aggregate` | `{"type","id","version"}`, only for an aggregate's event |
//! | `metadata` | the [`Metadata`], as JSON |

use std::borrow::Cow;

use chrono::DateTime;

use crate::clock::derived_id;
use crate::codec::{CodecError, NewEvent};
use crate::event::{Category, is_event_type};
use crate::metadata::{ForeignMetadata, Metadata};
use crate::partition::Partition;
use crate::recorded::{AggregateId, AggregateRef, Position, RecordedEvent};

/// The fields of an entry as they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryFields<'a> {
    /// The field `type`.
    pub event_type: Option<Cow<'a, [u8]>>,
    /// The field `payload`.
    pub payload: Option<Cow<'a, [u8]>>,
    /// The field `aggregate`.
    pub aggregate: Option<Cow<'a, [u8]>>,
    /// The field `metadata`.
    pub metadata: Option<Cow<'a, [u8]>>,
}

impl EntryFields<'static> {
    /// The fields that an event has, out of all that an entry has.
    pub fn of(raw: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let mut fields = Self::default();
        for (name, value) in raw {
            let field = match name.as_slice() {
                b"type" => &mut fields.event_type,
                b"payload" => &mut fields.payload,
                b"aggregate" => &mut fields.aggregate,
                b"metadata" => &mut fields.metadata,
                // A reader passes over fields that it does not know.
                _ => continue,
            };
            *field = Some(Cow::Owned(value));
        }
        fields
    }
}

/// The field `metadata` of an event.
///
/// # Errors
/// [`CodecError::ReservedKey`] where the user's own has a name of the framework's,
/// [`CodecError::Malformed`] where the time has a year beyond 9999, [`CodecError::Encode`] where
/// something cannot be written as JSON.
pub fn encode_metadata(event: &NewEvent) -> Result<String, CodecError> {
    event.metadata().check()?;
    // Room for what most events have, so that the text does not move while it grows.
    let mut json = Vec::with_capacity(384);
    serde_json::to_writer(&mut json, event.metadata())
        .and_then(|()| String::from_utf8(json).map_err(serde::ser::Error::custom))
        .map_err(|source| CodecError::Encode {
            event_type: event.event_type().to_owned(),
            source,
        })
}

/// The field `aggregate` up to the version, which the store alone knows: the store appends the
/// version and a closing brace.
///
/// # Errors
/// [`CodecError::Malformed`] where the id cannot be written as JSON.
pub fn encode_aggregate_head(aggregate: &AggregateId) -> Result<String, CodecError> {
    let id = serde_json::to_string(aggregate.id())
        .map_err(|error| CodecError::malformed(error.to_string()))?;
    Ok(format!(
        r#"{{"type":"{}","id":{id},"version":"#,
        aggregate.aggregate_type()
    ))
}

/// Reads an entry of a feed, whoever wrote it. Only `type` and `payload` are required; `type` may
/// lack its category.
///
/// # Errors
/// [`CodecError::Malformed`] where a field is missing, is not UTF-8 or is not the JSON it should be.
pub fn decode(
    partition: &Partition,
    position: Position,
    fields: &EntryFields<'_>,
) -> Result<RecordedEvent, CodecError> {
    let category = partition.category();
    let event_type = full_type(category, text("type", fields.event_type.as_deref())?)?;
    let payload = text("payload", fields.payload.as_deref())?;
    serde_json::from_str::<serde::de::IgnoredAny>(payload)
        .map_err(|error| CodecError::malformed(format!("field `payload` is not JSON: {error}")))?;
    let aggregate = match fields.aggregate.as_deref() {
        None => None,
        Some(json) => Some(
            serde_json::from_slice::<AggregateRef>(json)
                .map_err(|error| CodecError::malformed(format!("field `aggregate`: {error}")))?,
        ),
    };
    let metadata = match fields.metadata.as_deref() {
        None => ForeignMetadata::default(),
        Some(json) => serde_json::from_slice(json)
            .map_err(|error| CodecError::malformed(format!("field `metadata`: {error}")))?,
    };
    Ok(RecordedEvent::new(
        event_type,
        payload,
        position,
        aggregate,
        complete(metadata, partition, position),
    ))
}

/// Fills in what a foreign writer left out: the id comes from where the event lies (or from the
/// writer's own id, where that is no uuid), the time from when the store took it in.
pub(crate) fn complete(
    metadata: ForeignMetadata,
    partition: &Partition,
    position: Position,
) -> Metadata {
    let written = i64::try_from(position.milliseconds())
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .unwrap_or_default();
    metadata.complete(written, |given| match given {
        Some(id) => derived_id(&[partition.category().as_str(), id]),
        None => derived_id(&[&format!("events:{partition}"), &position.to_string()]),
    })
}

fn text<'a>(name: &str, field: Option<&'a [u8]>) -> Result<&'a str, CodecError> {
    let bytes = field.ok_or_else(|| CodecError::malformed(format!("field `{name}` is missing")))?;
    std::str::from_utf8(bytes)
        .map_err(|error| CodecError::malformed(format!("field `{name}` is not UTF-8: {error}")))
}

/// The full type: `phase.changed` in the feed of `sdlc` is `sdlc.phase.changed`.
fn full_type(category: &Category, written: &str) -> Result<Box<str>, CodecError> {
    let has_category = written
        .strip_prefix(category.as_str())
        .is_some_and(|rest| rest.starts_with('.'));
    let full: Box<str> = if has_category {
        written.into()
    } else {
        format!("{category}.{written}").into()
    };
    if is_event_type(&full) {
        Ok(full)
    } else {
        Err(CodecError::malformed(format!(
            "field `type` holds `{written}`, which is no event type"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<RecordedEvent, CodecError> {
        let mut entry = EntryFields::default();
        for (name, value) in fields {
            let value = Some(Cow::Borrowed(value.as_bytes()));
            match *name {
                "type" => entry.event_type = value,
                "payload" => entry.payload = value,
                "aggregate" => entry.aggregate = value,
                "metadata" => entry.metadata = value,
                _ => unreachable!(),
            }
        }
        decode(
            &Category::new("sdlc").unwrap().into(),
            Position::new(1_500, 2),
            &entry,
        )
    }

    #[test]
    fn type_and_payload_are_enough() {
        let event = read(&[("type", "phase.changed"), ("payload", "{}")]).unwrap();
        assert_eq!(event.event_type(), "sdlc.phase.changed");
        assert_eq!(event.metadata().timestamp.timestamp_millis(), 1_500);
        assert_eq!(event.metadata().event_id.get_version_num(), 5);
        let again = read(&[("type", "sdlc.phase.changed"), ("payload", "{}")]).unwrap();
        assert_eq!(event, again);
    }

    #[test]
    fn entries_of_two_partitions_have_two_ids() {
        let entry = EntryFields {
            event_type: Some(Cow::Borrowed(b"phase.changed")),
            payload: Some(Cow::Borrowed(b"{}")),
            ..EntryFields::default()
        };
        let id = |number| {
            let partition = Partition::new(Category::new("sdlc").unwrap(), number);
            let event = decode(&partition, Position::new(1_500, 2), &entry).unwrap();
            event.metadata().event_id
        };
        assert_ne!(id(0), id(1));
    }

    #[test]
    fn a_foreign_id_is_kept_as_an_identity() {
        let with_id = |id: &str| {
            let metadata = format!(r#"{{"eventId":"{id}"}}"#);
            read(&[("type", "a.b"), ("payload", "1"), ("metadata", &metadata)])
                .unwrap()
                .metadata()
                .event_id
        };
        assert_eq!(with_id("order-1"), with_id("order-1"));
        assert_ne!(with_id("order-1"), with_id("order-2"));
        let uuid = "0190b6c0-0000-7000-8000-000000000001";
        assert_eq!(with_id(uuid).to_string(), uuid);
    }

    #[test]
    fn what_is_no_event_is_an_error_that_names_the_field() {
        for (fields, named) in [
            (vec![("payload", "{}")], "type"),
            (vec![("type", "a.b")], "payload"),
            (vec![("type", "a.b"), ("payload", "{")], "payload"),
            (vec![("type", "A B"), ("payload", "{}")], "type"),
            (
                vec![("type", "a.b"), ("payload", "{}"), ("metadata", "[")],
                "metadata",
            ),
            (
                vec![("type", "a.b"), ("payload", "{}"), ("aggregate", "7")],
                "aggregate",
            ),
        ] {
            let error = read(&fields).unwrap_err().to_string();
            assert!(error.contains(&format!("`{named}`")), "{error}");
        }
    }
}
