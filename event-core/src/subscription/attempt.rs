//! An attempt: one call of a handler for an event.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use super::gate::Permit;
use super::shared::Shared;
use crate::dispatcher::Dispatcher;
use crate::handler::HandlerError;
use crate::partition::Partition;
use crate::publisher::Prepared;
use crate::recorded::RecordedEvent;

pub(super) type Attempt = Pin<Box<dyn Future<Output = Result<Prepared, HandlerError>> + Send>>;

/// The call of a handler, not begun yet.
pub(super) fn attempt(
    dispatcher: &Arc<Dispatcher>,
    route: usize,
    (partition, event): (Partition, RecordedEvent),
    attempt: u32,
) -> Attempt {
    let dispatcher = Arc::clone(dispatcher);
    Box::pin(async move {
        let span = debug_span!(
            "dispatcher",
            event_type = event.event_type(),
            position = %event.position()
        );
        dispatcher
            .attempt(&dispatcher.routes[route], Some(&partition), &event, attempt)
            .instrument(span)
            .await
    })
}

/// Begins an attempt on this task, where it comes to an end if the handler does not wait. Else it has
/// to go on on a task of its own.
pub(super) fn begin(attempt: &mut Attempt) -> Poll<Result<Prepared, HandlerError>> {
    attempt
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits until the time has come and there is room; `None` where it was stopped before.
pub(super) async fn enter_later(
    shared: &Shared,
    stopping: &CancellationToken,
    delay: Duration,
) -> Option<Permit> {
    let enter = async {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        shared.gate.enter().await
    };
    tokio::select! {
        // Nothing begins once it is stopped, even if there is room now.
        biased;
        () = stopping.cancelled() => None,
        permit = enter => Some(permit),
    }
}
