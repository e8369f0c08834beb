//! Caches: values that several processes share, until an event invalidates them.
//!
//! Each entry is a hash with a slot of its own. What makes it safe is in two scripts. A load notes itself
//! in the entry before it begins ([`CacheEntry::begin`]). An invalidation that comes meanwhile finds that,
//! and removes or marks it; then what was loaded is not kept. And a value may say what it knows of
//! ([`AsOf`]): an event that it knows of leaves it where it is, however late the event is handled.

mod as_of;
mod entry;
mod error;
mod invalidation;
mod load;
mod pattern;
mod removal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use event_core::metrics::{self, Counter};
use event_core::{BoxError, Category, Event, HandlerDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use as_of::AsOf;
pub use entry::CacheEntry;
pub use error::{CacheError, InvalidCacheName, InvalidKeyPattern};
pub use load::{CacheLoad, CacheValue};
use pattern::KeyPattern;

use crate::store::Parts;

/// How long a value is kept where nothing is said.
const TTL: Duration = Duration::from_secs(60 * 60);

/// A cache in Redis that events invalidate, the same for all processes that open it by its name. Made by
/// [`RedisStore::cache`](crate::RedisStore::cache); cheap to clone.
///
/// ```no_run
/// use event_core::prelude::*;
/// use event_redis::RedisStore;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("repository.updated", key = repository)]
/// # struct RepositoryUpdated { repository: String }
/// # #[derive(Serialize, Deserialize)]
/// # struct Page { stars: u64 }
/// # async fn page_of(repository: &str) -> Result<Page, BoxError> { Ok(Page { stars: 1 }) }
///
/// # async fn run() -> Result<(), BoxError> {
/// let store = RedisStore::connect("redis://127.0.0.1:6379/").await?;
/// let pages = store.cache("pages")?;
///
/// // Whoever handles events of the group has them invalidate, for all processes.
/// let service = Service::builder("pages")
///     .store(store)
///     .handler(pages.invalidate::<RepositoryUpdated>("repo:{repository}:*")?)
///     .build()?;
///
/// let page: Page = pages
///     .get_or_load("repo:octo/hello:page", || page_of("octo/hello"))
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// What is loaded must be as new as the events that invalidate it: an aggregate, or a projection that was
/// [waited for](event_core::ProjectionView::wait_for). A projection that follows later would be read before
/// it has the event, and what was read would stay, for as long as values are kept. Where it is filled from
/// the same events, have an event invalidate that comes after it was written.
#[derive(Clone)]
pub struct RedisCache {
    shared: Arc<Shared>,
    ttl: Duration,
}

struct Shared {
    parts: Arc<Parts>,
    name: String,
    /// What the keys of entries begin with, and those of tags.
    entries: String,
    tags: String,
    hits: Counter,
    misses: Counter,
    invalidated: Counter,
}

impl RedisCache {
    pub(crate) fn new(parts: Arc<Parts>, name: &str) -> Result<Self, InvalidCacheName> {
        // It is one word as a category is: what comes behind it in a key cannot be taken for its end.
        if Category::new(name.to_owned()).is_err() {
            let name = name.to_owned();
            return Err(InvalidCacheName { name });
        }
        let (hits, misses) = metrics::cache_lookups(name);
        Ok(Self {
            shared: Arc::new(Shared {
                entries: parts.keys.cache_entries(name),
                tags: parts.keys.cache_tags(name),
                name: name.to_owned(),
                hits,
                misses,
                invalidated: metrics::cache_invalidated(name),
                parts,
            }),
            ttl: TTL,
        })
    }

    /// How long values are kept, from 1 ms to ten years; an hour by default. It is also how long something
    /// wrong would stay there at most.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// An entry, whether there is a value or not. A key is any text.
    pub fn entry(&self, key: impl Into<String>) -> CacheEntry {
        CacheEntry::new(self.clone(), key.into())
    }

    /// The value of a key; `None` where there is none.
    ///
    /// # Errors
    /// [`CacheError::Decode`] where it is not a `T`; [`CacheError::Store`] where the server does not answer.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, CacheError> {
        self.entry(key).get().await
    }

    /// The value of a key; where there is none, what `load` gives, which is then kept. It is not kept where
    /// an event has invalidated the key meanwhile, nor where the load takes more than a minute.
    ///
    /// `load` gives the value itself, or a [`CacheValue`] that says what it knows of.
    ///
    /// # Errors
    /// [`CacheError::Load`] where the load fails; that is not kept. [`CacheError::Store`] where the server
    /// does not answer.
    pub async fn get_or_load<T, L, E, F>(
        &self,
        key: &str,
        load: impl FnOnce() -> F,
    ) -> Result<T, CacheError>
    where
        T: Serialize + DeserializeOwned,
        L: Into<CacheValue<T>>,
        E: Into<BoxError>,
        F: Future<Output = Result<L, E>>,
    {
        self.entry(key).get_or_load(load).await
    }

    /// Keeps a value, and says what it knows of; `false` where what is kept knows more, or an event was
    /// noted that it does not know of.
    ///
    /// Unlike [`get_or_load`](Self::get_or_load) this cannot know of an event that has invalidated the key
    /// between what the value was made of and now, where nothing was kept or loaded then. So it is for what
    /// was just written, by a command for example.
    ///
    /// # Errors
    /// [`CacheError::Encode`] where it cannot be written as JSON; [`CacheError::Store`] where the server
    /// does not answer.
    pub async fn set<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        as_of: AsOf,
    ) -> Result<bool, CacheError> {
        self.entry(key).set(value, as_of).await
    }

    /// Removes the value of a key, and has what is being loaded for it not be kept; whether there was one.
    ///
    /// # Errors
    /// [`CacheError::Store`] where the server does not answer.
    pub async fn remove(&self, key: &str) -> Result<bool, CacheError> {
        let key = format!("{}{key}", self.shared.entries);
        Ok(self.shared.remove(vec![key], &[]).await? > 0)
    }

    /// Removes the values of all keys that match a pattern as the server has them (`*`, `?`, `[…]`, and `\`
    /// before what is meant itself), and gives how many. It is not for what comes from outside: a text in
    /// a pattern is a pattern.
    ///
    /// # Errors
    /// [`CacheError::Store`] where a server does not answer. Some values may be removed then.
    pub async fn remove_matching(&self, pattern: &str) -> Result<u64, CacheError> {
        self.shared.remove_matching(pattern, &[]).await
    }

    /// Removes the values of all entries with a tag, and gives how many.
    ///
    /// # Errors
    /// [`CacheError::Store`] where the server does not answer. Some values may be removed then.
    pub async fn remove_tagged(&self, tag: &str) -> Result<u64, CacheError> {
        self.shared.remove_tagged(tag, &[]).await
    }

    /// A handler that removes the values that an event invalidates, of all keys that match a pattern:
    /// `repo:{repository}:*`.
    ///
    /// - In braces stands a field of the event, or a path of them (`{owner.name}`): a text, a number or a
    ///   boolean. Its value is no pattern, whatever stands in it. Where it is null, nothing is invalidated.
    ///   Whether events have the field is not known before one comes: one without is
    ///   [rejected](CacheError::Field), and what is cached stays until it expires.
    /// - `*`, `?` and `[…]` are as the server has them; `\` before one of them, `{{` and `}}` mean the
    ///   character itself. With none of them the pattern is a key, whose entry is gone to directly.
    /// - Else all keys of the database are gone through, in small steps, on every primary of a cluster. Where
    ///   that takes too long, use [tags](Self::invalidate_tag).
    ///
    /// It is a handler like any other, to be registered in **one** group of services. Where the server does not
    /// answer it fails and is called again; to call it again, or late, or in a replay, harms nothing. A value
    /// that [knows of](AsOf) the event stays.
    ///
    /// # Errors
    /// [`InvalidKeyPattern`] where it is empty, a brace or a bracket is not closed, or there is no name between braces.
    pub fn invalidate<E: Event>(
        &self,
        pattern: &str,
    ) -> Result<HandlerDefinition, InvalidKeyPattern> {
        let pattern = KeyPattern::parse(pattern)?;
        Ok(invalidation::by_pattern::<E>(self, pattern))
    }

    /// A handler that removes the values of all entries with a [tag](CacheEntry::tag): `repo:{repository}`.
    /// It takes as long as there are such entries, however many others there are.
    ///
    /// Braces are as in a [pattern](Self::invalidate); everything else means itself.
    ///
    /// # Errors
    /// [`InvalidKeyPattern`] where it is empty, a brace is not closed, or there is no name between braces.
    pub fn invalidate_tag<E: Event>(
        &self,
        tag: &str,
    ) -> Result<HandlerDefinition, InvalidKeyPattern> {
        let tag = KeyPattern::parse_literal(tag)?;
        Ok(invalidation::by_tag::<E>(self, tag))
    }
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache")
            .field("name", &self.shared.name)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}
