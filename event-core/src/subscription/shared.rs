//! What all partitions of a subscription share.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::waiting::Waiting;
use crate::clock::Clock;
use crate::dispatcher::HandlerFailure;
use crate::partition::Partition;
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

/// The partitions of a group, once it is open in them, until that is not so any more.
#[derive(Default)]
pub(super) struct Opened {
    partitions: RwLock<Option<Arc<[Partition]>>>,
    opening: tokio::sync::Mutex<()>,
}

impl Opened {
    fn get(&self) -> Option<Arc<[Partition]>> {
        let partitions = self.partitions.read();
        partitions.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, opened: Option<Arc<[Partition]>>) {
        let partitions = self.partitions.write();
        *partitions.unwrap_or_else(PoisonError::into_inner) = opened;
    }

    /// The partitions, which `open` finds and opens where they are not.
    pub(super) async fn or<E>(
        &self,
        open: impl Future<Output = Result<Vec<Partition>, E>>,
    ) -> Result<Arc<[Partition]>, E> {
        if let Some(partitions) = self.get() {
            return Ok(partitions);
        }
        let _opening = self.opening.lock().await;
        if let Some(partitions) = self.get() {
            return Ok(partitions);
        }
        let partitions: Arc<[Partition]> = open.await?.into();
        self.set(Some(Arc::clone(&partitions)));
        Ok(partitions)
    }

    /// The group may have been reset.
    pub(super) fn forget(&self) {
        self.set(None);
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
    /// How long the next one is.
    pub(super) fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(LONGEST_PAUSE)
    }

    /// Waits a little; `false` where it was stopped meanwhile.
    pub(super) async fn pause(&mut self, stopping: &CancellationToken) -> bool {
        let pause = self.next();
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = stopping.cancelled() => false,
        }
    }
}
