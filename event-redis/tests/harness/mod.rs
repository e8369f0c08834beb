//! The Redis store, for the public suites.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use event_core::testing::store_contract::StoreHarness;
use event_core::{Category, Limits, Position};
use event_redis::{RedisStore, RedisStoreBuilder};
use event_tests::RedisServer;

pub(crate) struct Redis {
    server: RedisServer,
    shares_slots: bool,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let server = RedisServer::start().unwrap();
        Self {
            server,
            shares_slots: true,
        }
    }

    /// Each feed lies in a slot of its own, as it may in a cluster.
    #[allow(dead_code, reason = "not all of those who use this need it")]
    pub(crate) fn without_shared_slots() -> Self {
        Self {
            shares_slots: false,
            ..Self::start()
        }
    }

    fn builder(&self) -> RedisStoreBuilder {
        let builder = RedisStore::builder(self.server.url());
        if self.shares_slots {
            builder
        } else {
            builder.without_shared_slots()
        }
    }

    async fn fresh(&self, builder: RedisStoreBuilder) -> RedisStore {
        self.server.command(&["FLUSHALL"]).unwrap();
        builder.connect().await.unwrap()
    }
}

impl StoreHarness for Redis {
    type Store = RedisStore;

    async fn store(&self, limits: Limits) -> RedisStore {
        self.fresh(self.builder().limits(limits)).await
    }

    async fn other_client(&self, _: &RedisStore) -> RedisStore {
        self.builder().connect().await.unwrap()
    }

    async fn partitioned(&self, category: &Category, count: u32) -> RedisStore {
        let builder = self.builder().partitions(category.clone(), count);
        self.fresh(builder).await
    }

    // Each round trip takes its time, and so does each connection.
    const LOAD_DIVISOR: usize = 2;

    async fn append_foreign(
        &self,
        _: &RedisStore,
        category: &Category,
        fields: &[(&str, &str)],
    ) -> Position {
        let feed = format!("events:{category}");
        let mut command = vec!["XADD", &feed, "*"];
        command.extend(fields.iter().flat_map(|(name, value)| [*name, *value]));
        let id = self.server.command(&command).unwrap();
        id.trim().parse().unwrap()
    }
}
