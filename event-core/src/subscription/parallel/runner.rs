//! The runner: takes entries, has them handled, and stores what has come of them.

mod calls;
mod store;
mod talks;

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::work::{Gathered, Place, Work};
use super::{GONE_AFTER, ParallelHandler, Regularly};
use crate::dispatcher::{HandlerFailure, chain_of};
use crate::handler::HandlerError;
use crate::metrics::PartitionMetrics;
use crate::partition::Partition;
use crate::publisher::Prepared;
use crate::store::{
    DeadLetter, DeadLetterReason, FeedEntry, Finish, FinishError, Finished, ParallelReader,
    ReadError, Taken,
};
use crate::subscription::gate::Permit;
use crate::subscription::load::BYTES;
use crate::subscription::shared::{Pauses, pauses};
use crate::subscription::waiting::Outcome;
use crate::subscription::{IdleError, LOOK_EVERY};

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
