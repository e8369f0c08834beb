//! Subscriptions.

use std::time::Duration;

use async_graphql::{
    Context, Enum, ID, Result, SimpleObject, Subscription as GraphqlSubscription, Union,
};
use event_core::Event;
use event_graphql::{self as bridge, Cursor, Edge};
use futures::{Stream, StreamExt, stream};
use github_webhooks::github::Run;
use serde::{Deserialize, Serialize};

use super::error::unavailable;
use super::event::{EventEdge, RepositoryUpdate, note};
use super::status::Status;
use crate::ai::{AiContextLoaded, AiEvent, AiResponseChunk, AiResponseCompleted, AiSessionStarted};
use crate::feeds;
use crate::live::Live;

/// How often a client is told how the service is doing.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// What can be followed.
pub struct Subscription;

#[GraphqlSubscription]
impl Subscription {
    /// All events, of any type: those behind `after`, and then those that come.
    async fn events(
        &self,
        ctx: &Context<'_>,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = Result<EventEdge>> + use<>> {
        let patterns = feeds::patterns().map_err(unavailable)?;
        let events = ctx.data::<Live>()?.bridge().matching(patterns);
        let events = events.after(after).resume(ctx).subscribe().await?;
        Ok(events.map(|edge| edge.map(EventEdge::new)))
    }

    /// What happens to a repository, or to any, with what it is then.
    async fn repository_updated(
        &self,
        ctx: &Context<'_>,
        repository: Option<String>,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = Result<RepositoryUpdate>> + use<>> {
        let pattern = feeds::REPOSITORY.parse().map_err(unavailable)?;
        let mut events = ctx.data::<Live>()?.bridge().matching([pattern]);
        if let Some(wanted) = repository {
            events = events.filter(move |event| {
                let aggregate = event.recorded().aggregate();
                aggregate.is_some_and(|aggregate| aggregate.id == wanted)
            });
        }
        let events = events.after(after).resume(ctx).subscribe().await?;
        Ok(events.map(|edge| edge.map(RepositoryUpdate::new)))
    }

    /// How the workflows and checks of a repository, or of any, are doing.
    async fn build_status(
        &self,
        ctx: &Context<'_>,
        repository: Option<String>,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = Result<BuildStatus>> + use<>> {
        let mut events = ctx.data::<Live>()?.bridge().events::<BuildEvent>();
        if let Some(wanted) = repository {
            events = events.filter(move |event: &BuildEvent| {
                event.run().origin.repository.as_ref() == Some(&wanted)
            });
        }
        let events = events.after(after).resume(ctx).subscribe().await?;
        Ok(events.map(|edge| edge.map(BuildStatus::of)))
    }

    /// What happens in an AI session: what is stored of it, behind `after` and then as it comes, and the pieces of
    /// its answer as they are sent. Those are kept nowhere: what was missed is counted, and the whole answer
    /// comes at the end.
    async fn ai_session(
        &self,
        ctx: &Context<'_>,
        session: ID,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = Result<AiSessionUpdate>> + use<>> {
        let bridge = ctx.data::<Live>()?.bridge();
        let (of_stored, of_chunk) = (session.to_string(), session.to_string());
        // What is sent is listened to first, so that nothing of it is missed.
        let chunks = bridge.realtime::<AiResponseChunk>();
        let chunks = chunks.filter(move |chunk| chunk.session == of_chunk);
        let chunks = chunks.subscribe().await?;
        let stored = bridge.events::<AiEvent>();
        let stored = stored.filter(move |event| event.session() == of_stored);
        let stored = stored.after(after).resume(ctx).subscribe().await?;
        Ok(stream::select(
            stored.map(|edge| edge.map(AiSessionUpdate::stored)),
            chunks.map(|chunk| chunk.map(AiSessionUpdate::sent)),
        ))
    }

    /// How the service is doing, once a second.
    async fn status(
        &self,
        ctx: &Context<'_>,
    ) -> Result<impl Stream<Item = Result<Status>> + use<>> {
        let live = ctx.data::<Live>()?.clone();
        let ticks = tokio::time::interval(STATUS_EVERY);
        Ok(stream::unfold(
            (live, ticks),
            |(live, mut ticks)| async move {
                ticks.tick().await;
                let status = Status::now(&live).await.map_err(unavailable);
                Some((status, (live, ticks)))
            },
        ))
    }
}

/// What is told of workflows and checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event)]
pub(super) enum BuildEvent {
    #[event("github.workflow_run.requested")]
    Requested(Run),
    #[event("github.workflow_run.in_progress")]
    InProgress(Run),
    #[event("github.workflow_run.completed")]
    Completed(Run),
    #[event("github.check_run.completed")]
    Checked(Run),
}

impl BuildEvent {
    fn run(&self) -> &Run {
        match self {
            Self::Requested(run)
            | Self::InProgress(run)
            | Self::Completed(run)
            | Self::Checked(run) => run,
        }
    }
}

/// How far a workflow or a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(super) enum BuildStage {
    /// It is about to run.
    Requested,
    /// It runs.
    InProgress,
    /// It has ended.
    Completed,
}

/// How a workflow or a check is doing.
#[derive(SimpleObject)]
#[graphql(complex)]
pub(super) struct BuildStatus {
    /// The repository's full name.
    repository: Option<String>,
    /// The name of the workflow or the check.
    name: Option<String>,
    /// The branch that it runs on.
    branch: Option<String>,
    /// How far it is.
    stage: BuildStage,
    /// How it ended: `success`, `failure`, ….
    conclusion: Option<String>,
    #[graphql(skip)]
    cursor: Cursor,
}

#[async_graphql::ComplexObject]
impl BuildStatus {
    /// Where to go on behind it: send it back as `after`.
    async fn cursor(&self, ctx: &Context<'_>) -> &Cursor {
        note(ctx, &self.cursor);
        &self.cursor
    }
}

impl BuildStatus {
    fn of(edge: Edge<BuildEvent>) -> Self {
        let run = edge.event().run().clone();
        Self {
            repository: run.origin.repository,
            name: run.name,
            branch: run.branch,
            stage: match edge.event() {
                BuildEvent::Requested(_) => BuildStage::Requested,
                BuildEvent::InProgress(_) => BuildStage::InProgress,
                BuildEvent::Completed(_) | BuildEvent::Checked(_) => BuildStage::Completed,
            },
            conclusion: run.conclusion,
            cursor: edge.cursor_behind().clone(),
        }
    }
}

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

#[async_graphql::ComplexObject]
impl AiSessionUpdate {
    /// Where to go on behind it: send it back as `after`. A piece of the answer has none, since it lies nowhere.
    async fn cursor(&self, ctx: &Context<'_>) -> Option<&Cursor> {
        let cursor = self.cursor.as_ref()?;
        note(ctx, cursor);
        Some(cursor)
    }
}

impl AiSessionUpdate {
    fn stored(edge: Edge<AiEvent>) -> Self {
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

    fn sent(chunk: bridge::Live<AiResponseChunk>) -> Self {
        Self {
            event: AiSessionEvent::Chunk(chunk.event().clone()),
            missed: chunk.lost(),
            cursor: None,
        }
    }
}
