//! The service: the handlers on a store.

use std::sync::Arc;

use event_core::{Backend, BuildError, Service, ServiceBuilder};

use crate::analyzer::{Analyzer, PathAnalyzer};

/// The name of the service, of its group, and of the source of its events.
pub const SERVICE: &str = "repo-agent";

/// Its handlers. A program that is linked without one of them would do half its work without a word.
const HANDLERS: [&str; 11] = [
    "RepositoryEventHandler::handle_check_run",
    "RepositoryEventHandler::handle_issue",
    "RepositoryEventHandler::handle_package",
    "RepositoryEventHandler::handle_pr",
    "RepositoryEventHandler::handle_push",
    "RepositoryEventHandler::handle_release",
    "RepositoryEventHandler::handle_repository",
    "RepositoryEventHandler::handle_workflow_run",
    "RepositoryEventHandler::record_push",
    "RepositoryEventHandler::register",
    "announce_phase",
];

/// Builds the service on a store.
///
/// # Errors
/// [`BuildError`] with everything that does not fit together.
pub fn repo_agent(store: impl Backend) -> Result<Service, BuildError> {
    repo_agent_with(store, Arc::new(PathAnalyzer))
}

/// Builds the service on a store, with another analyzer.
///
/// # Errors
/// [`BuildError`] with everything that does not fit together.
pub fn repo_agent_with(
    store: impl Backend,
    analyzer: Arc<dyn Analyzer>,
) -> Result<Service, BuildError> {
    builder(analyzer).store(store).build()
}

/// The service without a store, for tests that give it one.
pub fn builder(analyzer: Arc<dyn Analyzer>) -> ServiceBuilder {
    Service::builder(SERVICE)
        .provide(analyzer)
        .expect_handlers(HANDLERS)
}
