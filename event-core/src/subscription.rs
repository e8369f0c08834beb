//! The subscription: a group's durable reader of its feeds.
//!
//! | module | what it is |
//! |---|---|
//! | `runner` | owns partitions and reads them for as long as the service runs |
//! | `keeper` | says that this instance is there, keeps its leases, takes and gives partitions |
//! | `share` | how many partitions that are |
//! | `parallel` | handlers whose events need no order |
//! | `owned` | handles one partition: its admission, calls, dead letters and commits |
//! | `attempt`, `retrying` | one call of a handler; what its failure leads to |
//! | `replay` | what handlers are given once more, of which the group knows nothing |
//! | `work`, `window` | an entry that is handled; all of them, in order |
//! | `parked` | the dead letters of a partition |
//! | `gate` | how much may run at once, how fast, and whether at all |
//! | `health` | what becomes of each partition now |
//! | `load`, `shared`, `waiting` | what these share |

mod attempt;
mod gate;
mod health;
mod keeper;
mod load;
mod owned;
mod parallel;
mod parked;
mod replay;
mod retrying;
mod runner;
mod share;
mod shared;
mod waiting;
mod window;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug_span};
use uuid::Uuid;

pub use gate::{CircuitBreaker, CircuitState, RateLimit};
pub use health::{Owner, ParallelHealth, PartitionHealth, Pause};
pub(crate) use parallel::ParallelDefinition;
pub(crate) use waiting::Outcome;

use crate::clock::Clock;
use crate::dispatcher::{Dispatcher, HandlerFailure};
use crate::event::Category;
use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::{Position, RecordedEvent};
use crate::store::{Backend, Progress, ReadError, Reset, ResetError, StoreError, reset_group};
use crate::system::Reports;
use gate::Gate;
use load::Load;
use parallel::ParallelHandler;
use runner::Runner;
use shared::{Opened, Shared};

/// How often somebody who waits for an event looks whether another instance has handled it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How a group works.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) instance: Arc<str>,
    pub(crate) lease: Duration,
    pub(crate) concurrency: usize,
    pub(crate) dead_letter_limit: usize,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) circuit_breaker: Option<CircuitBreaker>,
    /// Where errors are published.
    pub(crate) reports: Option<Arc<Reports>>,
}

/// The handlers of one category.
pub(crate) struct CategoryHandlers {
    /// Where those begin that take its events in order; `None` where there are none. Then it is not
    /// read, and owned all the same, since dead letters are redriven by the owner.
    pub(crate) start: Option<Start>,
    pub(crate) dispatcher: Arc<Dispatcher>,
}

/// Reads the feeds of a group from its checkpoints on, shares them with the other instances of the
/// group, and hands their events to the dispatcher.
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    settings: Settings,
    categories: BTreeMap<Category, CategoryHandlers>,
    parallel: Vec<Arc<ParallelHandler>>,
    /// All partitions of these, known since the group was opened.
    partitions: Opened,
    /// Who holds it handles events; everybody else waits.
    engine: tokio::sync::Mutex<()>,
    /// The partitions that this instance owns now.
    owned: Mutex<BTreeMap<Partition, Arc<Load>>>,
}

impl Subscription {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        group: Arc<str>,
        clock: Clock,
        settings: Settings,
        categories: BTreeMap<Category, CategoryHandlers>,
        parallel: Vec<ParallelDefinition>,
    ) -> Self {
        let gate = Gate::new(
            settings.concurrency,
            settings.rate_limit,
            settings.circuit_breaker,
        );
        let shared = Arc::new(Shared::new(
            backend,
            group,
            clock,
            gate,
            settings.reports.clone(),
        ));
        let handler = |definition| ParallelHandler::new(Arc::clone(&shared), definition, &settings);
        Self {
            parallel: parallel.into_iter().map(handler).map(Arc::new).collect(),
            shared,
            settings,
            categories,
            partitions: Opened::default(),
            engine: tokio::sync::Mutex::new(()),
            owned: Mutex::default(),
        }
    }

    pub(crate) fn takes(&self, event_type: &str) -> bool {
        self.dispatcher_of(event_type)
            .is_some_and(|dispatcher| dispatcher.takes(event_type))
    }

    fn dispatcher_of(&self, event_type: &str) -> Option<&Arc<Dispatcher>> {
        let category = Category::of(event_type).ok()?;
        Some(&self.categories.get(&category)?.dispatcher)
    }

    /// Tells when the handlers of this event are through. Must be asked for before the event is
    /// published.
    pub(crate) fn outcome_of(&self, event_type: &str, event_id: Uuid) -> Expected {
        let is_ordered = self
            .dispatcher_of(event_type)
            .is_some_and(|dispatcher| !dispatcher.routes_of(event_type).is_empty());
        Expected {
            ordered: is_ordered.then(|| self.shared.waiting.outcome_of(event_id)),
            parallel: (0..)
                .zip(&self.parallel)
                .filter(|(_, handler)| handler.takes(event_type))
                .map(|(number, handler)| (number, handler.outcome_of(event_id)))
                .collect(),
        }
    }

    /// Nobody waits for this event any more.
    pub(crate) fn forget(&self, event_id: Uuid) {
        self.shared.waiting.forget(event_id);
        for handler in &self.parallel {
            handler.forget(event_id);
        }
    }

    /// The partitions that this instance owns now.
    fn owned(&self) -> MutexGuard<'_, BTreeMap<Partition, Arc<Load>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the group known, and with that fixes where a new one begins.
    pub(crate) async fn begin(&self) -> Result<Arc<[Partition]>, ReadError> {
        self.partitions
            .or(async {
                let mut partitions = Vec::new();
                for (category, handlers) in &self.categories {
                    for number in 0..self.shared.backend.partitions(category).await? {
                        let partition = Partition::new(category.clone(), number);
                        if let Some(start) = handlers.start {
                            self.shared
                                .backend
                                .open(&self.shared.group, &partition, start)
                                .await?;
                        }
                        partitions.push(partition);
                    }
                }
                for handler in &self.parallel {
                    handler.begin().await?;
                }
                Ok::<_, ReadError>(partitions)
            })
            .await
    }

    /// Resets the group in all its categories.
    pub(crate) async fn reset(&self, reset: Reset) -> Result<(), ResetError> {
        let categories: Vec<_> = self.categories.keys().cloned().collect();
        let backend = &*self.shared.backend;
        let reset = reset_group(backend, &self.shared.group, &categories, reset).await;
        self.open_anew();
        reset
    }

    /// Has the group opened again by whatever comes next: it may have been reset.
    fn open_anew(&self) {
        self.partitions.forget();
        for handler in &self.parallel {
            handler.open_anew();
        }
    }

    /// Whether the group has handlers that take the events of a category in order.
    pub(crate) fn reads(&self, category: &Category) -> bool {
        self.categories
            .get(category)
            .is_some_and(|handlers| handlers.start.is_some())
    }

    fn span(&self) -> Span {
        debug_span!("subscription", group = &*self.shared.group)
    }

    /// Handles events until it is stopped, and then finishes what runs unless `breaking` breaks it off.
    /// Reconnects without end.
    ///
    /// # Errors
    /// What stops the group.
    pub(crate) async fn run(
        &self,
        stopping: CancellationToken,
        breaking: CancellationToken,
    ) -> Result<(), Stopped> {
        if self.categories.is_empty() {
            stopping.cancelled().await;
            return Ok(());
        }
        self.open_anew();
        // A failure that stops one stops all.
        let stopping = stopping.child_token();
        let mut tasks = JoinSet::new();
        for handler in &self.parallel {
            let run = Arc::clone(handler).run(stopping.clone());
            tasks.spawn(run.in_current_span());
        }
        let parallel = async {
            let mut first = Ok(());
            while let Some(ended) = tokio::select! {
                ended = tasks.join_next() => ended,
                () = breaking.cancelled() => {
                    tasks.shutdown().await;
                    None
                }
            } {
                let ended = match ended {
                    Ok(ended) => ended,
                    // Whoever runs this notices, as where the ordered part panics.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => Ok(()),
                };
                stopping.cancel();
                first = first.and(ended);
            }
            first
        };
        let ordered = async {
            let _engine = self.engine.lock().await;
            let runner = Runner::new(self, stopping.clone(), breaking.clone());
            let ended = runner.run().instrument(self.span()).await;
            stopping.cancel();
            ended
        };
        let (ordered, parallel) = tokio::join!(ordered, parallel);
        ordered.and(parallel)
    }

    /// Handles what there is now, and gives the number of entries.
    pub(crate) async fn run_until_idle(&self) -> Result<usize, IdleError> {
        if self.categories.is_empty() {
            return Ok(0);
        }
        let ordered = async {
            let _engine = self.engine.try_lock().map_err(|_| IdleError::Running)?;
            self.run_idle(None).await.map(|(handled, _)| handled)
        };
        let parallel = join_all(self.parallel.iter().map(|handler| handler.run_until_idle()));
        let (ordered, parallel) = tokio::join!(ordered, parallel);
        let mut handled = ordered?;
        for each in parallel {
            handled += each?;
        }
        Ok(handled)
    }

    async fn run_idle(
        &self,
        outcome: Option<&mut oneshot::Receiver<Outcome>>,
    ) -> Result<(usize, Option<Outcome>), IdleError> {
        self.begin().await?;
        self.shared.take_failure();
        let (handled, told) = Runner::new(self, CancellationToken::new(), CancellationToken::new())
            .run_until_idle(outcome)
            .instrument(self.span())
            .await?;
        match self.shared.take_failure() {
            Some(failure) if told.is_none() => Err(IdleError::Failed(failure)),
            _ => Ok((handled, told)),
        }
    }

    /// Waits for the outcome of an event, and handles events itself while nobody else does. Gives what
    /// was emitted here.
    pub(crate) async fn drive(
        &self,
        event: &RecordedEvent,
        expected: Expected,
    ) -> Result<Vec<RecordedEvent>, IdleError> {
        let Ok(category) = Category::of(event.event_type()) else {
            return Ok(Vec::new());
        };
        let count = self.shared.backend.partitions(&category).await?;
        let partition = Partition::of_recorded(category, event, count);
        let ordered = async {
            match expected.ordered {
                Some(outcome) => {
                    self.drive_ordered(&partition, event.position(), outcome)
                        .await
                }
                None => Ok(Vec::new()),
            }
        };
        let parallel = join_all(expected.parallel.into_iter().map(|(number, outcome)| {
            self.parallel[number].drive(&partition, event.position(), outcome)
        }));
        let (ordered, parallel) = tokio::join!(ordered, parallel);
        let mut emitted = Vec::new();
        for outcome in std::iter::once(ordered).chain(parallel) {
            match outcome {
                Ok(events) => emitted.extend(events),
                // Another instance has emitted it.
                Err(IdleError::Passed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(emitted)
    }

    async fn drive_ordered(
        &self,
        partition: &Partition,
        position: Position,
        mut outcome: oneshot::Receiver<Outcome>,
    ) -> Result<Vec<RecordedEvent>, IdleError> {
        loop {
            tokio::select! {
                biased;
                outcome = &mut outcome => return settle(outcome),
                _engine = self.engine.lock() => {
                    let (_, told) = self.run_idle(Some(&mut outcome)).await?;
                    match told {
                        Some(outcome) => return outcome.map_err(IdleError::Failed),
                        None => return Err(IdleError::Passed),
                    }
                }
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let is_ours = || self.owned().contains_key(partition);
                    // Asked once more afterwards: it may have become ours, and handled, meanwhile.
                    if !is_ours()
                        && self.is_handled(partition, position).await?
                        && !is_ours()
                    {
                        return match outcome.try_recv() {
                            Ok(outcome) => outcome.map_err(IdleError::Failed),
                            Err(_) => Err(IdleError::Passed),
                        };
                    }
                }
            }
        }
    }

    /// Whether the group is through with everything up to a position, whichever instance it was.
    async fn is_handled(
        &self,
        partition: &Partition,
        position: Position,
    ) -> Result<bool, StoreError> {
        let progress = self.progress(partition).await?;
        let is_open = |open: &crate::store::Open| open.position == position;
        Ok(progress.reached >= position && !progress.open.iter().any(is_open))
    }

    pub(crate) async fn progress(&self, partition: &Partition) -> Result<Progress, StoreError> {
        let handlers = self.categories.get(partition.category());
        let Some(start) = handlers.and_then(|handlers| handlers.start) else {
            return Ok(Progress::default());
        };
        self.shared
            .backend
            .open(&self.shared.group, partition, start)
            .await
    }
}

/// Why a group does not go on.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// A failure that stops it.
    Failed(Arc<HandlerFailure>),
    /// It is new, and would begin where the feed was trimmed away.
    Trimmed(ReadError),
}

impl From<Arc<HandlerFailure>> for Stopped {
    fn from(failure: Arc<HandlerFailure>) -> Self {
        Stopped::Failed(failure)
    }
}

/// Whether asking again would not help, since what is asked for is gone.
fn is_trimmed(error: &ReadError) -> bool {
    matches!(error, ReadError::Store(StoreError::FeedTrimmed { .. }))
}

/// What a `dispatch` waits for: the outcomes of all that handle an event.
pub(crate) struct Expected {
    ordered: Option<oneshot::Receiver<Outcome>>,
    /// Of handlers with parallel delivery, by their number.
    parallel: Vec<(usize, oneshot::Receiver<Outcome>)>,
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
    /// The event is handled, by another instance.
    Passed,
}

impl From<ReadError> for IdleError {
    fn from(error: ReadError) -> Self {
        IdleError::Read(error)
    }
}

impl From<StoreError> for IdleError {
    fn from(error: StoreError) -> Self {
        IdleError::Read(error.into())
    }
}
