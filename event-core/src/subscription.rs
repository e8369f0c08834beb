//! The subscription: a group's durable reader of its feeds.
//!
//! | module | what it is |
//! |---|---|
//! | `runner` | owns partitions and reads them for as long as the service runs |
//! | `keeper` | says that this instance is there, keeps its leases, takes and gives partitions |
//! | `share` | how many partitions that are |
//! | `owned` | handles one partition: lanes, attempts, commits |
//! | `work`, `window` | an entry that is handled; all of them, in order |
//! | `parked` | the dead letters of a partition |
//! | `gate` | how much may run at once, how fast, and whether at all |
//! | `health` | what becomes of each partition now |
//! | `load`, `shared`, `waiting` | what these share |

mod gate;
mod health;
mod keeper;
mod load;
mod owned;
mod parked;
mod runner;
mod share;
mod shared;
mod waiting;
mod window;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug_span};
use uuid::Uuid;

pub use gate::{CircuitBreaker, CircuitState, RateLimit};
pub use health::{Owner, PartitionHealth, Pause};
pub(crate) use waiting::Outcome;

use crate::clock::Clock;
use crate::dispatcher::{Dispatcher, HandlerFailure};
use crate::event::Category;
use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::{Position, RecordedEvent};
use crate::store::{Backend, Progress, ReadError, StoreError};
use crate::system::Reports;
use gate::Gate;
use load::Load;
use runner::Runner;
use shared::Shared;

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
    pub(crate) start: Start,
    pub(crate) dispatcher: Arc<Dispatcher>,
}

/// Reads the feeds of a group from its checkpoints on, shares them with the other instances of the
/// group, and hands their events to the dispatcher.
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    settings: Settings,
    categories: BTreeMap<Category, CategoryHandlers>,
    /// All partitions of these, known since the group was opened.
    partitions: OnceCell<Vec<Partition>>,
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
    ) -> Self {
        let gate = Gate::new(
            settings.concurrency,
            settings.rate_limit,
            settings.circuit_breaker,
        );
        Self {
            shared: Arc::new(Shared::new(
                backend,
                group,
                clock,
                gate,
                settings.reports.clone(),
            )),
            settings,
            categories,
            partitions: OnceCell::new(),
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
    pub(crate) fn outcome_of(&self, event_id: Uuid) -> oneshot::Receiver<Outcome> {
        self.shared.waiting.outcome_of(event_id)
    }

    /// Nobody waits for this event any more.
    pub(crate) fn forget(&self, event_id: Uuid) {
        self.shared.waiting.forget(event_id);
    }

    /// The partitions that this instance owns now.
    fn owned(&self) -> MutexGuard<'_, BTreeMap<Partition, Arc<Load>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the group known, and with that fixes where a new one begins.
    pub(crate) async fn begin(&self) -> Result<&[Partition], ReadError> {
        let partitions = self
            .partitions
            .get_or_try_init(|| async {
                let mut partitions = Vec::new();
                for (category, handlers) in &self.categories {
                    for number in 0..self.shared.backend.partitions(category).await? {
                        let partition = Partition::new(category.clone(), number);
                        self.shared
                            .backend
                            .open(&self.shared.group, &partition, handlers.start)
                            .await?;
                        partitions.push(partition);
                    }
                }
                Ok::<_, ReadError>(partitions)
            })
            .await?;
        Ok(partitions)
    }

    fn span(&self) -> Span {
        debug_span!("subscription", group = &*self.shared.group)
    }

    /// Handles events until it is stopped, and then finishes what runs unless `breaking` breaks it off.
    /// Reconnects without end.
    ///
    /// # Errors
    /// The failure that stops the group.
    pub(crate) async fn run(
        &self,
        stopping: CancellationToken,
        breaking: CancellationToken,
    ) -> Result<(), Arc<HandlerFailure>> {
        if self.categories.is_empty() {
            stopping.cancelled().await;
            return Ok(());
        }
        let _engine = self.engine.lock().await;
        Runner::new(self, stopping, breaking)
            .run()
            .instrument(self.span())
            .await
    }

    /// Handles what there is now, and gives the number of entries.
    pub(crate) async fn run_until_idle(&self) -> Result<usize, IdleError> {
        if self.categories.is_empty() {
            return Ok(0);
        }
        let _engine = self.engine.try_lock().map_err(|_| IdleError::Running)?;
        self.run_idle(None).await.map(|(handled, _)| handled)
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

    /// Waits for the outcome of an event, and handles events itself while nobody else does.
    pub(crate) async fn drive(
        &self,
        event: &RecordedEvent,
        mut outcome: oneshot::Receiver<Outcome>,
    ) -> Result<Vec<RecordedEvent>, IdleError> {
        let category = Category::of(event.event_type()).map_err(|_| IdleError::Passed)?;
        let count = self.shared.backend.partitions(&category).await?;
        let partition = Partition::of_recorded(category, event, count);
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
                    let is_ours = || self.owned().contains_key(&partition);
                    // Asked once more afterwards: it may have become ours, and handled, meanwhile.
                    if !is_ours()
                        && self.is_handled(&partition, event.position()).await?
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

    async fn progress(&self, partition: &Partition) -> Result<Progress, StoreError> {
        let start = self
            .categories
            .get(partition.category())
            .map_or(Start::Beginning, |handlers| handlers.start);
        self.shared
            .backend
            .open(&self.shared.group, partition, start)
            .await
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
