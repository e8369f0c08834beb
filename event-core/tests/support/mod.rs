//! The memory store, for the public suites.

use event_core::testing::store_contract::StoreHarness;
use event_core::{Category, Limits, MemoryStore, Position};

pub(crate) struct Memory;

impl StoreHarness for Memory {
    type Store = MemoryStore;

    async fn store(&self, limits: Limits) -> MemoryStore {
        MemoryStore::new().with_limits(limits)
    }

    async fn partitioned(&self, category: &Category, count: u32) -> MemoryStore {
        MemoryStore::new().partitions(category.clone(), count)
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
