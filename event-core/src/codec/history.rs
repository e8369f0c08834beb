//! An event in its aggregate's history: a compact JSON array.
//!
//! `[1, version, "event id", "type", payload, "position", microseconds, correlation, causation,
//! schema version, {the rest of the metadata}]`
//!
//! | element | holds |
//! |---|---|
//! | 0 | the number of this form: 1 |
//! | 1 | the version of the aggregate after this event |
//! | 2 | the event's id |
//! | 3 | the full dotted type |
//! | 4 | the payload |
//! | 5 | the position in the feed |
//! | 6 | the time, in microseconds since 1970 |
//! | 7 | the correlation id; `0` where it is the event's own id |
//! | 8 | the causation id; `0` where there is none |
//! | 9 | the version of the payload's shape |
//! | 10 | `source`, `traceparent`, `key` and the user's own metadata; left away where empty |
//!
//! Why it looks so: a load reads the type before the payload and so decodes the payload in one go;
//! the store finds the version and the id at the beginning without reading JSON; and names that
//! would stand in every element of every history are left away.

use std::fmt;
use std::marker::PhantomData;

use chrono::DateTime;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor,
};
use serde::ser::SerializeMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::codec::{self, BodySeed, CodecError, Decoded, Found, NewEvent};
use crate::event::Event;
use crate::metadata::Metadata;
use crate::recorded::{AggregateId, AggregateRef, Position, RecordedEvent, Version};

/// The number of the form that this program writes.
const FORM: u8 = 1;

/// What a load gets of one event: the element as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct HistoryEntry<'a> {
    element: &'a [u8],
}

impl<'a> HistoryEntry<'a> {
    /// An entry from a stored element.
    pub fn new(element: &'a [u8]) -> Self {
        Self { element }
    }

    /// Its version, without reading the rest.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] where the element is not in the stored form.
    pub fn version(&self) -> Result<Version, CodecError> {
        version_of(self.element).ok_or_else(|| {
            CodecError::malformed("an element of a history must begin with `[1,` and its version")
        })
    }

    /// The id of its event, without reading the rest.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] where the element is not in the stored form.
    pub fn event_id(&self) -> Result<Uuid, CodecError> {
        event_id_of(self.element).ok_or_else(|| {
            CodecError::malformed("an element of a history must have an event id as its third part")
        })
    }

    /// Where its event lies in the feed.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] where the element is not in the stored form.
    pub fn position(&self) -> Result<Position, CodecError> {
        let position = self.parts()?.position;
        position.parse().map_err(|_| {
            CodecError::malformed(format!("`{position}` must be the position of an event"))
        })
    }

    /// What it takes in the store, in bytes.
    pub fn bytes(&self) -> usize {
        self.element.len()
    }

    /// Reads it as a Rust type, and nothing else of it.
    ///
    /// # Errors
    /// [`CodecError`] where the element is not in the stored form, `E` has no such type, or the
    /// payload does not fit it.
    pub fn decode<E: Event>(&self) -> Result<(Version, Decoded<E>), CodecError> {
        let mut json = serde_json::Deserializer::from_slice(self.element);
        let newest = TypedElement(PhantomData)
            .deserialize(&mut json)
            .and_then(|found| json.end().map(|()| found));
        if let Ok((version, event)) = newest {
            return Ok((version, Decoded::One(event)));
        }
        // It is of another shape than today's, or something is wrong with it. The version of the shape
        // stands behind the payload, so that could not be known.
        let parts = self.parts()?;
        let payload = parts.payload.get();
        let decoded = codec::decode(&parts.event_type, parts.schema_version, payload)?;
        Ok((parts.version, decoded))
    }

    /// When the event was made, in microseconds since 1970.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] where the element is not in the stored form.
    pub fn timestamp_micros(&self) -> Result<i64, CodecError> {
        self.parts().map(|parts| parts.micros)
    }

    /// Reads it whole.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] where the element is not in the stored form.
    pub fn to_recorded(&self, aggregate: &AggregateId) -> Result<RecordedEvent, CodecError> {
        let parts = self.parts()?;
        let position = parts
            .position
            .parse()
            .map_err(|error| CodecError::malformed(format!("{error}")))?;
        let mut metadata = Metadata::new(
            parts.event_id,
            DateTime::from_timestamp_micros(parts.micros)
                .ok_or_else(|| CodecError::malformed("a time is out of range"))?,
        );
        if let Some(correlation_id) = parts.correlation_id.0 {
            metadata.correlation_id = correlation_id;
        }
        metadata.causation_id = parts.causation_id.0;
        metadata.schema_version = parts.schema_version;
        for (key, value) in parts.rest {
            match (key.as_str(), value) {
                ("source", Value::String(text)) => metadata.source = Some(text),
                ("traceparent", Value::String(text)) => metadata.traceparent = Some(text),
                ("key", Value::String(text)) => metadata.key = Some(text),
                (_, value) => {
                    metadata.extra.insert(key, value);
                }
            }
        }
        Ok(RecordedEvent::new(
            parts.event_type,
            parts.payload.get(),
            position,
            Some(AggregateRef {
                aggregate_type: aggregate.aggregate_type().to_owned(),
                id: aggregate.id().to_owned(),
                version: parts.version,
            }),
            metadata,
        ))
    }

    fn parts(&self) -> Result<Parts<'a>, CodecError> {
        serde_json::from_slice(self.element)
            .map_err(|error| CodecError::malformed(format!("an element of a history: {error}")))
    }
}

/// The version at the beginning of an element.
fn version_of(element: &[u8]) -> Option<Version> {
    let rest = element.strip_prefix(b"[1,")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// The id behind the version.
fn event_id_of(element: &[u8]) -> Option<Uuid> {
    let rest = element.strip_prefix(b"[1,")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = rest.get(digits..)?.strip_prefix(b",\"")?;
    let id = rest.get(..36)?;
    Uuid::try_parse_ascii(id).ok()
}

/// The part of an element behind the position: times, causes and the rest, with the closing
/// bracket. The store puts what it knows alone (version, position) and what it has anyway (id, type,
/// payload) in front of it.
///
/// # Errors
/// [`CodecError::Encode`] where something of the user's own cannot be written as JSON.
pub fn encode_tail(event: &NewEvent) -> Result<String, CodecError> {
    write_tail(event.metadata()).map_err(|source| CodecError::Encode {
        event_type: event.event_type().to_owned(),
        source,
    })
}

fn write_tail(metadata: &Metadata) -> Result<String, serde_json::Error> {
    use std::fmt::Write as _;

    let mut tail = String::with_capacity(96);
    // Writing into a `String` cannot fail.
    let _ = write!(tail, "{},", metadata.timestamp.timestamp_micros());
    let mut own_id = Uuid::encode_buffer();
    if metadata.correlation_id == *metadata.event_id.hyphenated().encode_lower(&mut own_id) {
        tail.push('0');
    } else {
        tail.push_str(&serde_json::to_string(&metadata.correlation_id)?);
    }
    tail.push(',');
    match &metadata.causation_id {
        None => tail.push('0'),
        Some(id) => tail.push_str(&serde_json::to_string(id)?),
    }
    let _ = write!(tail, ",{}", metadata.schema_version);
    let rest = Rest(metadata);
    if !rest.is_empty() {
        tail.push(',');
        tail.push_str(&serde_json::to_string(&rest)?);
    }
    tail.push(']');
    Ok(tail)
}

/// As [`encode_tail`], of an event that lies in a feed already.
///
/// # Errors
/// [`CodecError::Encode`] where something of the user's own cannot be written as JSON.
pub fn encode_recorded_tail(event: &RecordedEvent) -> Result<String, CodecError> {
    write_tail(event.metadata()).map_err(|source| CodecError::Encode {
        event_type: event.event_type().to_owned(),
        source,
    })
}

/// The whole element of an event that lies in a feed already.
///
/// # Errors
/// [`CodecError::Encode`] where something of the user's own cannot be written as JSON.
pub fn encode_recorded(event: &RecordedEvent, version: Version) -> Result<String, CodecError> {
    let tail = encode_recorded_tail(event)?;
    Ok(format!(
        r#"[{FORM},{version},"{}","{}",{},"{}",{tail}"#,
        event.metadata().event_id,
        event.event_type(),
        event.payload(),
        event.position(),
    ))
}

/// The whole element, for stores that are not written in another language.
pub(crate) fn encode(event: &NewEvent, version: Version, position: Position, tail: &str) -> String {
    format!(
        r#"[{FORM},{version},"{}","{}",{},"{position}",{tail}"#,
        event.metadata().event_id,
        event.event_type(),
        event.payload(),
    )
}

/// Metadata that has no place of its own in an element.
struct Rest<'a>(&'a Metadata);

impl Rest<'_> {
    fn is_empty(&self) -> bool {
        let metadata = self.0;
        metadata.source.is_none()
            && metadata.traceparent.is_none()
            && metadata.key.is_none()
            && metadata.extra.is_empty()
    }
}

impl serde::Serialize for Rest<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metadata = self.0;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in [
            ("source", &metadata.source),
            ("traceparent", &metadata.traceparent),
            ("key", &metadata.key),
        ] {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        for (name, value) in &metadata.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A text, or `0` where there is none.
struct TextOrZero(Option<String>);

impl<'de> Deserialize<'de> for TextOrZero {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl Visitor<'_> for TextVisitor {
            type Value = TextOrZero;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or 0")
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(TextOrZero(None))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOrZero(Some(text.to_owned())))
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

/// Everything in an element.
struct Parts<'a> {
    version: Version,
    event_id: Uuid,
    event_type: String,
    payload: &'a RawValue,
    position: String,
    micros: i64,
    correlation_id: TextOrZero,
    causation_id: TextOrZero,
    schema_version: u32,
    rest: Map<String, Value>,
}

fn need<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    array: &mut A,
    what: &str,
) -> Result<T, A::Error> {
    array
        .next_element()?
        .ok_or_else(|| A::Error::custom(format_args!("{what} is missing")))
}

fn need_form<'de, A: SeqAccess<'de>>(array: &mut A) -> Result<(), A::Error> {
    match need::<u8, A>(array, "the number of the form")? {
        FORM => Ok(()),
        other => Err(A::Error::custom(format_args!(
            "form {other} is unknown to this program; update it"
        ))),
    }
}

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartsVisitor;

        impl<'de> Visitor<'de> for PartsVisitor {
            type Value = Parts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an element of a history, as a JSON array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                need_form(&mut array)?;
                Ok(Parts {
                    version: need(&mut array, "the version")?,
                    event_id: need(&mut array, "the event id")?,
                    event_type: need(&mut array, "the type")?,
                    payload: need(&mut array, "the payload")?,
                    position: need(&mut array, "the position")?,
                    micros: need(&mut array, "the time")?,
                    correlation_id: need(&mut array, "the correlation id")?,
                    causation_id: need(&mut array, "the causation id")?,
                    schema_version: need(&mut array, "the schema version")?,
                    rest: array.next_element()?.unwrap_or_default(),
                })
            }
        }

        deserializer.deserialize_seq(PartsVisitor)
    }
}

/// Reads version and payload of an event of today's shape, and skips the rest.
struct TypedElement<E>(PhantomData<E>);

impl<'de, E: Event> DeserializeSeed<'de> for TypedElement<E> {
    type Value = (Version, E);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, E: Event> Visitor<'de> for TypedElement<E> {
    type Value = (Version, E);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an element of a history, as a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        need_form(&mut array)?;
        let version = need(&mut array, "the version")?;
        need::<IgnoredAny, A>(&mut array, "the event id")?;
        let event_type: &str = need(&mut array, "the type")?;
        let definition = match codec::find::<E>(event_type) {
            Ok(Found::Current(definition)) => definition,
            _ => return Err(A::Error::custom("a type of the past, or none")),
        };
        let event = array
            .next_element_seed(BodySeed::new(definition))?
            .ok_or_else(|| A::Error::custom("the payload is missing"))?;
        for what in [
            "the position",
            "the time",
            "the correlation id",
            "the causation id",
        ] {
            need::<IgnoredAny, A>(&mut array, what)?;
        }
        if need::<u32, A>(&mut array, "the schema version")? != definition.schema_version() {
            return Err(A::Error::custom("another version"));
        }
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok((version, event))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::clock::{Clock, Ids};
    use crate::codec::Codec;
    use crate::event::{Category, EventDefinition};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Counted {
        by: u32,
    }

    impl Event for Counted {
        const DEFINITIONS: &'static [EventDefinition] = &[EventDefinition::new("count.up")];

        fn definition(&self) -> &'static EventDefinition {
            &Self::DEFINITIONS[0]
        }
    }

    fn event() -> NewEvent {
        let time = DateTime::from_timestamp_micros(1_700_000_000_000_123).unwrap();
        let codec = Codec::new(Clock::standing_at(time), Ids::counting());
        codec.encode(&Counted { by: 3 }).unwrap()
    }

    fn aggregate() -> AggregateId {
        AggregateId::new(Category::new("count").unwrap(), "counter", "c").unwrap()
    }

    #[test]
    fn a_plain_event_is_stored_compactly() {
        let element = encode(
            &event(),
            7,
            Position::new(5, 1),
            &encode_tail(&event()).unwrap(),
        );
        assert_eq!(
            element,
            r#"[1,7,"00000000-0000-0000-0000-000000000001","count.up",{"by":3},"5-1",1700000000000123,0,0,1]"#
        );
        let entry = HistoryEntry::new(element.as_bytes());
        assert_eq!(entry.version().unwrap(), 7);
        assert_eq!(entry.event_id().unwrap(), Uuid::from_u128(1));
        assert_eq!(entry.timestamp_micros().unwrap(), 1_700_000_000_000_123);
        assert_eq!(
            entry.decode::<Counted>().unwrap(),
            (7, Decoded::One(Counted { by: 3 }))
        );
    }

    #[test]
    fn all_metadata_survives() {
        let mut event = event();
        event.metadata_mut().causation_id = Some("cause \"1\"".into());
        event.metadata_mut().correlation_id = "correlation".into();
        event.metadata_mut().source = Some("test".into());
        event.metadata_mut().traceparent = Some("00-1-2-01".into());
        event.insert_metadata("user", "ü").unwrap();
        let element = encode(
            &event,
            1,
            Position::new(5, 1),
            &encode_tail(&event).unwrap(),
        );
        let recorded = HistoryEntry::new(element.as_bytes())
            .to_recorded(&aggregate())
            .unwrap();
        assert_eq!(recorded.metadata(), event.metadata());
        assert_eq!(recorded.position(), Position::new(5, 1));
        assert_eq!(recorded.aggregate().unwrap().version, 1);
        assert_eq!(recorded.payload(), r#"{"by":3}"#);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |element: &str| {
            HistoryEntry::new(element.as_bytes())
                .decode::<Counted>()
                .unwrap_err()
                .to_string()
        };
        let id = "00000000-0000-0000-0000-000000000001";
        let element = |form: u8, name: &str, payload: &str, shape: u8| {
            format!(r#"[{form},7,"{id}","{name}",{payload},"5-1",1,0,0,{shape}]"#)
        };
        assert!(message(&element(2, "count.up", "{}", 1)).contains("form 2"));
        assert!(message(&element(1, "count.down", "{}", 1)).contains("`count.down`"));
        assert!(message(&element(1, "count.up", r#"{"by":"x"}"#, 1)).contains("does not fit"));
        assert!(message(&element(1, "count.up", r#"{"by":1}"#, 2)).contains("version 2"));
        assert!(message("[1,7").contains("history"));
    }
}
