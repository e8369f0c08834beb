//! The Redis store: feeds as streams, histories as lists, readable by any Redis client.
//!
//! ```no_run
//! use event_redis::{Durability, RedisStore};
//!
//! # async fn connect() -> Result<(), event_redis::ConnectError> {
//! let store = RedisStore::connect("redis://127.0.0.1:6379/").await?;
//!
//! // Or with everything that can be chosen:
//! let store = RedisStore::builder("redis+unix:///run/redis.sock")
//!     .prefix("shop:")
//!     .durability(Durability::Fsync)
//!     .connect()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! - [`RedisStore`] is an [`EventStore`](event_core::EventStore), shares the work of
//!   [`Groups`](event_core::Groups), spreads the work of
//!   [`ParallelGroups`](event_core::ParallelGroups), keeps [`DeadLetters`](event_core::DeadLetters), sends
//!   [`Realtime`](event_core::Realtime) events, and has a [`Maintenance`](event_core::Maintenance)
//! - [`RedisStoreBuilder`]: what can be chosen
//! - [`Durability`]: what the server must keep of what it has acknowledged
//! - [`RedisCache`]: values that several processes share, until an event invalidates them
//! - [`ConnectError`], [`Weakness`]: why a server is refused, and the setting to change
//!
//! With the feature `cluster` the server may be any node of a Redis Cluster: the store finds the others, and
//! asks each partition of the node that serves it. With the feature `tls` URLs may be `rediss://`.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `events:<category>` | stream | the feed: all events of the category, whole, in order |
//! | `events:<category>:<n>` | stream | partition n of the feed, from 1 on, where it has several |
//! | `{events:<category>}:partitions` | string | how many partitions the feed has, where that was chosen |
//! | `{events:<category>}:history:<type>:<id>` | list | the events of one aggregate, compact |
//! | `{events:<category>}:receipt:<type>:<bytes>:<id>:<command>` | string | the versions that a command has led to |
//! | `{events:<category>}:groups` | set | the names of the groups that read the partition |
//! | `{events:<category>}:trimmed` | hash | up to where the feed was trimmed away |
//! | `{events:<category>}:adopted` | hash | which entries of other programs histories have, and as which version |
//! | `{events:<category>}:group:<group>` | hash | how far a group has handled the partition, and who owns it |
//! | `{events:<category>}:parallel:<group>/<handler>` | hash | from where on the group of a handler with parallel delivery is made again, if it is lost |
//! | `{events:<category>}:dead:<group>` | hash | the group's dead letters |
//! | `{events:<category>}:dead-order:<group>` | sorted set | their order |
//! | `{events:<category>}:dead-raw:<group>` | hash | their entries as they lay in the feed |
//! | `{events:<category>}:outbox:<group>:<feed>` | stream | what a group has emitted to a feed in another slot, until it is delivered |
//! | `{events:<category>}:outboxes:<group>` | hash | the numbers of the last records of these outboxes |
//! | `{events:<category>}:delivered` | hash | up to which number this feed has the records of outboxes elsewhere |
//! | `{events:<category>}:snapshot:<type>:<id>` | hash | the aggregate's newest snapshot |
//! | `{events:<category>}:ids:0`, `…:ids:1` | hash | where the newest events lie, by event id |
//! | `{events:<category>}:published` | hash | how many events were published on commit, by type; and the `incarnation` of who numbers them |
//! | `{events:<category>}:format` | string | the number of this layout: `1` |
//! | `{group:<group>}:members` | sorted set | the instances of a group, by when they expire |
//! | `{group:<group>}:changes` | stream | wakes the instances of a group |
//! | `cache:<name>:<key>` | hash | a value of a cache, and what it knows of; or that it is being loaded |
//! | `cache-tag:<name>:<tag>` | sorted set | the keys of entries with a tag, by when they are gone |
//!
//! Of a further partition, its own feed stands between the braces. A prefix, where one is chosen,
//! stands before `events`, `group` and `cache`. Realtime events are published on the
//! channel that is their type; channels have no prefix and know no databases.

mod append;
mod builder;
mod cache;
#[cfg(feature = "cluster")]
mod cluster;
mod commit;
mod connection;
mod courier;
mod dead_letters;
mod durability;
mod emissions;
mod error;
mod feed;
mod gathering;
mod glob;
mod groups;
mod history;
mod keys;
mod lag;
mod outbox;
mod parallel_groups;
mod partitions;
mod projections;
mod reader;
mod realtime;
mod repair;
mod reset;
mod restore;
mod scripts;
mod snapshots;
mod start;
mod store;
mod tap;
mod trim;
mod wire;

pub use builder::RedisStoreBuilder;
pub use cache::{
    AsOf, CacheEntry, CacheError, CacheLoad, CacheValue, InvalidCacheName, InvalidKeyPattern,
    RedisCache,
};
pub use durability::Durability;
pub use error::{ConnectError, Weakness};
pub use store::RedisStore;
