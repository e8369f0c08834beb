//! The runner: takes entries, has them handled, and stores what has come of them.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use super::work::{Gathered, Place, Work};
use super::{GONE_AFTER, ParallelHandler, Regularly};
use crate::dispatcher::{HandlerFailure, chain_of};
use crate::handler::HandlerError;
use crate::metrics::PartitionMetrics;
use crate::partition::Partition;
use crate::publisher::Prepared;
use crate::recorded::Position;
use crate::repository::recorded;
use crate::store::{
    AppendError, Backend, Consumer, DeadLetter, DeadLetterReason, FeedEntry, Finish, FinishError,
    Finished, ParallelReader, ReadError, StoreError, Taken,
};
use crate::subscription::gate::Permit;
use crate::subscription::load::BYTES;
use crate::subscription::retrying::{Retrying, Verdict};
use crate::subscription::shared::{Pauses, pauses};
use crate::subscription::waiting::Outcome;
use crate::subscription::{IdleError, LOOK_EVERY, attempt};

/// How long the server may hold back its reply where there is nothing to take.
const WAIT: Duration = Duration::from_secs(5);

/// How long what is done, without anything emitted, may wait to be stored together with more.
const FINISH_EVERY: Duration = Duration::from_millis(10);

/// For how long handlers that do not wait are called one after the other, before everything else has
/// its turn.
const SLICE: Duration = Duration::from_millis(10);

/// How many entries are taken back at once.
const PAGE: usize = 500;

/// What a task has come to.
enum Unit {
    /// The handler was called.
    Called {
        place: Place,
        permit: Permit,
        result: Result<Prepared, HandlerError>,
    },
    /// It was not, because the runner stops.
    Stopped,
}

/// What goes on with the store: one thing at a time, so that what it gives is never older than what is
/// known here.
enum Talk {
    Finished(Vec<(usize, Finish, Result<Finished, FinishError>)>),
    /// Entries that are pending here; of each partition.
    Pending(Vec<(usize, Vec<FeedEntry>)>),
    /// What was pending before could not be read.
    NotTakenBack(ReadError),
    Kept,
}

/// Handles the entries that this instance takes for one handler.
pub(super) struct ParallelRunner<'a> {
    handler: &'a ParallelHandler,
    partitions: Arc<[Partition]>,
    reader: Box<dyn ParallelReader>,
    /// Whether something is being taken, though perhaps nobody waits for it now.
    is_taking: bool,
    works: HashMap<Place, Work>,
    /// The bytes of their payloads.
    bytes: usize,
    ready: VecDeque<Place>,
    units: JoinSet<Unit>,
    gathered: Gathered,
    last_finish: Option<Instant>,
    talk: Option<Pin<Box<dyn Future<Output = Talk> + Send>>>,
    /// Whether something may be pending for this consumer that is not here.
    must_take_back: bool,
    metrics: Vec<PartitionMetrics>,
    /// How many dead letters the group has in each partition, as far as it is known.
    dead_letters: Vec<usize>,
    keeping: Regularly,
    claiming: Regularly,
    removing: Regularly,
    pauses: Pauses,
    /// Until then nothing is taken, because that has just failed.
    take_at: Instant,
    stopping: CancellationToken,
    /// The first failure of a handler that gave up.
    given_up: Option<Arc<HandlerFailure>>,
    /// The failure that stops the group.
    failure: Option<Arc<HandlerFailure>>,
    /// How many entries were taken.
    taken: usize,
}

impl<'a> ParallelRunner<'a> {
    pub(super) fn new(
        handler: &'a ParallelHandler,
        partitions: Arc<[Partition]>,
        reader: Box<dyn ParallelReader>,
        stopping: CancellationToken,
    ) -> Self {
        let lease = handler.lease;
        let group = handler.consumer.group.to_string();
        let metrics = partitions
            .iter()
            .map(|partition| PartitionMetrics::new(&group, partition))
            .collect();
        Self {
            handler,
            dead_letters: vec![0; partitions.len()],
            partitions,
            reader,
            is_taking: false,
            works: HashMap::new(),
            bytes: 0,
            metrics,
            ready: VecDeque::new(),
            units: JoinSet::new(),
            gathered: Gathered::default(),
            last_finish: None,
            talk: None,
            must_take_back: true,
            keeping: Regularly::new(lease / 3),
            claiming: Regularly::new(lease / 2),
            removing: Regularly::new(lease * (GONE_AFTER / 4)),
            pauses: pauses(),
            take_at: Instant::now(),
            stopping,
            given_up: None,
            failure: None,
            taken: 0,
        }
    }

    /// Runs until it is stopped.
    pub(super) async fn run(mut self) -> Result<(), Arc<HandlerFailure>> {
        // What others have left may have waited for long already.
        self.claiming.next = Instant::now();
        while !self.stopping.is_cancelled() {
            self.proceed();
            self.begin_talk();
            let room = self.room();
            self.is_taking |= room > 0;
            let due = self.due();
            let closed_until = self.handler.shared.gate.closed_until();
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => {}
                taken = self.reader.take(room, WAIT), if self.is_taking => {
                    self.is_taking = false;
                    match taken {
                        Ok(taken) => {
                            self.pauses = pauses();
                            self.admit_all(taken);
                        }
                        Err(error) => {
                            tracing::error!(%error, "entries cannot be taken; trying again");
                            self.must_take_back = true;
                            self.take_at = Instant::now() + self.pauses.next();
                        }
                    }
                }
                talk = next_talk(&mut self.talk) => self.talked(talk),
                Some(unit) = self.units.join_next() => self.end_units(unit),
                () = tokio::task::yield_now(), if !self.ready.is_empty() => {}
                () = sleep_until(due) => {}
                () = sleep_until(closed_until.unwrap_or(due)), if closed_until.is_some() => {}
            }
        }
        self.stop().await;
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Runs until nothing is left to do for any instance, or `outcome` is told.
    pub(super) async fn run_until_idle(
        mut self,
        mut outcome: Option<&mut oneshot::Receiver<Outcome>>,
    ) -> Result<(usize, Option<Outcome>), IdleError> {
        self.claiming.next = Instant::now();
        let result: Result<_, IdleError> = loop {
            let taken = self.taken;
            if let Some(told) = self.settle_all(&mut outcome).await {
                break Ok(Some(told));
            }
            if self.failure.is_some() {
                break Ok(None);
            }
            let room = self.room();
            if room > 0 {
                match self.reader.take(room, Duration::ZERO).await {
                    Ok(taken) => self.admit_all(taken),
                    Err(error) => break Err(error.into()),
                }
            }
            if self.taken > taken {
                continue;
            }
            match self.handler.is_all_finished(&self.partitions).await {
                Ok(true) => break Ok(None),
                Ok(false) if self.is_full() => break Ok(None),
                Ok(false) => {
                    let closed_until = self.handler.shared.gate.closed_until();
                    let look_at = Instant::now() + LOOK_EVERY;
                    sleep_until(closed_until.unwrap_or(look_at).min(look_at)).await;
                }
                Err(error) => break Err(error.into()),
            }
        };
        self.stop().await;
        let failure = self.failure.or(self.given_up);
        match (result?, failure) {
            (None, Some(failure)) => Err(IdleError::Failed(failure)),
            (told, _) => Ok((self.taken, told)),
        }
    }

    /// Waits until everything that is here is finished, or `outcome` is told.
    async fn settle_all(
        &mut self,
        outcome: &mut Option<&mut oneshot::Receiver<Outcome>>,
    ) -> Option<Outcome> {
        loop {
            self.proceed();
            self.begin_talk();
            // It may have been told just now.
            if let Some(told) = outcome.as_mut().and_then(|outcome| outcome.try_recv().ok()) {
                return Some(told);
            }
            if self.stopping.is_cancelled() || (self.works.is_empty() && self.talk.is_none()) {
                return None;
            }
            let due = self.due();
            tokio::select! {
                biased;
                talk = next_talk(&mut self.talk) => self.talked(talk),
                Some(unit) = self.units.join_next() => self.end_units(unit),
                () = tokio::task::yield_now(), if !self.ready.is_empty() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    /// Waits until what runs is finished and stored, and leaves everything else to other instances.
    async fn stop(&mut self) {
        self.stopping.cancel();
        loop {
            self.begin_talk();
            if self.talk.is_none() && self.units.is_empty() && self.gathered.is_empty() {
                break;
            }
            let due = self.due();
            tokio::select! {
                biased;
                talk = next_talk(&mut self.talk) => self.talked(talk),
                Some(unit) = self.units.join_next() => self.end_units(unit),
                () = sleep_until(due) => {}
            }
        }
        match self.reader.close().await {
            Ok(taken) => self.admit_all(taken),
            Err(error) => tracing::debug!(%error, "what was taken last did not arrive"),
        }
        let backend = &self.handler.shared.backend;
        let consumer = &self.handler.consumer;
        for (index, positions) in self.positions() {
            let partition = &self.partitions[index];
            if let Err(error) = backend.let_go(consumer, partition, &positions).await {
                tracing::warn!(%partition, %error, "entries are not given up; others claim them when the lease is over");
            }
        }
        for partition in &*self.partitions {
            if let Err(error) = backend.leave_parallel(consumer, partition).await {
                tracing::warn!(%partition, %error, "the group is not told that this instance leaves; it notices by itself");
            }
        }
    }

    /// How many entries of each partition may be taken now.
    fn room(&self) -> usize {
        let is_closed = self.handler.shared.gate.closed_until().is_some();
        if is_closed
            || self.must_take_back
            || self.is_full()
            || self.bytes >= BYTES
            || self.stopping.is_cancelled()
            || Instant::now() < self.take_at
        {
            return 0;
        }
        let window = self.handler.window;
        let room = window.saturating_sub(self.works.len());
        if room < window / 4 {
            0
        } else {
            (room / self.partitions.len().max(1)).max(1)
        }
    }

    /// Whether a partition has as many dead letters as it may.
    fn is_full(&self) -> bool {
        let limit = self.handler.dead_letter_limit;
        self.dead_letters.iter().any(|count| *count >= limit)
    }

    /// When there is something to do at the latest.
    fn due(&self) -> Instant {
        let mut due = self.keeping.next;
        if !self.stopping.is_cancelled() {
            due = due.min(self.claiming.next).min(self.removing.next);
        }
        if !self.is_taking && self.take_at > Instant::now() {
            due = due.min(self.take_at);
        }
        if let Some(last) = self.last_finish
            && !self.gathered.is_empty()
        {
            due = due.min(last + FINISH_EVERY);
        }
        if self.talk.is_some() {
            // One thing after the other.
            due = due.max(Instant::now() + FINISH_EVERY);
        }
        due
    }

    fn admit_all(&mut self, taken: Taken) {
        self.must_take_back |= taken.is_torn;
        for (partition, entries) in taken.entries {
            if let Some(index) = self.partitions.iter().position(|own| *own == partition) {
                self.admit(index, entries);
            }
        }
    }

    /// Lets entries in that are pending here now.
    fn admit(&mut self, partition: usize, entries: Vec<FeedEntry>) {
        for entry in entries {
            let place = Place {
                partition,
                position: entry.position(),
            };
            if self.works.contains_key(&place) {
                continue;
            }
            self.taken += 1;
            self.metrics[partition].consumed.increment(1);
            self.bytes += entry.bytes();
            match entry {
                FeedEntry::Event(event) => {
                    let is_taken = self.handler.takes(event.event_type());
                    self.works.insert(place, Work::new(Some(event)));
                    if is_taken {
                        self.ready.push_back(place);
                    } else {
                        self.gathered.add_done(place);
                    }
                }
                FeedEntry::Undecodable { position, error } => {
                    self.works.insert(place, Work::new(None));
                    let partition = &self.partitions[partition];
                    let parks = &self.handler.definition.parks_undecodable;
                    if !parks.contains(partition.category()) {
                        self.gathered.add_done(place);
                        continue;
                    }
                    tracing::error!(
                        %partition,
                        %position,
                        %error,
                        "an entry that is no event is a dead letter now"
                    );
                    let now = self.handler.shared.clock.now();
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
                    self.gathered.add_parked(place, letter);
                }
            }
        }
    }

    /// Calls the handler for what is ready.
    fn proceed(&mut self) {
        let mut slice = None;
        while !self.stopping.is_cancelled()
            && let Some(place) = self.ready.pop_front()
        {
            self.call(place);
            let begun = *slice.get_or_insert_with(Instant::now);
            if begun.elapsed() >= SLICE {
                break;
            }
        }
    }

    fn call(&mut self, place: Place) {
        let shared = &self.handler.shared;
        let Some(event) = self.works.get(&place).and_then(|work| work.event.clone()) else {
            return;
        };
        let Some(permit) = shared.gate.try_enter() else {
            self.call_later(place, 1, Duration::ZERO);
            return;
        };
        let mut attempt = attempt::attempt(&self.handler.definition.dispatcher, 0, event, 1);
        match attempt::begin(&mut attempt) {
            Poll::Ready(result) => self.called(place, permit, result),
            Poll::Pending => {
                let call = async move {
                    Unit::Called {
                        place,
                        permit,
                        result: attempt.await,
                    }
                };
                self.units.spawn(call.in_current_span());
            }
        }
    }

    /// Calls the handler when the time has come and there is room.
    fn call_later(&mut self, place: Place, number: u32, delay: Duration) {
        let Some(event) = self.works.get(&place).and_then(|work| work.event.clone()) else {
            return;
        };
        let call = attempt::attempt(&self.handler.definition.dispatcher, 0, event, number);
        let shared = Arc::clone(&self.handler.shared);
        let stopping = self.stopping.clone();
        let call = async move {
            match attempt::enter_later(&shared, &stopping, delay).await {
                None => Unit::Stopped,
                Some(permit) => Unit::Called {
                    place,
                    permit,
                    result: call.await,
                },
            }
        };
        self.units.spawn(call.in_current_span());
    }

    fn end_units(&mut self, first: Result<Unit, tokio::task::JoinError>) {
        let mut next = Some(first);
        while let Some(unit) = next {
            match unit {
                Ok(Unit::Called {
                    place,
                    permit,
                    result,
                }) => self.called(place, permit, result),
                Ok(Unit::Stopped) => {}
                // Handlers' panics are caught where they are called; what is left is a task that was
                // cancelled with its runtime.
                Err(error) => {
                    tracing::error!(handler = %self.handler.consumer.group, %error, "the task of a handler has ended by itself");
                    self.stopping.cancel();
                }
            }
            next = self.units.try_join_next();
        }
    }

    /// Notes what a call of the handler has come to.
    fn called(&mut self, place: Place, permit: Permit, result: Result<Prepared, HandlerError>) {
        self.handler.shared.gate.ended(result.is_ok());
        drop(permit);
        let mut prepared = match result {
            Ok(prepared) => prepared,
            Err(error) => return self.failed(place, error),
        };
        let Some(work) = self.works.get_mut(&place) else {
            return;
        };
        let sent = std::mem::take(&mut prepared.sent);
        if !self.handler.waiting.is_empty() {
            let sent = sent.events.into_iter().map(|published| published.event);
            work.emitted.extend(sent);
        }
        let appends = prepared.into_appends();
        if appends.is_empty() {
            self.gathered.add_done(place);
        } else {
            self.gathered.add_emitted(place, appends);
        }
    }

    /// Decides what becomes of an entry whose handler has failed.
    fn failed(&mut self, place: Place, error: HandlerError) {
        let handler = self.handler;
        let now = handler.shared.clock.now();
        let Some(work) = self.works.get_mut(&place) else {
            return;
        };
        let Some(event) = &work.event else {
            return;
        };
        let retrying = work
            .retrying
            .get_or_insert_with(|| Retrying::new(handler.route(), now));
        match retrying.fail(handler.route(), event, error, now) {
            Verdict::Again { attempt, delay } => {
                let metrics = handler.route().metrics(&handler.shared.group);
                metrics.retries.increment(1);
                self.call_later(place, attempt, delay);
            }
            Verdict::Stop(failure) => {
                tracing::error!(%failure, "the group stops");
                if let Some(reports) = &handler.shared.reports {
                    reports.group_stopped(&self.partitions[place.partition], &failure);
                }
                let outcome = Err(Arc::clone(&failure));
                handler.waiting.tell(failure.event_id, outcome);
                self.failure.get_or_insert(failure);
                self.stopping.cancel();
            }
            Verdict::GivenUp {
                failure,
                letter,
                is_left_out,
            } => {
                self.given_up.get_or_insert_with(|| Arc::clone(&failure));
                work.failure = Some(Arc::clone(&failure));
                if is_left_out {
                    tracing::error!(%failure, "the event was left out");
                    self.gathered.add_done(place);
                } else {
                    tracing::error!(%failure, reason = ?letter.reason, "the event is a dead letter now");
                    self.gathered.add_parked(place, letter);
                }
            }
        }
    }

    /// The positions of what is pending here, sorted, of each partition that has some.
    fn positions(&self) -> Vec<(usize, Vec<Position>)> {
        let mut places: Vec<_> = self.works.keys().copied().collect();
        places.sort_unstable();
        places
            .chunk_by(|a, b| a.partition == b.partition)
            .map(|places| {
                let positions = places.iter().map(|place| place.position).collect();
                (places[0].partition, positions)
            })
            .collect()
    }

    /// Asks the store for what is due, if nothing else is on its way.
    fn begin_talk(&mut self) {
        if self.talk.is_some() {
            return;
        }
        if self.keeping.is_due() && (!self.works.is_empty() || self.is_full()) {
            self.keep();
        } else if self.must_finish() {
            self.finish();
        } else if self.stopping.is_cancelled() {
            // What is left is left to others.
        } else if self.must_take_back && !self.is_taking {
            self.must_take_back = false;
            self.talk = Some(Box::pin(self.store().take_back()));
        } else if self.claiming.is_due()
            && self.works.len() < self.handler.window
            && self.handler.shared.gate.closed_until().is_none()
            && !self.is_full()
        {
            let room = self.handler.window - self.works.len();
            self.talk = Some(Box::pin(self.store().claim(self.handler.lease, room)));
        } else if self.removing.is_due() {
            let idle = self.handler.lease * GONE_AFTER;
            self.talk = Some(Box::pin(self.store().remove_consumers(idle)));
        }
    }

    fn store(&self) -> Store {
        Store {
            backend: Arc::clone(&self.handler.shared.backend),
            consumer: self.handler.consumer.clone(),
            partitions: Arc::clone(&self.partitions),
        }
    }

    /// Says that what is here is still worked on. Where there are too many dead letters, looks whether
    /// there still are.
    fn keep(&mut self) {
        let positions = self.positions();
        let limit = self.handler.dead_letter_limit;
        let full: Vec<_> = (0..self.partitions.len())
            .filter(|index| self.dead_letters[*index] >= limit)
            .map(|index| (index, Finish::default()))
            .collect();
        let store = self.store();
        self.talk = Some(Box::pin(async move {
            store.keep_alive(positions).await;
            if full.is_empty() {
                Talk::Kept
            } else {
                store.finish(full).await
            }
        }));
    }

    fn must_finish(&self) -> bool {
        if self.gathered.is_empty() {
            return false;
        }
        self.gathered.is_urgent()
            || self.stopping.is_cancelled()
            || !self.handler.waiting.is_empty()
            || self.gathered.len() >= self.handler.window / 4
            || self
                .last_finish
                .is_none_or(|last| last.elapsed() >= FINISH_EVERY)
    }

    fn finish(&mut self) {
        let mut finishes = self.gathered.take(self.partitions.len());
        let wants_places = !self.handler.waiting.is_empty();
        for (_, finish) in &mut finishes {
            finish.wants_places = wants_places;
        }
        self.last_finish = Some(Instant::now());
        let span = debug_span!("store", handler = %self.handler.consumer.group);
        let store = self.store();
        let finish = async move { store.finish(finishes).await };
        self.talk = Some(Box::pin(finish.instrument(span)));
    }

    /// Notes what the store has said.
    fn talked(&mut self, talk: Talk) {
        match talk {
            Talk::Kept => {}
            Talk::NotTakenBack(error) => {
                tracing::error!(%error, "what is pending cannot be read; trying again");
                self.must_take_back = true;
            }
            Talk::Pending(pending) => {
                for (partition, entries) in pending {
                    self.admit(partition, entries);
                }
            }
            Talk::Finished(finishes) => {
                for (partition, finish, result) in finishes {
                    match result {
                        Ok(finished) => self.finished(partition, &finish, &finished),
                        Err(FinishError::Refused { refused }) => {
                            self.refused(partition, finish, refused);
                        }
                        // Tried again, without end, before.
                        Err(FinishError::Store(error)) => {
                            tracing::error!(%error, "what has come of entries is not stored");
                            self.gathered.take_back(partition, finish, Vec::new());
                        }
                    }
                }
            }
        }
    }

    fn finished(&mut self, partition: usize, finish: &Finish, finished: &Finished) {
        self.count_dead_letters(partition, finished.dead_letters);
        self.tell(partition, finish, finished);
        let waits = !self.handler.waiting.is_empty();
        for (emits, stored) in finish.emitted.iter().zip(&finished.emitted) {
            match stored {
                Some(places) if waits => {
                    let place = Place {
                        partition,
                        position: emits.position,
                    };
                    if let Some(work) = self.works.get_mut(&place) {
                        for (append, appended) in emits.appends.iter().zip(places) {
                            work.emitted.extend(recorded(append, appended));
                        }
                    }
                }
                Some(_) => {}
                None => tracing::debug!(
                    partition = %self.partitions[partition],
                    position = %emits.position,
                    "what was emitted is left out: the entry is handled already"
                ),
            }
        }
        let emitted = finish.emitted.iter().map(|emits| emits.position);
        let parked = finish.parked.iter().map(|letter| letter.position);
        for position in finish.done.iter().copied().chain(emitted).chain(parked) {
            let place = Place {
                partition,
                position,
            };
            let Some(work) = self.works.remove(&place) else {
                continue;
            };
            self.bytes = self.bytes.saturating_sub(work.bytes);
            if waits && let Some(event) = work.event {
                let event_id = event.metadata().event_id;
                let outcome = match work.failure {
                    Some(failure) => Err(failure),
                    None => Ok(()),
                };
                self.handler.waiting.note_emitted(event_id, work.emitted);
                self.handler.waiting.tell(event_id, outcome);
            }
        }
    }

    /// Tells what was stored.
    fn tell(&self, partition: usize, finish: &Finish, finished: &Finished) {
        let metrics = &self.metrics[partition];
        metrics.commits.increment(1);
        metrics.parked.increment(finish.parked.len() as u64);
        let stored = finish.emitted.iter().zip(&finished.emitted);
        let stored = stored.filter(|(_, places)| places.is_some());
        let sent = self.handler.definition.dispatcher.publisher.metrics();
        sent.emitted(stored.flat_map(|(emits, _)| &emits.appends));
        if let Some(reports) = &self.handler.shared.reports {
            for letter in &finish.parked {
                reports.dead_letter(&self.partitions[partition], letter);
            }
        }
    }

    /// Makes failures of the runs whose events cannot be stored, and gathers the rest again.
    fn refused(&mut self, partition: usize, finish: Finish, refused: Vec<(usize, AppendError)>) {
        for (place, error) in self.gathered.take_back(partition, finish, refused) {
            self.failed(place, HandlerError::Publish(Box::new(error)));
        }
    }

    fn count_dead_letters(&mut self, partition: usize, count: usize) {
        let was_full = self.is_full();
        self.dead_letters[partition] = count;
        if self.is_full() && !was_full {
            tracing::error!(
                partition = %self.partitions[partition],
                count,
                "there are as many dead letters as there may be: nothing more is taken until some are redriven or discarded"
            );
        }
    }
}

/// What of the store a talk needs.
struct Store {
    backend: Arc<dyn Backend>,
    consumer: Consumer,
    partitions: Arc<[Partition]>,
}

impl Store {
    async fn finish(self, finishes: Vec<(usize, Finish)>) -> Talk {
        let finished = finishes.into_iter().map(|(index, finish)| {
            let store = &self;
            async move {
                let result = store.finish_one(&store.partitions[index], &finish).await;
                (index, finish, result)
            }
        });
        Talk::Finished(join_all(finished).await)
    }

    async fn finish_one(
        &self,
        partition: &Partition,
        finish: &Finish,
    ) -> Result<Finished, FinishError> {
        let mut pauses = pauses();
        loop {
            let result = self.backend.finish(&self.consumer, partition, finish).await;
            let Err(FinishError::Store(error)) = result else {
                return result;
            };
            tracing::error!(%partition, %error, "what has come of entries is not stored; trying again");
            // The same again, without end: whoever stops the service has a deadline.
            pauses.pause(&CancellationToken::new()).await;
        }
    }

    async fn keep_alive(&self, positions: Vec<(usize, Vec<Position>)>) {
        for (index, positions) in positions {
            let partition = &self.partitions[index];
            let kept = self
                .backend
                .keep_alive(&self.consumer, partition, &positions)
                .await;
            if let Err(error) = kept {
                tracing::warn!(%partition, %error, "entries are not kept alive; others may claim them");
            }
        }
    }

    async fn take_back(self) -> Talk {
        let mut pending = Vec::new();
        for (index, partition) in self.partitions.iter().enumerate() {
            let mut after = Position::START;
            loop {
                let entries = self
                    .backend
                    .take_back(&self.consumer, partition, after, PAGE)
                    .await;
                let entries = match entries {
                    Ok(entries) => entries,
                    Err(error) => return Talk::NotTakenBack(error),
                };
                let Some(last) = entries.last() else {
                    break;
                };
                after = last.position();
                pending.push((index, entries));
            }
        }
        Talk::Pending(pending)
    }

    async fn claim(self, idle: Duration, mut room: usize) -> Talk {
        let mut claimed = Vec::new();
        for (index, partition) in self.partitions.iter().enumerate() {
            if room == 0 {
                break;
            }
            let entries = self
                .backend
                .claim(&self.consumer, partition, idle, room)
                .await;
            match entries {
                Ok(entries) if entries.is_empty() => {}
                Ok(entries) => {
                    tracing::info!(%partition, count = entries.len(), "entries that nobody works on any more are handled here now");
                    room = room.saturating_sub(entries.len());
                    claimed.push((index, entries));
                }
                // There is another time.
                Err(error) => tracing::warn!(%partition, %error, "entries cannot be claimed"),
            }
        }
        Talk::Pending(claimed)
    }

    async fn remove_consumers(self, idle: Duration) -> Talk {
        for partition in &*self.partitions {
            let group = &self.consumer.group;
            let removed: Result<usize, StoreError> =
                self.backend.remove_consumers(group, partition, idle).await;
            match removed {
                Ok(0) => {}
                Ok(count) => {
                    tracing::debug!(%partition, count, "consumers that are gone are forgotten")
                }
                Err(error) => {
                    tracing::warn!(%partition, %error, "consumers that are gone cannot be forgotten")
                }
            }
        }
        Talk::Kept
    }
}

async fn next_talk(talk: &mut Option<Pin<Box<dyn Future<Output = Talk> + Send>>>) -> Talk {
    let next = poll_fn(|context| match talk {
        Some(talk) => talk.as_mut().poll(context),
        None => Poll::Pending,
    })
    .await;
    *talk = None;
    next
}
