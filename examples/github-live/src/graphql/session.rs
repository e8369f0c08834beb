//! AI sessions as clients see them.

use async_graphql::{ComplexObject, Context, SimpleObject, Union};
use event_graphql::{Cursor, Edge, Live};

use super::event::note;
use crate::ai::{AiContextLoaded, AiEvent, AiResponseChunk, AiResponseCompleted, AiSessionStarted};

/// What happens in a session.
#[derive(Union)]
pub(super) enum AiSessionEvent {
    Started(AiSessionStarted),
    ContextLoaded(AiContextLoaded),
    Chunk(AiResponseChunk),
    Completed(AiResponseCompleted),
}

/// Something that has happened in a session.
#[derive(SimpleObject)]
#[graphql(complex)]
pub(super) struct AiSessionUpdate {
    /// What has happened.
    event: AiSessionEvent,
    /// How many pieces of answers, of this session or others, were lost before this one.
    missed: u64,
    #[graphql(skip)]
    cursor: Option<Cursor>,
}

#[ComplexObject]
impl AiSessionUpdate {
    /// Where to go on behind it: send it back as `after`. A piece of the answer has none, since it lies nowhere.
    async fn cursor(&self, ctx: &Context<'_>) -> Option<&Cursor> {
        let cursor = self.cursor.as_ref()?;
        note(ctx, cursor);
        Some(cursor)
    }
}

impl AiSessionUpdate {
    pub(super) fn stored(edge: Edge<AiEvent>) -> Self {
        Self {
            event: match edge.event().clone() {
                AiEvent::Started(event) => AiSessionEvent::Started(event),
                AiEvent::ContextLoaded(event) => AiSessionEvent::ContextLoaded(event),
                AiEvent::Completed(event) => AiSessionEvent::Completed(event),
            },
            missed: edge.left_out(),
            cursor: Some(edge.cursor_behind().clone()),
        }
    }

    pub(super) fn sent(chunk: Live<AiResponseChunk>) -> Self {
        Self {
            event: AiSessionEvent::Chunk(chunk.event().clone()),
            missed: chunk.lost(),
            cursor: None,
        }
    }
}
