//! What tests can choose.

use std::time::Duration;

use clap::Parser;
use event_core::Category;
use event_graphql::Limits;
use event_redis::{Durability, RedisStore, RedisStoreBuilder};

/// Serves events from Redis to clients of the web.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Where the events are.
    #[arg(long, value_name = "URL")]
    redis: String,
    /// Where to listen; any free port where it is 0.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// The server keeps nothing on a disk.
    #[arg(long)]
    memory: bool,
    /// What cursors are signed with.
    #[arg(long, default_value = "web-server")]
    pub(crate) secret: String,
    /// Have events invalidate what loaders have loaded. A reader runs for that as long as the server.
    #[arg(long)]
    pub(crate) cache: bool,
    /// Execute once what several clients ask for in the same words.
    #[arg(long)]
    pub(crate) share: bool,
    /// For how long a client may not read, in milliseconds.
    #[arg(long)]
    write_timeout: Option<u64>,
    /// For how long a socket may be without `connection_init`, in milliseconds.
    #[arg(long)]
    init_timeout: Option<u64>,
    /// How often sockets are pinged, in milliseconds.
    #[arg(long)]
    ping_interval: Option<u64>,
    /// For how long a ping may be without an answer, in milliseconds.
    #[arg(long)]
    pong_timeout: Option<u64>,
}

impl Arguments {
    pub(crate) fn store(&self) -> RedisStoreBuilder {
        // Clients of other languages hear of these by Pub/Sub, too.
        let store = RedisStore::builder(&self.redis).publish_on_commit(repositories());
        if self.memory {
            store.durability(Durability::Memory)
        } else {
            store.durability(Durability::Fsync)
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        let or = |millis: Option<u64>, default| millis.map_or(default, Duration::from_millis);
        Limits {
            write_timeout: or(self.write_timeout, default.write_timeout),
            init_timeout: or(self.init_timeout, default.init_timeout),
            ping_interval: or(self.ping_interval, default.ping_interval),
            pong_timeout: or(self.pong_timeout, default.pong_timeout),
            ..default
        }
    }
}

/// The category of [`Starred`](crate::events::Starred).
fn repositories() -> Category {
    use event_core::Event;
    crate::events::Starred::DEFINITIONS[0].category()
}
