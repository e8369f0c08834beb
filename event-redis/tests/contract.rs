//! The Redis store keeps the contract of stores: each rule on a server of its own.

mod harness;

event_core::store_contract_tests!(harness::Redis::start());

event_core::parallel_contract_tests!(harness::Redis::start());
