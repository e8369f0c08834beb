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
//! - [`RedisStore`] is an [`EventStore`](event_core::EventStore), remembers
//!   [`Checkpoints`](event_core::Checkpoints) and sends [`Realtime`](event_core::Realtime) events
//! - [`RedisStoreBuilder`]: what can be chosen
//! - [`Durability`]: what the server must keep of what it has acknowledged
//! - [`ConnectError`], [`Weakness`]: why a server is refused, and the setting to change
//!
//! | key | type | holds |
//! |---|---|---|
//! | `events:<category>` | stream | the feed: all events of the category, whole, in order |
//! | `{events:<category>}:history:<type>:<id>` | list | the events of one aggregate, compact |
//! | `{events:<category>}:checkpoint:<group>` | hash | `position`: up to where the group has handled the feed |
//! | `{events:<category>}:ids:0`, `…:ids:1` | hash | where the newest events lie, by event id |
//! | `{events:<category>}:published` | hash | how many events were published on commit, by type; and the `incarnation` of who numbers them |
//! | `{events:<category>}:format` | string | the number of this layout: `1` |
//!
//! A prefix, where one is chosen, stands before `events`. Realtime events are published on the
//! channel that is their type; channels have no prefix and know no databases.

mod append;
mod builder;
mod checkpoint;
mod connection;
mod durability;
mod error;
mod feed;
mod history;
mod keys;
mod realtime;
mod scripts;
mod store;
mod wire;

pub use builder::RedisStoreBuilder;
pub use durability::Durability;
pub use error::{ConnectError, Weakness};
pub use store::RedisStore;
