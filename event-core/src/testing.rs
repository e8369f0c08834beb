//! For tests: scenarios of aggregates, services under test, and the suites that every store must
//! pass.

pub mod parallel_contract;
#[cfg(test)]
mod rules;
mod running;
mod scenario;
pub mod store_contract;
pub mod subscription_contract;
mod test_service;

pub use scenario::{Outcome, Scenario};
pub use test_service::TestService;
