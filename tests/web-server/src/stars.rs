//! The stars of repositories, loaded through a cache that events invalidate; and a barrier, by which a test holds a
//! load that has read already.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_graphql::dataloader::Loader;
use event_core::{Repository, RepositoryError};
use event_graphql::{LoadError, LoaderCache};
use tokio::sync::watch;

use crate::events::{Repo, Starred};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RepositoryKey(pub(crate) String);

/// Why stars could not be loaded.
type StarsError = Arc<RepositoryError>;

/// Rebuilds repositories, and so is as new as the store.
pub(crate) struct Stars {
    repositories: Repository<Repo>,
    barrier: Arc<Barrier>,
}

impl Loader<RepositoryKey> for Stars {
    type Value = u64;
    type Error = StarsError;

    async fn load(
        &self,
        keys: &[RepositoryKey],
    ) -> Result<HashMap<RepositoryKey, u64>, StarsError> {
        let mut stars = HashMap::new();
        for key in keys {
            match self.repositories.load(&key.0).await {
                Ok(loaded) => drop(stars.insert(key.clone(), loaded.state.stars)),
                Err(RepositoryError::NotFound { .. }) => {}
                Err(error) => return Err(Arc::new(error)),
            }
        }
        self.barrier.pass().await;
        Ok(stars)
    }
}

/// The cache, as loaders of one execution see it. A clone is the same cache.
#[derive(Clone)]
pub(crate) struct CachedStars(LoaderCache<RepositoryKey, Stars>);

impl CachedStars {
    pub(crate) fn new(repositories: Repository<Repo>, barrier: Arc<Barrier>) -> Self {
        let loader = Stars {
            repositories,
            barrier,
        };
        let cache = LoaderCache::builder(loader)
            .invalidates(|event: &Starred| RepositoryKey(event.repository.clone()))
            .build();
        Self(cache)
    }

    pub(crate) fn cache(&self) -> LoaderCache<RepositoryKey, Stars> {
        self.0.clone()
    }
}

impl Loader<RepositoryKey> for CachedStars {
    type Value = u64;
    type Error = LoadError<StarsError>;

    async fn load(
        &self,
        keys: &[RepositoryKey],
    ) -> Result<HashMap<RepositoryKey, u64>, Self::Error> {
        self.0.load_many(keys.iter().cloned()).await
    }
}

/// Holds one load after it has read, where it is told to, until it is opened.
#[derive(Default)]
pub(crate) struct Barrier {
    armed: AtomicBool,
    held: AtomicUsize,
    opened: watch::Sender<u64>,
}

impl Barrier {
    /// Has the next load held.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// How many loads are held.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Lets go what is held.
    pub(crate) fn open(&self) {
        self.opened.send_modify(|times| *times += 1);
    }

    async fn pass(&self) {
        if !self.armed.swap(false, Ordering::SeqCst) {
            return;
        }
        let mut opened = self.opened.subscribe();
        self.held.fetch_add(1, Ordering::SeqCst);
        // The sender lives as long as this does.
        let _ = opened.changed().await;
        self.held.fetch_sub(1, Ordering::SeqCst);
    }
}
