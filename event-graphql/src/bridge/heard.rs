//! What was heard of realtime events, as all clients get it.

use std::sync::Arc;

use event_core::RecordedEvent;

/// What was heard.
pub(crate) enum Heard<E> {
    Event(Arc<HeardEvent<E>>),
    /// So many events have not arrived.
    Missed(u64),
}

impl<E> Clone for Heard<E> {
    fn clone(&self) -> Self {
        match self {
            Heard::Event(event) => Heard::Event(Arc::clone(event)),
            Heard::Missed(count) => Heard::Missed(*count),
        }
    }
}

/// An event that was heard.
#[derive(Debug)]
pub(crate) struct HeardEvent<E> {
    pub(crate) node: Arc<E>,
    pub(crate) event: RecordedEvent,
}
