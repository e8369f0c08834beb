//! One subscription to Pub/Sub for all who want the same realtime events.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_core::{Backend, Pattern, RealtimeItem, RealtimeSubscription, RecordedEvent, StoreError};
use tokio::sync::{OnceCell, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ear::Ear;
use super::entry::Decoded;
use super::heard::{Heard, HeardEvent};
use super::selection::Selection;
use crate::metrics::BridgeMetrics;

/// How long to wait before asking a store again that has failed: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// All that this process listens to.
pub(crate) struct Channels {
    store: Arc<dyn Backend>,
    /// How many events a client may be behind.
    window: usize,
    channels: Mutex<HashMap<Vec<Pattern>, Running>>,
    missed: AtomicU64,
    metrics: BridgeMetrics,
}

/// Somebody listens, and so many want what is heard.
struct Running {
    channel: Arc<Channel>,
    clients: usize,
    _stop: DropGuard,
}

struct Channel {
    patterns: Vec<Pattern>,
    /// One for each Rust type that somebody wants.
    outlets: Mutex<Vec<Arc<dyn AnyOutlet>>>,
    /// Set when the store has said that it listens.
    listening: OnceCell<()>,
    stop: CancellationToken,
}

impl Channels {
    pub(crate) fn new(store: Arc<dyn Backend>, window: usize, metrics: BridgeMetrics) -> Arc<Self> {
        Arc::new(Self {
            store,
            window,
            channels: Mutex::default(),
            missed: AtomicU64::default(),
            metrics,
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
    pub(crate) async fn listen<E: Send + Sync + 'static>(
        self: &Arc<Self>,
        patterns: Vec<Pattern>,
        selection: &Arc<Selection<E>>,
    ) -> Result<Ear<E>, StoreError> {
        let place = self.join(patterns);
        let channel = &place.channel;
        let heard = channel.hear_of(selection, self.window);
        let start = async || {
            let subscription = self.store.subscribe(&channel.patterns).await?;
            let hearing = hear(Arc::clone(self), Arc::clone(channel), subscription);
            let stop = channel.stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(hearing).await });
            Ok(())
        };
        channel.listening.get_or_try_init(start).await?;
        Ok(Ear::new(heard, place))
    }

    fn join(self: &Arc<Self>, patterns: Vec<Pattern>) -> Place {
        let mut channels = lock(&self.channels);
        let running = channels.entry(patterns).or_insert_with_key(|patterns| {
            self.metrics.readers.increment(1.0);
            let stop = CancellationToken::new();
            let channel = Channel {
                patterns: patterns.clone(),
                outlets: Mutex::default(),
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
        self.metrics.clients.increment(1.0);
        Place {
            channel: Arc::clone(&running.channel),
            channels: Arc::clone(self),
        }
    }

    fn leave(&self, patterns: &[Pattern]) {
        let mut channels = lock(&self.channels);
        if let Some(running) = channels.get_mut(patterns) {
            running.clients -= 1;
            self.metrics.clients.decrement(1.0);
            if running.clients == 0 {
                self.metrics.readers.decrement(1.0);
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
            if let RealtimeItem::Missed { count, .. } = &item {
                channels.missed.fetch_add(*count, Ordering::Relaxed);
                channels.metrics.missed.increment(*count);
            }
            channel.tell(&item);
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

impl Channel {
    /// What is heard of a type from now on.
    fn hear_of<E: Send + Sync + 'static>(
        &self,
        selection: &Arc<Selection<E>>,
        window: usize,
    ) -> broadcast::Receiver<Heard<E>> {
        let mut outlets = lock(&self.outlets);
        let known = outlets
            .iter()
            .find_map(|outlet| (**outlet).as_any().downcast_ref::<Outlet<E>>());
        if let Some(known) = known {
            return known.heard.subscribe();
        }
        let outlet = Outlet {
            selection: Arc::clone(selection),
            heard: broadcast::Sender::new(window.max(1)),
        };
        let heard = outlet.heard.subscribe();
        outlets.push(Arc::new(outlet));
        heard
    }

    fn tell(&self, item: &RealtimeItem) {
        let outlets = lock(&self.outlets).clone();
        for outlet in outlets {
            outlet.tell(item);
        }
    }
}

/// Decodes once for all clients of one Rust type.
struct Outlet<E> {
    selection: Arc<Selection<E>>,
    heard: broadcast::Sender<Heard<E>>,
}

impl<E> Outlet<E> {
    /// `None` where what decodes it panics.
    fn read(&self, event: &RecordedEvent) -> Option<Decoded<E>> {
        std::panic::catch_unwind(AssertUnwindSafe(|| self.selection.read(event))).ok()
    }
}

trait AnyOutlet: Send + Sync {
    fn tell(&self, item: &RealtimeItem);

    fn as_any(&self) -> &dyn Any;
}

impl<E: Send + Sync + 'static> AnyOutlet for Outlet<E> {
    fn tell(&self, item: &RealtimeItem) {
        // Nobody may be there who wants this type.
        let tell = |heard| drop(self.heard.send(heard));
        match item {
            RealtimeItem::Missed { count, .. } => tell(Heard::Missed(*count)),
            RealtimeItem::Event(event) => match self.read(event) {
                Some(Ok(nodes)) => {
                    for node in nodes {
                        let event = event.clone();
                        tell(Heard::Event(Arc::new(HeardEvent { node, event })));
                    }
                }
                Some(Err(error)) => {
                    // On a channel anybody may say anything, and there is nowhere to look at it again.
                    let event_type = event.event_type();
                    tracing::warn!(event_type, %error, "a realtime event that does not fit its type was left out");
                    tell(Heard::Missed(1));
                }
                None => {
                    let event_type = event.event_type();
                    tracing::error!(
                        event_type,
                        "what decodes a realtime event has panicked; it was left out"
                    );
                    tell(Heard::Missed(1));
                }
            },
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A client's place at a channel, which ends with the last one.
pub(crate) struct Place {
    channels: Arc<Channels>,
    channel: Arc<Channel>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.channels.leave(&self.channel.patterns);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
