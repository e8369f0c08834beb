//! Services on a store that does not answer for a part of what it is asked, or refuses it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "hindered/ordered.rs"]
mod ordered;
#[path = "hindered/parallel.rs"]
mod parallel;
#[path = "support/hindered.rs"]
mod support;

use std::future::Future;
use std::time::Duration;

use event_core::prelude::*;
use event_core::{Category, Partition, ServiceBuilder, ServiceError};
use serde::{Deserialize, Serialize};
use support::Hindered;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const PARTITIONS: u32 = 4;

const GROUP: &str = "agent";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("orders.placed", key = customer)]
struct Placed {
    customer: String,
    number: u64,
}

fn orders() -> Category {
    Category::new("orders").unwrap()
}

fn partitions() -> impl Iterator<Item = Partition> {
    (0..PARTITIONS).map(|number| Partition::new(orders(), number))
}

fn memory() -> MemoryStore {
    MemoryStore::new().partitions(orders(), PARTITIONS)
}

fn service(store: &Hindered, instance: &str) -> ServiceBuilder {
    Service::builder(GROUP)
        .without_discovered_handlers()
        .store(store.clone())
        .instance(instance)
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServiceError>>,
}

impl Running {
    fn start(builder: ServiceBuilder) -> Self {
        let service = builder.build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            service
                .run_until(async {
                    // Also where the test forgets it.
                    let _ = stopped.await;
                })
                .await
        });
        Self { stop, task }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        soon("the service stops", self.task).await.unwrap().unwrap();
    }

    async fn vanish(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A limit for what must not take long, so that a test that hangs says where. The clock is stopped in
/// these tests, so nobody waits for it.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(600), future).await {
        Ok(value) => value,
        Err(_) => panic!("never: {what}"),
    }
}

/// Looks at a condition until it holds.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
