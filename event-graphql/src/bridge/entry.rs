//! One entry of a feed, shared by all clients that look at it.

use std::any::{Any, TypeId};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use event_core::{CodecError, Event, RecordedEvent};

use super::cursor::Cursor;

/// What an entry is as a Rust type: no event of it, one, or several where its type was split.
pub(crate) type Decoded<E> = Result<Vec<Arc<E>>, Arc<CodecError>>;

/// An entry of a feed. It is decoded once for each Rust type that is asked for, whoever asks.
pub(crate) struct Entry {
    event: RecordedEvent,
    decoded: Mutex<Vec<(TypeId, Arc<dyn Any + Send + Sync>)>>,
    /// The cursor behind it, where its partition is all that a client looks at.
    cursor: OnceLock<Cursor>,
}

impl Entry {
    pub(crate) fn new(event: RecordedEvent) -> Self {
        Self {
            event,
            decoded: Mutex::default(),
            cursor: OnceLock::new(),
        }
    }

    pub(crate) fn event(&self) -> &RecordedEvent {
        &self.event
    }

    /// The cursor behind it, made by the first that asks.
    pub(crate) fn cursor(&self, make: impl FnOnce() -> Cursor) -> &Cursor {
        self.cursor.get_or_init(make)
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.event.payload().len() + ENTRY_BYTES
    }

    /// Its events of type `E`; none where it is of another type.
    pub(crate) fn decode<E: Event>(&self) -> Arc<Decoded<E>> {
        let wanted = TypeId::of::<E>();
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        let known = decoded.iter().find(|(known, _)| *known == wanted);
        if let Some(found) = known.and_then(|(_, any)| Arc::clone(any).downcast().ok()) {
            return found;
        }
        let fresh = Arc::new(decode::<E>(&self.event));
        decoded.push((wanted, Arc::clone(&fresh) as Arc<dyn Any + Send + Sync>));
        fresh
    }
}

/// Metadata and what surrounds it, about.
const ENTRY_BYTES: usize = 512;

/// What an event is read as; nothing where it is of another type.
pub(crate) fn decode<E: Event>(event: &RecordedEvent) -> Decoded<E> {
    if !is_of::<E>(event.event_type()) {
        return Ok(Vec::new());
    }
    let events = event.decode_all::<E>().map_err(Arc::new)?;
    Ok(events.into_iter().map(Arc::new).collect())
}

/// Whether entries of this type are read as `E`.
pub(crate) fn is_of<E: Event>(event_type: &str) -> bool {
    let today = E::DEFINITIONS.iter();
    let mut past = E::PAST.iter();
    today.into_iter().any(|own| own.is_stored_as(event_type))
        || past.any(|own| own.name() == event_type)
}
