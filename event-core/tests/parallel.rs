//! The memory store keeps the contract of parallel delivery.

use event_core::testing::store_contract::StoreHarness;
use event_core::{Category, Limits, MemoryStore, Position};

struct Memory;

impl StoreHarness for Memory {
    type Store = MemoryStore;

    async fn store(&self, limits: Limits) -> MemoryStore {
        MemoryStore::new().with_limits(limits)
    }

    async fn append_foreign(
        &self,
        store: &MemoryStore,
        category: &Category,
        fields: &[(&str, &str)],
    ) -> Position {
        store.append_foreign(category, fields)
    }
}

event_core::parallel_contract_tests!(Memory);
