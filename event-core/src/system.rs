//! System events: what a service tells of itself, where [`ServiceBuilder::system_events`] is on.
//!
//! They are ordinary stored events of the categories `service` and `error`, so that any handler of any
//! service can react to them. What goes wrong while they are published is logged, and nothing else.
//!
//! ```
//! use event_core::prelude::*;
//! use event_core::system::ErrorOccurred;
//!
//! #[event_handler(on = "error.occurred", group = "alerts")]
//! async fn alert(error: ErrorOccurred) {
//!     println!("{}: {:?} {:?}", error.service, error.kind, error.errors);
//! }
//! # fn main() {}
//! ```
//!
//! [`ServiceBuilder::system_events`]: crate::ServiceBuilder::system_events

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::Event;
use crate::dispatcher::{HandlerFailure, chain_of};
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{DeadLetter, DeadLetterReason};
use crate::subscription::{CircuitState, Pause};

/// An instance publishes no more [`ErrorOccurred`] in a second.
pub const ERRORS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// So many wait to be published while the store does not answer.
const QUEUED: usize = 100;

/// So much is told of an error, and of what it came from.
const ERROR_CHARACTERS: usize = 1_000;
const ERRORS: usize = 10;

/// An instance of a service runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event)]
#[event("service.started", key = service)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStarted {
    /// The service.
    pub service: String,
    /// The group whose handlers it runs.
    pub group: String,
    /// This instance.
    pub instance: String,
    /// The names of its handlers, sorted.
    pub handlers: Vec<String>,
}

/// An instance of a service runs no more. One that is killed does not say so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event)]
#[event("service.stopped", key = service)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStopped {
    /// The service.
    pub service: String,
    /// The group whose handlers it ran.
    pub group: String,
    /// This instance.
    pub instance: String,
    /// The error by which it stopped; `None` where it was asked to.
    pub error: Option<String>,
}

/// An instance of a service reads less than it should, or again as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event)]
#[event("service.health.changed", key = service)]
#[serde(rename_all = "camelCase")]
pub struct ServiceHealthChanged {
    /// The service.
    pub service: String,
    /// The group whose handlers it runs.
    pub group: String,
    /// This instance.
    pub instance: String,
    /// What its circuit breaker does.
    pub circuit: CircuitState,
    /// The partitions it owns and reads nothing of; none where all is well.
    pub paused: Vec<PausedPartition>,
}

/// A partition of which nothing is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PausedPartition {
    /// The partition, as it is printed.
    pub partition: String,
    /// Why.
    pub pause: Pause,
}

/// Something that somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event)]
#[event("error.occurred", key = service)]
#[serde(rename_all = "camelCase")]
pub struct ErrorOccurred {
    /// The service.
    pub service: String,
    /// The group whose handlers it runs.
    pub group: String,
    /// This instance.
    pub instance: String,
    /// What has happened.
    pub kind: ErrorKind,
    /// The partition, as it is printed.
    pub partition: String,
    /// Where the event lies, where it is about one.
    pub position: Option<Position>,
    /// The event's type, where it is about one.
    pub event_type: Option<String>,
    /// The event's id, where it is about one.
    pub event_id: Option<Uuid>,
    /// The handler, where it is about one.
    pub handler: Option<String>,
    /// What went wrong, and below it what that came from. Long ones are cut.
    pub errors: Vec<String>,
    /// How many others there were since the one before, and were not published because there were too
    /// many.
    pub suppressed: u64,
}

/// What has happened where an error occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorKind {
    /// An event is a dead letter now. Those that follow it because they are of its key are not told.
    DeadLetter,
    /// The group has stopped in this instance, as a handler's policy or error wants.
    GroupStopped,
    /// Another instance owns the partition, though this one has not given it back.
    PartitionLost,
}

/// The types that a service publishes of itself.
pub(crate) fn types() -> impl Iterator<Item = String> {
    [
        ServiceStarted::DEFINITIONS,
        ServiceStopped::DEFINITIONS,
        ServiceHealthChanged::DEFINITIONS,
        ErrorOccurred::DEFINITIONS,
    ]
    .into_iter()
    .flatten()
    .map(|definition| definition.name().to_owned())
}

/// Who says something of itself.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) service: String,
    pub(crate) group: String,
    pub(crate) instance: String,
}

/// Errors on their way to be published: a bounded number, at a bounded rate.
pub(crate) struct Reports {
    origin: Origin,
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
    queue: Mutex<Queue>,
    /// Told when there is something to publish.
    pub(crate) arrived: Notify,
}

#[derive(Default)]
struct Queue {
    errors: VecDeque<ErrorOccurred>,
    suppressed: u64,
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Reports {
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            origin,
            limiter: RateLimiter::direct(Quota::per_second(ERRORS_PER_SECOND)),
            queue: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event is a dead letter now.
    pub(crate) fn dead_letter(&self, partition: &Partition, letter: &DeadLetter) {
        if letter.reason == DeadLetterReason::Follows {
            return;
        }
        let handler = (!letter.handler.is_empty()).then_some(&*letter.handler);
        let event_type = letter.event_type.as_deref();
        self.report(ErrorKind::DeadLetter, partition, event_type, |error| {
            error.position = Some(letter.position);
            error.event_id = letter.event_id;
            error.handler = handler.map(str::to_owned);
            error.errors = cut(&letter.errors);
        });
    }

    /// The group stops.
    pub(crate) fn group_stopped(&self, partition: &Partition, failure: &HandlerFailure) {
        let event_type = Some(&*failure.event_type);
        self.report(ErrorKind::GroupStopped, partition, event_type, |error| {
            error.event_id = Some(failure.event_id);
            error.handler = Some(failure.handler.clone());
            error.errors = cut(&chain_of(&failure.source));
        });
    }

    /// Another instance owns a partition.
    pub(crate) fn partition_lost(&self, partition: &Partition) {
        self.report(ErrorKind::PartitionLost, partition, None, |_| {});
    }

    fn report(
        &self,
        kind: ErrorKind,
        partition: &Partition,
        event_type: Option<&str>,
        fill_in: impl FnOnce(&mut ErrorOccurred),
    ) {
        // Whoever fails on these must not make more of them.
        if event_type.is_some_and(|event_type| {
            ErrorOccurred::DEFINITIONS
                .iter()
                .any(|own| own.name() == event_type)
        }) {
            return;
        }
        let may_be_told = self.limiter.check().is_ok();
        let mut queue = self.queue();
        if !may_be_told || queue.errors.len() == QUEUED {
            queue.suppressed += 1;
            return;
        }
        let mut error = ErrorOccurred {
            service: self.origin.service.clone(),
            group: self.origin.group.clone(),
            instance: self.origin.instance.clone(),
            kind,
            partition: partition.to_string(),
            position: None,
            event_type: event_type.map(str::to_owned),
            event_id: None,
            handler: None,
            errors: Vec::new(),
            suppressed: std::mem::take(&mut queue.suppressed),
        };
        fill_in(&mut error);
        queue.errors.push_back(error);
        drop(queue);
        self.arrived.notify_one();
    }

    /// The oldest that is not published yet.
    pub(crate) fn next(&self) -> Option<ErrorOccurred> {
        self.queue().errors.pop_front()
    }
}

fn cut(errors: &[String]) -> Vec<String> {
    errors
        .iter()
        .take(ERRORS)
        .map(|error| error.chars().take(ERROR_CHARACTERS).collect())
        .collect()
}
