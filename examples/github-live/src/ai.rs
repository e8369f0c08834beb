//! The AI session: a stand-in that answers from a script, so that there is something to stream.
//!
//! `ai.session.started` → `ai.context.loaded` → `ai.response.chunk`, many, realtime → `ai.response.completed`
//!
//! No model is asked, and the answer says so. All else is what a real one would need: the context is what
//! is known of a repository, kept until an event of that repository makes it old; the answer is streamed to
//! who listens now; and the whole of it is stored at the end, so that who missed a chunk has it all the same.

mod context;
mod script;

use std::time::Duration;

use async_graphql::SimpleObject;
use event_core::{Backend, BuildError, Event, PublishError, Publisher, Service, event_handler};
use serde::{Deserialize, Serialize};

pub use context::{Context, ContextError, Contexts};

/// The name of the service, and of its group.
pub const SERVICE: &str = "ai-agent";

/// Its handlers.
const HANDLERS: [&str; 2] = ["AiAgent::load_context", "AiAgent::respond"];

/// Somebody has asked something about a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event, SimpleObject)]
#[event("ai.session.started", key = session)]
pub struct AiSessionStarted {
    /// The session's id, which the asker made.
    pub session: String,
    /// The repository's full name.
    pub repository: String,
    /// What was asked.
    pub prompt: String,
}

/// What is known of the repository was put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event, SimpleObject)]
#[event("ai.context.loaded", key = session)]
pub struct AiContextLoaded {
    /// The session's id.
    pub session: String,
    /// The repository's full name.
    pub repository: String,
    /// What was asked.
    pub prompt: String,
    /// The version of the repository that the facts are of.
    pub version: u64,
    /// What is known, a sentence each.
    pub facts: Vec<String>,
    /// Whether it was kept from an earlier session, and no event of the repository has made it old since.
    pub cached: bool,
}

/// A piece of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event, SimpleObject)]
#[event("ai.response.chunk", realtime)]
pub struct AiResponseChunk {
    /// The session's id.
    pub session: String,
    /// Its number, from 0.
    pub index: u32,
    /// What comes next of the answer.
    pub text: String,
}

/// The answer, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event, SimpleObject)]
#[event("ai.response.completed", key = session)]
pub struct AiResponseCompleted {
    /// The session's id.
    pub session: String,
    /// In how many chunks it was sent.
    pub chunks: u32,
    /// The answer.
    pub text: String,
}

/// What is stored of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event)]
pub enum AiEvent {
    /// It was started.
    #[event("ai.session.started")]
    Started(AiSessionStarted),
    /// Its context is there.
    #[event("ai.context.loaded")]
    ContextLoaded(AiContextLoaded),
    /// It has its answer.
    #[event("ai.response.completed")]
    Completed(AiResponseCompleted),
}

impl AiEvent {
    /// The session's id.
    pub fn session(&self) -> &str {
        match self {
            Self::Started(event) => &event.session,
            Self::ContextLoaded(event) => &event.session,
            Self::Completed(event) => &event.session,
        }
    }
}

/// How long the stand-in takes from one chunk to the next.
#[derive(Clone, Copy, Debug)]
pub struct Pause(pub Duration);

/// The service that answers.
///
/// # Errors
/// [`BuildError`] with everything that does not fit together.
pub fn ai_agent(
    store: impl Backend,
    contexts: Contexts,
    pause: Duration,
) -> Result<Service, BuildError> {
    Service::builder(SERVICE)
        .store(store)
        .provide(contexts)
        .provide(Pause(pause))
        .expect_handlers(HANDLERS)
        .build()
}

/// Answers sessions.
#[event_handler]
pub struct AiAgent {
    contexts: Contexts,
    pause: Pause,
    publisher: Publisher,
}

#[event_handler(group = "ai-agent")]
impl AiAgent {
    #[on("ai.session.started")]
    #[emits("ai.context.loaded")]
    async fn load_context(&self, event: AiSessionStarted) -> Result<AiContextLoaded, ContextError> {
        let (context, cached) = self.contexts.of(&event.repository).await?;
        Ok(AiContextLoaded {
            session: event.session,
            repository: event.repository,
            prompt: event.prompt,
            version: context.version,
            facts: context.facts.clone(),
            cached,
        })
    }

    /// Called again where it was broken off: the chunks are sent anew from the first, under the same numbers.
    #[on("ai.context.loaded")]
    #[emits("ai.response.completed")]
    async fn respond(&self, event: AiContextLoaded) -> Result<AiResponseCompleted, PublishError> {
        let text = script::answer(&event);
        let mut chunks = 0;
        for piece in script::chunks(&text) {
            tokio::time::sleep(self.pause.0).await;
            let chunk = AiResponseChunk {
                session: event.session.clone(),
                index: chunks,
                text: piece.to_owned(),
            };
            self.publisher.publish(chunk).await?;
            chunks += 1;
        }
        Ok(AiResponseCompleted {
            session: event.session,
            chunks,
            text,
        })
    }
}
