//! The health of a service: what it does now, and how far behind it is.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::projection::ProjectionHealth;
use crate::subscription::{CircuitState, ParallelHealth, PartitionHealth};

/// What a service does now, and how far behind it is. Made by
/// [`Service::health`](crate::Service::health).
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Owner, ServiceState};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
/// # #[event("github.push")]
/// # struct GithubPush { commits: u32 }
/// #[event_handler(on = "github.push", group = "counter")]
/// async fn count(push: GithubPush) {}
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let service = Service::builder("counter").store(MemoryStore::new()).build()?;
/// service.publish(GithubPush { commits: 2 }).await?;
///
/// let health = service.health().await?;
/// assert_eq!(health.state, ServiceState::Built);
/// let github = &health.partitions[0];
/// assert_eq!((github.partition.as_str(), github.lag), ("github", 1));
/// assert_eq!(github.owner, Owner::Nobody);
/// println!("{}", serde_json::to_string(&health)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// The name of the service.
    pub service: String,
    /// The group whose handlers it runs.
    pub group: String,
    /// The name of this instance.
    pub instance: String,
    /// What this instance does.
    pub state: ServiceState,
    /// Every partition of the group, whoever owns it.
    pub partitions: Vec<PartitionHealth>,
    /// Every handler with parallel delivery in each of its partitions.
    pub parallel: Vec<ParallelHealth>,
    /// What the circuit breaker of this instance does.
    pub circuit: CircuitState,
    /// The names of the handlers, sorted.
    pub handlers: Vec<String>,
    /// Every projection of the service.
    #[serde(default)]
    pub projections: Vec<ProjectionHealth>,
}

/// What an instance of a service does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceState {
    /// It has not run yet; [`run_until_idle`](crate::Service::run_until_idle) and
    /// [`dispatch`](crate::Service::dispatch) leave it so.
    #[default]
    Built,
    /// It handles events as they come.
    Running,
    /// It finishes what it has begun.
    Stopping,
    /// It has stopped as it was asked to.
    Stopped,
    /// It has stopped by an error, which [`run_until`](crate::Service::run_until) has given back.
    Failed,
}

/// The state of a service, shared by its clones.
#[derive(Debug, Default)]
pub(super) struct StateCell(Mutex<ServiceState>);

impl StateCell {
    pub(super) fn get(&self) -> ServiceState {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, state: ServiceState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
