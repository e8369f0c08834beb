//! For tests: scenarios of aggregates, services under test, and the suites that every store must
//! pass.

#[cfg(feature = "schema")]
mod events_lock;
pub mod parallel_contract;
#[cfg(test)]
mod rules;
mod running;
mod scenario;
pub mod store_contract;
pub mod subscription_contract;
mod test_service;

#[cfg(feature = "schema")]
pub use events_lock::{EventsLock, LockError};
pub use scenario::{Outcome, Scenario};
pub use test_service::TestService;
