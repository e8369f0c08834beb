//! How events name the keys that they invalidate.

use std::collections::HashMap;
use std::sync::Arc;

use event_core::{CodecError, Event, RecordedEvent};

/// What events invalidate: a [`LoaderCache`](crate::LoaderCache) of any type.
///
/// # Contract
/// It is called with each event before any client of this process gets to see it, and may be called again
/// with the same one.
pub trait Invalidates: Send + Sync {
    /// Forgets what the event invalidates, and says how many keys it named.
    ///
    /// # Errors
    /// [`CodecError`] where the event cannot be read as what it is registered for. Everything is forgotten
    /// then, as it cannot be known what the event names.
    fn apply(&self, event: &RecordedEvent) -> Result<usize, CodecError>;

    /// Forgets everything: it is not known what has happened.
    fn clear(&self);
}

/// What can name keys: one, an `Option` or a `Vec` of them.
pub trait InvalidatedKeys<K> {
    /// The keys.
    fn into_keys(self) -> Vec<K>;
}

impl<K> InvalidatedKeys<K> for K {
    fn into_keys(self) -> Vec<K> {
        vec![self]
    }
}

impl<K> InvalidatedKeys<K> for Option<K> {
    fn into_keys(self) -> Vec<K> {
        self.into_iter().collect()
    }
}

impl<K> InvalidatedKeys<K> for Vec<K> {
    fn into_keys(self) -> Vec<K> {
        self
    }
}

type Names<K> = dyn Fn(&RecordedEvent) -> Result<Vec<K>, CodecError> + Send + Sync;

/// How events name keys, by the names under which they are stored.
pub(super) struct Invalidations<K> {
    by_type: HashMap<&'static str, Vec<Arc<Names<K>>>>,
}

impl<K> Default for Invalidations<K> {
    fn default() -> Self {
        Self {
            by_type: HashMap::new(),
        }
    }
}

impl<K: 'static> Invalidations<K> {
    pub(super) fn add<E, N, F>(&mut self, keys: F)
    where
        E: Event,
        N: InvalidatedKeys<K>,
        F: Fn(&E) -> N + Send + Sync + 'static,
    {
        let names: Arc<Names<K>> = Arc::new(move |event| {
            let events = event.decode_all::<E>()?;
            Ok(events
                .iter()
                .flat_map(|one| keys(one).into_keys())
                .collect())
        });
        let own = E::DEFINITIONS.iter().flat_map(|definition| {
            std::iter::once(definition.name()).chain(definition.former_names().iter().copied())
        });
        let past = E::PAST.iter().map(|past| past.name());
        for event_type in own.chain(past) {
            let of_type = self.by_type.entry(event_type).or_default();
            of_type.push(Arc::clone(&names));
        }
    }

    pub(super) fn keys(&self, event: &RecordedEvent) -> Result<Vec<K>, CodecError> {
        let mut keys = Vec::new();
        for names in self.by_type.get(event.event_type()).into_iter().flatten() {
            keys.extend(names(event)?);
        }
        Ok(keys)
    }
}
