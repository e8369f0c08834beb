//! Services on the memory store keep the contract of subscriptions.

mod support;

event_core::subscription_contract_tests!(support::Memory);
