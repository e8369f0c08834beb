//! What clients get: an event, and where to go on behind it.

use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::{Context, Object, OutputType, TypeName};
use event_core::RecordedEvent;

use super::cursor::Cursor;
use crate::transport::Resume;

/// An event, and where to go on behind it. In GraphQL it is an object type: that of an event `Pushed` is
/// called `PushedEdge`, and has the fields `node`, `cursor`, `eventId`, `eventType`, `timestamp` (RFC 3339),
/// `correlationId`, `causationId`, `missed`.
#[derive(Debug)]
pub struct Edge<E> {
    node: Arc<E>,
    event: RecordedEvent,
    cursor: Cursor,
    missed: u64,
}

impl<E> Clone for Edge<E> {
    fn clone(&self) -> Self {
        Self {
            node: Arc::clone(&self.node),
            event: self.event.clone(),
            cursor: self.cursor.clone(),
            missed: self.missed,
        }
    }
}

impl<E> Edge<E> {
    pub(crate) fn new(node: Arc<E>, event: RecordedEvent, cursor: Cursor) -> Self {
        Self {
            node,
            event,
            cursor,
            missed: 0,
        }
    }

    /// Has a response that is an event of a stream of events carry the cursor as its id: this one, whatever the
    /// stream has given meanwhile.
    fn note(&self, ctx: &Context<'_>) {
        if let Some(resume) = ctx.data_opt::<Resume>() {
            resume.note(self.cursor.as_str());
        }
    }

    pub(crate) fn leave_out(&mut self, count: u64) {
        self.missed += count;
    }

    /// The event.
    pub fn event(&self) -> &E {
        &self.node
    }

    /// The event as it lies in the feed, with its metadata.
    pub fn recorded(&self) -> &RecordedEvent {
        &self.event
    }

    /// Where to go on behind it.
    pub fn cursor_behind(&self) -> &Cursor {
        &self.cursor
    }

    /// How many events were left out before it, because the client was too slow and
    /// [said so](super::SlowClient).
    pub fn left_out(&self) -> u64 {
        self.missed
    }
}

impl<E: OutputType> TypeName for Edge<E> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Edge", <E as OutputType>::type_name()).into()
    }
}

/// An event, and where to go on behind it.
#[Object(name_type)]
impl<E: OutputType> Edge<E> {
    /// The event.
    async fn node(&self, ctx: &Context<'_>) -> &E {
        self.note(ctx);
        &self.node
    }

    /// Where to go on behind it.
    async fn cursor(&self, ctx: &Context<'_>) -> &Cursor {
        self.note(ctx);
        &self.cursor
    }

    /// The event's id: the same wherever it is seen.
    async fn event_id(&self, ctx: &Context<'_>) -> String {
        self.note(ctx);
        self.event.metadata().event_id.to_string()
    }

    /// The event's type.
    async fn event_type(&self, ctx: &Context<'_>) -> &str {
        self.note(ctx);
        self.event.event_type()
    }

    /// When it happened, RFC 3339.
    async fn timestamp(&self, ctx: &Context<'_>) -> String {
        self.note(ctx);
        self.event.metadata().timestamp.to_rfc3339()
    }

    /// What it belongs to.
    async fn correlation_id(&self, ctx: &Context<'_>) -> &str {
        self.note(ctx);
        &self.event.metadata().correlation_id
    }

    /// The event that has led to it.
    async fn causation_id(&self, ctx: &Context<'_>) -> Option<&str> {
        self.note(ctx);
        self.event.metadata().causation_id.as_deref()
    }

    /// How many events were left out before it.
    async fn missed(&self, ctx: &Context<'_>) -> u64 {
        self.note(ctx);
        self.missed
    }
}
