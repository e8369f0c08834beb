//! What all partitions of a subscription share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::waiting::Waiting;
use crate::clock::Clock;
use crate::dispatcher::HandlerFailure;
use crate::store::Backend;
use crate::system::Reports;

/// What all partitions of a subscription share.
pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) group: Arc<str>,
    pub(super) clock: Clock,
    pub(super) gate: Gate,
    /// Where errors are published.
    pub(super) reports: Option<Arc<Reports>>,
    pub(super) waiting: Waiting,
    /// Told when a partition has room again, or nothing more to do.
    pub(super) room: Notify,
    /// The first failure since somebody asked.
    failure: Mutex<Option<Arc<HandlerFailure>>>,
}

impl Shared {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        group: Arc<str>,
        clock: Clock,
        gate: Gate,
        reports: Option<Arc<Reports>>,
    ) -> Self {
        Self {
            backend,
            group,
            clock,
            gate,
            reports,
            waiting: Waiting::default(),
            room: Notify::new(),
            failure: Mutex::default(),
        }
    }

    pub(super) fn note_failure(&self, failure: &Arc<HandlerFailure>) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| Arc::clone(failure));
    }

    pub(super) fn take_failure(&self) -> Option<Arc<HandlerFailure>> {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.take()
    }
}

/// Pauses between tries, which grow and do not end.
pub(super) struct Pauses(ExponentialBackoff);

const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) fn pauses() -> Pauses {
    Pauses(
        ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times()
            .build(),
    )
}

impl Pauses {
    /// Waits a little; `false` where it was stopped meanwhile.
    pub(super) async fn pause(&mut self, stopping: &CancellationToken) -> bool {
        let pause = self.0.next().unwrap_or(LONGEST_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = stopping.cancelled() => false,
        }
    }
}
