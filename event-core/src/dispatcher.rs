//! The dispatcher: which handlers an event goes to, and what becomes of what they return.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::FutureExt;
use tokio::sync::watch;
use tracing::{Instrument, info_span};

use crate::cause::Cause;
use crate::codec::Codec;
use crate::emit::Emission;
use crate::event::Declared;
use crate::handler::{Context, Handler, HandlerError};
use crate::pattern::Pattern;
use crate::publisher::Publisher;
use crate::recorded::RecordedEvent;

/// How a handler that failed is called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How long it waits after the first failure; 100 ms by default. It doubles each time, with
    /// jitter.
    pub base: Duration,
    /// The longest it waits; 30 s by default.
    pub max_delay: Duration,
    /// After how many attempts [`dispatch`](crate::Service::dispatch) and
    /// [`run_until_idle`](crate::Service::run_until_idle) give up; 5 by default. A service that
    /// runs on its own never gives up: that would lose the event.
    pub attempts: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            attempts: 5,
        }
    }
}

impl Retry {
    fn delays(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::default()
            .with_min_delay(self.base)
            .with_max_delay(self.max_delay)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

/// What to do with a handler that fails again and again.
pub(crate) enum Patience<'a> {
    /// Give up after the attempts of the [`Retry`].
    Bounded,
    /// Never, until the service is stopped. Tells once that a bounded caller would have given up.
    Endless {
        stop: &'a mut watch::Receiver<bool>,
        gave_up: &'a (dyn Fn(&Arc<HandlerFailure>) + Send + Sync),
    },
}

/// An event that did not get through.
#[derive(Debug)]
pub(crate) enum Undone {
    Failed(Arc<HandlerFailure>),
    Stopped,
}

/// A handler that failed on an event until its attempts were used up.
#[derive(Debug, thiserror::Error)]
#[error(
    "handler `{handler}` failed on `{event_type}` (event {event_id}) {attempts} times: {source}"
)]
pub struct HandlerFailure {
    /// The name of the handler.
    pub handler: String,
    /// The event's type.
    pub event_type: String,
    /// The event's id.
    pub event_id: uuid::Uuid,
    /// How often it was tried.
    pub attempts: u32,
    /// What went wrong the last time.
    pub source: HandlerError,
}

/// A handler with what it takes and what it may emit.
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) covers: Declared,
    pub(crate) emits: Vec<String>,
    pub(crate) handler: Arc<dyn Handler>,
}

impl Route {
    pub(crate) fn takes(&self, event_type: &str) -> bool {
        self.covers.matches(event_type)
            && self
                .patterns
                .iter()
                .any(|pattern| pattern.matches(event_type))
    }
}

/// Hands events to the handlers of one group.
pub(crate) struct Dispatcher {
    pub(crate) group: Arc<str>,
    /// Sorted by name.
    pub(crate) routes: Vec<Route>,
    pub(crate) codec: Codec,
    pub(crate) publisher: Publisher,
    pub(crate) retry: Retry,
}

impl Dispatcher {
    pub(crate) fn takes(&self, event_type: &str) -> bool {
        self.routes.iter().any(|route| route.takes(event_type))
    }

    /// Calls every handler that takes the event, one after the other in the order of their names,
    /// and publishes what they return. Gives what was published.
    pub(crate) async fn dispatch(
        &self,
        event: &RecordedEvent,
        mut patience: Patience<'_>,
    ) -> Result<Vec<RecordedEvent>, Undone> {
        let mut emitted = Vec::new();
        for route in &self.routes {
            if route.takes(event.event_type()) {
                emitted.extend(self.persist(route, event, &mut patience).await?);
            }
        }
        Ok(emitted)
    }

    /// Calls one handler until it gets through.
    async fn persist(
        &self,
        route: &Route,
        event: &RecordedEvent,
        patience: &mut Patience<'_>,
    ) -> Result<Vec<RecordedEvent>, Undone> {
        let mut delays = self.retry.delays();
        let mut attempt = 1;
        loop {
            let error = match self.attempt(route, event, attempt).await {
                Ok(emitted) => return Ok(emitted),
                Err(error @ HandlerError::Unreadable(_)) => {
                    // Another attempt would read the same bytes.
                    tracing::error!(
                        handler = &*route.name,
                        event_type = event.event_type(),
                        position = %event.position(),
                        %error,
                        "an event was left out"
                    );
                    return Ok(Vec::new());
                }
                Err(error) => error,
            };
            tracing::warn!(
                handler = &*route.name,
                event_type = event.event_type(),
                position = %event.position(),
                attempt,
                %error,
                "a handler failed"
            );
            if attempt == self.retry.attempts.max(1) {
                let failure = Arc::new(HandlerFailure {
                    handler: route.name.to_string(),
                    event_type: event.event_type().to_owned(),
                    event_id: event.metadata().event_id,
                    attempts: attempt,
                    source: error,
                });
                match patience {
                    Patience::Bounded => return Err(Undone::Failed(failure)),
                    Patience::Endless { gave_up, .. } => gave_up(&failure),
                }
            }
            let delay = delays.next().unwrap_or(self.retry.max_delay);
            match patience {
                Patience::Bounded => tokio::time::sleep(delay).await,
                Patience::Endless { stop, .. } => {
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        _ = stop.wait_for(|stopped| *stopped) => return Err(Undone::Stopped),
                    }
                }
            }
            attempt = attempt.saturating_add(1);
        }
    }

    async fn attempt(
        &self,
        route: &Route,
        event: &RecordedEvent,
        attempt: u32,
    ) -> Result<Vec<RecordedEvent>, HandlerError> {
        let metadata = event.metadata();
        let context = Context {
            handler: Arc::clone(&route.name),
            group: Arc::clone(&self.group),
            event_id: metadata.event_id,
            correlation_id: metadata.correlation_id.as_str().into(),
            attempt,
            codec: self.codec.clone(),
        };
        let span = info_span!(
            "handler",
            name = &*route.name,
            event_type = event.event_type(),
            event_id = %metadata.event_id,
            attempt,
        );
        let work = async {
            // A handler's panic is a failed attempt, and no end of this task.
            let call = AssertUnwindSafe(route.handler.handle(event, &context)).catch_unwind();
            let emissions = call
                .await
                .unwrap_or_else(|panic| Err(HandlerError::Panicked(panic_message(&*panic))))?;
            self.emit(route, emissions).await
        };
        Cause::of(event).during(work.instrument(span)).await
    }

    async fn emit(
        &self,
        route: &Route,
        emissions: Vec<Emission>,
    ) -> Result<Vec<RecordedEvent>, HandlerError> {
        if emissions.is_empty() {
            return Ok(Vec::new());
        }
        for emission in &emissions {
            let event_type = emission.event.event_type();
            if !route.emits.iter().any(|declared| declared == event_type) {
                return Err(HandlerError::Undeclared {
                    event_type: event_type.to_owned(),
                });
            }
        }
        let span = tracing::debug_span!("emit", events = emissions.len());
        let published = self
            .publisher
            .send(emissions)
            .instrument(span)
            .await
            .map_err(|error| HandlerError::Publish(error.into()))?;
        Ok(published
            .events
            .into_iter()
            .map(|published| published.event)
            .collect())
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}
