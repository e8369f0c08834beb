//! Services on the Redis store keep the contract of subscriptions: each rule on a server of its own.

mod harness;

event_core::subscription_contract_tests!(harness::Redis::start());
