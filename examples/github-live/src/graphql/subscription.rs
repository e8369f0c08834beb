//! Subscriptions.

use std::time::Duration;

use async_graphql::{Context, ID, Result, Subscription as GraphqlSubscription};
use event_graphql::Cursor;
use futures::{Stream, StreamExt, stream};

use super::build::{BuildEvent, BuildStatus};
use super::error::unavailable;
use super::event::{EventEdge, RepositoryUpdate};
use super::session::AiSessionUpdate;
use super::status::Status;
use crate::ai::{AiEvent, AiResponseChunk};
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
