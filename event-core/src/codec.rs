//! The codec: from typed events to what is stored, and back.
//!
//! | form | what it is | module |
//! |---|---|---|
//! | body | an event's payload alone | `body` |
//! | entry | an event in a feed: four fields | [`entry`] |
//! | element | an event in its aggregate's history: a compact JSON array | [`history`] |

mod body;
pub mod entry;
pub mod history;

use std::any::type_name;
use std::borrow::Cow;
use std::sync::Arc;

use serde::de::DeserializeSeed;
use serde_json::Value;
use uuid::Uuid;

use crate::cause::Cause;
use crate::clock::{Clock, Ids};
use crate::event::{Event, EventDefinition, MissingUpcast, PastEvent, is_event_type};
use crate::metadata::{Metadata, RESERVED_KEYS};
use crate::{metrics, trace};

pub(crate) use body::BodySeed;

/// Makes [`NewEvent`]s: encodes payloads and gives each event its id, its time and its cause.
#[derive(Clone, Debug, Default)]
pub struct Codec {
    clock: Clock,
    ids: Ids,
    source: Option<Arc<str>>,
}

impl Codec {
    /// A codec with a clock and a source of ids of its own.
    pub fn new(clock: Clock, ids: Ids) -> Self {
        Self {
            clock,
            ids,
            source: None,
        }
    }

    /// Names the service that makes the events.
    pub fn with_source(mut self, source: &str) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Encodes an event. Made while a handler runs, it names the handled event as its cause and
    /// carries its correlation id.
    ///
    /// # Errors
    /// [`CodecError::Encode`] where serde cannot write it as JSON.
    pub fn encode<E: Event>(&self, event: &E) -> Result<NewEvent, CodecError> {
        self.encode_as(event, self.ids.next())
    }

    /// As [`encode`](Self::encode), with an id of the caller's own.
    ///
    /// # Errors
    /// [`CodecError::Encode`] where serde cannot write it as JSON.
    pub fn encode_as<E: Event>(&self, event: &E, event_id: Uuid) -> Result<NewEvent, CodecError> {
        let definition = event.definition();
        let payload = payload_of(event)?;
        let mut metadata = Metadata::new(event_id, self.clock.now());
        metadata.key = event.key();
        metadata.schema_version = definition.schema_version();
        metadata.source = self.source.as_deref().map(str::to_owned);
        Cause::apply(&mut metadata);
        trace::apply(&mut metadata);
        Ok(NewEvent {
            event_type: Cow::Borrowed(definition.name()),
            realtime: definition.is_realtime(),
            payload,
            metadata,
        })
    }
}

/// An event on its way to the store: encoded, with its metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    event_type: Cow<'static, str>,
    realtime: bool,
    payload: String,
    metadata: Metadata,
}

impl NewEvent {
    /// A stored event from its parts, without a Rust type.
    ///
    /// # Errors
    /// [`CodecError::InvalidType`] where `event_type` is none, [`CodecError::Encode`] where the
    /// payload is not JSON.
    pub fn from_parts(
        event_type: impl Into<String>,
        payload: impl Into<String>,
        metadata: Metadata,
    ) -> Result<Self, CodecError> {
        let (event_type, mut payload) = (event_type.into(), payload.into());
        // White space around it would be kept by a feed, and lost by a history.
        if payload.trim().len() != payload.len() {
            payload = payload.trim().to_owned();
        }
        if !is_event_type(&event_type) {
            return Err(CodecError::InvalidType { event_type });
        }
        if let Err(source) = serde_json::from_str::<serde::de::IgnoredAny>(&payload) {
            return Err(CodecError::Encode { event_type, source });
        }
        Ok(Self {
            event_type: Cow::Owned(event_type),
            realtime: false,
            payload,
            metadata,
        })
    }

    /// The full dotted type.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Whether it is sent by Pub/Sub and kept nowhere.
    pub fn is_realtime(&self) -> bool {
        self.realtime
    }

    /// The payload, as JSON text.
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its metadata, to be changed.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Adds something of the user's own to the metadata.
    ///
    /// # Errors
    /// [`CodecError::ReservedKey`] where the name is one of [`RESERVED_KEYS`].
    pub fn insert_metadata(
        &mut self,
        key: impl Into<String>,
        value: impl Into<serde_json::Value>,
    ) -> Result<(), CodecError> {
        let key = key.into();
        if RESERVED_KEYS.contains(&key.as_str()) {
            return Err(CodecError::ReservedKey { key });
        }
        self.metadata.extra.insert(key, value.into());
        Ok(())
    }
}

/// The payload of an event, as JSON text.
pub(crate) fn payload_of<E: Event>(event: &E) -> Result<String, CodecError> {
    body::encode(event).map_err(|source| CodecError::Encode {
        event_type: event.definition().name().to_owned(),
        source,
    })
}

/// What a stored event is read as: one event, or several where its type was split, or none where it is
/// retired.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<E> {
    /// One, as almost always.
    One(E),
    /// Any number.
    Several(Vec<E>),
}

impl<E> IntoIterator for Decoded<E> {
    type Item = E;
    type IntoIter = std::iter::Chain<std::option::IntoIter<E>, std::vec::IntoIter<E>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, several) = match self {
            Self::One(event) => (Some(event), Vec::new()),
            Self::Several(events) => (None, events),
        };
        one.into_iter().chain(several)
    }
}

/// Reads a payload of the given type and version as a Rust type.
pub(crate) fn decode<E: Event>(
    event_type: &str,
    schema_version: u32,
    payload: &str,
) -> Result<Decoded<E>, CodecError> {
    let unfit = |source| CodecError::decode::<E>(event_type, source);
    match find::<E>(event_type)? {
        Found::Current(definition) if definition.schema_version() == schema_version => {
            let mut json = serde_json::Deserializer::from_str(payload);
            BodySeed::new(definition)
                .deserialize(&mut json)
                .and_then(|event| json.end().map(|()| event))
                .map(Decoded::One)
                .map_err(unfit)
        }
        Found::Current(definition) => {
            let payload = serde_json::from_str(payload).map_err(unfit)?;
            let payload = upcast(definition, event_type, schema_version, payload)?;
            BodySeed::new(definition)
                .deserialize(payload)
                .map(Decoded::One)
                .map_err(unfit)
        }
        Found::Past(past) if past.is_split() => {
            let payload = serde_json::from_str(payload).map_err(unfit)?;
            E::split(event_type, payload)
                .map(Decoded::Several)
                .map_err(unfit)
        }
        Found::Past(past) => {
            metrics::retired(past.name()).increment(1);
            Ok(Decoded::Several(Vec::new()))
        }
    }
}

/// What a stored event's type is to `E`.
pub(crate) enum Found {
    Current(&'static EventDefinition),
    Past(&'static PastEvent),
}

/// Finds a stored event's type in `E`.
pub(crate) fn find<E: Event>(event_type: &str) -> Result<Found, CodecError> {
    // A stored name is that of today almost always.
    if let Some(definition) = E::DEFINITIONS.iter().find(|own| own.name() == event_type) {
        return Ok(Found::Current(definition));
    }
    if let Some(definition) = E::DEFINITIONS
        .iter()
        .find(|own| own.is_stored_as(event_type))
    {
        return Ok(Found::Current(definition));
    }
    match E::PAST.iter().find(|past| past.name() == event_type) {
        Some(past) => Ok(Found::Past(past)),
        None => Err(CodecError::UnknownType {
            event_type: event_type.to_owned(),
            rust_type: type_name::<E>(),
        }),
    }
}

/// Brings a payload to the shape that this program knows.
fn upcast(
    definition: &'static EventDefinition,
    event_type: &str,
    stored: u32,
    mut payload: Value,
) -> Result<Value, CodecError> {
    let known = definition.schema_version();
    if !(1..=known).contains(&stored) {
        return Err(CodecError::UnknownVersion {
            event_type: event_type.to_owned(),
            schema_version: stored,
            known,
        });
    }
    for version in stored..known {
        let upcast = definition.upcast(version).ok_or_else(|| MissingUpcast {
            event_type: definition.name(),
            from: version,
        })?;
        payload = upcast
            .convert(payload)
            .map_err(|source| CodecError::Upcast {
                event_type: event_type.to_owned(),
                from: version,
                source,
            })?;
    }
    Ok(payload)
}

/// An event that could not be written as JSON or read from it.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Serde could not write the payload.
    #[error("cannot write the payload of `{event_type}` as JSON")]
    Encode {
        /// The event's type.
        event_type: String,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The payload does not fit the Rust type.
    #[error(
        "the payload of `{event_type}` does not fit `{rust_type}`; make the Rust type read what is stored, for example with `#[serde(default)]`"
    )]
    Decode {
        /// The event's type.
        event_type: String,
        /// The Rust type that was wanted.
        rust_type: &'static str,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The Rust type has no such event type.
    #[error("`{rust_type}` has no event type `{event_type}`; add it there, or read another type")]
    UnknownType {
        /// The stored type.
        event_type: String,
        /// The Rust type that was wanted.
        rust_type: &'static str,
    },
    /// The payload's shape is of a version that this program does not know.
    #[error(
        "`{event_type}` is stored in version {schema_version} of its shape, and this program knows versions 1 to {known}; update the program"
    )]
    UnknownVersion {
        /// The event's type.
        event_type: String,
        /// The version that is stored.
        schema_version: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// Nothing makes of a payload of one version that of the next.
    #[error(transparent)]
    MissingUpcast(#[from] MissingUpcast),
    /// A stored payload does not fit the function that should bring it to the next version.
    #[error(
        "the payload of `{event_type}` does not fit the upcast from version {from}; make that read what is stored"
    )]
    Upcast {
        /// The stored type.
        event_type: String,
        /// The version that the upcast reads.
        from: u32,
        /// What serde says.
        source: serde_json::Error,
    },
    /// What is stored is not one event today, but none or several.
    #[error(
        "`{event_type}` was split or is retired, so it is {count} events of `{rust_type}`; read it by `decode_all`"
    )]
    NotOne {
        /// The stored type.
        event_type: String,
        /// The Rust type that was wanted.
        rust_type: &'static str,
        /// How many events it is.
        count: usize,
    },
    /// What is stored is not in the stored form.
    #[error("what is stored is no event: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// Not an event type.
    #[error(
        "`{event_type}` is no event type; write lower-case segments joined by dots, such as `github.pr.opened`"
    )]
    InvalidType {
        /// What was given.
        event_type: String,
    },
    /// A name in the metadata that belongs to the framework.
    #[error("`{key}` in the metadata belongs to the framework; choose another name")]
    ReservedKey {
        /// The name.
        key: String,
    },
    /// A name that no aggregate can have.
    #[error(transparent)]
    Aggregate(#[from] crate::recorded::InvalidAggregateId),
}

impl CodecError {
    pub(crate) fn decode<E>(event_type: &str, source: serde_json::Error) -> Self {
        Self::Decode {
            event_type: event_type.to_owned(),
            rust_type: type_name::<E>(),
            source,
        }
    }

    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed {
            reason: reason.into(),
        }
    }
}
