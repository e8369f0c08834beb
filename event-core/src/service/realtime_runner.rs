//! Runs the realtime handlers of a service.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::dispatcher::{Dispatcher, HandlerFailure, Route};
use crate::failure::ErrorClass;
use crate::metrics;
use crate::pattern::Pattern;
use crate::realtime::{RealtimeItem, RealtimeSubscription};
use crate::recorded::RecordedEvent;
use crate::store::{Backend, StoreError};
use crate::subscription::IdleError;

/// How many events that were dispatched here are remembered until they arrive from outside.
const EXPECTED: usize = 10_000;

/// How long to wait where listening is refused.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Listens for realtime events and hands them to the realtime handlers.
pub(super) struct RealtimeRunner {
    backend: Arc<dyn Backend>,
    dispatcher: Dispatcher,
    patterns: Vec<Pattern>,
    subscription: tokio::sync::Mutex<Option<RealtimeSubscription>>,
    /// Events that `dispatch` hands to the handlers itself: they must not run again when the
    /// event arrives. Bounded, since a realtime event may never arrive.
    expected: Mutex<VecDeque<Uuid>>,
}

impl RealtimeRunner {
    pub(super) fn new(backend: Arc<dyn Backend>, dispatcher: Dispatcher) -> Self {
        let mut patterns: Vec<_> = dispatcher
            .routes
            .iter()
            .flat_map(|route| route.patterns.iter().cloned())
            .collect();
        patterns.sort();
        patterns.dedup();
        Self {
            backend,
            dispatcher,
            patterns,
            subscription: tokio::sync::Mutex::default(),
            expected: Mutex::default(),
        }
    }

    pub(super) fn takes(&self, event_type: &str) -> bool {
        self.dispatcher.takes(event_type)
    }

    /// Listens from now on.
    pub(super) async fn begin(&self) -> Result<(), StoreError> {
        // Whoever holds it listens.
        if let Ok(mut subscription) = self.subscription.try_lock()
            && subscription.is_none()
        {
            *subscription = Some(self.backend.subscribe(&self.patterns).await?);
        }
        Ok(())
    }

    pub(super) fn expect(&self, event_id: Uuid) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if expected.len() == EXPECTED {
            expected.pop_front();
        }
        expected.push_back(event_id);
    }

    fn was_dispatched(&self, event_id: Uuid) -> bool {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        match expected.iter().position(|id| *id == event_id) {
            Some(index) => expected.remove(index).is_some(),
            None => false,
        }
    }

    /// Calls every handler that takes the event, one after the other in the order of their names. Gives
    /// what they sent.
    pub(super) async fn handle(
        &self,
        event: &RecordedEvent,
    ) -> Result<Vec<RecordedEvent>, Arc<HandlerFailure>> {
        metrics::received_realtime(&self.dispatcher.group, event.event_type());
        let mut sent = Vec::new();
        for route in &self.dispatcher.routes {
            if route.takes(event.event_type()) {
                sent.extend(self.persist(route, event).await?);
            }
        }
        Ok(sent)
    }

    /// Calls one handler until it gets through, or its policy is at its end.
    async fn persist(
        &self,
        route: &Route,
        event: &RecordedEvent,
    ) -> Result<Vec<RecordedEvent>, Arc<HandlerFailure>> {
        let mut delays = route.policy.retry.delays();
        let mut attempt = 1;
        loop {
            let error = match self.dispatcher.attempt(route, None, event, attempt).await {
                Ok(prepared) => {
                    let sent = prepared.sent.events.into_iter();
                    return Ok(sent.map(|published| published.event).collect());
                }
                Err(error) => error,
            };
            tracing::warn!(
                handler = &*route.name,
                event_type = event.event_type(),
                attempt,
                %error,
                "a handler failed"
            );
            let class = route.class_of(&error);
            let delay = match class {
                ErrorClass::Retry | ErrorClass::RetryAfter(_)
                    if attempt < route.policy.retry.max.max(1) =>
                {
                    let delay = delays.next().unwrap_or(route.policy.retry.max_delay);
                    match class {
                        ErrorClass::RetryAfter(at_least) => delay.max(at_least),
                        _ => delay,
                    }
                }
                // There is no place where it could be parked: it lies nowhere.
                _ => {
                    return Err(Arc::new(HandlerFailure {
                        handler: route.name.to_string(),
                        event_type: event.event_type().to_owned(),
                        event_id: event.metadata().event_id,
                        attempts: attempt,
                        source: error,
                    }));
                }
            };
            route.metrics(&self.dispatcher.group).retries.increment(1);
            tokio::time::sleep(delay).await;
            attempt = attempt.saturating_add(1);
        }
    }

    pub(super) async fn run(&self, stopping: CancellationToken) {
        let mut subscription = self.subscription.lock().await;
        while !stopping.is_cancelled() {
            let Some(listening) = subscription.as_mut() else {
                tokio::select! {
                    listening = self.backend.subscribe(&self.patterns) => match listening {
                        Ok(listening) => *subscription = Some(listening),
                        Err(error) => {
                            tracing::error!(%error, "realtime events cannot be listened for; trying again");
                            tokio::time::sleep(LISTEN_AGAIN).await;
                        }
                    },
                    () = stopping.cancelled() => break,
                }
                continue;
            };
            let item = tokio::select! {
                item = listening.next() => item,
                () = stopping.cancelled() => break,
            };
            match item {
                Some(item) => {
                    if let Err(failure) = self.take(item).await {
                        tracing::error!(%failure, "a realtime event was given up");
                    }
                }
                None => *subscription = None,
            }
        }
    }

    /// Handles what has been sent by now. Gives the number of events.
    pub(super) async fn run_until_idle(&self) -> Result<usize, IdleError> {
        let items = {
            let mut subscription = self
                .subscription
                .try_lock()
                .map_err(|_| IdleError::Running)?;
            match subscription.as_mut() {
                Some(listening) => listening.drain().await.map_err(|source| {
                    IdleError::Read(
                        StoreError::Refused {
                            operation: "listen",
                            source,
                        }
                        .into(),
                    )
                })?,
                None => Vec::new(),
            }
        };
        let mut handled = 0;
        for item in items {
            handled += self.take(item).await.map_err(IdleError::Failed)?;
        }
        Ok(handled)
    }

    async fn take(&self, item: RealtimeItem) -> Result<usize, Arc<HandlerFailure>> {
        match item {
            RealtimeItem::Event(event) => {
                if !self.was_dispatched(event.metadata().event_id) {
                    self.handle(&event).await?;
                }
                Ok(1)
            }
            RealtimeItem::Missed { channel, count } => {
                tracing::warn!(channel, count, "realtime events were missed");
                Ok(0)
            }
        }
    }
}
