//! An owned partition: its events are handled in lanes by key, and what has come of it is committed.
//!
//! One task does all of it, so nothing here is shared. Handlers are called on this task as long as
//! they do not wait; those that wait go on on tasks of their own.

mod admission;
mod calls;
mod commits;
mod dead_letters;

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::gate::Permit;
use super::load::Load;
use super::parked::Parked;
use super::shared::{Shared, pauses};
use super::window::{Number, Window};
use super::work::Work;
use crate::dispatcher::{Dispatcher, HandlerFailure};
use crate::handler::HandlerError;
use crate::publisher::Prepared;
use crate::recorded::RecordedEvent;
use crate::store::{
    Append, Commit, CommitError, Committed, DeadLetter, DeadLetterId, FeedEntry, Lease, Progress,
    StoreError,
};

/// How long progress alone, without anything emitted, may wait for its commit.
const COMMIT_EVERY: Duration = Duration::from_millis(10);

/// From here on works are dead letters that are handled again, which lie in no window.
const REDRIVEN: Number = 1 << 63;

/// More event types than this are looked up anew: foreign writers may invent them without end.
const KNOWN_TYPES: usize = 4_096;

/// How an owned partition has ended.
#[derive(Debug)]
pub(super) enum End {
    /// As it was asked to; everything that was done is committed.
    Stopped,
    /// Another instance owns it.
    Lost,
    /// A handler's policy, or its error, stops the group.
    Failed(Arc<HandlerFailure>),
}

/// Whether a handler is called for an event the first time, or again.
#[derive(Clone, Copy, PartialEq)]
enum Round {
    /// The handlers of an event are called one after the other.
    First,
    /// A handler that has failed is called by itself.
    Again(u32),
}

/// What a task has come to.
enum Unit {
    /// A handler was called.
    Called {
        number: Number,
        route: usize,
        round: Round,
        permit: Permit,
        result: Result<Prepared, HandlerError>,
    },
    /// It was not, because the partition is given up.
    Stopped,
    /// A dead letter was fetched to be handled again; `None` where there is none any more.
    Fetched {
        number: Number,
        event: Result<Option<RecordedEvent>, HandlerError>,
    },
}

/// What the next commit stores.
#[derive(Default)]
struct Gathered {
    /// For each element of `emitted` the work and the handler it comes from.
    runs: Vec<(Number, usize)>,
    emitted: Vec<Vec<Append>>,
    parked: Vec<DeadLetter>,
    follows: Vec<(DeadLetterId, DeadLetterId)>,
    retried: Vec<DeadLetter>,
    resolved: Vec<DeadLetterId>,
    /// The works that wait for this commit, once for each thing of theirs.
    waiting: Vec<Number>,
    finished: u64,
    /// Whether the progress has changed.
    is_moved: bool,
}

impl Gathered {
    fn is_urgent(&self) -> bool {
        !self.waiting.is_empty() || !self.retried.is_empty()
    }
}

/// What goes on with the store: one thing at a time.
enum Talk {
    Committed(Box<Gathered>, Box<Commit>, Result<Committed, CommitError>),
    Loaded(Result<Parked, StoreError>),
}

/// An owned partition.
pub(super) struct Owned {
    shared: Arc<Shared>,
    dispatcher: Arc<Dispatcher>,
    lease: Lease,
    load: Arc<Load>,
    names: Arc<[Arc<str>]>,
    routes: HashMap<Box<str>, Arc<[usize]>>,
    window: Window<Work>,
    redriven: HashMap<Number, Work>,
    next_redriven: Number,
    /// For each lane that somebody is in, who waits behind.
    lanes: HashMap<u64, VecDeque<Number>>,
    /// Works that may go on.
    ready: VecDeque<Number>,
    units: JoinSet<Unit>,
    parked: Parked,
    gathered: Gathered,
    talk: Option<Pin<Box<dyn Future<Output = Talk> + Send>>>,
    /// How many entries were let in since they were counted last, and are for a handler.
    taken: u64,
    /// The number of the next commit.
    commit_number: u64,
    last_commit: Option<Instant>,
    must_load: bool,
    /// Whether the store was asked for dead letters last, and not to commit.
    has_loaded: bool,
    stopping: CancellationToken,
    /// Breaks off what still runs.
    breaking: CancellationToken,
    failure: Option<Arc<HandlerFailure>>,
}

impl Owned {
    pub(super) fn new(
        shared: Arc<Shared>,
        dispatcher: Arc<Dispatcher>,
        lease: Lease,
        progress: &Progress,
        load: Arc<Load>,
        stopping: CancellationToken,
        breaking: CancellationToken,
    ) -> Self {
        let names = dispatcher
            .routes
            .iter()
            .map(|route| Arc::clone(&route.name))
            .collect();
        Self {
            shared,
            dispatcher,
            lease,
            load,
            names,
            routes: HashMap::new(),
            window: Window::new(progress),
            redriven: HashMap::new(),
            next_redriven: REDRIVEN,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            units: JoinSet::new(),
            parked: Parked::default(),
            gathered: Gathered::default(),
            talk: None,
            taken: 0,
            commit_number: 1,
            last_commit: None,
            must_load: false,
            has_loaded: false,
            stopping,
            breaking,
            failure: None,
        }
    }

    /// Handles what comes, until it is stopped or the lease is lost. `changed` says that the dead
    /// letters may have.
    pub(super) async fn run(
        mut self,
        open: Progress,
        mut batches: mpsc::Receiver<Vec<FeedEntry>>,
        changed: Arc<Notify>,
    ) -> End {
        if !self.restore(open).await {
            return End::Stopped;
        }
        let (stopping, breaking) = (self.stopping.clone(), self.breaking.clone());
        let mut is_stopping = false;
        loop {
            self.proceed();
            self.begin_talk(is_stopping);
            if is_stopping && self.talk.is_none() && self.units.is_empty() {
                // What could not begin is left to the next owner.
                return match self.failure.take() {
                    Some(failure) => End::Failed(failure),
                    None => End::Stopped,
                };
            }
            let commit_at = self.commit_at();
            tokio::select! {
                biased;
                () = breaking.cancelled() => {
                    // Handlers end at their next await, before anybody else is told of the stop.
                    self.units.shutdown().await;
                    return End::Stopped;
                }
                talk = poll_fn(|context| match &mut self.talk {
                    Some(talk) => talk.as_mut().poll(context),
                    None => Poll::Pending,
                }) => {
                    self.talk = None;
                    if !self.talked(talk) {
                        return End::Lost;
                    }
                }
                Some(unit) = self.units.join_next() => {
                    self.end(unit);
                    while let Some(unit) = self.units.try_join_next() {
                        self.end(unit);
                    }
                }
                () = stopping.cancelled(), if !is_stopping => is_stopping = true,
                () = changed.notified(), if !is_stopping => self.must_load = true,
                batch = batches.recv(), if !is_stopping => match batch {
                    Some(batch) => self.take(batch),
                    None => is_stopping = true,
                },
                () = sleep_until(commit_at.unwrap_or_else(Instant::now)), if commit_at.is_some() => {}
            }
        }
    }

    /// Reads what the owner before has left: dead letters, and entries that are open though later
    /// ones are finished. `false` where it is stopped meanwhile.
    async fn restore(&mut self, progress: Progress) -> bool {
        let shared = Arc::clone(&self.shared);
        let partition = self.lease.partition.clone();
        let group = Arc::clone(&self.lease.group);
        let backend = &shared.backend;
        let mut pauses = pauses();
        let (parked, entries) = loop {
            // A future that has ended cannot be asked again.
            let attempt = async {
                let parked = Parked::load(&**backend, &group, &partition).await?;
                let mut entries = Vec::with_capacity(progress.open.len());
                for open in &progress.open {
                    let found = backend
                        .read_feed(&partition, open.position.before(), 1)
                        .await?;
                    entries.extend(
                        found
                            .into_iter()
                            .filter(|entry| entry.position() == open.position)
                            .map(|entry| (entry, open.done.clone())),
                    );
                }
                Ok::<_, crate::store::ReadError>((parked, entries))
            };
            tokio::select! {
                read = attempt => match read {
                    Ok(read) => break read,
                    Err(error) => tracing::error!(%partition, %error, "what is open cannot be read; trying again"),
                },
                () = self.stopping.cancelled() => return false,
            }
            pauses.pause(&self.stopping).await;
        };
        self.parked = parked;
        self.load.set_dead_letters(self.parked.len());
        self.load.add(
            entries.len(),
            entries.iter().map(|(entry, _)| entry.bytes()).sum(),
        );
        for (entry, done) in entries {
            let done = done
                .iter()
                .filter_map(|name| self.names.iter().position(|own| own == name))
                .collect();
            self.admit(entry, done);
        }
        self.redrive();
        true
    }

    fn work(&mut self, number: Number) -> Option<&mut Work> {
        if number >= REDRIVEN {
            self.redriven.get_mut(&number)
        } else {
            self.window.get_mut(number)
        }
    }
}
