//! One reader for each partition that somebody looks at, whatever the number of clients.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_core::{
    Backend, Category, FeedEntry, Partition, Position, ReadError, RecordedEvent, StoreError, Token,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::entry::Entry;
use super::handlers_first::HandlersFirst;
use super::ring::{Look, Ring, Window};
use crate::metrics::{BridgeMetrics, FeedMetrics};

/// How many entries a reader takes at once.
const BATCH: usize = 512;

/// How many clients may read the store at once, for the history that they have not seen.
const CATCHING_UP: usize = 16;

/// How long to wait before asking a store again that has failed: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What is to be told of an event before any client gets it.
type Tell = Arc<dyn Fn(News<'_>) + Send + Sync>;

/// Somebody who is told.
#[derive(Clone)]
struct Listener {
    id: u64,
    categories: Arc<[Category]>,
    tell: Tell,
}

impl Listener {
    /// One that panics is no reason for a reader to end. It may not have taken the event in.
    fn tell(&self, news: News<'_>) {
        let tell = |news| std::panic::catch_unwind(AssertUnwindSafe(|| (self.tell)(news)));
        if tell(news).is_err() {
            tracing::error!(
                "who was told of an event has panicked, and is told that events are missing"
            );
            if tell(News::Gap).is_err() {
                tracing::error!("who was told that events are missing has panicked");
            }
        }
    }
}

/// What a listener is told.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// An event was stored. It may be told more than once.
    Event(&'a RecordedEvent),
    /// Events may have been missed, since they were trimmed away before they were read.
    Gap,
}

/// All readers of a process.
pub(crate) struct Feeds {
    store: Arc<dyn Backend>,
    window: Window,
    listeners: Mutex<Arc<[Listener]>>,
    next_listener: AtomicU64,
    feeds: Mutex<HashMap<Partition, Running>>,
    catching_up: Semaphore,
    first: Option<HandlersFirst>,
    metrics: BridgeMetrics,
}

/// A reader, and how many look at what it reads.
struct Running {
    feed: Arc<Feed>,
    clients: usize,
    _stop: DropGuard,
}

/// What a reader has read.
struct Feed {
    partition: Partition,
    /// `None` until it is known where the reader begins.
    ring: Mutex<Option<Ring>>,
    /// Changes with what is read.
    turns: watch::Sender<u64>,
    metrics: FeedMetrics,
}

impl Feeds {
    pub(crate) fn new(
        store: Arc<dyn Backend>,
        window: Window,
        first: Option<HandlersFirst>,
        metrics: BridgeMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            window,
            listeners: Mutex::new(Arc::new([])),
            next_listener: AtomicU64::default(),
            feeds: Mutex::default(),
            catching_up: Semaphore::new(CATCHING_UP),
            first,
            metrics,
        })
    }

    pub(crate) fn store(&self) -> &Arc<dyn Backend> {
        &self.store
    }

    /// Has `tell` called with every event that is stored from now on, before clients get it, until what it gives is
    /// dropped.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        categories: Vec<Category>,
        tell: impl Fn(News<'_>) + Send + Sync + 'static,
    ) -> Result<Listening, ReadError> {
        let id = self.next_listener.fetch_add(1, Ordering::Relaxed);
        let listener = Listener {
            id,
            categories: categories.clone().into(),
            tell: Arc::new(tell),
        };
        self.change_listeners(|listeners| listeners.push(listener));
        let mut listening = Listening {
            id,
            feeds: Arc::clone(self),
            views: Vec::new(),
        };
        for category in categories {
            for number in 0..self.store.partitions(&category).await? {
                let mut view = self.look(&Partition::new(category.clone(), number));
                view.begun().await;
                listening.views.push(view);
            }
        }
        Ok(listening)
    }

    fn change_listeners(&self, change: impl FnOnce(&mut Vec<Listener>)) {
        let mut listeners = lock(&self.listeners);
        let mut changed = listeners.to_vec();
        change(&mut changed);
        *listeners = changed.into();
    }

    /// How many readers there are.
    pub(crate) fn readers(&self) -> usize {
        lock(&self.feeds).len()
    }

    /// How many look at something.
    pub(crate) fn clients(&self) -> usize {
        lock(&self.feeds).values().map(|feed| feed.clients).sum()
    }

    /// Looks at a partition. The first that does starts its reader; with the last, it ends.
    pub(crate) fn look(self: &Arc<Self>, partition: &Partition) -> FeedView {
        let mut feeds = lock(&self.feeds);
        let running = feeds
            .entry(partition.clone())
            .or_insert_with(|| self.start(partition));
        running.clients += 1;
        self.metrics.clients.increment(1.0);
        FeedView {
            turns: running.feed.turns.subscribe(),
            feed: Arc::clone(&running.feed),
            feeds: Arc::clone(self),
        }
    }

    /// How far readers have come, where they have begun.
    pub(crate) fn positions(&self) -> Token {
        let mut token = Token::default();
        for (partition, running) in lock(&self.feeds).iter() {
            if let Some(ring) = &*lock(&running.feed.ring) {
                token.reach(partition.clone(), ring.head());
            }
        }
        token
    }

    fn start(self: &Arc<Self>, partition: &Partition) -> Running {
        let feed = Arc::new(Feed {
            partition: partition.clone(),
            ring: Mutex::default(),
            turns: watch::Sender::default(),
            metrics: FeedMetrics::new(partition.category().as_str()),
        });
        self.metrics.readers.increment(1.0);
        let stop = CancellationToken::new();
        let reader = Reader {
            feeds: Arc::clone(self),
            feed: Arc::clone(&feed),
        };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(reader.run()).await });
        Running {
            feed,
            clients: 0,
            _stop: stop.drop_guard(),
        }
    }

    fn leave(&self, partition: &Partition) {
        let mut feeds = lock(&self.feeds);
        if let Some(running) = feeds.get_mut(partition) {
            running.clients -= 1;
            self.metrics.clients.decrement(1.0);
            if running.clients == 0 {
                self.metrics.readers.decrement(1.0);
                feeds.remove(partition);
            }
        }
    }

    fn tell(&self, partition: &Partition, news: News<'_>) {
        let listeners = Arc::clone(&lock(&self.listeners));
        for listener in listeners.iter() {
            if listener.categories.contains(partition.category()) {
                listener.tell(news);
            }
        }
    }
}

/// Has somebody told of events, until it is dropped. See
/// [`EventSubscriptionBridge::listen`](super::EventSubscriptionBridge::listen).
#[must_use = "nothing is told any more when it is dropped"]
pub struct Listening {
    id: u64,
    feeds: Arc<Feeds>,
    /// Keeps the readers running.
    views: Vec<FeedView>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.views.clear();
        let own = self.id;
        let feeds = Arc::clone(&self.feeds);
        feeds.change_listeners(|listeners| listeners.retain(|listener| listener.id != own));
    }
}

/// Reads a partition, and is replaced by nobody: it asks until it is stopped.
struct Reader {
    feeds: Arc<Feeds>,
    feed: Arc<Feed>,
}

impl Reader {
    async fn run(self) {
        let mut pause = PAUSES.0;
        let mut after = None;
        let mut gap = false;
        loop {
            let Err(error) = self.follow(&mut after, &mut gap, &mut pause).await;
            let partition = &self.feed.partition;
            if let ReadError::Store(StoreError::FeedTrimmed {
                first_available, ..
            }) = &error
            {
                tracing::warn!(%partition, %first_available, "the feed was trimmed before it was read; clients read what is left by themselves");
                gap = true;
                after = None;
            } else {
                tracing::warn!(%partition, error = &error as &dyn std::error::Error, "the feed cannot be read; trying again in {pause:?}");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Reads from behind `after` on, or from the end of the feed.
    async fn follow(
        &self,
        after: &mut Option<Position>,
        gap: &mut bool,
        pause: &mut Duration,
    ) -> Result<std::convert::Infallible, ReadError> {
        let (store, partition) = (self.feeds.store(), &self.feed.partition);
        let begin = match *after {
            Some(position) => position,
            None => {
                let head = store.head(partition).await?;
                if std::mem::take(gap) {
                    // Everything that is stored from here on is told.
                    self.feeds.tell(partition, News::Gap);
                }
                let ring = Ring::new(self.feeds.window, head);
                self.feed.change(|known| *known = Some(ring));
                head
            }
        };
        *after = Some(begin);
        let mut reader = store.follow(partition, begin).await?;
        loop {
            let batch = reader.next_batch(BATCH).await?;
            *pause = PAUSES.0;
            if let Some(last) = batch.last() {
                *after = Some(last.position());
            }
            self.take(batch).await;
        }
    }

    fn tell(&self, batch: &[FeedEntry]) {
        for entry in batch {
            if let FeedEntry::Event(event) = entry {
                self.feeds.tell(&self.feed.partition, News::Event(event));
            }
        }
    }

    async fn take(&self, batch: Vec<FeedEntry>) {
        self.feed.metrics.entries.increment(batch.len() as u64);
        self.tell(&batch);
        if let Some(last) = batch.last()
            && let Some(first) = &self.feeds.first
        {
            first.wait(&self.feed.partition, last.position()).await;
            // Who has looked meanwhile at what handlers were to change may have kept it.
            self.tell(&batch);
        }
        self.feed.change(|ring| {
            let Some(ring) = ring else { return };
            for entry in batch {
                match entry {
                    FeedEntry::Event(event) => ring.push(Entry::new(event)),
                    FeedEntry::Undecodable { position, .. } => ring.pass(position),
                }
            }
        });
    }
}

impl Feed {
    fn change(&self, change: impl FnOnce(&mut Option<Ring>)) {
        change(&mut lock(&self.ring));
        self.turns.send_modify(|turn| *turn = turn.wrapping_add(1));
    }
}

/// One client's look at a partition.
pub(crate) struct FeedView {
    feeds: Arc<Feeds>,
    feed: Arc<Feed>,
    turns: watch::Receiver<u64>,
}

impl FeedView {
    pub(crate) fn partition(&self) -> &Partition {
        &self.feed.partition
    }

    /// What is in memory of what lies behind `position`, at most `limit`. Nothing yet: wait for a
    /// [turn](Self::turn).
    pub(crate) fn after(&mut self, position: Position, limit: usize) -> Option<Look> {
        // Whatever is read from now on is a new turn.
        self.turns.borrow_and_update();
        let ring = lock(&self.feed.ring);
        ring.as_ref().map(|ring| ring.after(position, limit))
    }

    /// Where what is in memory begins: everything behind it is there.
    pub(crate) fn floor(&self) -> Option<Position> {
        lock(&self.feed.ring).as_ref().map(Ring::floor)
    }

    /// Waits until the reader has begun.
    pub(crate) async fn begun(&mut self) {
        while self.floor().is_none() {
            self.turn().await;
        }
    }

    /// Waits until something was read since it was looked.
    pub(crate) async fn turn(&mut self) {
        if self.turns.changed().await.is_err() {
            // The sender lives as long as this does.
            std::future::pending::<()>().await;
        }
    }

    /// A page of the feed from the store, for one client. Events that the reader has not come to yet are
    /// told to listeners first.
    pub(crate) async fn page(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        let page = {
            // Never closed.
            let _turn = self.feeds.catching_up.acquire().await;
            let page = self.feeds.store().read_feed(self.partition(), after, limit);
            page.await?
        };
        self.feed.metrics.pages.increment(1);
        let head = lock(&self.feed.ring).as_ref().map(Ring::head);
        let tell_new = || {
            for entry in &page {
                if let FeedEntry::Event(event) = entry
                    && head.is_none_or(|head| event.position() > head)
                {
                    self.feeds.tell(self.partition(), News::Event(event));
                }
            }
        };
        tell_new();
        if let Some(first) = &self.feeds.first
            && let Some(last) = page.last().map(FeedEntry::position)
        {
            first.wait(self.partition(), last).await;
            tell_new();
        }
        Ok(page)
    }
}

impl Drop for FeedView {
    fn drop(&mut self) {
        self.feeds.leave(&self.feed.partition);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
