//! One subscription to Pub/Sub for all who want the same realtime events.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_core::{Backend, Pattern, RealtimeItem, RealtimeSubscription, StoreError};
use tokio::sync::{OnceCell, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::entry::Entry;

/// How long to wait before asking a store again that has failed: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// All that this process listens to.
pub(crate) struct Channels {
    store: Arc<dyn Backend>,
    /// How many events a client may be behind.
    window: usize,
    channels: Mutex<HashMap<Vec<Pattern>, Running>>,
    missed: AtomicU64,
}

/// Somebody listens, and so many want what is heard.
struct Running {
    channel: Arc<Channel>,
    clients: usize,
    _stop: DropGuard,
}

struct Channel {
    patterns: Vec<Pattern>,
    heard: broadcast::Sender<Heard>,
    /// Set when the store has said that it listens.
    listening: OnceCell<()>,
    stop: CancellationToken,
}

/// What was heard.
#[derive(Clone)]
pub(crate) enum Heard {
    Event(Arc<Entry>),
    /// So many events have not arrived.
    Missed(u64),
}

impl Channels {
    pub(crate) fn new(store: Arc<dyn Backend>, window: usize) -> Arc<Self> {
        Arc::new(Self {
            store,
            window,
            channels: Mutex::default(),
            missed: AtomicU64::default(),
        })
    }

    /// How many listen at the store.
    pub(crate) fn listeners(&self) -> usize {
        lock(&self.channels).len()
    }

    /// How many want what is heard.
    pub(crate) fn clients(&self) -> usize {
        let channels = lock(&self.channels);
        channels.values().map(|channel| channel.clients).sum()
    }

    /// How many events have not arrived.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Listens to what matches, from when it returns. The first that does asks the store; with the last, it ends.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        patterns: Vec<Pattern>,
    ) -> Result<ChannelView, StoreError> {
        let view = self.look(patterns);
        let channel = &view.channel;
        let start = async || {
            let subscription = self.store.subscribe(&channel.patterns).await?;
            let hearing = hear(Arc::clone(self), Arc::clone(channel), subscription);
            let stop = channel.stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(hearing).await });
            Ok(())
        };
        channel.listening.get_or_try_init(start).await?;
        Ok(view)
    }

    fn look(self: &Arc<Self>, patterns: Vec<Pattern>) -> ChannelView {
        let mut channels = lock(&self.channels);
        let running = channels.entry(patterns).or_insert_with_key(|patterns| {
            let stop = CancellationToken::new();
            let channel = Channel {
                patterns: patterns.clone(),
                heard: broadcast::Sender::new(self.window.max(1)),
                listening: OnceCell::new(),
                stop: stop.clone(),
            };
            Running {
                channel: Arc::new(channel),
                clients: 0,
                _stop: stop.drop_guard(),
            }
        });
        running.clients += 1;
        ChannelView {
            heard: running.channel.heard.subscribe(),
            channel: Arc::clone(&running.channel),
            channels: Arc::clone(self),
        }
    }

    fn leave(&self, patterns: &[Pattern]) {
        let mut channels = lock(&self.channels);
        if let Some(running) = channels.get_mut(patterns) {
            running.clients -= 1;
            if running.clients == 0 {
                channels.remove(patterns);
            }
        }
    }
}

/// Tells all clients what is heard, until it is stopped.
async fn hear(channels: Arc<Channels>, channel: Arc<Channel>, first: RealtimeSubscription) {
    let mut subscription = first;
    loop {
        while let Some(item) = subscription.next().await {
            let heard = match item {
                RealtimeItem::Event(event) => Heard::Event(Arc::new(Entry::new(event))),
                RealtimeItem::Missed { count, .. } => {
                    channels.missed.fetch_add(count, Ordering::Relaxed);
                    Heard::Missed(count)
                }
            };
            // Nobody is there to be told while the last client leaves.
            let _ = channel.heard.send(heard);
        }
        let mut pause = PAUSES.0;
        subscription = loop {
            match channels.store.subscribe(&channel.patterns).await {
                Ok(subscription) => break subscription,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "realtime events cannot be heard; trying again in {pause:?}"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        };
    }
}

/// One client's ear.
pub(crate) struct ChannelView {
    channels: Arc<Channels>,
    channel: Arc<Channel>,
    heard: broadcast::Receiver<Heard>,
}

impl ChannelView {
    /// What was heard next, or how much was left out because the client was too slow. Ends never.
    pub(crate) async fn next(&mut self) -> Result<Heard, u64> {
        match self.heard.recv().await {
            Ok(heard) => Ok(heard),
            Err(broadcast::error::RecvError::Lagged(count)) => Err(count),
            // The sender lives as long as this does.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Whether there is something that the client has not looked at.
    pub(crate) fn has_more(&self) -> bool {
        !self.heard.is_empty()
    }
}

impl Drop for ChannelView {
    fn drop(&mut self) {
        self.channels.leave(&self.channel.patterns);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
