//! Repositories as queries need them: rebuilt from their events, and kept until one of these comes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_graphql::dataloader::Loader;
use event_core::{Aggregate, CodecError, Loaded, RecordedEvent, Repository, RepositoryError};
use event_graphql::{Invalidates, LoaderCache, LoaderCacheBuilder};
use futures::StreamExt;
use github_webhooks::repository::GithubRepository;

/// How many repositories are loaded at a time.
const AT_A_TIME: usize = 16;

/// Rebuilds repositories from their events.
#[derive(Clone)]
pub struct RepositoryLoader(Arc<Repository<GithubRepository>>);

impl RepositoryLoader {
    /// A loader of the repositories of a store.
    pub fn new(repositories: Repository<GithubRepository>) -> Self {
        Self(Arc::new(repositories))
    }
}

impl fmt::Debug for RepositoryLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RepositoryLoader")
    }
}

impl Loader<String> for RepositoryLoader {
    type Value = Arc<Loaded<GithubRepository>>;
    type Error = Arc<RepositoryError>;

    async fn load(&self, names: &[String]) -> Result<HashMap<String, Self::Value>, Self::Error> {
        let mut loads = futures::stream::iter(names.iter().cloned())
            .map(|name| {
                let repositories = Arc::clone(&self.0);
                async move { (repositories.load(&name).await, name) }
            })
            .buffer_unordered(AT_A_TIME);
        let mut found = HashMap::with_capacity(names.len());
        while let Some((loaded, name)) = loads.next().await {
            match loaded {
                Ok(loaded) => {
                    found.insert(name, Arc::new(loaded));
                }
                // A name that no repository can have is one that none has.
                Err(RepositoryError::NotFound { .. } | RepositoryError::InvalidId(_)) => {}
                Err(error) => return Err(Arc::new(error)),
            }
        }
        Ok(found)
    }
}

/// The repositories of a process.
pub type Repositories = ByRepository<RepositoryLoader>;

/// A cache of values by the full name of a repository, each forgotten when an event of that repository
/// comes. A clone is the same cache.
pub struct ByRepository<L: Loader<String>> {
    cache: LoaderCache<String, L>,
    forgotten: Arc<AtomicU64>,
}

impl<L: Loader<String>> ByRepository<L> {
    /// A cache, empty.
    pub fn new(cache: LoaderCacheBuilder<String, L>) -> Self {
        Self {
            cache: cache.capacity(1_000).build(),
            forgotten: Arc::default(),
        }
    }

    /// The cache.
    pub fn cache(&self) -> &LoaderCache<String, L> {
        &self.cache
    }

    /// How many values are kept now.
    pub fn kept(&self) -> u64 {
        self.cache.len() as u64
    }

    /// How many events have had a value forgotten, if it was there.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Forgets the value of a repository.
    pub fn forget(&self, name: &str) {
        self.cache.invalidate(&name.to_owned());
    }
}

impl<L: Loader<String>> Clone for ByRepository<L> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            forgotten: Arc::clone(&self.forgotten),
        }
    }
}

impl<L: Loader<String>> fmt::Debug for ByRepository<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ByRepository").field(&self.cache).finish()
    }
}

/// The key is the aggregate's id, which stands beside the event, not in its payload.
impl<L: Loader<String>> Invalidates for ByRepository<L> {
    fn apply(&self, event: &RecordedEvent) -> Result<usize, CodecError> {
        match event.aggregate() {
            Some(aggregate) if aggregate.aggregate_type == GithubRepository::TYPE => {
                self.forget(&aggregate.id);
                self.forgotten.fetch_add(1, Ordering::Relaxed);
                Ok(1)
            }
            _ => Ok(0),
        }
    }

    fn clear(&self) {
        self.cache.clear();
    }
}
