//! The sample: the deliveries of `github-webhooks`, sent one after the other, so that there is something to
//! see without a repository of one's own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_core::{Backend, BoxError};
use github_webhooks::delivery::Delivery;
use github_webhooks::inlet::Inlet;
use github_webhooks::sample;
use github_webhooks::signature::{Secret, Signatures};
use tokio::sync::Notify;
use uuid::Uuid;

/// How far the sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What becomes of it.
    pub state: State,
    /// How many deliveries of this round were sent.
    pub sent: u64,
    /// How many of these were not taken in.
    pub rejected: u64,
    /// How many there are.
    pub total: u64,
}

/// What becomes of the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Deliveries come.
    Playing,
    /// All came.
    Ended,
    /// The store did not take one.
    Failed,
}

/// The sample, being played. A clone is the same.
#[derive(Clone, Debug)]
pub struct Sample {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pace: Duration,
    progress: Mutex<Progress>,
    again: Notify,
}

impl Sample {
    /// A sample that sends a delivery every `pace`, once it is [played](Self::play).
    pub fn new(pace: Duration) -> Self {
        let progress = Progress {
            state: State::Playing,
            sent: 0,
            rejected: 0,
            total: lines().count() as u64,
        };
        Self {
            shared: Arc::new(Shared {
                pace,
                progress: Mutex::new(progress),
                again: Notify::new(),
            }),
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        *self.lock()
    }

    /// Has it played once more, if it does not play now.
    pub fn play_again(&self) -> Progress {
        let mut progress = self.lock();
        if progress.state != State::Playing {
            *progress = Progress {
                state: State::Playing,
                sent: 0,
                rejected: 0,
                ..*progress
            };
            self.shared.again.notify_one();
        }
        *progress
    }

    /// Plays it, and again whenever [somebody asks](Self::play_again), for ever. Each round has delivery ids
    /// of its own, so that the store does not take it for the one before.
    ///
    /// # Errors
    /// None in the sample itself; where its secret is none.
    pub async fn play(&self, store: Arc<dyn Backend>) -> Result<(), BoxError> {
        let signatures = Signatures::WhereGiven(Secret::new(sample::SECRET)?);
        loop {
            let state = match self.round(&store, &signatures).await {
                Ok(()) => State::Ended,
                Err(error) => {
                    tracing::error!(%error, "the sample is broken off: a delivery was not stored");
                    State::Failed
                }
            };
            self.lock().state = state;
            self.shared.again.notified().await;
        }
    }

    async fn round(
        &self,
        store: &Arc<dyn Backend>,
        signatures: &Signatures,
    ) -> Result<(), BoxError> {
        let inlet = Inlet::new(&**store)?;
        let round = Uuid::new_v4();
        for line in lines() {
            let is_taken = match Delivery::read(line.as_bytes(), signatures) {
                Ok(delivery) => {
                    let id = Uuid::new_v5(&round, delivery.event_id().as_bytes());
                    match inlet.take(&delivery.delivered_as(id.to_string())).await {
                        Ok(_) => true,
                        Err(error) if error.is_of_store() => return Err(error.into()),
                        Err(_) => false,
                    }
                }
                // Some of the sample's lines are no deliveries.
                Err(_) => false,
            };
            {
                let mut progress = self.lock();
                progress.sent += 1;
                progress.rejected += u64::from(!is_taken);
            }
            tokio::time::sleep(self.shared.pace).await;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        let progress = self.shared.progress.lock();
        progress.unwrap_or_else(PoisonError::into_inner)
    }
}

fn lines() -> impl Iterator<Item = &'static str> {
    sample::DELIVERIES
        .lines()
        .filter(|line| !line.trim().is_empty())
}
