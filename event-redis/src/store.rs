//! The store: what it is made of, and what it does.

use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use event_core::codec::history::HistoryEntry;
use event_core::{
    AggregateId, Append, AppendError, Appended, Category, Checkpoints, EventStore, FeedEntry,
    FeedReader, Limits, NewEvent, Pattern, Position, ReadError, Realtime, RealtimeSubscription,
    StoreError, Versions,
};

use crate::builder::RedisStoreBuilder;
use crate::connection::{Connections, Connector};
use crate::durability::Replication;
use crate::error::ConnectError;
use crate::feed::RedisFeedReader;
use crate::keys::Keys;
use crate::realtime::Publishing;
use crate::{append, checkpoint, feed, history, realtime};

/// Stores events in Redis or Valkey. Clones share their connections.
///
/// Lost connections are replaced without end, and what was asked is asked again until the
/// [patience](RedisStoreBuilder::patience) is over; since an append stores nothing twice, that is
/// safe.
#[derive(Clone)]
pub struct RedisStore {
    parts: Arc<Parts>,
}

/// What a store is made of.
pub(crate) struct Parts {
    pub(crate) keys: Keys,
    pub(crate) limits: Limits,
    pub(crate) connector: Connector,
    pub(crate) connections: Arc<Connections>,
    /// Where appends must be confirmed by replicas.
    pub(crate) replication: Option<Replication>,
    pub(crate) publish_on_commit: HashSet<Category>,
    pub(crate) publishing: Publishing,
    pub(crate) realtime_capacity: usize,
    pub(crate) patience: Duration,
}

impl RedisStore {
    /// Connects to a server, with everything else as it is by default.
    ///
    /// # Errors
    /// [`ConnectError`], within a few seconds: nothing answers, or the server cannot be used.
    pub async fn connect(url: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder(url).connect().await
    }

    /// A store to be described before it connects. The URL is `redis://HOST:PORT/DATABASE`,
    /// `rediss://…` for TLS (feature `tls`), or `redis+unix:///PATH`.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url.into())
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("address", &self.parts.connector.address().to_string())
            .field("limits", &self.parts.limits)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for RedisStore {
    async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        append::append(&self.parts, append).await
    }

    async fn replay(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
        visit: &mut (dyn for<'a> FnMut(HistoryEntry<'a>) -> ControlFlow<()> + Send),
    ) -> Result<(), ReadError> {
        history::replay(&self.parts, aggregate, versions, visit).await
    }

    async fn read_feed(
        &self,
        category: &Category,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        Ok(feed::read(&self.parts, category, after, limit).await?)
    }

    async fn follow(
        &self,
        category: &Category,
        after: Position,
    ) -> Result<Box<dyn FeedReader>, ReadError> {
        Ok(Box::new(RedisFeedReader::new(&self.parts, category, after)))
    }

    async fn head(&self, category: &Category) -> Result<Position, ReadError> {
        Ok(feed::head(&self.parts, category).await?)
    }
}

#[async_trait]
impl Checkpoints for RedisStore {
    async fn load_checkpoint(
        &self,
        group: &str,
        category: &Category,
    ) -> Result<Option<Position>, StoreError> {
        checkpoint::load(&self.parts, group, category).await
    }

    async fn save_checkpoint(
        &self,
        group: &str,
        category: &Category,
        position: Position,
    ) -> Result<(), StoreError> {
        checkpoint::save(&self.parts, group, category, position).await
    }
}

#[async_trait]
impl Realtime for RedisStore {
    async fn publish_realtime(&self, events: &[NewEvent]) -> Result<(), StoreError> {
        realtime::publish(&self.parts, events).await
    }

    async fn subscribe(&self, patterns: &[Pattern]) -> Result<RealtimeSubscription, StoreError> {
        realtime::subscribe(&self.parts, patterns).await
    }
}
