//! The Redis store keeps the contract of stores: each rule on a server of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use event_core::testing::store_contract::StoreHarness;
use event_core::{Category, Limits, Position};
use event_redis::RedisStore;
use event_tests::RedisServer;

struct Redis {
    server: RedisServer,
}

impl Redis {
    fn start() -> Self {
        let server = RedisServer::start().unwrap();
        Self { server }
    }

    async fn connect(&self, limits: Limits) -> RedisStore {
        let store = RedisStore::builder(self.server.url()).limits(limits);
        store.connect().await.unwrap()
    }
}

impl StoreHarness for Redis {
    type Store = RedisStore;

    async fn store(&self, limits: Limits) -> RedisStore {
        self.server.command(&["FLUSHALL"]).unwrap();
        self.connect(limits).await
    }

    async fn other_client(&self, _: &RedisStore) -> RedisStore {
        self.connect(Limits::default()).await
    }

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

event_core::store_contract_tests!(Redis::start());

event_core::parallel_contract_tests!(Redis::start());
