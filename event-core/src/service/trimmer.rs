//! The trimmer: carries out the policies by which feeds are kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::event::Category;
use crate::store::{Backend, TrimPolicy};

/// The least pause between two times.
const SHORTEST: Duration = Duration::from_millis(10);

/// Trims feeds again and again.
pub(super) struct Trimmer {
    backend: Arc<dyn Backend>,
    policies: BTreeMap<Category, TrimPolicy>,
    every: Duration,
}

impl Trimmer {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        policies: BTreeMap<Category, TrimPolicy>,
        every: Duration,
    ) -> Self {
        Self {
            backend,
            policies,
            every: every.max(SHORTEST),
        }
    }

    /// Trims until it is stopped. It may be broken off anywhere.
    pub(super) async fn run(&self, stopping: CancellationToken) {
        let mut due = interval(self.every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let trimming = async {
            loop {
                due.tick().await;
                self.trim().await;
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = trimming => {}
        }
    }

    async fn trim(&self) {
        for (category, policy) in &self.policies {
            let trimmed = match self.backend.trim(category, policy).await {
                Ok(trimmed) => trimmed,
                Err(error) => {
                    tracing::warn!(%category, %error, "the feed is not trimmed; trying again");
                    continue;
                }
            };
            for trimmed in trimmed {
                let partition = &trimmed.partition;
                if trimmed.removed > 0 {
                    let first_available = trimmed.first_available;
                    tracing::debug!(%partition, removed = trimmed.removed, %first_available, "the feed is trimmed");
                }
                if let Some(held_back) = &trimmed.held_back_by {
                    tracing::info!(%partition, %held_back, "the feed is longer than it is to be, since somebody needs its beginning");
                }
            }
        }
    }
}
