//! The memory store keeps the contract of parallel delivery.

mod support;

event_core::parallel_contract_tests!(support::Memory);
