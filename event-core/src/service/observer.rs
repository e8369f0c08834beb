//! The observer: tells how the service is doing, by metrics and, where wanted, by system events.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::emit::Emit;
use crate::publisher::Publisher;
use crate::subscription::Subscription;
use crate::system::{
    Origin, PausedPartition, Reports, ServiceHealthChanged, ServiceStarted, ServiceStopped,
};

/// How often it looks what the service does. That asks no store.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// At every so-manieth look it asks the store how far behind the service is.
const LOOKS_PER_LAG: u32 = 5;

/// How long a service that has stopped may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Tells how a service is doing.
pub(super) struct Observer {
    subscription: Arc<Subscription>,
    publisher: Publisher,
    origin: Origin,
    handlers: Vec<String>,
    /// Where the service publishes events of itself.
    reports: Option<Arc<Reports>>,
    /// Who holds it publishes errors, so that they keep their order.
    publishing: tokio::sync::Mutex<()>,
}

impl Observer {
    pub(super) fn new(
        subscription: Arc<Subscription>,
        publisher: Publisher,
        origin: Origin,
        handlers: Vec<String>,
        reports: Option<Arc<Reports>>,
    ) -> Self {
        Self {
            subscription,
            publisher,
            origin,
            handlers,
            reports,
            publishing: tokio::sync::Mutex::default(),
        }
    }

    /// Tells how the service is doing until it is stopped.
    pub(super) async fn run(&self, stopping: CancellationToken) {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.observe() => {}
        }
    }

    async fn observe(&self) {
        if self.reports.is_some() {
            // Handlers of this service that begin now are to see that it has started.
            if let Err(error) = self.subscription.begin().await {
                tracing::error!(%error, "the feeds cannot be read");
            }
            let origin = self.origin.clone();
            self.publish(ServiceStarted {
                service: origin.service,
                group: origin.group,
                instance: origin.instance,
                handlers: self.handlers.clone(),
            })
            .await;
        }
        tokio::join!(self.publish_as_they_come(), self.look());
    }

    async fn publish_as_they_come(&self) {
        let Some(reports) = &self.reports else {
            return;
        };
        loop {
            self.publish_errors().await;
            reports.arrived.notified().await;
        }
    }

    async fn look(&self) {
        let mut before = (Default::default(), Vec::new());
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in (0..LOOKS_PER_LAG).cycle() {
            looks.tick().await;
            let now = (self.subscription.circuit(), self.subscription.paused());
            if now != before {
                before.clone_from(&now);
                if self.reports.is_some() {
                    let (circuit, paused) = now;
                    let origin = self.origin.clone();
                    self.publish(ServiceHealthChanged {
                        service: origin.service,
                        group: origin.group,
                        instance: origin.instance,
                        circuit,
                        paused: paused
                            .into_iter()
                            .map(|(partition, pause)| PausedPartition {
                                partition: partition.to_string(),
                                pause,
                            })
                            .collect(),
                    })
                    .await;
                }
            }
            if number == 0
                && let Err(error) = self.subscription.measure_lag().await
            {
                tracing::debug!(%error, "how far the service is behind cannot be told");
            }
        }
    }

    /// Publishes the errors that have occurred by now, and gives their number.
    pub(super) async fn publish_errors(&self) -> usize {
        let Some(reports) = &self.reports else {
            return 0;
        };
        let _publishing = self.publishing.lock().await;
        let mut count = 0;
        while let Some(error) = reports.next() {
            self.publish(error).await;
            count += 1;
        }
        count
    }

    /// Says that the service has stopped, and why.
    pub(super) async fn stopped(&self, error: Option<String>) {
        if self.reports.is_none() {
            return;
        }
        let last_words = async {
            self.publish_errors().await;
            let origin = self.origin.clone();
            self.publish(ServiceStopped {
                service: origin.service,
                group: origin.group,
                instance: origin.instance,
                error,
            })
            .await;
        };
        if timeout(LAST_WORDS, last_words).await.is_err() {
            tracing::warn!("the service has stopped, but cannot say so to others");
        }
    }

    /// Boxed, since an event of the service's own must not make the futures of all services larger.
    async fn publish(&self, event: impl Emit) {
        if let Err(error) = Box::pin(self.publisher.publish(event)).await {
            tracing::error!(%error, "what the service says of itself cannot be published");
        }
    }
}
