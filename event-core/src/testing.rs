//! For tests: scenarios of aggregates, services under test, recordings that are replayed, and the suites
//! that every store must pass.

#[cfg(feature = "schema")]
mod events_lock;
mod golden;
pub mod parallel_contract;
mod replay;
mod replay_safe;
mod replayed;
#[cfg(test)]
mod rules;
mod running;
mod scenario;
pub mod store_contract;
pub mod subscription_contract;
mod test_service;

#[cfg(feature = "schema")]
pub use events_lock::{EventsLock, LockError};
pub use golden::GoldenError;
pub use replay_safe::{ReplayUnsafe, assert_replay_safe};
pub use replayed::Replayed;
pub use scenario::{Outcome, Scenario};
pub use test_service::TestService;
