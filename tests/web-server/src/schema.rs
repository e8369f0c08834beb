//! What clients can ask for.

use async_graphql::dataloader::DataLoader;
use async_graphql::{Context, Object, Result, Schema, SchemaBuilder, Subscription};
use event_core::Service;
use event_graphql::{Access, Cursor, Edge, EventSubscriptionBridge, Live};
use futures::Stream;

use crate::events::{OtherStepped, Repo, ResponseChunk, Star, Starred, Stepped};
use crate::rights::Rights;
use crate::stars::{CachedStars, RepositoryKey};

pub(crate) type ServerSchema = Schema<Query, Mutation, Subscriptions>;

pub(crate) fn schema() -> SchemaBuilder<Query, Mutation, Subscriptions> {
    Schema::build(Query, Mutation, Subscriptions)
}

pub(crate) struct Query;

#[Object]
impl Query {
    /// How many stars a repository has.
    async fn stars(&self, ctx: &Context<'_>, repository: String) -> Result<u64> {
        let loader = ctx.data::<DataLoader<CachedStars>>()?;
        let stars = loader.load_one(RepositoryKey(repository)).await?;
        Ok(stars.unwrap_or_default())
    }
}

pub(crate) struct Mutation;

#[Object]
impl Mutation {
    /// Stores a step, and gives the event's id.
    async fn step(&self, ctx: &Context<'_>, lane: String, number: u64) -> Result<String> {
        let text = String::new();
        let stepped = Stepped { lane, number, text };
        let published = ctx.data::<Service>()?.publish(stepped).await?;
        let ids = published
            .events
            .iter()
            .map(|one| one.event.metadata().event_id.to_string());
        Ok(ids.collect())
    }

    /// Sends a piece of an answer.
    async fn say(&self, ctx: &Context<'_>, text: String) -> Result<bool> {
        ctx.data::<Service>()?
            .publish(ResponseChunk { text })
            .await?;
        Ok(true)
    }

    /// Gives a repository a star, and says how many it has then.
    async fn star(&self, ctx: &Context<'_>, repository: String, by: String) -> Result<u64> {
        let repositories = ctx.data::<Service>()?.repository::<Repo>();
        let star = Star {
            repository: repository.clone(),
            by,
        };
        Ok(repositories.execute(&repository, star).await?.state.stars)
    }
}

pub(crate) struct Subscriptions;

#[Subscription]
impl Subscriptions {
    /// The steps of a lane, or of all.
    async fn stepped(
        &self,
        ctx: &Context<'_>,
        lane: Option<String>,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = Result<Edge<Stepped>>>> {
        ctx.data::<EventSubscriptionBridge>()?
            .events::<Stepped>()
            .filter(move |event| lane.as_ref().is_none_or(|lane| *lane == event.lane))
            .after(after)
            .resume(ctx)
            .subscribe()
            .await
    }

    /// The steps of another feed.
    async fn other(
        &self,
        ctx: &Context<'_>,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = Result<Edge<OtherStepped>>>> {
        let bridge = ctx.data::<EventSubscriptionBridge>()?;
        bridge
            .events::<OtherStepped>()
            .after(after)
            .resume(ctx)
            .subscribe()
            .await
    }

    /// The steps that a user may see: not those of the lane "hidden", and none once the right is revoked. Where
    /// `by_event`, that is found out with the next event, and otherwise at once.
    async fn watched(
        &self,
        ctx: &Context<'_>,
        user: String,
        by_event: bool,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = Result<Edge<Stepped>>>> {
        let right = ctx.data::<Rights>()?.of(&user);
        let watched = ctx.data::<EventSubscriptionBridge>()?.events::<Stepped>();
        let watched = match by_event {
            false => watched.until_revoked(right),
            true => watched.authorize(move |event| match event {
                _ if right.is_cancelled() => Access::Revoked,
                Some(event) if event.lane == "hidden" => Access::Hidden,
                _ => Access::Granted,
            }),
        };
        watched.after(after).resume(ctx).subscribe().await
    }

    /// The pieces of answers, as they are sent.
    async fn chunks(
        &self,
        ctx: &Context<'_>,
    ) -> Result<impl Stream<Item = Result<Live<ResponseChunk>>>> {
        let bridge = ctx.data::<EventSubscriptionBridge>()?;
        bridge.realtime::<ResponseChunk>().subscribe().await
    }

    /// The stars that repositories are given.
    async fn starred(
        &self,
        ctx: &Context<'_>,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = Result<Edge<Starred>>>> {
        let bridge = ctx.data::<EventSubscriptionBridge>()?;
        bridge
            .events::<Starred>()
            .after(after)
            .resume(ctx)
            .subscribe()
            .await
    }
}
