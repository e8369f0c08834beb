//! What a loader cache keeps, and what is under way.

use std::collections::HashMap;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use tokio::sync::oneshot;

use super::LoaderKey;

/// Says what a value takes, in whatever the capacity counts.
pub(super) type Weigh<K, V> = Arc<dyn Fn(&K, &V) -> u64 + Send + Sync>;

/// What a load gives for one key.
pub(super) type Answer<V, E> = Result<Option<V>, E>;

/// What is said to somebody who asks for a key.
pub(super) enum Asked<V, E> {
    Kept(V),
    UnderWay(oneshot::Receiver<Answer<V, E>>),
}

/// A load of one key, from when it is asked for to when it is answered.
pub(super) struct Flight<K> {
    pub(super) number: u64,
    pub(super) key: K,
}

pub(super) struct Weigher<K, V>(pub(super) Weigh<K, V>);

impl<K, V> Clone for Weigher<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Weighter<K, V> for Weigher<K, V> {
    fn weight(&self, key: &K, value: &V) -> u64 {
        // What weighs nothing would never be evicted.
        (self.0)(key, value).max(1)
    }
}

pub(super) struct State<K, V, E> {
    kept: Cache<K, V, Weigher<K, V>>,
    /// Who waits for a flight, by its number: also where it was invalidated.
    flights: HashMap<u64, Vec<oneshot::Sender<Answer<V, E>>>>,
    /// The flights of keys that were not invalidated since: others may join them, and they may put
    /// their values into the cache.
    current: HashMap<K, u64>,
    /// Flights that no batch has taken yet.
    pub(super) waiting: Vec<Flight<K>>,
    last: u64,
}

impl<K: LoaderKey, V: Clone, E> State<K, V, E> {
    pub(super) fn new(entries: usize, capacity: u64, weigher: Weigher<K, V>) -> Self {
        Self {
            kept: Cache::with_weighter(entries, capacity, weigher),
            flights: HashMap::new(),
            current: HashMap::new(),
            waiting: Vec::new(),
            last: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The value of a key, or the flight that brings it; and whether that is a new one.
    pub(super) fn ask(&mut self, key: &K) -> (Asked<V, E>, bool) {
        if let Some(value) = self.kept.get(key) {
            return (Asked::Kept(value.clone()), false);
        }
        let (sender, receiver) = oneshot::channel();
        let under_way = self.current.get(key);
        if let Some(waiters) = under_way.and_then(|number| self.flights.get_mut(number)) {
            waiters.push(sender);
            return (Asked::UnderWay(receiver), false);
        }
        self.last += 1;
        self.flights.insert(self.last, vec![sender]);
        self.current.insert(key.clone(), self.last);
        self.waiting.push(Flight {
            number: self.last,
            key: key.clone(),
        });
        (Asked::UnderWay(receiver), true)
    }

    pub(super) fn invalidate(&mut self, key: &K) {
        self.kept.remove(key);
        self.current.remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.current.clear();
    }

    /// Ends a flight, and keeps what it brings unless its key was invalidated; who waits for it.
    pub(super) fn land(
        &mut self,
        flight: &Flight<K>,
        answer: &Answer<V, E>,
    ) -> Vec<oneshot::Sender<Answer<V, E>>> {
        if self.current.get(&flight.key) == Some(&flight.number) {
            self.current.remove(&flight.key);
            if let Ok(Some(value)) = answer {
                self.kept.insert(flight.key.clone(), value.clone());
            }
        }
        self.flights.remove(&flight.number).unwrap_or_default()
    }

    /// Ends a flight that brings nothing: whoever waits for it is told by its senders' end.
    pub(super) fn break_off(&mut self, flight: &Flight<K>) {
        if self.current.get(&flight.key) == Some(&flight.number) {
            self.current.remove(&flight.key);
        }
        self.flights.remove(&flight.number);
    }
}
