//! Services that rules run, and what they wait for.

// A broken rule is reported by a panic that names it.
#![allow(clippy::panic, clippy::expect_used)]

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::store_contract::steps::within;
use crate::failure::Retry;
use crate::service::{Service, ServiceBuilder, ServiceError, ServiceState};
use crate::store::Backend;

/// A lease that does not end while a rule runs: what is not given back is missed.
pub(in crate::testing) const LONG: Duration = Duration::from_secs(600);

/// How long a condition is left alone before it is looked at again.
pub(in crate::testing) const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A service that has only the handlers that a rule adds, and does not wait long between attempts.
pub(in crate::testing) fn service(store: &(impl Backend + Clone), group: &str) -> ServiceBuilder {
    Service::builder(group)
        .without_discovered_handlers()
        .store(store.clone())
        .lease(LONG)
        .retry(quick(3))
}

/// So many attempts, without long pauses.
pub(in crate::testing) fn quick(max: u32) -> Retry {
    Retry {
        max,
        base: Duration::from_millis(1),
        max_delay: Duration::from_millis(2),
    }
}

pub(in crate::testing) fn build(builder: ServiceBuilder) -> Service {
    match builder.build() {
        Ok(service) => service,
        Err(error) => panic!("a service of the suite must be built: {error}"),
    }
}

/// A service that runs until the rule says so.
pub(in crate::testing) struct Running {
    service: Service,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServiceError>>,
}

impl Running {
    pub(in crate::testing) fn start(builder: ServiceBuilder) -> Self {
        Self::of(&build(builder))
    }

    pub(in crate::testing) fn of(service: &Service) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (service, runs) = (service.clone(), service.clone());
        let task = tokio::spawn(async move {
            runs.run_until(async {
                if stopped.await.is_err() {
                    // Nobody says so any more.
                    std::future::pending().await
                }
            })
            .await
        });
        Self {
            service,
            stop,
            task,
        }
    }

    /// Asks it to stop, and waits until it has. It must end well.
    pub(in crate::testing) async fn stop(self) {
        let _ = self.stop.send(());
        let ended = within("a service that is stopped ends", self.task).await;
        if let Err(error) = ended.expect("a service must not panic") {
            panic!("a service that is stopped must end well: {error}");
        }
    }

    /// Asks it to stop, and waits until it begins nothing more, not until what runs is finished.
    pub(in crate::testing) async fn ask_to_stop(self) -> JoinHandle<Result<(), ServiceError>> {
        let _ = self.stop.send(());
        eventually("a service that is asked to stop knows of it", async || {
            let health = self.service.health().await;
            health.is_ok_and(|health| health.state != ServiceState::Running)
        })
        .await;
        self.task
    }

    /// Waits until it ends by itself.
    pub(in crate::testing) async fn end(self) -> Result<(), ServiceError> {
        let ended = within("a service ends by itself", self.task).await;
        ended.expect("a service must not panic")
    }

    /// Ends it without giving it a chance to say goodbye, as a process that is killed.
    pub(in crate::testing) async fn vanish(self) {
        self.task.abort();
        let _ = within("an aborted service is gone", self.task).await;
    }
}

/// Waits until a condition holds that must be asked for.
pub(in crate::testing) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
}
