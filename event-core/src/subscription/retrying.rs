//! Retrying: how often a handler has failed on an event, and what that leads to.

use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBackoff;
use chrono::{DateTime, Utc};

use crate::dispatcher::{HandlerFailure, Route, chain_of, reason_of};
use crate::failure::{ErrorClass, OnExhausted};
use crate::handler::{Delivery, HandlerError};
use crate::partition::key_of;
use crate::recorded::RecordedEvent;
use crate::store::{DeadLetter, DeadLetterReason};

/// A handler that has failed and is called again.
pub(super) struct Retrying {
    attempts: u32,
    delays: ExponentialBackoff,
    first_failed_at: DateTime<Utc>,
    /// Whether it is through, unless what it emitted is refused.
    pub(super) is_through: bool,
}

/// What a failure leads to.
pub(super) enum Verdict {
    /// The handler is called again.
    Again { attempt: u32, delay: Duration },
    /// It is not, and the event goes among the dead letters unless it is left out.
    GivenUp {
        failure: Arc<HandlerFailure>,
        letter: DeadLetter,
        is_left_out: bool,
    },
    /// The group stops, with the event still to be handled.
    Stop(Arc<HandlerFailure>),
}

impl Retrying {
    pub(super) fn new(route: &Route, now: DateTime<Utc>) -> Self {
        Self {
            attempts: 0,
            delays: route.policy.retry.delays(),
            first_failed_at: now,
            is_through: false,
        }
    }

    /// Notes a failure, and decides what becomes of the event.
    pub(super) fn fail(
        &mut self,
        route: &Route,
        event: &RecordedEvent,
        error: HandlerError,
        now: DateTime<Utc>,
    ) -> Verdict {
        self.attempts += 1;
        self.is_through = false;
        let attempts = self.attempts;
        let class = route.class_of(&error);
        tracing::warn!(
            handler = &*route.name,
            event_type = event.event_type(),
            position = %event.position(),
            attempt = attempts,
            %error,
            "a handler failed"
        );
        let at_least = match class {
            ErrorClass::Retry => Some(Duration::from_micros(1)),
            ErrorClass::RetryAfter(at_least) => Some(at_least),
            ErrorClass::Reject | ErrorClass::Fatal => None,
        };
        if let Some(at_least) = at_least
            && attempts < route.policy.retry.max.max(1)
        {
            let delay = self.delays.next();
            return Verdict::Again {
                attempt: attempts + 1,
                delay: delay.unwrap_or(route.policy.retry.max_delay).max(at_least),
            };
        }

        let reason = reason_of(&error, class);
        let failure = Arc::new(HandlerFailure {
            handler: route.name.to_string(),
            event_type: event.event_type().to_owned(),
            event_id: event.metadata().event_id,
            attempts,
            source: error,
        });
        let is_rejected = at_least.is_none()
            || matches!(
                reason,
                DeadLetterReason::Unreadable | DeadLetterReason::UnknownVersion
            );
        let on_exhausted = route.policy.on_exhausted;
        if class == ErrorClass::Fatal || (!is_rejected && on_exhausted == OnExhausted::Stop) {
            return Verdict::Stop(failure);
        }
        let letter = DeadLetter {
            position: event.position(),
            handler: route.name.to_string(),
            key: match route.delivery {
                Delivery::Ordered => key_of(event),
                // Nothing has to wait behind it.
                Delivery::Parallel => None,
            },
            event_type: Some(failure.event_type.clone()),
            event_id: Some(failure.event_id),
            reason,
            errors: chain_of(&failure.source),
            attempts,
            first_failed_at: self.first_failed_at,
            last_failed_at: now,
            redrive: false,
        };
        Verdict::GivenUp {
            failure,
            letter,
            // What is rejected was not tried as often as it may be.
            is_left_out: !is_rejected && on_exhausted == OnExhausted::Skip,
        }
    }
}
