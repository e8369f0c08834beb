//! The subscription: a durable reader of one feed, for one group.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{oneshot, watch};
use tracing::{Instrument, Span, debug_span};
use uuid::Uuid;

use crate::dispatcher::{Dispatcher, HandlerFailure, Patience, Undone};
use crate::event::Category;
use crate::feed::Feed;
use crate::recorded::RecordedEvent;
use crate::store::{FeedEntry, ReadError};

/// How long handled events may go without a checkpoint while slow handlers work on a batch.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// What handlers emitted for an event, or why one failed.
pub(crate) type Outcome = Result<Vec<RecordedEvent>, Arc<HandlerFailure>>;

/// Reads a feed from the checkpoint of its group, hands its events to the dispatcher one after the
/// other, and remembers how far it has come: at least once for each event, in order.
pub(crate) struct Subscription {
    category: Category,
    dispatcher: Arc<Dispatcher>,
    /// Who holds it handles events; everybody else waits, so nothing is handled twice at once.
    feed: tokio::sync::Mutex<Feed>,
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<Outcome>>>,
}

impl Subscription {
    pub(crate) fn new(category: Category, dispatcher: Arc<Dispatcher>, feed: Feed) -> Self {
        Self {
            category,
            dispatcher,
            feed: tokio::sync::Mutex::new(feed),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn category(&self) -> &Category {
        &self.category
    }

    pub(crate) fn takes(&self, event_type: &str) -> bool {
        self.dispatcher.takes(event_type)
    }

    /// Tells when the handlers of this event are through. Must be asked for before the event is
    /// published.
    pub(crate) fn outcome_of(&self, event_id: Uuid) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(event_id, sender);
        receiver
    }

    /// Nobody waits for this event any more.
    pub(crate) fn forget(&self, event_id: Uuid) {
        self.waiting().remove(&event_id);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event_id: Uuid, outcome: Outcome) {
        if let Some(sender) = self.waiting().remove(&event_id) {
            // Who asked may have gone.
            let _ = sender.send(outcome);
        }
    }

    /// Fixes where a new group begins.
    pub(crate) async fn begin(&self) -> Result<(), ReadError> {
        match self.feed.try_lock() {
            Ok(mut feed) => feed.begin().await,
            // Whoever holds it has begun.
            Err(_) => Ok(()),
        }
    }

    /// Handles events until the service is stopped. Reconnects and retries without end.
    pub(crate) async fn run(&self, mut stop: watch::Receiver<bool>) {
        async {
            let mut feed = self.feed.lock().await;
            // Where a run before was broken off, its reader is ahead of what is handled.
            feed.rewind();
            let mut delays = None;
            while !*stop.borrow() {
                match self.run_batch(&mut feed, &mut stop).await {
                    Ok(()) => delays = None,
                    Err(error) => {
                        let delay = delays
                            .get_or_insert_with(|| {
                                ExponentialBuilder::default()
                                    .with_min_delay(Duration::from_millis(50))
                                    .with_max_delay(Duration::from_secs(5))
                                    .with_jitter()
                                    .without_max_times()
                                    .build()
                            })
                            .next()
                            .unwrap_or(Duration::from_secs(5));
                        tracing::error!(%error, ?delay, "the feed cannot be read; trying again");
                        feed.rewind();
                        tokio::select! {
                            () = tokio::time::sleep(delay) => {}
                            _ = stop.wait_for(|stopped| *stopped) => {}
                        }
                    }
                }
            }
            if let Err(error) = feed.checkpoint().await {
                tracing::error!(%error, "the last checkpoint was not stored; events since the one before will be handled again");
            }
        }
        .instrument(self.span())
        .await;
    }

    fn span(&self) -> Span {
        debug_span!("subscription", category = %self.category)
    }

    async fn run_batch(
        &self,
        feed: &mut Feed,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), ReadError> {
        let Some(entries) = feed.follow(stop).await? else {
            return Ok(());
        };
        let mut since = Instant::now();
        for entry in entries {
            if *stop.borrow() {
                break;
            }
            let event_id = event_id(&entry);
            let gave_up = |failure: &Arc<HandlerFailure>| {
                if let Some(event_id) = event_id {
                    self.tell(event_id, Err(Arc::clone(failure)));
                }
            };
            let patience = Patience::Endless {
                stop,
                gave_up: &gave_up,
            };
            match self.handle(feed, entry, patience).await {
                Ok(()) => {}
                Err(Undone::Stopped) => break,
                Err(Undone::Failed(failure)) => {
                    // Endless patience does not fail.
                    tracing::error!(%failure, "a handler gave up");
                    break;
                }
            }
            if since.elapsed() > CHECKPOINT_EVERY {
                feed.checkpoint().await?;
                since = Instant::now();
            }
        }
        feed.checkpoint().await
    }

    /// Handles what there is now. Gives the number of entries.
    pub(crate) async fn run_until_idle(&self) -> Result<usize, IdleError> {
        self.handle_all().instrument(self.span()).await
    }

    async fn handle_all(&self) -> Result<usize, IdleError> {
        let mut feed = self.feed.try_lock().map_err(|_| IdleError::Running)?;
        let mut handled = 0;
        loop {
            let entries = feed.read().await?;
            if entries.is_empty() {
                return Ok(handled);
            }
            handled += entries.len();
            self.handle_bounded(&mut feed, entries).await?;
        }
    }

    /// Waits for the outcome of an event, and handles events itself while nobody else does.
    pub(crate) async fn drive(
        &self,
        outcome: oneshot::Receiver<Outcome>,
    ) -> Result<Vec<RecordedEvent>, IdleError> {
        self.handle_until(outcome).instrument(self.span()).await
    }

    async fn handle_until(
        &self,
        mut outcome: oneshot::Receiver<Outcome>,
    ) -> Result<Vec<RecordedEvent>, IdleError> {
        let mut feed = tokio::select! {
            biased;
            outcome = &mut outcome => return settle(outcome),
            feed = self.feed.lock() => feed,
        };
        loop {
            // It may have been told while another held the feed.
            match outcome.try_recv() {
                Ok(outcome) => return outcome.map_err(IdleError::Failed),
                Err(oneshot::error::TryRecvError::Closed) => return Err(IdleError::Passed),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let entries = feed.read().await?;
            if entries.is_empty() {
                // Published before this was called, and already behind the checkpoint: another
                // instance of this group has handled it.
                return Err(IdleError::Passed);
            }
            self.handle_bounded(&mut feed, entries).await?;
        }
    }

    async fn handle_bounded(
        &self,
        feed: &mut Feed,
        entries: Vec<FeedEntry>,
    ) -> Result<(), IdleError> {
        for entry in entries {
            let event_id = event_id(&entry);
            match self.handle(feed, entry, Patience::Bounded).await {
                Ok(()) => {}
                Err(Undone::Stopped) => break,
                Err(Undone::Failed(failure)) => {
                    if let Some(event_id) = event_id {
                        self.tell(event_id, Err(Arc::clone(&failure)));
                    }
                    feed.checkpoint().await?;
                    return Err(IdleError::Failed(failure));
                }
            }
        }
        feed.checkpoint().await?;
        Ok(())
    }

    async fn handle(
        &self,
        feed: &mut Feed,
        entry: FeedEntry,
        patience: Patience<'_>,
    ) -> Result<(), Undone> {
        let position = entry.position();
        match entry {
            FeedEntry::Event(event) => {
                if self.dispatcher.takes(event.event_type()) {
                    let span = debug_span!(
                        "dispatcher",
                        event_type = event.event_type(),
                        %position
                    );
                    let emitted = self
                        .dispatcher
                        .dispatch(&event, patience)
                        .instrument(span)
                        .await?;
                    self.tell(event.metadata().event_id, Ok(emitted));
                }
            }
            FeedEntry::Undecodable { error, .. } => {
                tracing::error!(
                    category = %self.category,
                    %position,
                    %error,
                    "an entry that is no event was left out"
                );
            }
        }
        feed.advance(position);
        Ok(())
    }
}

fn event_id(entry: &FeedEntry) -> Option<Uuid> {
    match entry {
        FeedEntry::Event(event) => Some(event.metadata().event_id),
        FeedEntry::Undecodable { .. } => None,
    }
}

fn settle(
    outcome: Result<Outcome, oneshot::error::RecvError>,
) -> Result<Vec<RecordedEvent>, IdleError> {
    match outcome {
        Ok(outcome) => outcome.map_err(IdleError::Failed),
        Err(_) => Err(IdleError::Passed),
    }
}

/// Why events that should be handled now are not.
#[derive(Debug)]
pub(crate) enum IdleError {
    Failed(Arc<HandlerFailure>),
    Read(ReadError),
    /// The service runs on its own.
    Running,
    /// The event is handled already, by another instance.
    Passed,
}

impl From<ReadError> for IdleError {
    fn from(error: ReadError) -> Self {
        IdleError::Read(error)
    }
}
