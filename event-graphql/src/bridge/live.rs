//! What clients get of realtime events.

use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::{Object, OutputType, TypeName};
use event_core::RecordedEvent;

use super::heard::HeardEvent;

/// A realtime event. It lies nowhere, so that there is no cursor behind it; what was lost before it is counted. In
/// GraphQL it is an object type: that of an event `ResponseChunk` is called `LiveResponseChunk`, and has the fields
/// `node`, `missed`, `eventId`, `eventType`, `timestamp` (RFC 3339), `correlationId`, `causationId`.
#[derive(Debug)]
pub struct Live<E> {
    heard: Arc<HeardEvent<E>>,
    missed: u64,
}

impl<E> Clone for Live<E> {
    fn clone(&self) -> Self {
        Self {
            heard: Arc::clone(&self.heard),
            missed: self.missed,
        }
    }
}

impl<E> Live<E> {
    pub(crate) fn new(heard: Arc<HeardEvent<E>>, missed: u64) -> Self {
        Self { heard, missed }
    }

    pub(crate) fn leave_out(&mut self, count: u64) {
        self.missed += count;
    }

    /// The event.
    pub fn event(&self) -> &E {
        &self.heard.node
    }

    /// The event as it was sent, with its metadata.
    pub fn recorded(&self) -> &RecordedEvent {
        &self.heard.event
    }

    /// How many events of the subscription's types were lost since the last one that the client got, on the way to
    /// this process or because the client was too slow. Events that its filter leaves out are counted too.
    pub fn lost(&self) -> u64 {
        self.missed
    }
}

impl<E: OutputType> TypeName for Live<E> {
    fn type_name() -> Cow<'static, str> {
        format!("Live{}", <E as OutputType>::type_name()).into()
    }
}

/// A realtime event.
#[Object(name_type)]
impl<E: OutputType> Live<E> {
    /// The event.
    async fn node(&self) -> &E {
        &self.heard.node
    }

    /// How many events were lost before it.
    async fn missed(&self) -> u64 {
        self.missed
    }

    /// The event's id: the same wherever it is seen.
    async fn event_id(&self) -> String {
        self.heard.event.metadata().event_id.to_string()
    }

    /// The event's type.
    async fn event_type(&self) -> &str {
        self.heard.event.event_type()
    }

    /// When it happened, RFC 3339.
    async fn timestamp(&self) -> String {
        self.heard.event.metadata().timestamp.to_rfc3339()
    }

    /// What it belongs to.
    async fn correlation_id(&self) -> &str {
        &self.heard.event.metadata().correlation_id
    }

    /// The event that has led to it.
    async fn causation_id(&self) -> Option<&str> {
        self.heard.event.metadata().causation_id.as_deref()
    }
}
