//! Services on the Redis store keep the contract of subscriptions: each rule on a server of its own.

mod harness;

event_core::subscription_contract_tests!(harness::Redis::start());

/// What is emitted lies in another slot than what it comes from.
mod elsewhere {
    use crate::harness;

    event_core::subscription_contract_tests!(harness::Redis::without_shared_slots());
}
