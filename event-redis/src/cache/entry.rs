//! Entries: the value of one key, with its tags.

use std::any::type_name;
use std::time::{Duration, Instant};

use event_core::BoxError;
use redis::{RedisWrite, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::load::{CacheLoad, CacheValue};
use super::{AsOf, CacheError, RedisCache};
use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::scripts::{CACHE_BEGIN, CACHE_PUT, CACHE_TAG};
use crate::wire;

const GETTING: &str = "get from a cache";
const BEGINNING: &str = "begin a load for a cache";
const KEEPING: &str = "keep in a cache";
const TAGGING: &str = "tag an entry of a cache";

/// How long a load may take, for its value to be kept.
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How much longer an entry is under its tags than it is there: clocks of two nodes may differ.
const MARGIN: Duration = Duration::from_secs(60);

/// The longest that a value is kept: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// An entry of a cache. Made by [`RedisCache::entry`].
///
/// ```no_run
/// use event_core::prelude::*;
/// use event_redis::{CacheError, RedisCache};
///
/// # async fn page_of(repository: &str) -> Result<String, BoxError> { Ok(String::new()) }
/// async fn page(pages: &RedisCache, repository: &str) -> Result<String, CacheError> {
///     pages
///         .entry(format!("page:{repository}"))
///         .tag(format!("repo:{repository}"))
///         .get_or_load(|| page_of(repository))
///         .await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct CacheEntry {
    cache: RedisCache,
    key: String,
    tags: Vec<String>,
    ttl: Duration,
}

impl CacheEntry {
    pub(super) fn new(cache: RedisCache, key: String) -> Self {
        let ttl = cache.ttl;
        Self {
            cache,
            key,
            tags: Vec::new(),
            ttl,
        }
    }

    /// Has what is kept be removed with this tag, too. Tags are to be said before a load begins, so that an
    /// event that comes meanwhile finds it.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// How long the value is kept, if not as long as the [cache's](RedisCache::ttl) are.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value; `None` where there is none.
    ///
    /// # Errors
    /// [`CacheError::Decode`] where it is not a `T`; [`CacheError::Store`] where the server does not answer.
    pub async fn get<T: DeserializeOwned>(&self) -> Result<Option<T>, CacheError> {
        let Some(bytes) = self.get_bytes().await? else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&bytes).map_err(|source| CacheError::Decode {
            key: self.key.clone(),
            rust_type: type_name::<T>(),
            source,
        })?;
        Ok(Some(value))
    }

    /// The value, as bytes; `None` where there is none.
    ///
    /// # Errors
    /// [`CacheError::Store`] where the server does not answer.
    pub async fn get_bytes(&self) -> Result<Option<Vec<u8>>, CacheError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.place()).arg("value");
        let request = Request::Command(&command);
        let shared = &self.cache.shared;
        let value = match shared.parts.connections.ask(GETTING, request, None).await? {
            Value::Nil => None,
            value => Some(wire::bytes(value).map_err(unreadable("HGET", GETTING))?),
        };
        match value {
            Some(_) => shared.hits.increment(1),
            None => shared.misses.increment(1),
        }
        Ok(value)
    }

    /// The value; where there is none, what `load` gives: see [`RedisCache::get_or_load`]. What is kept in
    /// another shape is loaded anew.
    ///
    /// # Errors
    /// [`CacheError::Load`] where the load fails; that is not kept. [`CacheError::Store`] where the server
    /// does not answer.
    pub async fn get_or_load<T, L, E, F>(&self, load: impl FnOnce() -> F) -> Result<T, CacheError>
    where
        T: Serialize + DeserializeOwned,
        L: Into<CacheValue<T>>,
        E: Into<BoxError>,
        F: Future<Output = Result<L, E>>,
    {
        match self.get().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) | Err(CacheError::Decode { .. }) => {}
            Err(error) => return Err(error),
        }
        let begun = self.begin().await?;
        let loaded = load().await.map_err(|error| CacheError::Load {
            key: self.key.clone(),
            source: error.into(),
        })?;
        let CacheValue { value, as_of } = loaded.into();
        begun.keep(&value, as_of).await?;
        Ok(value)
    }

    /// Notes that a value is being loaded. It is to be called **before** anything is read that the value is
    /// made of, and what it gives keeps the value.
    ///
    /// # Errors
    /// [`CacheError::Store`] where the server does not answer.
    pub async fn begin(&self) -> Result<CacheLoad, CacheError> {
        let begun = Instant::now();
        // Before the entry is there: whoever goes through the tag must find it.
        self.put_under_tags(LOAD_TIMEOUT).await?;
        let mut command = CACHE_BEGIN.call(1, 2, 256);
        command.write_arg(self.place().as_bytes());
        command.write_arg(generation().as_bytes());
        command.write_arg_fmt(LOAD_TIMEOUT.as_millis());
        let request = Request::Command(&command);
        let connections = &self.cache.shared.parts.connections;
        let reply = connections.ask(BEGINNING, request, Some(&CACHE_BEGIN));
        let unreadable = unreadable("EVALSHA cache_begin.lua", BEGINNING);
        let values = wire::array(reply.await?).map_err(&unreadable)?;
        let [generation, noted] = values.as_slice() else {
            return Err(unreadable("another number of parts"));
        };
        let generation = wire::text(generation).map_err(&unreadable)?.to_owned();
        let noted = wire::count(noted).map_err(&unreadable)?;
        Ok(CacheLoad::new(self.clone(), begun, generation, noted))
    }

    /// Keeps a value, and says what it knows of: see [`RedisCache::set`].
    ///
    /// # Errors
    /// [`CacheError::Encode`] where it cannot be written as JSON; [`CacheError::Store`] where the server
    /// does not answer.
    pub async fn set<T: Serialize>(&self, value: &T, as_of: AsOf) -> Result<bool, CacheError> {
        self.put("", 0, &self.encode(value)?, &as_of).await
    }

    /// The same with a value that is bytes.
    ///
    /// # Errors
    /// [`CacheError::Store`] where the server does not answer.
    pub async fn set_bytes(&self, value: &[u8], as_of: AsOf) -> Result<bool, CacheError> {
        self.put("", 0, value, &as_of).await
    }

    pub(super) fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, CacheError> {
        serde_json::to_vec(value).map_err(|source| CacheError::Encode {
            key: self.key.clone(),
            source,
        })
    }

    /// Keeps a value, unless it may be older than what is known.
    pub(super) async fn put(
        &self,
        began: &str,
        noted: u64,
        value: &[u8],
        as_of: &AsOf,
    ) -> Result<bool, CacheError> {
        let ttl = self.ttl.clamp(Duration::from_millis(1), LONGEST);
        self.put_under_tags(ttl).await?;
        let mut command = CACHE_PUT.call(1, 6, 384 + value.len());
        command.write_arg(self.place().as_bytes());
        command.write_arg(began.as_bytes());
        command.write_arg_fmt(noted);
        command.write_arg(value);
        command.write_arg_fmt(ttl.as_millis());
        command.write_arg(as_of.json().as_bytes());
        command.write_arg(generation().as_bytes());
        let request = Request::Command(&command);
        let connections = &self.cache.shared.parts.connections;
        let reply = connections.ask(KEEPING, request, Some(&CACHE_PUT)).await?;
        let is_kept =
            wire::integer(&reply).map_err(unreadable("EVALSHA cache_put.lua", KEEPING))?;
        Ok(is_kept == 1)
    }

    /// Puts the entry under its tags for as long as it is there.
    async fn put_under_tags(&self, lasting: Duration) -> Result<(), CacheError> {
        let shared = &self.cache.shared;
        let place = self.place();
        for tag in &self.tags {
            let mut command = CACHE_TAG.call(1, 2, 256);
            command.write_arg(format!("{}{tag}", shared.tags).as_bytes());
            command.write_arg(place.as_bytes());
            command.write_arg_fmt((lasting + MARGIN).as_millis());
            let request = Request::Command(&command);
            let connections = &shared.parts.connections;
            connections.ask(TAGGING, request, Some(&CACHE_TAG)).await?;
        }
        Ok(())
    }

    fn place(&self) -> String {
        format!("{}{}", self.cache.shared.entries, self.key)
    }
}

/// What nothing else is called.
pub(super) fn generation() -> String {
    Uuid::now_v7().simple().to_string()
}

pub(super) fn unreadable(
    command: &'static str,
    operation: &'static str,
) -> impl Fn(wire::Unreadable) -> CacheError {
    move |what| CacheError::Store(UnexpectedReply::form(command, what).refused(operation))
}
