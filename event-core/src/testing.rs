//! For tests: scenarios of aggregates, services under test, and the suite that every store must
//! pass.

mod test_service;

pub use test_service::TestService;
