//! What is known of an event beside its payload.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::codec::CodecError;

/// The names that the framework gives to parts of the metadata, and to what stands beside it in a
/// realtime message. Users may add any others.
pub const RESERVED_KEYS: [&str; 12] = [
    "eventId",
    "timestamp",
    "correlationId",
    "causationId",
    "source",
    "schemaVersion",
    "traceparent",
    "key",
    "type",
    "payload",
    "publisher",
    "sequence",
];

/// What is known of an event beside its payload; stored as JSON with names in camelCase.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// The event's own identity: an append that finds it stored already is a success.
    pub event_id: Uuid,
    /// When the event was made, by the clock of its producer, to the microsecond.
    pub timestamp: DateTime<Utc>,
    /// Shared by everything that one first event led to; the id of that event unless given.
    pub correlation_id: String,
    /// The id of the event whose handling made this one.
    pub causation_id: Option<String>,
    /// The service that made it.
    pub source: Option<String>,
    /// The version of the payload's shape, counted from 1.
    pub schema_version: u32,
    /// The W3C trace context in which it was made.
    pub traceparent: Option<String>,
    /// What must stay in order, where the event belongs to no aggregate.
    pub key: Option<String>,
    /// Whatever else was written beside these.
    pub extra: Map<String, Value>,
}

impl Metadata {
    /// Metadata of an event that nothing caused.
    pub fn new(event_id: Uuid, timestamp: DateTime<Utc>) -> Self {
        Self {
            event_id,
            timestamp,
            correlation_id: event_id.to_string(),
            causation_id: None,
            source: None,
            schema_version: 1,
            traceparent: None,
            key: None,
            extra: Map::new(),
        }
    }

    /// Whether it can be written so that it reads back the same.
    pub(crate) fn check(&self) -> Result<(), CodecError> {
        if let Some(key) = self
            .extra
            .keys()
            .find(|key| RESERVED_KEYS.contains(&key.as_str()))
        {
            return Err(CodecError::ReservedKey { key: key.clone() });
        }
        if !(0..=9_999).contains(&self.timestamp.year()) {
            return Err(CodecError::malformed(format!(
                "the time {} is outside of the years 0 to 9999",
                self.timestamp
            )));
        }
        Ok(())
    }
}

/// A time as RFC 3339 in UTC with microseconds: `2026-11-23T12:00:00.000001Z`.
///
/// Written out digit by digit, because this is on the path of every append, where the general
/// formatters are several times slower; and read so, because it is on the path of every event that is
/// handled.
struct Timestamp([u8; 27]);

impl Timestamp {
    /// A year that does not fit the form was refused by [`Metadata::check`].
    fn new(time: DateTime<Utc>) -> Self {
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut write = |from: usize, digits: usize, mut number: u32| {
            for digit in text[from..from + digits].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        write(0, 4, u32::try_from(time.year()).unwrap_or(0).min(9_999));
        write(5, 2, time.month());
        write(8, 2, time.day());
        write(11, 2, time.hour());
        write(14, 2, time.minute());
        write(17, 2, time.second());
        write(20, 6, (time.nanosecond() / 1_000).min(999_999));
        Self(text)
    }

    fn as_str(&self) -> &str {
        // Nothing but ASCII is written above.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The time that is written so; `None` for anything else.
    fn read(text: &str) -> Option<DateTime<Utc>> {
        let text: &[u8; 27] = text.as_bytes().try_into().ok()?;
        let is_own = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
            .into_iter()
            .chain([(19, b'.'), (26, b'Z')])
            .all(|(at, byte)| text[at] == byte);
        let number = |from: usize, digits: usize| {
            text[from..from + digits].iter().try_fold(0, |sum, digit| {
                digit
                    .is_ascii_digit()
                    .then(|| sum * 10 + u32::from(digit - b'0'))
            })
        };
        let year = i32::try_from(number(0, 4).filter(|_| is_own)?).ok()?;
        NaiveDate::from_ymd_opt(year, number(5, 2)?, number(8, 2)?)?
            .and_hms_micro_opt(
                number(11, 2)?,
                number(14, 2)?,
                number(17, 2)?,
                number(20, 6)?,
            )
            .map(|time| time.and_utc())
    }
}

/// A time in any of the forms of RFC 3339.
struct Time(DateTime<Utc>);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TimeVisitor;

        impl Visitor<'_> for TimeVisitor {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as RFC 3339 writes it")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                let time = match Timestamp::read(text) {
                    Some(time) => time,
                    None => text.parse().map_err(E::custom)?,
                };
                Ok(Time(time))
            }
        }

        deserializer.deserialize_str(TimeVisitor)
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("eventId", &self.event_id)?;
        map.serialize_entry("timestamp", Timestamp::new(self.timestamp).as_str())?;
        map.serialize_entry("correlationId", &self.correlation_id)?;
        if let Some(causation_id) = &self.causation_id {
            map.serialize_entry("causationId", causation_id)?;
        }
        if let Some(source) = &self.source {
            map.serialize_entry("source", source)?;
        }
        map.serialize_entry("schemaVersion", &self.schema_version)?;
        if let Some(traceparent) = &self.traceparent {
            map.serialize_entry("traceparent", traceparent)?;
        }
        if let Some(key) = &self.key {
            map.serialize_entry("key", key)?;
        }
        for (key, value) in &self.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Metadata as read: anything may be missing, since other programs write events, too.
#[derive(Debug, Default)]
pub(crate) struct ForeignMetadata {
    pub(crate) event_id: Option<String>,
    pub(crate) timestamp: Option<DateTime<Utc>>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) causation_id: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) schema_version: Option<u32>,
    pub(crate) traceparent: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) extra: Map<String, Value>,
}

impl ForeignMetadata {
    /// Fills in what is missing. `identity` makes an id for an event that has none, or one that is
    /// no uuid, from what the writer gave.
    pub(crate) fn complete(
        self,
        written: DateTime<Utc>,
        identity: impl FnOnce(Option<&str>) -> Uuid,
    ) -> Metadata {
        let given = self.event_id.as_deref();
        let event_id = given
            .and_then(|id| Uuid::try_parse(id).ok())
            .unwrap_or_else(|| identity(given));
        Metadata {
            correlation_id: self.correlation_id.unwrap_or_else(|| event_id.to_string()),
            event_id,
            timestamp: self.timestamp.unwrap_or(written),
            causation_id: self.causation_id,
            source: self.source,
            schema_version: self.schema_version.unwrap_or(1),
            traceparent: self.traceparent,
            key: self.key,
            extra: self.extra,
        }
    }
}

impl<'de> Deserialize<'de> for ForeignMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetadataVisitor;

        impl<'de> Visitor<'de> for MetadataVisitor {
            type Value = ForeignMetadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("metadata as a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = ForeignMetadata::default();
                while let Some(key) = map.next_key::<MetadataKey>()? {
                    match key {
                        MetadataKey::EventId => found.event_id = map.next_value()?,
                        MetadataKey::Timestamp => {
                            found.timestamp = map.next_value::<Option<Time>>()?.map(|time| time.0);
                        }
                        MetadataKey::CorrelationId => found.correlation_id = map.next_value()?,
                        MetadataKey::CausationId => found.causation_id = map.next_value()?,
                        MetadataKey::Source => found.source = map.next_value()?,
                        MetadataKey::SchemaVersion => found.schema_version = map.next_value()?,
                        MetadataKey::Traceparent => found.traceparent = map.next_value()?,
                        MetadataKey::Key => found.key = map.next_value()?,
                        MetadataKey::Other(name) => {
                            found.extra.insert(name, map.next_value()?);
                        }
                    }
                }
                Ok(found)
            }
        }

        deserializer.deserialize_map(MetadataVisitor)
    }
}

enum MetadataKey {
    EventId,
    Timestamp,
    CorrelationId,
    CausationId,
    Source,
    SchemaVersion,
    Traceparent,
    Key,
    Other(String),
}

impl<'de> Deserialize<'de> for MetadataKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = MetadataKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(match name {
                    "eventId" => MetadataKey::EventId,
                    "timestamp" => MetadataKey::Timestamp,
                    "correlationId" => MetadataKey::CorrelationId,
                    "causationId" => MetadataKey::CausationId,
                    "source" => MetadataKey::Source,
                    "schemaVersion" => MetadataKey::SchemaVersion,
                    "traceparent" => MetadataKey::Traceparent,
                    "key" => MetadataKey::Key,
                    other => MetadataKey::Other(other.to_owned()),
                })
            }
        }

        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_metadata_reads_back() {
        let mut metadata = Metadata::new(
            Uuid::from_u128(7),
            DateTime::from_timestamp_micros(1_763_900_000_000_001).unwrap(),
        );
        metadata.causation_id = Some("cause".into());
        metadata
            .extra
            .insert("delivery".into(), "ünïcode \u{0}".into());
        let json = serde_json::to_string(&metadata).unwrap();
        assert!(
            json.contains(r#""timestamp":"2025-11-23T12:13:20.000001Z""#),
            "{json}"
        );
        let read: ForeignMetadata = serde_json::from_str(&json).unwrap();
        let read = read.complete(DateTime::UNIX_EPOCH, |_| Uuid::nil());
        assert_eq!(read, metadata);
    }

    #[test]
    fn times_are_read_as_the_general_parser_reads_them() {
        for text in [
            "2025-11-23T12:13:20.000001Z",
            "0000-01-01T00:00:00.000000Z",
            "9999-12-31T23:59:59.999999Z",
            "2024-02-29T00:00:00.500000Z",
        ] {
            assert_eq!(Timestamp::read(text), Some(text.parse().unwrap()), "{text}");
        }
        for other in [
            "2023-02-29T00:00:00.000000Z",
            "2025-11-23T24:00:00.000000Z",
            "2025-11-23T12:13:60.000000Z",
            "2025-11-23T12:13:20.00000aZ",
            "2025-11-23 12:13:20.000001Z",
            "2025-11-23T12:13:20.000+01:00",
            "2025-11-23T12:13:20Z",
        ] {
            assert_eq!(Timestamp::read(other), None, "{other}");
        }
        let read = |json| serde_json::from_str::<ForeignMetadata>(json).unwrap();
        let foreign = read(r#"{"timestamp":"2025-11-23T13:13:20.5+01:00"}"#);
        assert_eq!(
            foreign.timestamp,
            Timestamp::read("2025-11-23T12:13:20.500000Z")
        );
        assert_eq!(read(r#"{"timestamp":null}"#).timestamp, None);
    }

    #[test]
    fn missing_metadata_is_filled_in() {
        let read: ForeignMetadata = serde_json::from_str(r#"{"userId": 3}"#).unwrap();
        let read = read.complete(DateTime::UNIX_EPOCH, |_| Uuid::from_u128(9));
        assert_eq!(read.event_id, Uuid::from_u128(9));
        assert_eq!(read.correlation_id, Uuid::from_u128(9).to_string());
        assert_eq!(read.timestamp, DateTime::UNIX_EPOCH);
        assert_eq!(read.schema_version, 1);
        assert_eq!(read.extra["userId"], 3);
    }
}
