//! Loader caches: values that many requests share, and that events invalidate by key.
//!
//! A [`LoaderCache`] stands before a [`Loader`] of async-graphql, one for the whole process. What is asked
//! for together is loaded together; what was loaded is kept until an event names its key.
//!
//! - A load that began before an invalidation of its key answers those who asked before it, and no one
//!   else: its value is not kept, and whoever asks later has a load of their own begun.
//! - Only loads under way are remembered for that, so its memory is bounded by what is kept and by who
//!   waits.
//! - That there is no value for a key is not kept.
//!
//! What the loader reads must be as new as the event that invalidates: an aggregate, or a projection
//! that is written with the event. One that follows later would be read before it has the event, and
//! what was read would stay. Wait for it in the loader
//! ([`ProjectionView::wait_for`](event_core::ProjectionView::wait_for)), or have an event invalidate that
//! comes after it was written.
//!
//! Loaders that live as long as one execution are put there by [`FreshPerEvent`].

mod builder;
mod fresh;
mod invalidation;
mod state;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_graphql::dataloader::Loader;
use event_core::{CodecError, RecordedEvent};
use tokio::sync::oneshot;

pub use builder::LoaderCacheBuilder;
pub use fresh::FreshPerEvent;
use invalidation::Invalidations;
pub use invalidation::{InvalidatedKeys, Invalidates};
use state::{Answer, Asked, Flight, State};

/// A key of a loader.
pub trait LoaderKey: Clone + Eq + Hash + Send + Sync + 'static {}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> LoaderKey for K {}

/// A cache before a [`Loader`], whose values events invalidate by key. Cheap to clone: all clones are the
/// same cache.
///
/// ```
/// use std::collections::HashMap;
/// use std::convert::Infallible;
///
/// use async_graphql::dataloader::Loader;
/// use event_core::Category;
/// use event_core::prelude::*;
/// use event_graphql::{EventSubscriptionBridge, LoaderCache};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("repository.updated")]
/// # struct RepositoryUpdated { repository: String }
///
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct RepositoryKey(String);
///
/// struct Stars;
///
/// impl Loader<RepositoryKey> for Stars {
///     type Value = u64;
///     type Error = Infallible;
///
///     async fn load(&self, keys: &[RepositoryKey]) -> Result<HashMap<RepositoryKey, u64>, Infallible> {
///         Ok(keys.iter().map(|key| (key.clone(), key.0.len() as u64)).collect())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stars = LoaderCache::builder(Stars)
///     .capacity(10_000)
///     .invalidates(|e: &RepositoryUpdated| RepositoryKey(e.repository.clone()))
///     .build();
/// assert_eq!(stars.load_one(RepositoryKey("octo/hello".into())).await?, Some(10));
///
/// // Events reach it by a bridge, for as long as what this gives is kept.
/// let bridge = EventSubscriptionBridge::new(MemoryStore::new());
/// let listening = bridge.invalidate([Category::new("repository")?], stars.clone()).await?;
/// # drop(listening);
/// # Ok(())
/// # }
/// ```
pub struct LoaderCache<K: LoaderKey, L: Loader<K>> {
    shared: Arc<Shared<K, L>>,
}

struct Shared<K: LoaderKey, L: Loader<K>> {
    loader: L,
    delay: Duration,
    max_batch: usize,
    invalidations: Invalidations<K>,
    state: Mutex<State<K, L::Value, L::Error>>,
}

impl<K: LoaderKey, L: Loader<K>> Shared<K, L> {
    fn state(&self) -> MutexGuard<'_, State<K, L::Value, L::Error>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value that could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError<E> {
    /// What the loader says.
    #[error("the value could not be loaded: {0}")]
    Loader(E),
    /// The loader panicked, or the runtime ends.
    #[error(
        "the load ended without an answer; look for a panic of the loader in the log, then ask again"
    )]
    BrokenOff,
}

impl<K: LoaderKey, L: Loader<K>> LoaderCache<K, L> {
    /// A cache before this loader. Its loads run on the runtime of whoever asks first.
    pub fn builder(loader: L) -> LoaderCacheBuilder<K, L> {
        LoaderCacheBuilder::new(loader)
    }

    /// The value of a key; `None` where there is none.
    ///
    /// # Errors
    /// [`LoadError`] where the load fails; that is not kept.
    pub async fn load_one(&self, key: K) -> Result<Option<L::Value>, LoadError<L::Error>> {
        Ok(self.load_many([key.clone()]).await?.remove(&key))
    }

    /// The values of some keys, of those that have one.
    ///
    /// # Errors
    /// [`LoadError`] where one of the loads fails; that is not kept.
    pub async fn load_many(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<HashMap<K, L::Value>, LoadError<L::Error>> {
        let mut found = HashMap::new();
        let mut awaited = Vec::new();
        for key in keys.into_iter().collect::<HashSet<_>>() {
            match self.ask(&key) {
                Asked::Kept(value) => {
                    found.insert(key, value);
                }
                Asked::UnderWay(answer) => awaited.push((key, answer)),
            }
        }
        for (key, answer) in awaited {
            match answer.await {
                Ok(Ok(value)) => found.extend(value.map(|value| (key, value))),
                Ok(Err(error)) => return Err(LoadError::Loader(error)),
                Err(_) => return Err(LoadError::BrokenOff),
            }
        }
        Ok(found)
    }

    /// Forgets the value of a key, and that of the load that may be under way for it.
    pub fn invalidate(&self, key: &K) {
        self.shared.state().invalidate(key);
    }

    /// Forgets everything: where events may have been missed.
    pub fn clear(&self) {
        self.shared.state().clear();
    }

    /// How many values are kept.
    pub fn len(&self) -> usize {
        self.shared.state().len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks a key up, and sees to it that it is loaded.
    fn ask(&self, key: &K) -> Asked<L::Value, L::Error> {
        let mut state = self.shared.state();
        let (asked, is_new) = state.ask(key);
        if !is_new {
            return asked;
        }
        if state.waiting.len() >= self.shared.max_batch {
            let batch = Batch::new(&self.shared, mem::take(&mut state.waiting), false);
            drop(state);
            tokio::spawn(batch.load());
        } else if state.waiting.len() == 1 {
            drop(state);
            // Made before the pause, so that nobody waits for ever if the runtime ends in it.
            let mut batch = Batch::new(&self.shared, Vec::new(), true);
            tokio::spawn(async move {
                tokio::time::sleep(batch.shared.delay).await;
                batch.gathers = false;
                batch.flights = mem::take(&mut batch.shared.state().waiting);
                batch.load().await;
            });
        }
        asked
    }
}

impl<K: LoaderKey, L: Loader<K>> Clone for LoaderCache<K, L> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K: LoaderKey, L: Loader<K>> fmt::Debug for LoaderCache<K, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoaderCache")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<K: LoaderKey, L: Loader<K>> Invalidates for LoaderCache<K, L> {
    fn apply(&self, event: &RecordedEvent) -> Result<usize, CodecError> {
        let keys = self.shared.invalidations.keys(event).inspect_err(|_| {
            // Whose key it names cannot be known.
            self.clear();
        })?;
        let mut state = self.shared.state();
        for key in &keys {
            state.invalidate(key);
        }
        Ok(keys.len())
    }

    fn clear(&self) {
        LoaderCache::clear(self);
    }
}

/// Flights that are loaded together. Those that it has not answered when it is dropped are broken off.
struct Batch<K: LoaderKey, L: Loader<K>> {
    shared: Arc<Shared<K, L>>,
    flights: Vec<Flight<K>>,
    /// Whether it is still to take what waits.
    gathers: bool,
}

impl<K: LoaderKey, L: Loader<K>> Batch<K, L> {
    fn new(shared: &Arc<Shared<K, L>>, flights: Vec<Flight<K>>, gathers: bool) -> Self {
        Self {
            shared: Arc::clone(shared),
            flights,
            gathers,
        }
    }

    async fn load(mut self) {
        // A key that was invalidated while it waited may be there twice.
        let keys: HashSet<K> = self.flights.iter().map(|one| one.key.clone()).collect();
        if keys.is_empty() {
            return;
        }
        let keys: Vec<K> = keys.into_iter().collect();
        let loaded = self.shared.loader.load(&keys).await;
        // They stay in the batch: if a value panics in the midst, those that are left are broken off.
        let mut state = self.shared.state();
        let answers: Vec<(Vec<oneshot::Sender<_>>, Answer<_, _>)> = self
            .flights
            .iter()
            .map(|flight| {
                let answer = match &loaded {
                    Ok(values) => Ok(values.get(&flight.key).cloned()),
                    Err(error) => Err(error.clone()),
                };
                (state.land(flight, &answer), answer)
            })
            .collect();
        drop(state);
        self.flights.clear();
        for (waiters, answer) in answers {
            for waiter in waiters {
                // Whoever asked may have gone.
                let _ = waiter.send(answer.clone());
            }
        }
    }
}

impl<K: LoaderKey, L: Loader<K>> Drop for Batch<K, L> {
    fn drop(&mut self) {
        let mut flights = mem::take(&mut self.flights);
        if flights.is_empty() && !self.gathers {
            return;
        }
        let mut state = self.shared.state();
        if self.gathers {
            flights.append(&mut state.waiting);
        }
        for flight in &flights {
            state.break_off(flight);
        }
    }
}
