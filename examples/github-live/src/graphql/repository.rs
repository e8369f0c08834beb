//! Repositories as clients see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_graphql::{Context, Enum, Object, Result, SimpleObject};
use event_core::{AggregateId, At, EventStore, Loaded, ReadError, RepositoryError, Versions};
use github_webhooks::phase;
use github_webhooks::repository::{self, GithubRepository};

use super::error::{coded, unavailable};
use super::event::Event;
use crate::live::Live;

/// How many events of a history are given at once.
const HISTORY: usize = 200;

/// Where a repository stands.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "phase::Phase")]
pub(super) enum Phase {
    /// It is talked about what to do.
    Plan,
    /// Work comes together on the default branch.
    Build,
    /// Workflows run on what was built.
    Test,
    /// It can be had.
    Release,
}

/// What became of a pull request.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "repository::PullRequestState")]
pub(super) enum PullRequestState {
    /// It may be merged.
    Open,
    /// It was closed without being merged.
    Closed,
    /// It was merged.
    Merged,
}

/// A pull request.
#[derive(SimpleObject)]
pub(super) struct PullRequest {
    /// Its number.
    number: u64,
    /// What became of it.
    state: PullRequestState,
}

/// A name, and what is to be had under it.
#[derive(SimpleObject)]
pub(super) struct Named {
    /// The name.
    name: String,
    /// What it is, or how it stands.
    value: String,
}

/// A repository, rebuilt from its events.
pub(super) struct Repository {
    name: String,
    loaded: Arc<Loaded<GithubRepository>>,
}

impl Repository {
    pub(super) fn new(name: String, loaded: Arc<Loaded<GithubRepository>>) -> Self {
        Self { name, loaded }
    }

    /// A repository as it is now.
    pub(super) async fn find(ctx: &Context<'_>, name: String) -> Result<Option<Self>> {
        let live = ctx.data::<Live>()?;
        let loaded = live.repositories().cache().load_one(name.clone()).await;
        let loaded = loaded.map_err(unavailable)?;
        Ok(loaded.map(|loaded| Self { name, loaded }))
    }

    /// A repository as it was at a version.
    pub(super) async fn find_at(
        ctx: &Context<'_>,
        name: String,
        version: u64,
    ) -> Result<Option<Self>> {
        let live = ctx.data::<Live>()?;
        match live.repository().load_at(&name, At::Version(version)).await {
            Ok(loaded) => Ok(Some(Self {
                name,
                loaded: Arc::new(loaded),
            })),
            Err(RepositoryError::NotFound { .. } | RepositoryError::InvalidId(_)) => Ok(None),
            Err(error @ RepositoryError::NoSuchVersion { .. }) => {
                Err(coded("NO_SUCH_VERSION", error))
            }
            Err(error) => Err(unavailable(error)),
        }
    }
}

/// A repository, rebuilt from its events.
#[Object]
impl Repository {
    /// Its full name, `OWNER/NAME`.
    async fn name(&self) -> &str {
        &self.name
    }

    /// How many events it is made of.
    async fn version(&self) -> u64 {
        self.loaded.version
    }

    /// Where it stands; unknown until something tells.
    async fn phase(&self) -> Option<Phase> {
        self.loaded.state.phase.map(Into::into)
    }

    /// The branch that its work comes together in.
    async fn default_branch(&self) -> Option<&str> {
        self.loaded.state.default_branch.as_deref()
    }

    /// Whether only some may see it, where that is known.
    async fn private(&self) -> Option<bool> {
        self.loaded.state.private
    }

    /// Whether it can only be read.
    async fn archived(&self) -> bool {
        self.loaded.state.archived
    }

    /// Whether it was removed.
    async fn deleted(&self) -> bool {
        self.loaded.state.deleted
    }

    /// The name that it has now, if that is another.
    async fn moved_to(&self) -> Option<&str> {
        self.loaded.state.moved_to.as_deref()
    }

    /// The names that it had before.
    async fn previous_names(&self) -> &[String] {
        &self.loaded.state.previous_names
    }

    /// How many commits were pushed.
    async fn commits(&self) -> u64 {
        self.loaded.state.commits
    }

    /// The commit that each branch and each tag is at.
    async fn heads(&self) -> Vec<Named> {
        named(&self.loaded.state.heads)
    }

    /// Its pull requests.
    async fn pull_requests(&self, state: Option<PullRequestState>) -> Vec<PullRequest> {
        self.loaded
            .state
            .pull_requests
            .iter()
            .map(|(number, state)| PullRequest {
                number: *number,
                state: (*state).into(),
            })
            .filter(|request| state.is_none_or(|wanted| wanted == request.state))
            .collect()
    }

    /// The numbers of its open issues.
    async fn open_issues(&self) -> Vec<u64> {
        self.loaded.state.open_issues.iter().copied().collect()
    }

    /// The tags of its releases.
    async fn releases(&self) -> Vec<&str> {
        let releases = self.loaded.state.releases.iter();
        releases.map(String::as_str).collect()
    }

    /// The newest version of each of its packages.
    async fn packages(&self) -> Vec<Named> {
        named(&self.loaded.state.packages)
    }

    /// How each workflow and each check ended the last time, or that it runs.
    async fn checks(&self) -> Vec<Named> {
        named(&self.loaded.state.checks)
    }

    /// How many commands it has refused.
    async fn refusals(&self) -> u64 {
        self.loaded.state.refusals
    }

    /// The events that it is made of, the oldest first, at most 200: go on with the next version.
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 1)] from_version: u64,
    ) -> Result<Vec<Event>> {
        let store = ctx.data::<Live>()?.store();
        let id = AggregateId::of::<GithubRepository>(&self.name);
        let id = id.map_err(|error| coded("BAD_NAME", error))?;
        let versions = Versions::from(from_version.max(1))
            .to(self.loaded.version)
            .limit(HISTORY);
        match store.read_aggregate(&id, &versions).await {
            Ok(events) => Ok(events.into_iter().map(Event::new).collect()),
            Err(ReadError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(unavailable(error)),
        }
    }
}

fn named(pairs: &BTreeMap<String, String>) -> Vec<Named> {
    pairs
        .iter()
        .map(|(name, value)| Named {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}
