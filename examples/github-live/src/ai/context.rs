//! Contexts: what is known of a repository, as sentences, kept until an event makes them old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_graphql::dataloader::Loader;
use event_core::{Loaded, RepositoryError};
use event_graphql::{LoadError, LoaderCache};
use github_webhooks::repository::{GithubRepository, PullRequestState};

use crate::repositories::{ByRepository, RepositoryLoader};

/// What is known of a repository.
#[derive(Clone, Debug)]
pub struct Context {
    /// The version that it is of; 0 where nothing is known.
    pub version: u64,
    /// A sentence each.
    pub facts: Vec<String>,
    loaded: Instant,
}

/// A context that could not be loaded.
pub type ContextError = LoadError<Arc<RepositoryError>>;

/// The contexts of a process. A clone is the same.
#[derive(Clone, Debug)]
pub struct Contexts(ByRepository<ContextLoader>);

impl Contexts {
    /// None yet.
    pub fn new(repositories: RepositoryLoader) -> Self {
        let loader = ContextLoader { repositories };
        Self(ByRepository::new(LoaderCache::builder(loader)))
    }

    /// What is known of a repository, and whether it was kept from before.
    ///
    /// # Errors
    /// [`ContextError`] where the store does not answer.
    pub async fn of(&self, repository: &str) -> Result<(Arc<Context>, bool), ContextError> {
        let asked = Instant::now();
        let found = self.0.cache().load_one(repository.to_owned()).await?;
        let context = found.unwrap_or_else(|| Arc::new(Context::unknown()));
        let cached = context.loaded < asked;
        Ok((context, cached))
    }

    /// What has its contexts forgotten.
    pub fn invalidated(&self) -> &ByRepository<ContextLoader> {
        &self.0
    }
}

impl Context {
    fn unknown() -> Self {
        Self {
            version: 0,
            facts: Vec::new(),
            loaded: Instant::now(),
        }
    }

    fn of(repository: &Loaded<GithubRepository>) -> Self {
        Self {
            version: repository.version,
            facts: facts(&repository.state),
            loaded: Instant::now(),
        }
    }
}

fn facts(state: &GithubRepository) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(phase) = state.phase {
        facts.push(format!("It is in the phase {phase}."));
    }
    if let Some(branch) = &state.default_branch {
        let commits = counted(state.commits, "commit", "commits");
        facts.push(format!(
            "{commits} came to it; work comes together in {branch}."
        ));
    }
    let open: Vec<String> = state
        .pull_requests
        .iter()
        .filter(|(_, state)| **state == PullRequestState::Open)
        .map(|(number, _)| format!("#{number}"))
        .collect();
    facts.push(match open.as_slice() {
        [] => "No pull request is open.".to_owned(),
        [one] => format!("Pull request {one} is open."),
        several => format!("Pull requests {} are open.", several.join(", ")),
    });
    if !state.open_issues.is_empty() {
        let issues = state.open_issues.len() as u64;
        facts.push(format!(
            "{} to be closed.",
            counted(issues, "issue is", "issues are")
        ));
    }
    for (name, conclusion) in &state.checks {
        facts.push(format!("{name}: {conclusion}."));
    }
    if let Some(newest) = state.releases.last() {
        facts.push(format!("Its newest release is {newest}."));
    }
    if state.archived {
        facts.push("It is archived.".to_owned());
    }
    if let Some(name) = &state.moved_to {
        facts.push(format!("It is called {name} now."));
    }
    facts
}

fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// Loads contexts.
#[derive(Clone, Debug)]
pub struct ContextLoader {
    repositories: RepositoryLoader,
}

impl Loader<String> for ContextLoader {
    type Value = Arc<Context>;
    type Error = Arc<RepositoryError>;

    async fn load(&self, names: &[String]) -> Result<HashMap<String, Arc<Context>>, Self::Error> {
        let found = self.repositories.load(names).await?;
        Ok(found
            .into_iter()
            .map(|(name, repository)| (name, Arc::new(Context::of(&repository))))
            .collect())
    }
}
