//! The Redis store keeps the contract of stores: each rule on a server of its own.

mod harness;

event_core::store_contract_tests!(harness::Redis::start());

event_core::parallel_contract_tests!(harness::Redis::start());

/// What is emitted lies in another slot than what it comes from.
mod elsewhere {
    use crate::harness;

    event_core::store_contract_tests!(harness::Redis::without_shared_slots());

    event_core::parallel_contract_tests!(harness::Redis::without_shared_slots());
}
