//! Replays: chosen handlers are given events of the past once more. Nothing of the group is touched by
//! that: no lease, no checkpoint, no dead letter.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use super::Subscription;
use super::gate::Gate;
use super::retrying::{Retrying, Verdict};
use super::shared::Shared;
use crate::dispatcher::{Dispatcher, HandlerFailure, Route};
use crate::handler::Delivery;
use crate::partition::{Partition, key_of};
use crate::recorded::{Position, RecordedEvent};
use crate::replay::{Replay, ReplayError, ReplayFailure, ReplayReport};
use crate::store::{FeedEntry, ReadError};

/// How many entries of a partition are read at once. The next are read while these are handled.
const BATCH: usize = 500;

impl Subscription {
    /// Gives events of the past to the handlers that `replay` names, until they are through or it is
    /// stopped.
    pub(crate) async fn replay(
        &self,
        replay: Replay,
        stopping: CancellationToken,
    ) -> Result<ReplayReport, ReplayError> {
        let (chosen, left_out) = self.choose(&replay)?;
        let concurrency = replay.concurrency.unwrap_or(self.settings.concurrency);
        let gate = Arc::new(Gate::new(concurrency, replay.rate_limit, None));
        let replay = Arc::new(replay);
        // Before anything begins.
        let mut counts = HashMap::new();
        for category in self.categories.keys() {
            let count = self.shared.backend.partitions(category).await;
            let count = count.map_err(|error| ReplayError::Read {
                source: error,
                report: Box::default(),
            })?;
            counts.insert(category.clone(), count);
        }
        let mut tasks = JoinSet::new();
        for (category, handlers) in &self.categories {
            let dispatcher = &handlers.dispatcher;
            let routes: Vec<_> = (0..dispatcher.routes.len())
                .filter(|route| chosen.contains(&dispatcher.routes[*route].name))
                .collect();
            if routes.is_empty() {
                continue;
            }
            for number in 0..counts.get(category).copied().unwrap_or_default() {
                let partition = Partition::new(category.clone(), number);
                let span = debug_span!("replay", group = &*self.shared.group, %partition);
                let part = Part {
                    shared: Arc::clone(&self.shared),
                    dispatcher: Arc::clone(dispatcher),
                    routes: routes.clone(),
                    replay: Arc::clone(&replay),
                    gate: Arc::clone(&gate),
                    limit: self.settings.dead_letter_limit,
                    stopping: stopping.clone(),
                    tally: Mutex::new(Tally {
                        handled: vec![0; dispatcher.routes.len()],
                        ..Tally::default()
                    }),
                    partition,
                };
                tasks.spawn(part.run().instrument(span));
            }
        }
        let mut report = ReplayReport {
            left_out,
            handled: chosen.iter().map(|name| (name.to_string(), 0)).collect(),
            ..ReplayReport::default()
        };
        let mut end = End::Through;
        while let Some(ended) = tasks.join_next().await {
            let ended = match ended {
                Ok((part, ended)) => {
                    report.add(part);
                    ended
                }
                Err(error) => End::TaskEnded(error.to_string()),
            };
            if !matches!(ended, End::Through) {
                stopping.cancel();
                if matches!(end, End::Through) {
                    end = ended;
                }
            }
        }
        match end {
            End::Through => Ok(report),
            End::Unreadable(source) => Err(ReplayError::Read {
                source,
                report: Box::new(report),
            }),
            End::TaskEnded(reason) => Err(ReplayError::TaskEnded { reason }),
            End::Stopped(failure) => Err(ReplayError::Stopped {
                failure,
                report: Box::new(report),
            }),
            End::TooManyFailures(partition) => Err(ReplayError::TooManyFailures {
                partition,
                limit: self.settings.dead_letter_limit,
                report: Box::new(report),
            }),
        }
    }

    /// The names of the handlers that are given events, and of those that are not.
    fn choose(&self, replay: &Replay) -> Result<(BTreeSet<Arc<str>>, Vec<String>), ReplayError> {
        let categories = self.categories.values();
        let routes = categories.flat_map(|handlers| &handlers.dispatcher.routes);
        let there_are: HashMap<&str, &Route> = routes.map(|route| (&*route.name, route)).collect();
        let group = || self.shared.group.to_string();
        let names = |wanted: fn(&Route) -> bool| {
            let found = there_are.values().filter(|route| wanted(route));
            let mut names: Vec<_> = found.map(|route| route.name.to_string()).collect();
            names.sort();
            names
        };
        let mut chosen = BTreeSet::new();
        match &replay.handlers {
            None => {
                let allowing = there_are.values().filter(|route| route.allows_replay);
                chosen.extend(allowing.map(|route| Arc::clone(&route.name)));
                if chosen.is_empty() {
                    return Err(ReplayError::NoneAllows { group: group() });
                }
            }
            Some(wanted) => {
                for handler in wanted {
                    match there_are.get(&**handler) {
                        Some(route) if route.allows_replay => {
                            chosen.insert(Arc::clone(&route.name));
                        }
                        Some(_) => {
                            return Err(ReplayError::NotAllowed {
                                handler: handler.clone(),
                            });
                        }
                        None => {
                            return Err(ReplayError::UnknownHandler {
                                handler: handler.clone(),
                                group: group(),
                                there_are: names(|_| true),
                            });
                        }
                    }
                }
            }
        }
        Ok((chosen, names(|route| !route.allows_replay)))
    }
}

/// How a partition has ended.
enum End {
    /// Through, or stopped as it was asked to.
    Through,
    Stopped(ReplayFailure),
    TooManyFailures(Partition),
    /// The feed could not be read on.
    Unreadable(ReadError),
    TaskEnded(String),
}

/// The replay of one partition.
struct Part {
    shared: Arc<Shared>,
    dispatcher: Arc<Dispatcher>,
    /// The chosen handlers, by their number.
    routes: Vec<usize>,
    replay: Arc<Replay>,
    gate: Arc<Gate>,
    /// On how many keys handlers may fail.
    limit: usize,
    stopping: CancellationToken,
    partition: Partition,
    tally: Mutex<Tally>,
}

/// What was done. It is only looked at by the task of the partition.
#[derive(Default)]
struct Tally {
    report: ReplayReport,
    /// By the number of the handler.
    handled: Vec<u64>,
    /// The keys that a handler has failed on.
    failed: HashSet<(usize, String)>,
    end: Option<End>,
}

/// The events of one key, each with its number in the batch.
type Lane = Vec<(usize, RecordedEvent)>;

impl Part {
    async fn run(self) -> (ReplayReport, End) {
        let mut reached = self.replay.begin(&self.partition);
        let done = self.read_through(&mut reached).await;
        let is_left = match done {
            Ok(is_left) => is_left,
            Err(error) => {
                self.end(End::Unreadable(error));
                true
            }
        };
        let is_stopped = self.stopping.is_cancelled();
        let mut tally = self
            .tally
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let routes = self.dispatcher.routes.iter();
        for (route, count) in routes.zip(tally.handled) {
            if count > 0 {
                tally.report.handled.insert(route.name.to_string(), count);
            }
        }
        tally.report.is_stopped = is_stopped && is_left;
        tally.report.reached.insert(self.partition, reached);
        (tally.report, tally.end.unwrap_or(End::Through))
    }

    /// Handles what is to be handled, until it is through or is stopped; whether something is left then.
    async fn read_through(&self, reached: &mut Position) -> Result<bool, ReadError> {
        let head = self.shared.backend.head(&self.partition).await?;
        let to = self.replay.positions.end().min(head);
        let mut batch = self.read(*reached, to).await?;
        while !batch.is_empty() && !self.stopping.is_cancelled() {
            let positions: Vec<_> = batch.iter().map(FeedEntry::position).collect();
            let last = positions.last().copied().unwrap_or(*reached);
            let (first_left, next) = tokio::join!(self.handle(batch), self.read(last, to));
            let through = first_left.unwrap_or(positions.len());
            if let Some(last) = through.checked_sub(1) {
                *reached = positions[last];
            }
            self.tally().report.read += through as u64;
            if first_left.is_some() {
                break;
            }
            batch = next?;
        }
        Ok(*reached < to)
    }

    async fn read(&self, after: Position, to: Position) -> Result<Vec<FeedEntry>, ReadError> {
        if after >= to {
            return Ok(Vec::new());
        }
        let backend = &self.shared.backend;
        let mut entries = backend.read_feed(&self.partition, after, BATCH).await?;
        entries.retain(|entry| entry.position() <= to);
        Ok(entries)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles a batch, those of different keys beside each other. Gives the number of the first entry that
    /// is left, where it was stopped.
    async fn handle(&self, batch: Vec<FeedEntry>) -> Option<usize> {
        let mut lanes: Vec<Lane> = Vec::new();
        let mut by_key = HashMap::new();
        for (number, entry) in batch.into_iter().enumerate() {
            let FeedEntry::Event(event) = entry else {
                self.tally().report.undecodable += 1;
                continue;
            };
            let mut routes = self.routes.iter();
            if !self.replay.is_wanted(&event)
                || !routes.any(|route| self.route(*route).takes(event.event_type()))
            {
                continue;
            }
            match key_of(&event) {
                None => lanes.push(vec![(number, event)]),
                Some(key) => {
                    let lane = *by_key.entry(key).or_insert(lanes.len());
                    if lane == lanes.len() {
                        lanes.push(Vec::new());
                    }
                    lanes[lane].push((number, event));
                }
            }
        }
        let running: FuturesUnordered<_> =
            lanes.into_iter().map(|lane| self.follow(lane)).collect();
        let left: Vec<Option<usize>> = running.collect().await;
        left.into_iter().flatten().min()
    }

    fn route(&self, route: usize) -> &Route {
        &self.dispatcher.routes[route]
    }

    /// Handles the events of one key, in order. Gives the number of the first that is left, where it was
    /// stopped.
    async fn follow(&self, lane: Lane) -> Option<usize> {
        for (number, event) in lane {
            for route in &self.routes {
                if self.route(*route).takes(event.event_type()) && !self.give(*route, &event).await
                {
                    return Some(number);
                }
            }
        }
        None
    }

    /// Gives an event to a handler, as often as its policy says; `false` where it was stopped before it was
    /// through.
    async fn give(&self, number: usize, event: &RecordedEvent) -> bool {
        let route = self.route(number);
        let key = match route.delivery {
            Delivery::Ordered => key_of(event),
            Delivery::Parallel => None,
        };
        if let Some(key) = &key
            && self.is_held_back(number, key)
        {
            return true;
        }
        let mut retrying = None;
        let mut attempt = 1;
        loop {
            let permit = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return false,
                permit = self.gate.enter() => permit,
            };
            let replaying = self
                .dispatcher
                .replay(route, &self.partition, event, attempt);
            let result = replaying.await;
            drop(permit);
            let error = match result {
                Ok(dropped) => {
                    let mut tally = self.tally();
                    tally.handled[number] += 1;
                    tally.report.dropped += dropped as u64;
                    return true;
                }
                Err(error) => error,
            };
            let now = self.shared.clock.now();
            let retrying = retrying.get_or_insert_with(|| Retrying::new(route, now));
            let (failure, is_left_out) = match retrying.fail(route, event, error, now) {
                Verdict::Again {
                    attempt: next,
                    delay,
                } => {
                    attempt = next;
                    tokio::select! {
                        () = self.stopping.cancelled() => return false,
                        () = tokio::time::sleep(delay) => continue,
                    }
                }
                Verdict::GivenUp {
                    failure,
                    is_left_out,
                    ..
                } => (failure, is_left_out),
                Verdict::Stop(failure) => {
                    let failure = self.failure(event, failure);
                    self.end(End::Stopped(failure));
                    return false;
                }
            };
            let mut tally = self.tally();
            tally.report.note_failure(self.failure(event, failure));
            if let Some(key) = key
                && !is_left_out
            {
                tally.failed.insert((number, key));
                if tally.failed.len() >= self.limit {
                    drop(tally);
                    self.end(End::TooManyFailures(self.partition.clone()));
                }
            }
            return true;
        }
    }

    /// Whether the handler has failed on an earlier event of this key.
    fn is_held_back(&self, route: usize, key: &str) -> bool {
        let mut tally = self.tally();
        let is_held_back =
            !tally.failed.is_empty() && tally.failed.contains(&(route, key.to_owned()));
        if is_held_back {
            tally.report.held_back += 1;
        }
        is_held_back
    }

    fn failure(&self, event: &RecordedEvent, failure: Arc<HandlerFailure>) -> ReplayFailure {
        ReplayFailure {
            partition: self.partition.clone(),
            position: event.position(),
            failure,
        }
    }

    fn end(&self, end: End) {
        self.tally().end.get_or_insert(end);
        self.stopping.cancel();
    }
}
