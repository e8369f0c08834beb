//! Loads: from before something is read until its value is kept.

use std::time::Instant;

use serde::Serialize;

use super::entry::LOAD_TIMEOUT;
use super::{AsOf, CacheEntry, CacheError};

/// A value for a cache, and what it knows of.
///
/// ```no_run
/// use event_core::prelude::*;
/// use event_redis::{AsOf, CacheError, CacheValue, RedisCache};
///
/// async fn state<A>(
///     cache: &RedisCache,
///     repository: &Repository<A>,
///     id: &str,
/// ) -> Result<A, CacheError>
/// where
///     A: Aggregate + serde::Serialize + serde::de::DeserializeOwned,
/// {
///     cache
///         .get_or_load(&format!("state:{id}"), async || {
///             let loaded = repository.load(id).await?;
///             let as_of = AsOf::version(&AggregateId::of::<A>(id)?, loaded.version);
///             Ok::<_, BoxError>(CacheValue::new(loaded.state).as_of(as_of))
///         })
///         .await
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheValue<T> {
    pub(super) value: T,
    pub(super) as_of: AsOf,
}

impl<T> CacheValue<T> {
    /// A value of which it is not known what it knows of: every event that names its key removes it.
    pub fn new(value: T) -> Self {
        Self {
            value,
            as_of: AsOf::default(),
        }
    }

    /// Says what it knows of: these events do not remove it, however late they are handled.
    pub fn as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = as_of;
        self
    }
}

impl<T> From<T> for CacheValue<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// A load that has begun. Made by [`CacheEntry::begin`]. To drop it ends nothing and costs nothing.
#[derive(Debug)]
#[must_use = "what is loaded is kept by `keep`"]
pub struct CacheLoad {
    entry: CacheEntry,
    begun: Instant,
    generation: String,
    noted: u64,
}

impl CacheLoad {
    pub(super) fn new(entry: CacheEntry, begun: Instant, generation: String, noted: u64) -> Self {
        Self {
            entry,
            begun,
            generation,
            noted,
        }
    }

    /// Keeps what was loaded. `false` where it is not kept: an event has invalidated the entry since the load
    /// began, which the value does not know of; what is kept knows more; or the load took more than a minute.
    /// Whoever asked before the event may be given it nevertheless.
    ///
    /// # Errors
    /// [`CacheError::Encode`] where it cannot be written as JSON; [`CacheError::Store`] where the server
    /// does not answer.
    pub async fn keep<T: Serialize>(self, value: &T, as_of: AsOf) -> Result<bool, CacheError> {
        let value = self.entry.encode(value)?;
        self.keep_bytes(&value, as_of).await
    }

    /// The same with a value that is bytes.
    ///
    /// # Errors
    /// [`CacheError::Store`] where the server does not answer.
    pub async fn keep_bytes(self, value: &[u8], as_of: AsOf) -> Result<bool, CacheError> {
        let Self {
            entry,
            begun,
            generation,
            noted,
        } = self;
        // By then the entry may have left its tags, also where others have kept it alive.
        if begun.elapsed() > LOAD_TIMEOUT {
            return Ok(false);
        }
        entry.put(&generation, noted, value, &as_of).await
    }
}
