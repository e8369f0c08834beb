//! Waves of messages, each of which is to arrive everywhere before the next one is sent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::bail;
use tokio::sync::Notify;

/// How long to wait for a wave.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts deliveries up to where a wave is complete.
#[derive(Default)]
pub(crate) struct Deliveries {
    count: AtomicUsize,
    wanted: AtomicUsize,
    complete: Notify,
}

impl Deliveries {
    /// One more has arrived.
    pub(crate) fn deliver(&self) {
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if count == self.wanted.load(Ordering::SeqCst) {
            self.complete.notify_one();
        }
    }

    /// Begins a wave of so many.
    pub(crate) fn expect(&self, deliveries: usize) {
        self.count.store(0, Ordering::SeqCst);
        self.wanted.store(deliveries, Ordering::SeqCst);
    }

    /// Waits until it is complete.
    pub(crate) async fn completed(&self) -> anyhow::Result<()> {
        if tokio::time::timeout(PATIENCE, self.complete.notified())
            .await
            .is_err()
        {
            let count = self.count.load(Ordering::SeqCst);
            bail!(
                "{count} of {} deliveries arrived",
                self.wanted.load(Ordering::SeqCst)
            );
        }
        Ok(())
    }
}
