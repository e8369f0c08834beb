//! Queries.

use async_graphql::{Context, Object, Result, SimpleObject};
use event_graphql::Cursor;

use super::error::{coded, unavailable};
use super::event::Event;
use super::repository::Repository;
use super::status::Status;
use crate::correlation::CorrelationError;
use crate::feeds;
use crate::live::Live;

/// How many events are given at once.
const EVENTS: u64 = 200;

/// How many repositories are given at once.
const REPOSITORIES: usize = 100;

/// What can be asked.
pub struct Query;

/// The newest events, and where to go on behind them.
#[derive(SimpleObject)]
pub(super) struct Newest {
    /// The events, the oldest first.
    events: Vec<Event>,
    /// Where they end: a subscription to `events` that begins here misses nothing.
    cursor: Cursor,
    /// The same for a subscription to `repositoryUpdated`.
    repository_cursor: Cursor,
}

/// What belongs together.
#[derive(SimpleObject)]
pub(super) struct Correlation {
    /// The events, causes before effects.
    events: Vec<Event>,
    /// Whether these are all: without an index, only the newest 100,000 events are looked at, and at most
    /// 1,000 are given.
    complete: bool,
    /// How many events were read to find them.
    read: u64,
    /// Whether an index said where they are.
    indexed: bool,
}

#[Object]
impl Query {
    /// A repository as its events tell, now or as it was at a version.
    async fn repository(
        &self,
        ctx: &Context<'_>,
        name: String,
        at_version: Option<u64>,
    ) -> Result<Option<Repository>> {
        match at_version {
            None => Repository::find(ctx, name).await,
            Some(version) => Repository::find_at(ctx, name, version).await,
        }
    }

    /// The repositories that are known, by name, at most 100 at once.
    async fn repositories(
        &self,
        ctx: &Context<'_>,
        after: Option<String>,
    ) -> Result<Vec<Repository>> {
        let live = ctx.data::<Live>()?;
        let names = live.names(after.as_deref(), REPOSITORIES).await;
        let names = names.map_err(unavailable)?;
        let found = live.repositories().cache().load_many(names.clone()).await;
        let mut found = found.map_err(unavailable)?;
        Ok(names
            .into_iter()
            .filter_map(|name| Some(Repository::new(name.clone(), found.remove(&name)?)))
            .collect())
    }

    /// The newest events of all kinds, and the cursors to subscribe from.
    async fn newest(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 50)] last: u64,
    ) -> Result<Newest> {
        if last > EVENTS {
            let most = format!("at most {EVENTS} events are given at once");
            return Err(coded("TOO_MANY", most));
        }
        let live = ctx.data::<Live>()?;
        let categories = feeds::categories().map_err(unavailable)?;
        let heads = feeds::heads(&**live.store(), &categories).await;
        let heads = heads.map_err(unavailable)?;
        let of_repositories = live.repository_heads(&heads);
        let limit = usize::try_from(last).unwrap_or(usize::MAX);
        let events = feeds::newest(&**live.store(), &heads, limit).await;
        Ok(Newest {
            events: events
                .map_err(unavailable)?
                .into_iter()
                .map(Event::new)
                .collect(),
            cursor: live.bridge().cursor(&heads),
            repository_cursor: live.bridge().cursor(&of_repositories),
        })
    }

    /// All events that one first event has led to: its effects, and theirs.
    async fn correlation(&self, ctx: &Context<'_>, id: String) -> Result<Correlation> {
        let live = ctx.data::<Live>()?;
        let found = live.correlations().find(&id).await;
        let found = found.map_err(|error| match error {
            CorrelationError::Index(error) => coded("INDEX_UNAVAILABLE", error),
            error => unavailable(error),
        })?;
        Ok(Correlation {
            events: found.events.into_iter().map(Event::new).collect(),
            complete: found.complete,
            read: found.read as u64,
            indexed: found.indexed,
        })
    }

    /// How the service is doing.
    async fn status(&self, ctx: &Context<'_>) -> Result<Status> {
        let live = ctx.data::<Live>()?;
        Status::now(live).await.map_err(unavailable)
    }
}
