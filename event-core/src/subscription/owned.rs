//! An owned partition: its events are handled in lanes by key, and what has come of it is committed.
//!
//! One task does all of it, so nothing here is shared. Handlers are called on this task as long as
//! they do not wait; those that wait go on on tasks of their own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use super::attempt;
use super::gate::Permit;
use super::load::Load;
use super::parked::Parked;
use super::retrying::Verdict;
use super::shared::{Shared, pauses};
use super::window::{Number, Settling, Window};
use super::work::{Redriven, Work, lane_of_key};
use crate::codec::entry::{self, EntryFields};
use crate::dispatcher::{Dispatcher, HandlerFailure, chain_of};
use crate::handler::HandlerError;
use crate::partition::key_of;
use crate::publisher::Prepared;
use crate::recorded::{Position, RecordedEvent};
use crate::repository::recorded;
use crate::store::{
    Append, Commit, CommitError, Committed, DeadLetter, DeadLetterId, DeadLetterReason, FeedEntry,
    Lease, Progress, StoreError,
};
use crate::trace;

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
                        .read_feed(&partition, before(open.position), 1)
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

    /// Takes entries that were read.
    fn take(&mut self, batch: Vec<FeedEntry>) {
        for entry in batch {
            self.admit(entry, Vec::new());
            self.proceed();
        }
        let taken = std::mem::take(&mut self.taken);
        self.load.metrics.consumed.increment(taken);
    }

    /// Lets an entry into the window, and its lane.
    fn admit(&mut self, entry: FeedEntry, done: Vec<usize>) {
        let position = entry.position();
        match entry {
            FeedEntry::Event(event) => {
                let routes = self.routes_of(event.event_type());
                if routes.is_empty() {
                    self.window.pass(position, Some(event.metadata().event_id));
                    self.gathered.finished += 1;
                    self.leave_behind(event.payload().len());
                    return;
                }
                let mut work = Work::new(position, Some(event), routes, Arc::clone(&self.names));
                work.done = done;
                let lane = work.lane;
                work.is_running = true;
                let number = self.window.push(work);
                self.taken += 1;
                self.enter_lane(lane, number);
            }
            FeedEntry::Undecodable { error, .. } => {
                tracing::error!(
                    partition = %self.lease.partition,
                    %position,
                    %error,
                    "an entry that is no event is a dead letter now"
                );
                let now = self.shared.clock.now();
                let letter = DeadLetter {
                    position,
                    handler: String::new(),
                    key: None,
                    event_type: None,
                    event_id: None,
                    reason: DeadLetterReason::Undecodable,
                    errors: chain_of(&error),
                    attempts: 0,
                    first_failed_at: now,
                    last_failed_at: now,
                    redrive: false,
                };
                let work = Work::new(position, None, Arc::new([]), Arc::clone(&self.names));
                let number = self.window.push(work);
                self.park(number, letter);
            }
        }
    }

    fn routes_of(&mut self, event_type: &str) -> Arc<[usize]> {
        if let Some(routes) = self.routes.get(event_type) {
            return Arc::clone(routes);
        }
        let routes: Arc<[usize]> = self.dispatcher.routes_of(event_type).into();
        if self.routes.len() == KNOWN_TYPES {
            self.routes.clear();
        }
        self.routes.insert(event_type.into(), Arc::clone(&routes));
        routes
    }

    fn enter_lane(&mut self, lane: Option<u64>, number: Number) {
        match lane {
            None => self.ready.push_back(number),
            Some(lane) => match self.lanes.get_mut(&lane) {
                Some(waiting) => waiting.push_back(number),
                None => {
                    self.lanes.insert(lane, VecDeque::new());
                    self.ready.push_back(number);
                }
            },
        }
    }

    fn leave_lane(&mut self, lane: Option<u64>) {
        if let Some(lane) = lane
            && let Some(waiting) = self.lanes.get_mut(&lane)
        {
            match waiting.pop_front() {
                Some(next) => self.ready.push_back(next),
                None => {
                    self.lanes.remove(&lane);
                }
            }
        }
    }

    fn work(&mut self, number: Number) -> Option<&mut Work> {
        if number >= REDRIVEN {
            self.redriven.get_mut(&number)
        } else {
            self.window.get_mut(number)
        }
    }

    /// Goes on with whatever may.
    fn proceed(&mut self) {
        if self.stopping.is_cancelled() {
            return;
        }
        while let Some(number) = self.ready.pop_front() {
            self.go_on(number);
        }
    }

    /// Calls the handlers of a work, one after the other, until one has to wait.
    fn go_on(&mut self, number: Number) {
        loop {
            let is_stopping = self.stopping.is_cancelled();
            let Some(work) = self.work(number) else {
                return;
            };
            let Some(event) = work.event.clone() else {
                self.fetch(number);
                return;
            };
            let Some(route) = work.next_route() else {
                work.is_running = false;
                work.permit = None;
                self.settle(number);
                return;
            };
            if is_stopping {
                // What has not begun is left to the next owner.
                work.next -= 1;
                return;
            }
            if self.must_follow(number, route, &event) {
                continue;
            }
            let Some(work) = self.work(number) else {
                return;
            };
            let permit = match work.permit.take() {
                Some(permit) => permit,
                None => match self.shared.gate.try_enter() {
                    Some(permit) => permit,
                    None => {
                        self.call_later(number, route, event, Round::First, Duration::ZERO);
                        return;
                    }
                },
            };
            let mut attempt = attempt::attempt(&self.dispatcher, route, event, 1);
            match attempt::begin(&mut attempt) {
                Poll::Ready(result) => self.called(number, route, Round::First, permit, result),
                Poll::Pending => {
                    self.units.spawn(async move {
                        Unit::Called {
                            number,
                            route,
                            round: Round::First,
                            permit,
                            result: attempt.await,
                        }
                    });
                    return;
                }
            }
        }
    }

    /// Calls a handler when the time has come and there is room.
    fn call_later(
        &mut self,
        number: Number,
        route: usize,
        event: RecordedEvent,
        round: Round,
        delay: Duration,
    ) {
        let attempt = match round {
            Round::First => 1,
            Round::Again(attempt) => attempt,
        };
        let call = attempt::attempt(&self.dispatcher, route, event, attempt);
        let shared = Arc::clone(&self.shared);
        let stopping = self.stopping.clone();
        self.units.spawn(async move {
            let Some(permit) = attempt::enter_later(&shared, &stopping, delay).await else {
                return Unit::Stopped;
            };
            Unit::Called {
                number,
                route,
                round,
                permit,
                result: call.await,
            }
        });
    }

    fn end(&mut self, unit: Result<Unit, tokio::task::JoinError>) {
        match unit {
            Ok(Unit::Called {
                number,
                route,
                round,
                permit,
                result,
            }) => {
                self.called(number, route, round, permit, result);
                if round == Round::First {
                    self.go_on(number);
                }
            }
            Ok(Unit::Stopped) => {}
            Ok(Unit::Fetched { number, event }) => self.fetched(number, event),
            // Handlers' panics are caught where they are called; what is left is a task that was
            // cancelled with its runtime.
            Err(error) => {
                tracing::error!(partition = %self.lease.partition, %error, "the task of a handler has ended by itself");
                self.stopping.cancel();
            }
        }
    }

    /// Notes what a call of a handler has come to.
    fn called(
        &mut self,
        number: Number,
        route: usize,
        round: Round,
        permit: Permit,
        result: Result<Prepared, HandlerError>,
    ) {
        self.shared.gate.ended(result.is_ok());
        let waiting = !self.shared.waiting.is_empty();
        match result {
            Ok(mut prepared) => {
                let sent = std::mem::take(&mut prepared.sent);
                let appends = prepared.into_appends();
                let Some(work) = self.work(number) else {
                    return;
                };
                if appends.is_empty() {
                    work.retrying.retain(|(other, _)| *other != route);
                } else {
                    // Its attempts count on if what it emitted is refused.
                    work.through(route);
                }
                work.done.push(route);
                let event_id = work.event_id();
                if round == Round::First {
                    work.permit = Some(permit);
                }
                if !appends.is_empty() {
                    work.uncommitted += 1;
                    self.gathered.runs.push((number, route));
                    self.gathered.emitted.push(appends);
                    self.gathered.waiting.push(number);
                }
                if waiting && let Some(event_id) = event_id {
                    let sent = sent.events.into_iter().map(|published| published.event);
                    self.shared.waiting.note_emitted(event_id, sent);
                }
            }
            Err(error) => {
                if let Some(work) = self.work(number)
                    && round == Round::First
                {
                    work.permit = Some(permit);
                }
                self.failed(number, route, error);
            }
        }
        if round != Round::First {
            self.settle(number);
        }
    }

    /// Decides what becomes of an event whose handler has failed.
    fn failed(&mut self, number: Number, route_number: usize, error: HandlerError) {
        let dispatcher = Arc::clone(&self.dispatcher);
        let route = &dispatcher.routes[route_number];
        let now = self.shared.clock.now();
        let Some(work) = self.work(number) else {
            return;
        };
        let Some(event) = work.event.clone() else {
            return;
        };
        let verdict = work
            .retrying(route, route_number, now)
            .fail(route, &event, error, now);
        if let Verdict::Again { attempt, delay } = verdict {
            route.metrics(&self.lease.group).retries.increment(1);
            self.call_later(number, route_number, event, Round::Again(attempt), delay);
            return;
        }
        work.retrying.retain(|(other, _)| *other != route_number);
        match verdict {
            Verdict::Again { .. } => {}
            Verdict::Stop(failure) => {
                self.shared.note_failure(&failure);
                self.stop_group(number, failure);
            }
            Verdict::GivenUp {
                failure,
                letter,
                is_left_out,
            } => {
                self.shared.note_failure(&failure);
                self.give_up(number, route_number, is_left_out, letter, failure);
            }
        }
    }

    /// Stops the group, with the event still to be handled.
    fn stop_group(&mut self, number: Number, failure: Arc<HandlerFailure>) {
        tracing::error!(%failure, "the group stops");
        if let Some(reports) = &self.shared.reports {
            reports.group_stopped(&self.lease.partition, &failure);
        }
        self.shared
            .waiting
            .tell(failure.event_id, Err(Arc::clone(&failure)));
        if let Some(work) = self.work(number) {
            work.is_left_open = true;
        }
        self.failure = Some(failure);
        self.stopping.cancel();
    }

    /// Ends the attempts of a handler for an event.
    fn give_up(
        &mut self,
        number: Number,
        route: usize,
        is_left_out: bool,
        letter: DeadLetter,
        failure: Arc<HandlerFailure>,
    ) {
        let Some(work) = self.work(number) else {
            return;
        };
        work.done.push(route);
        work.failure = Some(Arc::clone(&failure));
        if let Some(redriven) = &mut work.redriven
            && redriven.id == letter.id()
        {
            redriven.is_resolved = false;
            tracing::error!(%failure, "the event stays a dead letter");
            self.redriven_in_vain(letter);
        } else if is_left_out {
            tracing::error!(%failure, "the event was left out");
        } else {
            tracing::error!(%failure, reason = ?letter.reason, "the event is a dead letter now");
            self.park(number, letter);
        }
    }

    /// Keeps a dead letter that was handled again, and those of its key behind it, which would
    /// overtake it otherwise.
    fn redriven_in_vain(&mut self, mut letter: DeadLetter) {
        if let Some(old) = self.parked.get(&letter.id()) {
            letter.attempts += old.attempts;
            letter.first_failed_at = old.first_failed_at;
        }
        let behind: Vec<_> = match &letter.key {
            Some(key) => self
                .parked
                .of(&letter.handler, key)
                .filter(|other| other.redrive && other.position > letter.position)
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        self.retry_in_vain(letter);
        for mut other in behind {
            other.redrive = false;
            self.retry_in_vain(other);
        }
    }

    fn retry_in_vain(&mut self, letter: DeadLetter) {
        self.parked.insert(letter.clone());
        self.gathered.retried.push(letter);
    }

    /// Keeps an event among the dead letters, with the next commit.
    fn park(&mut self, number: Number, letter: DeadLetter) {
        if let Some(work) = self.work(number) {
            work.uncommitted += 1;
        }
        self.parked.insert(letter.clone());
        self.gathered.parked.push(letter);
        self.gathered.waiting.push(number);
    }

    /// Parks an event behind the dead letters of its key, if there are some.
    fn must_follow(&mut self, number: Number, route: usize, event: &RecordedEvent) -> bool {
        if self.parked.len() == 0 {
            return false;
        }
        let name = Arc::clone(&self.names[route]);
        let Some(key) = key_of(event) else {
            return false;
        };
        if !self.parked.blocks(&name, &key) {
            return false;
        }
        let is_redriven = self.work(number).is_some_and(|work| {
            work.redriven
                .as_ref()
                .is_some_and(|redriven| *redriven.id.handler == *name)
        });
        if is_redriven {
            return false;
        }
        // What comes while the key is redriven, is redriven with it.
        let redrive = self
            .parked
            .of(&name, &key)
            .next_back()
            .is_some_and(|last| last.redrive);
        let now = self.shared.clock.now();
        let letter = DeadLetter {
            position: event.position(),
            handler: name.to_string(),
            key: Some(key),
            event_type: Some(event.event_type().to_owned()),
            event_id: Some(event.metadata().event_id),
            reason: DeadLetterReason::Follows,
            errors: Vec::new(),
            attempts: 0,
            first_failed_at: now,
            last_failed_at: now,
            redrive,
        };
        if let Some(work) = self.work(number) {
            work.done.push(route);
        }
        self.park(number, letter);
        true
    }

    /// Finishes a work, if nothing of it is left to do or to store.
    fn settle(&mut self, number: Number) {
        let Some(work) = self.work(number) else {
            return;
        };
        if !work.is_settled() {
            return;
        }
        if let Some(redriven) = &mut work.redriven
            && redriven.is_resolved
        {
            // Told once: what follows is only the wait for the commit.
            redriven.is_resolved = false;
            work.uncommitted += 1;
            let id = redriven.id.clone();
            self.gathered.resolved.push(id);
            self.gathered.waiting.push(number);
            return;
        }
        if work.uncommitted > 0 {
            self.gathered.is_moved = true;
            return;
        }
        self.finish(number);
    }

    fn finish(&mut self, number: Number) {
        let shared = Arc::clone(&self.shared);
        let Some(work) = self.work(number) else {
            return;
        };
        let is_new = work.count();
        let lane = work.lane;
        if !shared.waiting.is_empty()
            && let Some(event_id) = work.event_id()
        {
            let outcome = match work.failure.take() {
                Some(failure) => Err(failure),
                None => Ok(()),
            };
            shared.waiting.tell(event_id, outcome);
        }
        if number >= REDRIVEN {
            self.drop_redriven(number);
        } else {
            self.leave_lane(lane);
            self.gathered.finished += u64::from(is_new);
            let bytes = self.window.leave(number);
            self.leave_behind(bytes);
        }
    }

    /// Notes that an entry of so many bytes is out of the window.
    fn leave_behind(&mut self, bytes: usize) {
        self.gathered.is_moved = true;
        if self.load.remove(1, bytes) {
            self.shared.room.notify_one();
        }
    }

    /// Has dead letters handled again that are to be.
    fn redrive(&mut self) {
        // Those that are on their way already, and those that are not stored yet.
        let redriven = self.redriven.values().filter_map(|work| {
            let redriven = work.redriven.as_ref()?;
            Some(redriven.id.clone())
        });
        let known: HashSet<_> = redriven
            .chain(self.gathered.parked.iter().map(DeadLetter::id))
            .collect();
        let new: Vec<_> = self
            .parked
            .to_redrive()
            .map(|letter| (letter.id(), letter.key.clone()))
            .filter(|(id, _)| !known.contains(id))
            .collect();
        for (id, key) in new {
            let mut work = Work::new(id.position, None, Arc::new([]), Arc::clone(&self.names));
            work.redriven = Some(Redriven {
                id,
                is_resolved: true,
            });
            work.lane = key.as_deref().map(lane_of_key);
            work.is_running = true;
            let lane = work.lane;
            let number = self.next_redriven;
            self.next_redriven += 1;
            self.redriven.insert(number, work);
            self.load.add(1, 0);
            self.enter_lane(lane, number);
        }
    }

    /// Reads the entry of a dead letter.
    fn fetch(&mut self, number: Number) {
        let Some(id) = self
            .work(number)
            .and_then(|work| Some(work.redriven.as_ref()?.id.clone()))
        else {
            return;
        };
        // It may have failed before its turn came, or be discarded.
        if !self.parked.get(&id).is_some_and(|letter| letter.redrive) {
            self.drop_redriven(number);
            return;
        }
        let shared = Arc::clone(&self.shared);
        let lease = self.lease.clone();
        let stopping = self.stopping.clone();
        self.units.spawn(async move {
            let mut pauses = pauses();
            loop {
                let inspected = shared
                    .backend
                    .inspect_dead_letter(&lease.group, &lease.partition, &id)
                    .await;
                match inspected {
                    Ok(None) => {
                        return Unit::Fetched {
                            number,
                            event: Ok(None),
                        };
                    }
                    Ok(Some(inspected)) => {
                        let fields = EntryFields::of(inspected.raw);
                        let event = entry::decode(&lease.partition, id.position, &fields)
                            .map(Some)
                            .map_err(HandlerError::Unreadable);
                        return Unit::Fetched { number, event };
                    }
                    Err(error) => {
                        tracing::error!(%error, "a dead letter cannot be read; trying again");
                    }
                }
                if !pauses.pause(&stopping).await {
                    return Unit::Stopped;
                }
            }
        });
    }

    fn drop_redriven(&mut self, number: Number) {
        if let Some(work) = self.redriven.remove(&number) {
            self.leave_lane(work.lane);
            if self.load.remove(1, 0) {
                self.shared.room.notify_one();
            }
        }
    }

    fn fetched(&mut self, number: Number, event: Result<Option<RecordedEvent>, HandlerError>) {
        let Some(id) = self
            .work(number)
            .and_then(|work| Some(work.redriven.as_ref()?.id.clone()))
        else {
            return;
        };
        let event = match event {
            Ok(Some(event)) => event,
            Ok(None) => {
                self.parked.remove(&id);
                self.drop_redriven(number);
                return;
            }
            Err(error) => {
                self.still_dead(&id, chain_of(&error));
                self.drop_redriven(number);
                return;
            }
        };
        let routes: Arc<[usize]> = if id.handler.is_empty() {
            // Nobody has called those with parallel delivery either.
            self.dispatcher.all_routes_of(event.event_type()).into()
        } else {
            match self.names.iter().position(|name| **name == *id.handler) {
                Some(route) => Arc::new([route]),
                None => {
                    let gone = format!(
                        "the group has no handler `{}` any more; discard the dead letter, or bring the handler back",
                        id.handler
                    );
                    self.still_dead(&id, vec![gone]);
                    self.drop_redriven(number);
                    return;
                }
            }
        };
        if let Some(work) = self.work(number) {
            work.event = Some(event);
            work.routes = routes;
        }
        self.ready.push_back(number);
    }

    fn still_dead(&mut self, id: &DeadLetterId, errors: Vec<String>) {
        let now = self.shared.clock.now();
        if let Some(mut letter) = self.parked.get(id).cloned() {
            letter.redrive = false;
            letter.errors = errors;
            letter.last_failed_at = now;
            self.retry_in_vain(letter);
        }
    }

    /// When the next commit is due at the latest, if one is.
    fn commit_at(&self) -> Option<Instant> {
        if self.talk.is_some() || !self.gathered.is_moved {
            return None;
        }
        self.last_commit.map(|last| last + COMMIT_EVERY)
    }

    /// Commits, or reads the dead letters, if it is time to and nothing else is on its way.
    fn begin_talk(&mut self, is_stopping: bool) {
        if self.talk.is_some() {
            return;
        }
        let is_due = self.gathered.is_urgent()
            || (self.gathered.is_moved
                && (is_stopping
                    || self
                        .last_commit
                        .is_none_or(|last| last.elapsed() >= COMMIT_EVERY)));
        // In turns, where both are wanted all the time.
        let must_load = self.must_load && !is_stopping && !(is_due && self.has_loaded);
        self.has_loaded = must_load;
        if must_load {
            self.must_load = false;
            let shared = Arc::clone(&self.shared);
            let lease = self.lease.clone();
            self.talk = Some(Box::pin(async move {
                Talk::Loaded(Parked::load(&*shared.backend, &lease.group, &lease.partition).await)
            }));
            return;
        }
        if !is_due {
            return;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.finished += self.window.count_settled();
        let commit = Commit {
            number: self.commit_number,
            progress: self.window.progress(),
            finished: gathered.finished,
            emitted: std::mem::take(&mut gathered.emitted),
            parked: gathered.parked.clone(),
            retried: gathered.retried.clone(),
            resolved: gathered.resolved.clone(),
            wants_places: !self.shared.waiting.is_empty(),
        };
        self.last_commit = Some(Instant::now());
        let shared = Arc::clone(&self.shared);
        let lease = self.lease.clone();
        let span = debug_span!("store", partition = %lease.partition, commit = commit.number);
        trace::link(&span, commit.traceparents());
        self.talk = Some(Box::pin(
            async move {
                let mut pauses = pauses();
                loop {
                    let result = shared.backend.commit(&lease, &commit).await;
                    if let Err(CommitError::Store(error)) = &result {
                        tracing::error!(partition = %lease.partition, %error, "a commit is not stored; trying again");
                        // The same commit again, without end: whoever stops the service has a
                        // deadline.
                        pauses.pause(&CancellationToken::new()).await;
                        continue;
                    }
                    return Talk::Committed(Box::new(gathered), Box::new(commit), result);
                }
            }
            .instrument(span),
        ));
    }

    /// Notes what the store has said. `false` where the lease is lost.
    fn talked(&mut self, talk: Talk) -> bool {
        match talk {
            Talk::Loaded(Ok(mut parked)) => {
                for letter in self.gathered.parked.iter().chain(&self.gathered.retried) {
                    parked.insert(letter.clone());
                }
                for id in &self.gathered.resolved {
                    parked.remove(id);
                }
                self.parked = parked;
                self.count_dead_letters(self.parked.len());
                self.redrive();
            }
            Talk::Loaded(Err(error)) => {
                tracing::error!(partition = %self.lease.partition, %error, "the dead letters cannot be read; trying again");
                self.must_load = true;
            }
            Talk::Committed(gathered, commit, Ok(committed)) => {
                self.commit_number += 1;
                self.load.set_progress(&commit.progress);
                self.tell(&gathered, &commit);
                self.note_emitted(&gathered, &commit, &committed);
                for id in &gathered.resolved {
                    self.parked.remove(id);
                }
                self.count_dead_letters(committed.dead_letters);
                for number in &gathered.waiting {
                    if let Some(work) = self.work(*number) {
                        work.uncommitted = work.uncommitted.saturating_sub(1);
                    }
                    self.settle(*number);
                }
                if gathered.parked.iter().any(|letter| letter.redrive) {
                    self.redrive();
                }
            }
            Talk::Committed(gathered, commit, Err(CommitError::Refused { refused })) => {
                self.take_back(*gathered, *commit, refused);
            }
            Talk::Committed(_, _, Err(error)) => {
                tracing::warn!(partition = %self.lease.partition, %error, "the partition is given up");
                return false;
            }
        }
        true
    }

    /// Tells what a commit has stored.
    fn tell(&self, gathered: &Gathered, commit: &Commit) {
        let metrics = &self.load.metrics;
        metrics.commits.increment(1);
        metrics.parked.increment(gathered.parked.len() as u64);
        let sent = self.dispatcher.publisher.metrics();
        sent.emitted(commit.emitted.iter().flatten());
        if let Some(reports) = &self.shared.reports {
            for letter in &gathered.parked {
                reports.dead_letter(&self.lease.partition, letter);
            }
        }
    }

    fn count_dead_letters(&mut self, count: usize) {
        let was_full = self.load.is_full();
        self.load.set_dead_letters(count);
        let is_full = self.load.is_full();
        if is_full && !was_full {
            tracing::error!(
                partition = %self.lease.partition,
                count,
                "there are as many dead letters as there may be: nothing more is read until some are redriven or discarded"
            );
        } else if was_full && !is_full {
            self.shared.room.notify_one();
        }
    }

    /// Remembers what was emitted where somebody waits for it.
    fn note_emitted(&mut self, gathered: &Gathered, commit: &Commit, committed: &Committed) {
        if self.shared.waiting.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        for (((number, _), appends), places) in gathered
            .runs
            .iter()
            .zip(&commit.emitted)
            .zip(&committed.emitted)
        {
            if let Some(event_id) = self.work(*number).and_then(|work| work.event_id()) {
                let stored = appends.iter().zip(places);
                let stored = stored.flat_map(|(append, appended)| recorded(append, appended));
                shared.waiting.note_emitted(event_id, stored);
            }
        }
    }

    /// Makes failures of the runs whose events cannot be stored, and gathers the rest again.
    fn take_back(
        &mut self,
        mut gathered: Gathered,
        commit: Commit,
        refused: Vec<(usize, crate::store::AppendError)>,
    ) {
        let mut errors: HashMap<usize, _> = refused.into_iter().collect();
        let mut kept = Gathered {
            parked: std::mem::take(&mut gathered.parked),
            retried: std::mem::take(&mut gathered.retried),
            resolved: std::mem::take(&mut gathered.resolved),
            finished: gathered.finished,
            is_moved: true,
            ..Gathered::default()
        };
        let mut waiting = std::mem::take(&mut gathered.waiting);
        let mut failures = Vec::new();
        for (index, (run, appends)) in gathered.runs.into_iter().zip(commit.emitted).enumerate() {
            match errors.remove(&index) {
                None => {
                    kept.runs.push(run);
                    kept.emitted.push(appends);
                }
                Some(error) => {
                    if let Some(at) = waiting.iter().position(|number| *number == run.0) {
                        waiting.swap_remove(at);
                    }
                    failures.push((run, error));
                }
            }
        }
        kept.waiting = waiting;
        // In front of what was gathered meanwhile, whose order it keeps.
        let newer = std::mem::take(&mut self.gathered);
        kept.runs.extend(newer.runs);
        kept.emitted.extend(newer.emitted);
        kept.parked.extend(newer.parked);
        kept.retried.extend(newer.retried);
        kept.resolved.extend(newer.resolved);
        kept.waiting.extend(newer.waiting);
        kept.finished += newer.finished;
        self.gathered = kept;
        for ((number, route), error) in failures {
            self.leave_parked(number);
            if let Some(work) = self.work(number) {
                work.uncommitted = work.uncommitted.saturating_sub(1);
                work.done.retain(|done| *done != route);
                // It is not settled any more.
                if number < REDRIVEN && std::mem::replace(&mut work.is_counted, false) {
                    self.gathered.finished -= 1;
                }
            }
            self.failed(number, route, HandlerError::Publish(Box::new(error)));
            self.settle(number);
        }
    }

    /// Takes back that a dead letter is none any more: what was emitted for it is refused.
    fn leave_parked(&mut self, number: Number) {
        let Some(work) = self.redriven.get_mut(&number) else {
            return;
        };
        let Some(redriven) = &mut work.redriven else {
            return;
        };
        let Some(at) = (self.gathered.resolved.iter()).position(|id| *id == redriven.id) else {
            return;
        };
        redriven.is_resolved = true;
        work.uncommitted = work.uncommitted.saturating_sub(1);
        self.gathered.resolved.swap_remove(at);
        if let Some(at) = (self.gathered.waiting.iter()).position(|waiting| *waiting == number) {
            self.gathered.waiting.swap_remove(at);
        }
    }
}

impl Commit {
    /// The trace contexts of what is emitted.
    fn traceparents(&self) -> impl Iterator<Item = Option<&str>> {
        let emitted = self.emitted.iter().flatten().flat_map(Append::events);
        emitted.map(|event| event.metadata().traceparent.as_deref())
    }
}

/// The position right before another.
fn before(position: Position) -> Position {
    match position.sequence().checked_sub(1) {
        Some(sequence) => Position::new(position.milliseconds(), sequence),
        None => match position.milliseconds().checked_sub(1) {
            Some(milliseconds) => Position::new(milliseconds, u64::MAX),
            None => Position::START,
        },
    }
}
