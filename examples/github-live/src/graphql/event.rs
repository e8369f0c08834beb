//! Events as clients see them.

use async_graphql::{Context, ID, Object, Result};
use chrono::SecondsFormat;
use event_core::{Aggregate, Category, RecordedEvent};
use event_graphql::{AnyEvent, Cursor, Edge, Resume};
use github_webhooks::repository::GithubRepository;
use serde::Deserialize;

use super::repository::Repository;

/// An event of any type.
pub(super) struct Event(RecordedEvent);

impl Event {
    pub(super) fn new(event: RecordedEvent) -> Self {
        Self(event)
    }

    /// The full name of the repository that it is about, if any.
    pub(super) fn about(&self) -> Option<String> {
        match self.0.aggregate() {
            Some(aggregate) if aggregate.aggregate_type == GithubRepository::TYPE => {
                Some(aggregate.id.clone())
            }
            _ => {
                #[derive(Deserialize)]
                struct About {
                    repository: Option<String>,
                }
                let about = serde_json::from_str::<About>(self.0.payload());
                about.ok().and_then(|about| about.repository)
            }
        }
    }
}

/// An event, as it was recorded.
#[Object]
impl Event {
    /// Its id, the same wherever it is seen.
    async fn id(&self) -> ID {
        self.0.metadata().event_id.into()
    }

    /// Its type, such as `github.push`.
    #[graphql(name = "type")]
    async fn event_type(&self) -> &str {
        self.0.event_type()
    }

    /// The first segment of its type, which names its feed.
    async fn category(&self) -> Option<String> {
        let category = Category::of(self.0.event_type()).ok()?;
        Some(category.as_str().to_owned())
    }

    /// Where it lies in its feed.
    async fn position(&self) -> String {
        self.0.position().to_string()
    }

    /// When it was made, RFC 3339 in UTC with microseconds, so that texts are in the order of times.
    async fn timestamp(&self) -> String {
        let timestamp = &self.0.metadata().timestamp;
        timestamp.to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// What it belongs to: the id of the event that began it all, as a rule.
    async fn correlation_id(&self) -> &str {
        &self.0.metadata().correlation_id
    }

    /// The event that has led to it.
    async fn causation_id(&self) -> Option<&str> {
        self.0.metadata().causation_id.as_deref()
    }

    /// The service that made it.
    async fn source(&self) -> Option<&str> {
        self.0.metadata().source.as_deref()
    }

    /// The full name of the repository that it is about, if any.
    async fn repository_name(&self) -> Option<String> {
        self.about()
    }

    /// That repository, as it is now.
    async fn repository(&self, ctx: &Context<'_>) -> Result<Option<Repository>> {
        match self.about() {
            Some(name) => Repository::find(ctx, name).await,
            None => Ok(None),
        }
    }

    /// Its number in the history of its aggregate, where it belongs to one.
    async fn version(&self) -> Option<u64> {
        self.0.aggregate().map(|aggregate| aggregate.version)
    }

    /// What it tells, as JSON text.
    async fn payload(&self) -> &str {
        self.0.payload()
    }
}

/// An event of a subscription, and where to go on behind it.
pub(super) struct EventEdge(Edge<AnyEvent>);

impl EventEdge {
    pub(super) fn new(edge: Edge<AnyEvent>) -> Self {
        Self(edge)
    }
}

/// An event, and where to go on behind it.
#[Object]
impl EventEdge {
    /// The event.
    async fn event(&self, ctx: &Context<'_>) -> Event {
        note(ctx, self.0.cursor_behind());
        Event::new(self.0.recorded().clone())
    }

    /// Where to go on behind it: send it back as `after`.
    async fn cursor(&self, ctx: &Context<'_>) -> &Cursor {
        note(ctx, self.0.cursor_behind());
        self.0.cursor_behind()
    }
}

/// A repository that has changed.
pub(super) struct RepositoryUpdate(Edge<AnyEvent>);

impl RepositoryUpdate {
    pub(super) fn new(edge: Edge<AnyEvent>) -> Self {
        Self(edge)
    }
}

/// What has happened to a repository, and what it is now.
#[Object]
impl RepositoryUpdate {
    /// What has happened.
    async fn event(&self, ctx: &Context<'_>) -> Event {
        note(ctx, self.0.cursor_behind());
        Event::new(self.0.recorded().clone())
    }

    /// The repository with it, and with what may have come since.
    async fn repository(&self, ctx: &Context<'_>) -> Result<Option<Repository>> {
        note(ctx, self.0.cursor_behind());
        match Event::new(self.0.recorded().clone()).about() {
            Some(name) => Repository::find(ctx, name).await,
            None => Ok(None),
        }
    }

    /// Where to go on behind it: send it back as `after`.
    async fn cursor(&self, ctx: &Context<'_>) -> &Cursor {
        note(ctx, self.0.cursor_behind());
        self.0.cursor_behind()
    }
}

/// Says where the client is with this item: the id of an event of a stream of events, and where a client goes
/// on that was too slow for the others. Whichever fields are asked for, one says so.
pub(super) fn note(ctx: &Context<'_>, cursor: &Cursor) {
    if let Some(resume) = ctx.data_opt::<Resume>() {
        resume.note(cursor.as_str());
    }
}
