//! The dispatcher: which handlers an event goes to, and how one of them is called.

use std::any::Any;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures::FutureExt;
use tracing::{Instrument, info_span};

use crate::cause::Cause;
use crate::codec::{Codec, CodecError};
use crate::emit::Emission;
use crate::event::Declared;
use crate::failure::{Classifier, ErrorClass, Policy};
use crate::handler::{Context, Delivery, Handler, HandlerError, Past};
use crate::metrics::{self, HandlerMetrics};
use crate::partition::Partition;
use crate::pattern::Pattern;
use crate::publisher::{Prepared, Publisher};
use crate::recorded::RecordedEvent;
use crate::store::DeadLetterReason;
use crate::trace;

/// A handler that failed on an event until its attempts were used up, or for good.
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
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) covers: Declared,
    pub(crate) past: Past,
    pub(crate) emits: Vec<String>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) delivery: Delivery,
    pub(crate) allows_replay: bool,
    pub(crate) policy: Policy,
    pub(crate) classifier: Classifier,
    /// Resolved at the first call.
    pub(crate) metrics: OnceLock<HandlerMetrics>,
}

impl Route {
    pub(crate) fn metrics(&self, group: &str) -> &HandlerMetrics {
        self.metrics
            .get_or_init(|| HandlerMetrics::new(group, &self.name))
    }

    /// Whether it takes events that are stored under this type.
    pub(crate) fn takes(&self, event_type: &str) -> bool {
        let reacts_to = |event_type: &str| self.reacts_to(event_type);
        self.past.takes(&self.covers, event_type, reacts_to)
    }

    fn reacts_to(&self, event_type: &str) -> bool {
        let mut patterns = self.patterns.iter();
        patterns.any(|pattern| pattern.matches(event_type))
    }

    async fn handle(
        &self,
        event: &RecordedEvent,
        context: &Context,
    ) -> Result<Vec<Emission>, HandlerError> {
        if !self.past.is_split(event.event_type()) {
            return self.handler.handle(event, context).await;
        }
        let mut emissions = Vec::new();
        for (part, event) in self.past.split(event)?.into_iter().enumerate() {
            if self.reacts_to(event.event_type()) {
                let context = Context {
                    event: event.clone(),
                    part,
                    ..context.clone()
                };
                emissions.extend(self.handler.handle(&event, &context).await?);
            }
        }
        Ok(emissions)
    }

    /// Makes sure that it may emit what it has returned.
    fn check_declared(&self, emissions: &[Emission]) -> Result<(), HandlerError> {
        for emission in emissions {
            let event_type = emission.event.event_type();
            if !self.emits.iter().any(|declared| declared == event_type) {
                return Err(HandlerError::Undeclared {
                    event_type: event_type.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// What an error means for the event.
    pub(crate) fn class_of(&self, error: &HandlerError) -> ErrorClass {
        match error {
            HandlerError::Failed(error) => (self.classifier)(error),
            // Another attempt would read the same bytes.
            HandlerError::Unreadable(_) => ErrorClass::Reject,
            _ => ErrorClass::Retry,
        }
    }
}

/// Why an event is a dead letter, by what went wrong last.
pub(crate) fn reason_of(error: &HandlerError, class: ErrorClass) -> DeadLetterReason {
    match (error, class) {
        (HandlerError::Unreadable(error), _) => match error {
            CodecError::UnknownVersion { .. } | CodecError::MissingUpcast(_) => {
                DeadLetterReason::UnknownVersion
            }
            _ => DeadLetterReason::Unreadable,
        },
        (HandlerError::Panicked(_), _) => DeadLetterReason::Panicked,
        (HandlerError::TimedOut(_), _) => DeadLetterReason::TimedOut,
        (_, ErrorClass::Reject) => DeadLetterReason::Rejected,
        _ => DeadLetterReason::Exhausted,
    }
}

/// What an error says, and below it what it came from.
pub(crate) fn chain_of(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut chain = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        chain.push(error.to_string());
        next = error.source();
    }
    chain
}

/// Hands events to the handlers of one group.
pub(crate) struct Dispatcher {
    pub(crate) group: Arc<str>,
    /// Sorted by name.
    pub(crate) routes: Vec<Route>,
    pub(crate) codec: Codec,
    pub(crate) publisher: Publisher,
}

impl Dispatcher {
    pub(crate) fn takes(&self, event_type: &str) -> bool {
        self.routes.iter().any(|route| route.takes(event_type))
    }

    /// The handlers that take events of this type in order, by their number.
    pub(crate) fn routes_of(&self, event_type: &str) -> Vec<usize> {
        let mut routes = self.all_routes_of(event_type);
        routes.retain(|route| self.routes[*route].delivery == Delivery::Ordered);
        routes
    }

    /// The handlers that take events of this type, those with parallel delivery too, by their number.
    pub(crate) fn all_routes_of(&self, event_type: &str) -> Vec<usize> {
        (0..self.routes.len())
            .filter(|route| self.routes[*route].takes(event_type))
            .collect()
    }

    /// Calls a handler once. Its realtime events are sent; the others are given back, to be stored.
    pub(crate) async fn attempt(
        &self,
        route: &Route,
        partition: Option<&Partition>,
        event: &RecordedEvent,
        attempt: u32,
    ) -> Result<Prepared, HandlerError> {
        let context = self.context(route, partition, event, attempt);
        let work = async { self.prepare(route, call(route, &context).await?).await };
        let begun = Instant::now();
        let result = within(&context, work).await;
        let took = begun.elapsed();
        match &result {
            Ok(_) => route.metrics(&self.group).succeeded(took),
            Err(error) => metrics::failed(&self.group, &route.name, error, took),
        }
        result
    }

    /// Calls a handler once more for an event of the past. What it returns is looked at, and dropped; gives
    /// how many events that was.
    pub(crate) async fn replay(
        &self,
        route: &Route,
        partition: &Partition,
        event: &RecordedEvent,
        attempt: u32,
    ) -> Result<usize, HandlerError> {
        let context = Context {
            is_replay: true,
            ..self.context(route, Some(partition), event, attempt)
        };
        let work = async {
            let emissions = call(route, &context).await?;
            route.check_declared(&emissions)?;
            Ok(emissions.len())
        };
        within(&context, work).await
    }

    fn context(
        &self,
        route: &Route,
        partition: Option<&Partition>,
        event: &RecordedEvent,
        attempt: u32,
    ) -> Context {
        Context {
            handler: Arc::clone(&route.name),
            group: Arc::clone(&self.group),
            partition: partition.cloned(),
            event: event.clone(),
            attempt,
            part: 0,
            is_replay: false,
            codec: self.codec.clone(),
        }
    }

    async fn prepare(
        &self,
        route: &Route,
        emissions: Vec<Emission>,
    ) -> Result<Prepared, HandlerError> {
        if emissions.is_empty() {
            return Ok(Prepared::default());
        }
        route.check_declared(&emissions)?;
        let span = tracing::debug_span!("emit", events = emissions.len());
        async {
            let mut prepared = self.publisher.prepare(emissions).await?;
            self.publisher.send_realtime(&mut prepared).await?;
            Ok(prepared)
        }
        .instrument(span)
        .await
        .map_err(|error: crate::publisher::PublishError| HandlerError::Publish(error.into()))
    }
}

/// Calls a handler, and gives what it returns.
async fn call(route: &Route, context: &Context) -> Result<Vec<Emission>, HandlerError> {
    // A handler's panic is a failed attempt, and no end of this task.
    let call = AssertUnwindSafe(route.handle(&context.event, context)).catch_unwind();
    let called = match route.policy.timeout {
        None => call.await,
        Some(timeout) => tokio::time::timeout(timeout, call)
            .await
            .map_err(|_| HandlerError::TimedOut(timeout))?,
    };
    called.unwrap_or_else(|panic| Err(HandlerError::Panicked(panic_message(&*panic))))
}

/// Does what belongs to a call, within its span, and with its event as the cause of what is made.
async fn within<T>(context: &Context, work: impl Future<Output = T>) -> T {
    let metadata = context.event.metadata();
    let span = info_span!(
        "handler",
        name = &*context.handler,
        event_type = context.event.event_type(),
        event_id = %metadata.event_id,
        traceparent = metadata.traceparent.as_deref(),
        attempt = context.attempt,
        replay = context.is_replay.then_some(true),
    );
    trace::follow(&span, metadata.traceparent.as_deref());
    Cause::of(&context.event)
        .during(work.instrument(span))
        .await
}

/// What a panic says.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}
