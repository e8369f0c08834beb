//! The cache: states that were loaded, so that a load reads only what came after.

use std::fmt;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use uuid::Uuid;

use super::fold::Fold;
use crate::aggregate::Aggregate;
use crate::recorded::Version;

/// What an entry takes beside its state, in bytes, about.
const OVERHEAD: usize = 128;

/// How many entries are reckoned with for each MiB; it only sizes tables.
const EXPECTED_PER_MIB: usize = 512;

/// States of aggregates of one type, bounded by what they take.
#[derive(Clone)]
pub(super) struct StateCache<A> {
    entries: Arc<Cache<Arc<str>, Arc<Cached<A>>, Weigh>>,
    copy: fn(&A) -> A,
    weigh: Option<Weigher<A>>,
}

/// Says what a state takes, in bytes.
pub(super) type Weigher<A> = fn(&A) -> usize;

pub(super) struct Cached<A> {
    state: A,
    version: Version,
    event_id: Uuid,
    /// What its events took.
    bytes: usize,
    /// The version of its newest snapshot that is known of.
    snapshot: Version,
    weight: u64,
}

#[derive(Clone)]
struct Weigh;

impl<A> Weighter<Arc<str>, Arc<Cached<A>>> for Weigh {
    fn weight(&self, _: &Arc<str>, cached: &Arc<Cached<A>>) -> u64 {
        cached.weight
    }
}

impl<A: Aggregate + Clone> StateCache<A> {
    pub(super) fn new(bytes: usize, weigh: Option<Weigher<A>>) -> Self {
        let expected = (bytes >> 20).max(1) * EXPECTED_PER_MIB;
        Self {
            entries: Arc::new(Cache::with_weighter(expected, bytes as u64, Weigh)),
            copy: A::clone,
            weigh,
        }
    }
}

impl<A: Aggregate> StateCache<A> {
    /// A state of before, to go on from.
    pub(super) fn resume(&self, id: &str) -> Option<Fold<A>> {
        let cached = self.entries.get(id)?;
        let state = (self.copy)(&cached.state);
        let fold = Fold::resume(state, cached.version, cached.event_id, cached.bytes);
        Some(fold.with_snapshot(cached.snapshot))
    }

    /// Keeps a state, unless one as new is there.
    pub(super) fn keep(&self, id: &str, fold: &Fold<A>) {
        // A newer one that comes in between is replaced by this one: it is as right, and its next load
        // reads a little more.
        let has_it = |cached: Arc<Cached<A>>| cached.version >= fold.version;
        if fold.version == 0 || self.entries.peek(id).is_some_and(has_it) {
            return;
        }
        let own = match self.weigh {
            Some(weigh) => weigh(&fold.state),
            None => size_of::<A>() + fold.bytes,
        };
        let weight = (own + OVERHEAD + id.len()) as u64;
        let cached = Cached {
            state: (self.copy)(&fold.state),
            version: fold.version,
            event_id: fold.event_id,
            bytes: fold.bytes,
            snapshot: fold.snapshot,
            weight,
        };
        self.entries.insert(id.into(), Arc::new(cached));
    }

    pub(super) fn forget(&self, id: &str) {
        self.entries.remove(id);
    }
}

impl<A> fmt::Debug for StateCache<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateCache")
            .field("entries", &self.entries.len())
            .field("bytes", &self.entries.weight())
            .finish()
    }
}
