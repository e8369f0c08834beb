//! The runner: takes entries, has them handled, and stores what has come of them.

mod calls;
mod store;
mod talks;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::work::{Gathered, Place, Work};
use super::{GONE_AFTER, ParallelHandler, Regularly};
use crate::dispatcher::{HandlerFailure, chain_of};
use crate::handler::HandlerError;
use crate::metrics::PartitionMetrics;
use crate::partition::Partition;
use crate::publisher::Prepared;
use crate::recorded::Position;
use crate::store::{
    DeadLetter, DeadLetterReason, FeedEntry, Finish, FinishError, Finished, ParallelReader,
    ReadError, StoreError, Taken,
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

/// How long a store may take at least, where it is not asked to store something.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a store may take to let a consumer go: longer than what it has recorded may take to be
/// delivered.
const PARTING: Duration = Duration::from_secs(10);

/// How many entries are taken back at once.
const PAGE: usize = 500;

/// What a task has come to.
enum Unit {
    /// The handler was called.
    Called {
        place: Place,
        /// How often the group had been opened anew.
        opened: u64,
        permit: Permit,
        result: Result<Prepared, HandlerError>,
    },
    /// It was not, because the runner stops.
    Stopped,
}

/// What goes on with the store: for each partition one thing at a time, so that what it gives is never
/// older than what is known here.
enum Talk {
    Finished(Finish, Result<Finished, FinishError>),
    /// Everything that is pending here.
    TakenBack(Result<Vec<FeedEntry>, ReadError>),
    /// What nobody has worked on any more; at most so many entries.
    Claimed(Result<Vec<FeedEntry>, ReadError>, usize),
    /// The group is known again.
    Opened(Result<(), StoreError>),
    Kept,
}

/// What there is of one partition.
struct Part {
    gathered: Gathered,
    last_finish: Option<Instant>,
    /// Whether something goes on with the store.
    is_talking: bool,
    /// Whether something may be pending for this consumer that is not here. Until it is taken back,
    /// nothing new is taken.
    must_take_back: bool,
    /// Whether the group is forgotten, and is to be opened anew.
    must_open: bool,
    /// Until then neither is tried, because it has just failed.
    try_at: Instant,
    tries: Pauses,
    must_keep: bool,
    may_claim: bool,
    may_remove: bool,
    /// How often the group was opened anew. What was begun before is nobody's.
    opened: u64,
    /// What came here while something was being taken, which may have it, too.
    early: HashSet<Position>,
    metrics: PartitionMetrics,
    /// How many dead letters the group has, as far as it is known.
    dead_letters: usize,
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
    talks: FuturesUnordered<BoxFuture<'static, (usize, Talk)>>,
    /// What there is of each partition.
    parts: Vec<Part>,
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
        mut reader: Box<dyn ParallelReader>,
        stopping: CancellationToken,
    ) -> Self {
        let lease = handler.lease;
        let group = handler.consumer.group.to_string();
        let part = |partition| Part {
            gathered: Gathered::default(),
            last_finish: None,
            is_talking: false,
            must_take_back: true,
            must_open: false,
            try_at: Instant::now(),
            tries: pauses(),
            must_keep: false,
            may_claim: false,
            may_remove: false,
            opened: 0,
            early: HashSet::new(),
            metrics: PartitionMetrics::new(&group, partition),
            dead_letters: 0,
        };
        let parts = partitions.iter().map(part).collect();
        reader.leave_out(&partitions);
        Self {
            handler,
            parts,
            partitions,
            reader,
            is_taking: false,
            works: HashMap::new(),
            bytes: 0,
            ready: VecDeque::new(),
            units: JoinSet::new(),
            talks: FuturesUnordered::new(),
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
                    match taken {
                        Ok(taken) => {
                            self.pauses = pauses();
                            self.admit_all(taken);
                        }
                        Err(error) => {
                            tracing::error!(%error, "entries cannot be taken; trying again");
                            self.miss_all();
                            self.take_at = Instant::now() + self.pauses.next();
                        }
                    }
                    self.has_taken();
                }
                Some((part, talk)) = self.talks.next() => self.talked(part, talk),
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
                self.has_taken();
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
            if self.stopping.is_cancelled() || (self.works.is_empty() && self.talks.is_empty()) {
                return None;
            }
            let due = self.due();
            tokio::select! {
                biased;
                Some((part, talk)) = self.talks.next() => self.talked(part, talk),
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
            let is_stored = self.parts.iter().all(|part| part.gathered.is_empty());
            if self.talks.is_empty() && self.units.is_empty() && is_stored {
                break;
            }
            let due = self.due();
            tokio::select! {
                biased;
                Some((part, talk)) = self.talks.next() => self.talked(part, talk),
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
        let patience = self.patience();
        let letting_go = self.positions().into_iter().map(async |(index, positions)| {
            let partition = &self.partitions[index];
            let letting_go = backend.let_go(consumer, partition, &positions);
            match timeout(patience, letting_go).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%partition, %error, "entries are not given up; others claim them when the lease is over"),
                Err(_) => tracing::warn!(%partition, "entries are not given up in time; others claim them when the lease is over"),
            }
        });
        join_all(letting_go).await;
        let leaving = self.partitions.iter().map(async |partition| {
            match timeout(PARTING, backend.leave_parallel(consumer, partition)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%partition, %error, "the group is not told that this instance leaves; it notices by itself"),
                Err(_) => tracing::warn!(%partition, "the group is not told in time that this instance leaves; it notices by itself"),
            }
        });
        join_all(leaving).await;
    }

    /// How long the store may take, where it is not asked to store something.
    fn patience(&self) -> Duration {
        (self.handler.lease / 3).max(PATIENCE)
    }

    /// Notes what is still being taken.
    fn has_taken(&mut self) {
        self.is_taking = false;
        for (part, partition) in self.parts.iter_mut().zip(&*self.partitions) {
            if self.reader.is_taking(partition) {
                self.is_taking = true;
            } else {
                part.early.clear();
            }
        }
    }

    /// Has everything taken back that may be pending here and is not being taken.
    fn miss_all(&mut self) {
        for (part, partition) in self.parts.iter_mut().zip(&*self.partitions) {
            part.must_take_back |= !self.reader.is_taking(partition);
        }
        self.leave_out();
    }

    /// Takes nothing new of partitions of which something is to be taken back.
    fn leave_out(&mut self) {
        let left_out: Vec<_> = self
            .parts
            .iter()
            .zip(&*self.partitions)
            .filter(|(part, _)| part.must_take_back)
            .map(|(_, partition)| partition.clone())
            .collect();
        self.reader.leave_out(&left_out);
    }

    fn gathered(&mut self, place: Place) -> &mut Gathered {
        &mut self.parts[place.partition].gathered
    }

    /// How many entries of each partition may be taken now.
    fn room(&self) -> usize {
        let is_closed = self.handler.shared.gate.closed_until().is_some();
        if is_closed
            || self.parts.iter().all(|part| part.must_take_back)
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
        self.parts.iter().any(|part| part.dead_letters >= limit)
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
        for part in self.parts.iter().filter(|part| !part.is_talking) {
            if let Some(last) = part.last_finish
                && !part.gathered.is_empty()
            {
                due = due.min(last + FINISH_EVERY);
            }
            if part.must_take_back && part.try_at > Instant::now() && !self.stopping.is_cancelled()
            {
                due = due.min(part.try_at);
            }
        }
        due
    }

    fn admit_all(&mut self, taken: Taken) {
        let index_of = |partition: &Partition| {
            let mut partitions = self.partitions.iter();
            partitions.position(|own| own == partition)
        };
        let torn: Vec<_> = taken.torn.iter().filter_map(index_of).collect();
        let entries: Vec<_> = taken
            .entries
            .into_iter()
            .filter_map(|(partition, entries)| Some((index_of(&partition)?, entries)))
            .collect();
        for (index, mut entries) in entries {
            let early = &self.parts[index].early;
            if !early.is_empty() {
                entries.retain(|entry| !early.contains(&entry.position()));
            }
            self.admit(index, entries);
        }
        if !torn.is_empty() {
            for index in torn {
                self.parts[index].must_take_back = true;
            }
            self.leave_out();
        }
    }

    /// Lets entries in that are pending here, whether or not something is being taken.
    fn admit_early(&mut self, partition: usize, entries: Vec<FeedEntry>) {
        if self.reader.is_taking(&self.partitions[partition]) {
            let positions = entries.iter().map(FeedEntry::position);
            self.parts[partition].early.extend(positions);
        }
        self.admit(partition, entries);
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
            self.parts[partition].metrics.consumed.increment(1);
            self.bytes += entry.bytes();
            match entry {
                FeedEntry::Event(event) => {
                    let is_taken = self.handler.takes(event.event_type());
                    self.works.insert(place, Work::new(Some(event)));
                    if is_taken {
                        self.ready.push_back(place);
                    } else {
                        self.gathered(place).add_done(place.position);
                    }
                }
                FeedEntry::Undecodable { position, error } => {
                    self.works.insert(place, Work::new(None));
                    let partition = &self.partitions[partition];
                    let parks = &self.handler.definition.parks_undecodable;
                    if !parks.contains(partition.category()) {
                        self.gathered(place).add_done(place.position);
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
                    self.gathered(place).add_parked(letter);
                }
            }
        }
    }
}
