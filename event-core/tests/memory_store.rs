//! The memory store keeps the contract of stores.

mod support;

event_core::store_contract_tests!(support::Memory);
