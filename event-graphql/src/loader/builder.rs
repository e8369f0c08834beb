//! How a loader cache is made.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_graphql::dataloader::Loader;
use event_core::Event;

use super::invalidation::{InvalidatedKeys, Invalidations};
use super::state::{State, Weigh, Weigher};
use super::{LoaderCache, LoaderKey, Shared};

/// How many values are kept where nothing is said.
const CAPACITY: u64 = 10_000;

/// How long a load waits for others that join it.
const DELAY: Duration = Duration::from_millis(1);

/// How many keys are loaded at once.
const MAX_BATCH: usize = 1_000;

/// For how many entries tables are made at first, at most.
const EXPECTED: u64 = 10_000;

/// Makes a [`LoaderCache`].
pub struct LoaderCacheBuilder<K: LoaderKey, L: Loader<K>> {
    loader: L,
    capacity: u64,
    weigh: Weigh<K, L::Value>,
    delay: Duration,
    max_batch: usize,
    invalidations: Invalidations<K>,
}

impl<K: LoaderKey, L: Loader<K>> LoaderCacheBuilder<K, L> {
    pub(super) fn new(loader: L) -> Self {
        Self {
            loader,
            capacity: CAPACITY,
            weigh: Arc::new(|_, _| 1),
            delay: DELAY,
            max_batch: MAX_BATCH,
            invalidations: Invalidations::default(),
        }
    }

    /// How much is kept: 10,000 values by default, or what [`weigh`](Self::weigh) counts. A value that
    /// alone weighs more is not kept.
    pub fn capacity(mut self, capacity: u64) -> Self {
        self.capacity = capacity;
        self
    }

    /// What a value counts towards the capacity, its size in bytes for example; 1 by default. It must be
    /// the same each time.
    pub fn weigh(mut self, weigh: impl Fn(&K, &L::Value) -> u64 + Send + Sync + 'static) -> Self {
        self.weigh = Arc::new(weigh);
        self
    }

    /// How long a load waits for others that join it; 1 ms by default.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// How many keys are loaded at once at most, not less than 1; 1,000 by default.
    pub fn max_batch(mut self, keys: usize) -> Self {
        self.max_batch = keys.max(1);
        self
    }

    /// Says which keys an event invalidates: one, an `Option` or a `Vec` of them.
    pub fn invalidates<E, N, F>(mut self, keys: F) -> Self
    where
        E: Event,
        N: InvalidatedKeys<K>,
        F: Fn(&E) -> N + Send + Sync + 'static,
    {
        self.invalidations.add(keys);
        self
    }

    /// The cache, empty.
    pub fn build(self) -> LoaderCache<K, L> {
        let expected = usize::try_from(self.capacity.min(EXPECTED)).unwrap_or_default();
        LoaderCache {
            shared: Arc::new(Shared {
                loader: self.loader,
                delay: self.delay,
                max_batch: self.max_batch,
                invalidations: self.invalidations,
                state: Mutex::new(State::new(expected, self.capacity, Weigher(self.weigh))),
            }),
        }
    }
}

impl<K: LoaderKey, L: Loader<K>> fmt::Debug for LoaderCacheBuilder<K, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoaderCacheBuilder")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}
