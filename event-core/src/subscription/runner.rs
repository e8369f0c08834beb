//! The runner: owns partitions and reads them, for as long as the service runs or until there is
//! nothing left to do.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use super::keeper::{Kept, Known, Standing, keep, leave};
use super::load::Load;
use super::owned::{End, Owned};
use super::shared::{Shared, pauses};
use super::waiting::Outcome;
use super::{IdleError, LOOK_EVERY, Stopped, Subscription, is_trimmed};
use crate::dispatcher::HandlerFailure;
use crate::event::Category;
use crate::handler::Start;
use crate::metrics::PartitionMetrics;
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{
    Backend, FeedEntry, GroupBatch, GroupReader, Lease, Progress, StoreError, Wanted,
};

/// How many entries of a partition are read at once.
const BATCH: usize = 500;

/// As many batches as there can be entries on their way to a partition's task, and so never full.
const BATCHES: usize = 4_096;

/// A partition that was taken is opened for at least so long, however short leases are.
const OPENING: Duration = Duration::from_secs(1);

type Keeping = Pin<Box<dyn Future<Output = Result<Kept, StoreError>> + Send>>;

/// An owned partition, as its reader sees it.
struct Handle {
    lease: Lease,
    batches: mpsc::Sender<Vec<FeedEntry>>,
    load: Arc<Load>,
    /// Everything up to here is read.
    after: Position,
    stopping: CancellationToken,
    is_going: bool,
    /// Whether its task gives the lease back, so that it cannot be lost any more.
    is_returning: Arc<AtomicBool>,
    /// Told when dead letters may have changed.
    changed: Arc<Notify>,
    task: AbortHandle,
}

impl Handle {
    fn is_returning(&self) -> bool {
        self.is_returning.load(Ordering::Acquire)
    }
}

/// Reads the partitions that this instance owns.
pub(super) struct Runner<'a> {
    subscription: &'a Subscription,
    stopping: CancellationToken,
    breaking: CancellationToken,
    owned: BTreeMap<Partition, Handle>,
    tasks: JoinSet<(Partition, u64, End)>,
    /// The instances of the group, as the keeper has found them last.
    known: Vec<Known>,
    /// How many entries were read.
    read: usize,
}

impl<'a> Runner<'a> {
    pub(super) fn new(
        subscription: &'a Subscription,
        stopping: CancellationToken,
        breaking: CancellationToken,
    ) -> Self {
        Self {
            subscription,
            stopping,
            breaking,
            owned: BTreeMap::new(),
            tasks: JoinSet::new(),
            known: Vec::new(),
            read: 0,
        }
    }

    /// Runs until it is stopped.
    pub(super) async fn run(mut self) -> Result<(), Stopped> {
        let Some((mut reader, partitions)) = self.begin().await? else {
            return Ok(());
        };
        let mut keeping = Some(self.keep(&partitions));
        let mut keep_at = Instant::now();
        // Whether something has changed since the keeper began to look.
        let mut has_changed = false;
        let mut pauses = pauses();
        let failure = loop {
            let wanted = self.wanted();
            let shared = &self.subscription.shared;
            let closed_until = shared.gate.closed_until();
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => break None,
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Some(failure) = self.ended(ended) {
                        break Some(failure);
                    }
                    has_changed = true;
                    keep_at = Instant::now();
                }
                kept = poll_fn(|context| match &mut keeping {
                    Some(keeping) => keeping.as_mut().poll(context),
                    None => Poll::Pending,
                }) => {
                    keeping = None;
                    keep_at = self.kept(kept);
                    if has_changed {
                        keep_at = Instant::now();
                    }
                }
                () = sleep_until(keep_at), if keeping.is_none() => {
                    has_changed = false;
                    keeping = Some(self.keep(&partitions));
                }
                () = shared.room.notified() => {}
                batch = reader.next(&wanted) => match batch {
                    Ok(batch) => {
                        if batch.changed {
                            has_changed = true;
                            keep_at = Instant::now();
                        }
                        self.deliver(batch);
                    }
                    Err(error) => {
                        tracing::error!(%error, "the feeds cannot be read; trying again");
                        pauses.pause(&self.stopping).await;
                    }
                },
                () = sleep_until(closed_until.unwrap_or_else(Instant::now)), if closed_until.is_some() => {}
            }
        };
        self.stop(keeping).await;
        match failure {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    /// Makes the group known, and a reader; `None` where it is stopped meanwhile.
    async fn begin(&self) -> Result<Option<(Box<dyn GroupReader>, Vec<Partition>)>, Stopped> {
        let shared = &self.subscription.shared;
        let mut pauses = pauses();
        loop {
            let begin = async {
                let partitions = self.subscription.begin().await?.to_vec();
                let reader = shared.backend.group_reader(&shared.group).await?;
                Ok::<_, crate::store::ReadError>((reader, partitions))
            };
            tokio::select! {
                begun = begin => match begun {
                    Ok(begun) => return Ok(Some(begun)),
                    Err(error) if is_trimmed(&error) => return Err(Stopped::Trimmed(error)),
                    Err(error) => tracing::error!(%error, "the feeds cannot be read; trying again"),
                },
                () = self.stopping.cancelled() => return Ok(None),
            }
            pauses.pause(&self.stopping).await;
        }
    }

    fn keep(&self, partitions: &[Partition]) -> Keeping {
        let leases = |is_going| {
            self.owned
                .values()
                .filter(|handle| handle.is_going == is_going && !handle.is_returning())
                .map(|handle| handle.lease.clone())
                .collect()
        };
        let returning = self.owned.iter();
        let returning = returning.filter(|(_, handle)| handle.is_returning());
        let standing = Standing {
            owned: leases(false),
            going: leases(true),
            returning: returning.map(|(partition, _)| partition.clone()).collect(),
            known: self.known.clone(),
        };
        let settings = &self.subscription.settings;
        let shared = Arc::clone(&self.subscription.shared);
        let keeping = keep(
            Arc::clone(&shared),
            Arc::clone(&settings.instance),
            settings.lease,
            partitions.to_vec(),
            standing,
        );
        let starts: BTreeMap<_, _> = self
            .subscription
            .categories
            .iter()
            .filter_map(|(category, handlers)| Some((category.clone(), handlers.start?)))
            .collect();
        let longest = (settings.lease / 3).max(OPENING);
        Box::pin(async move {
            let mut kept = keeping.await?;
            open_forgotten(&shared, &starts, longest, &mut kept).await;
            Ok(kept)
        })
    }

    /// Does as the keeper says; gives when it is to look again.
    fn kept(&mut self, kept: Result<Kept, StoreError>) -> Instant {
        let now = Instant::now();
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(%error, "the leases cannot be kept; trying again");
                return now + LOOK_EVERY;
            }
        };
        self.known = kept.known;
        for lease in &kept.lost {
            if let Some(handle) = self.owned.get(&lease.partition)
                && handle.lease.epoch == lease.epoch
                && !handle.is_returning()
            {
                tracing::warn!(partition = %lease.partition, epoch = lease.epoch, "the lease is lost; what was not committed is handled elsewhere");
                // What its handlers still do could not be committed any more.
                handle.task.abort();
                self.lost(&lease.partition);
                self.forget(&lease.partition.clone());
            }
        }
        for (lease, progress) in kept.acquired {
            self.adopt(lease, progress);
        }
        let mut excess = kept.excess;
        for handle in self.owned.values_mut().rev() {
            if excess == 0 {
                break;
            }
            if !handle.is_going && !handle.is_returning() {
                handle.is_going = true;
                handle.stopping.cancel();
                excess -= 1;
            }
        }
        now + kept.next
    }

    /// Begins to handle a partition that is owned now.
    fn adopt(&mut self, lease: Lease, progress: Progress) {
        let subscription = self.subscription;
        let partition = lease.partition.clone();
        let Some(handlers) = subscription.categories.get(partition.category()) else {
            return;
        };
        // What another epoch of this instance still does, it cannot commit.
        self.forget(&partition);
        let load = Arc::new(Load::new(
            progress.clone(),
            subscription.settings.dead_letter_limit,
            PartitionMetrics::new(&lease.group, &partition),
            subscription.parallel_lags(&partition),
        ));
        load.metrics.acquired.increment(1);
        // A stop reaches every partition at once.
        let stopping = self.stopping.child_token();
        let changed = Arc::new(Notify::new());
        let (batches, receiver) = mpsc::channel(BATCHES);
        let owned = Owned::new(
            Arc::clone(&subscription.shared),
            Arc::clone(&handlers.dispatcher),
            lease.clone(),
            &progress,
            Arc::clone(&load),
            stopping.clone(),
            self.breaking.clone(),
        );
        let after = progress.reached;
        let shared = Arc::clone(&subscription.shared);
        let (own_changed, own_lease) = (Arc::clone(&changed), lease.clone());
        let is_returning = Arc::new(AtomicBool::new(false));
        let own_returning = Arc::clone(&is_returning);
        let task = self.tasks.spawn(
            async move {
                let end = owned.run(progress, receiver, own_changed).await;
                if !matches!(end, End::Lost) {
                    own_returning.store(true, Ordering::Release);
                    give_back(&*shared.backend, &own_lease).await;
                }
                (own_lease.partition, own_lease.epoch, end)
            }
            .in_current_span(),
        );
        subscription
            .owned()
            .insert(partition.clone(), Arc::clone(&load));
        self.owned.insert(
            partition,
            Handle {
                lease,
                batches,
                load,
                after,
                stopping,
                is_going: false,
                is_returning,
                changed,
                task,
            },
        );
    }

    /// Tells that a lease is lost.
    fn lost(&self, partition: &Partition) {
        if let Some(handle) = self.owned.get(partition) {
            handle.load.metrics.lost.increment(1);
        }
        if let Some(reports) = &self.subscription.shared.reports {
            reports.partition_lost(partition);
        }
    }

    /// Gives a partition up whose lease is lost. Its task ends by itself, and commits nothing.
    fn forget(&mut self, partition: &Partition) {
        if let Some(handle) = self.owned.remove(partition) {
            handle.stopping.cancel();
            let mut owned = self.subscription.owned();
            owned.remove(partition);
            handle.load.fall_silent();
        }
    }

    /// Notes that the task of a partition has ended; gives the failure that stops the group.
    fn ended(
        &mut self,
        ended: Result<(Id, (Partition, u64, End)), JoinError>,
    ) -> Option<Arc<HandlerFailure>> {
        let is_lost = matches!(&ended, Ok((_, (_, _, End::Lost))));
        let is_released = ended.is_ok() && !is_lost;
        let (id, failure) = match ended {
            Ok((id, (_, _, End::Failed(failure)))) => (id, Some(failure)),
            Ok((id, _)) => (id, None),
            Err(error) if error.is_cancelled() => (error.id(), None),
            Err(error) => {
                tracing::error!(%error, "the task of a partition has ended by itself; the partition is taken up anew");
                (error.id(), None)
            }
        };
        let partition = self
            .owned
            .iter()
            .find(|(_, handle)| handle.task.id() == id)
            .map(|(partition, _)| partition.clone());
        if let Some(partition) = partition {
            if is_lost {
                self.lost(&partition);
            } else if is_released && let Some(handle) = self.owned.get(&partition) {
                handle.load.metrics.released.increment(1);
            }
            self.forget(&partition);
        }
        failure
    }

    /// What may be read now.
    fn wanted(&self) -> Vec<Wanted> {
        if self.subscription.shared.gate.closed_until().is_some() {
            return Vec::new();
        }
        self.owned
            .iter()
            .filter(|(partition, handle)| {
                self.subscription.reads(partition.category())
                    && !handle.is_going
                    && handle.load.room() > 0
            })
            .map(|(partition, handle)| Wanted {
                partition: partition.clone(),
                after: handle.after,
                limit: handle.load.room().min(BATCH),
            })
            .collect()
    }

    /// Hands entries to the tasks of their partitions.
    fn deliver(&mut self, batch: GroupBatch) {
        if batch.changed {
            for handle in self.owned.values() {
                handle.changed.notify_one();
            }
        }
        for (partition, entries) in batch.entries {
            self.hand_over(&partition, entries);
        }
    }

    fn hand_over(&mut self, partition: &Partition, entries: Vec<FeedEntry>) {
        let (Some(handle), Some(last)) = (self.owned.get_mut(partition), entries.last()) else {
            return;
        };
        let count = entries.len();
        let after = last.position();
        handle
            .load
            .add(count, entries.iter().map(FeedEntry::bytes).sum());
        // Never full, since there are never so many entries; closed where its task has ended, which
        // is noticed by itself.
        if handle.batches.try_send(entries).is_ok() {
            handle.after = after;
            self.read += count;
        } else {
            handle.load.remove(count, 0);
        }
    }

    /// Stops all partitions, and waits until what runs is finished and committed. What the keeper
    /// takes meanwhile is given back.
    async fn stop(&mut self, keeping: Option<Keeping>) {
        for handle in self.owned.values() {
            handle.stopping.cancel();
        }
        // If it were broken off, what it has asked for might be owned all the same, by nobody,
        // until the lease ends.
        if let Some(keeping) = keeping
            && let Ok(kept) = keeping.await
        {
            let backend = &*self.subscription.shared.backend;
            let given = kept.acquired.iter();
            join_all(given.map(|(lease, _)| give_back(backend, lease))).await;
        }
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.ended(ended);
        }
        let shared = &self.subscription.shared;
        let settings = &self.subscription.settings;
        if let Err(error) = leave(shared, &settings.instance, settings.lease).await {
            tracing::warn!(%error, "the group is not told that this instance leaves; it notices by itself");
        }
    }

    /// Runs until there is nothing left to do, or `outcome` is told.
    pub(super) async fn run_until_idle(
        mut self,
        mut outcome: Option<&mut oneshot::Receiver<Outcome>>,
    ) -> Result<(usize, Option<Outcome>), IdleError> {
        let partitions = self.subscription.begin().await?.to_vec();
        let mut keep_at = Instant::now();
        let result = loop {
            if Instant::now() >= keep_at {
                let kept = self.keep(&partitions).await;
                if let Err(error) = kept {
                    break Err(error.into());
                }
                keep_at = self.kept(kept);
            }
            let read = match self.read_all().await {
                Ok(read) => read,
                Err(error) => break Err(error),
            };
            match self.rest(outcome.as_deref_mut(), keep_at).await {
                Rest::Told(told) => break Ok(Some(told)),
                Rest::Failed(failure) => break Err(IdleError::Failed(failure)),
                Rest::MoreToRead => {}
                Rest::Idle if read > 0 => {}
                Rest::Idle => match self.is_all_handled(&partitions).await {
                    Ok(true) => break Ok(None),
                    Ok(false) => {
                        keep_at = keep_at.min(Instant::now() + LOOK_EVERY);
                        sleep_until(keep_at).await;
                    }
                    Err(error) => break Err(error),
                },
            }
        };
        if result.is_err() {
            // The store may be gone, and with it whoever could take what was done.
            self.tasks.abort_all();
        }
        self.stop(None).await;
        result.map(|told| (self.read, told))
    }

    /// Reads what there is in all owned partitions, as far as there is room.
    async fn read_all(&mut self) -> Result<usize, IdleError> {
        let before = self.read;
        for wish in self.wanted() {
            let span = debug_span!("feed", partition = %wish.partition, after = %wish.after);
            let entries = self
                .subscription
                .shared
                .backend
                .read_feed(&wish.partition, wish.after, wish.limit)
                .instrument(span)
                .await?;
            self.hand_over(&wish.partition, entries);
        }
        Ok(self.read - before)
    }

    /// Waits until everything that was read is handled, or there is room to read more.
    async fn rest(
        &mut self,
        outcome: Option<&mut oneshot::Receiver<Outcome>>,
        keep_at: Instant,
    ) -> Rest {
        let mut outcome = outcome;
        loop {
            let notified = self.subscription.shared.room.notified();
            if self.owned.values().all(|handle| handle.load.is_empty()) {
                // It may have been told just now.
                if let Some(outcome) = &mut outcome
                    && let Ok(told) = outcome.try_recv()
                {
                    return Rest::Told(told);
                }
                return Rest::Idle;
            }
            tokio::select! {
                biased;
                told = poll_fn(|context| match &mut outcome {
                    Some(outcome) => Pin::new(&mut **outcome).poll(context),
                    None => Poll::Pending,
                }) => {
                    if let Ok(told) = told {
                        return Rest::Told(told);
                    }
                    outcome = None;
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Some(failure) = self.ended(ended) {
                        return Rest::Failed(failure);
                    }
                }
                () = notified => {
                    if self.owned.values().any(|handle| handle.load.room() > 0) {
                        return Rest::MoreToRead;
                    }
                }
                () = sleep_until(keep_at) => return Rest::MoreToRead,
            }
        }
    }

    /// Whether the partitions that others own are handled, too, as far as they go now.
    async fn is_all_handled(&self, partitions: &[Partition]) -> Result<bool, IdleError> {
        let subscription = self.subscription;
        for partition in partitions {
            if self.owned.contains_key(partition) || !subscription.reads(partition.category()) {
                continue;
            }
            let head = subscription.shared.backend.head(partition).await?;
            if subscription.progress(partition).await?.checkpoint < head {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Opens what was taken at its very beginning: the group may have been forgotten since it was opened, as
/// while this instance was frozen, and then its start says where it begins. Where it was not, nothing is
/// changed by that.
async fn open_forgotten(
    shared: &Shared,
    starts: &BTreeMap<Category, Start>,
    longest: Duration,
    kept: &mut Kept,
) {
    let (backend, group) = (&*shared.backend, &*shared.group);
    let opening = std::mem::take(&mut kept.acquired).into_iter().map(
        async |(lease, progress): (Lease, Progress)| {
            let start = starts.get(lease.partition.category());
            let Some(start) = start.filter(|_| progress.reached == Position::START) else {
                return Some((lease, progress));
            };
            match timeout(longest, backend.open(group, &lease.partition, *start)).await {
                Ok(Ok(progress)) => return Some((lease, progress)),
                Ok(Err(error)) => {
                    tracing::warn!(partition = %lease.partition, %error, "the partition is taken, and cannot be opened; trying again");
                }
                Err(_) => {
                    tracing::warn!(partition = %lease.partition, "the partition is taken, and is not opened in the time that a lease leaves; trying again");
                }
            }
            give_back(backend, &lease).await;
            None
        },
    );
    let opened = join_all(opening).await;
    if opened.iter().any(Option::is_none) {
        kept.next = kept.next.min(LOOK_EVERY);
    }
    kept.acquired = opened.into_iter().flatten().collect();
}

async fn give_back(backend: &dyn Backend, lease: &Lease) {
    if let Err(error) = backend.release(lease).await {
        tracing::warn!(partition = %lease.partition, %error, "the lease is not given back; it ends by itself");
    }
}

/// Why the runner rests no longer.
enum Rest {
    Idle,
    MoreToRead,
    Told(Outcome),
    Failed(Arc<HandlerFailure>),
}
