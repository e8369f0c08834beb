//! Latency: how long it takes from where something is said to where it is heard.
//!
//! Messages are due on a fixed schedule. A thread of its own releases each when it is due, and never
//! waits for an answer; and the time is counted from when a message was due, not from when it was
//! sent. So whatever holds one message up is counted for all that it delays (no coordinated
//! omission). Both sides are measured so, and both pay the tenth of a millisecond that the thread
//! may wake too late.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use event_core::{Event, Service};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::bare;
use crate::rounds::{Sides, in_turns};

/// Metadata as ours has it.
pub(crate) const METADATA: &str = r#"{"eventId":"019ab000-0000-7000-8000-000000000000","timestamp":"2026-01-01T00:00:00.000000Z","correlationId":"019ab000-0000-7000-8000-000000000000","source":"bench","schemaVersion":1}"#;

/// How long to wait for the last ones.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the payload about 200 bytes long.
const FILLING: &str = "The quick brown fox jumps over the lazy dog, and the dog, which has seen \
                       quicker foxes than this one, does not so much as look up from the mat it \
                       lies on.";

/// What is said, stored in a feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("latency.stored")]
pub(crate) struct Stored {
    /// When it was due, in nanoseconds of the [`Listener`]'s clock.
    pub(crate) due: u64,
    text: String,
}

/// What is said, and kept nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("latency.shown", realtime)]
pub(crate) struct Shown {
    /// As in [`Stored`].
    pub(crate) due: u64,
    text: String,
}

impl Stored {
    pub(crate) fn new(due: u64) -> Self {
        let text = FILLING.to_owned();
        Self { due, text }
    }
}

impl Shown {
    pub(crate) fn new(due: u64) -> Self {
        let text = FILLING.to_owned();
        Self { due, text }
    }
}

/// How many messages are said, and how fast.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) messages: usize,
    /// Messages for each second.
    pub(crate) rate: usize,
}

/// Where both sides say their messages.
pub(crate) struct Feeds<'a> {
    pub(crate) bare: (&'a MultiplexedConnection, &'static str),
    pub(crate) ours: &'a Service,
}

/// Notes how long each message took.
#[derive(Clone)]
pub(crate) struct Listener {
    epoch: Instant,
    heard: Arc<Mutex<Vec<Heard>>>,
}

/// A message that was heard.
struct Heard {
    /// Which one: no two are due at the same time.
    due: u64,
    /// In nanoseconds.
    took: u64,
}

impl Listener {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            heard: Arc::default(),
        }
    }

    /// A message that was due then has been heard now.
    pub(crate) fn hear(&self, due: u64) {
        let took = self.since_epoch(Instant::now()).saturating_sub(due);
        self.heard(|heard| heard.push(Heard { due, took }));
    }

    fn since_epoch(&self, time: Instant) -> u64 {
        let elapsed = time.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    fn heard<T>(&self, with: impl FnOnce(&mut Vec<Heard>) -> T) -> T {
        with(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has `say` called for each message when it is due, waits until all are heard, and gives the
    /// 99th percentile of the time that took, in milliseconds.
    ///
    /// # Errors
    /// Where one is not heard, or twice.
    pub(crate) async fn p99<F>(
        &self,
        Pace { messages, rate }: Pace,
        mut say: impl FnMut(u64) -> F + Send + 'static,
    ) -> anyhow::Result<f64>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.heard(Vec::clear);
        let listener = self.clone();
        let released = tokio::task::spawn_blocking(move || {
            let mut saying = JoinSet::<anyhow::Result<()>>::new();
            // Some time to settle down after the other side's turn.
            let start = Instant::now() + Duration::from_millis(50);
            for message in 0..messages {
                // Those that have ended are let go at once: the memory of all of them, which would
                // grow with each message, is not what is measured.
                while let Some(ended) = saying.try_join_next() {
                    ended??;
                }
                let due = start + Duration::from_secs(1) * message as u32 / rate as u32;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                saying.spawn(say(listener.since_epoch(due)));
            }
            anyhow::Ok(saying)
        });
        let mut saying = released.await.context("the schedule was not kept")??;
        while let Some(ended) = saying.join_next().await {
            ended??;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.heard(|heard| heard.len()) < messages {
            if Instant::now() > deadline {
                let heard = self.heard(|heard| heard.len());
                bail!("only {heard} of {messages} messages were heard");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.heard(|heard| {
            let different: HashSet<_> = heard.iter().map(|heard| heard.due).collect();
            ensure!(
                different.len() == messages && heard.len() == messages,
                "heard {} times, {} of {messages} messages",
                heard.len(),
                different.len()
            );
            heard.sort_unstable_by_key(|heard| heard.took);
            let index = (heard.len() * 99).div_ceil(100).saturating_sub(1);
            let slow = heard.get(index).context("nothing was heard")?;
            Ok(slow.took as f64 / 1e6)
        })
    }

    /// The 99th percentiles where messages are stored: by hand, and by us.
    pub(crate) async fn p99_of_stored(
        &self,
        pace: Pace,
        rounds: usize,
        Feeds { bare, ours }: Feeds<'_>,
    ) -> anyhow::Result<Sides> {
        in_turns(
            rounds,
            async || {
                let (connection, feed) = (bare.0.clone(), bare.1);
                self.p99(pace, move |due| {
                    let mut connection = connection.clone();
                    async move {
                        let payload = serde_json::to_string(&Stored::new(due))?;
                        let command = bare::add(feed, "latency.stored", &payload, METADATA);
                        bare::ask(&mut connection, &command).await?;
                        Ok(())
                    }
                })
                .await
            },
            async || {
                let service = ours.clone();
                self.p99(pace, move |due| {
                    let service = service.clone();
                    async move {
                        service.publish(Stored::new(due)).await?;
                        Ok(())
                    }
                })
                .await
            },
        )
        .await
    }
}
