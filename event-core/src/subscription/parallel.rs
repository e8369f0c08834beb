//! Parallel delivery: a handler whose events may be handled in any order, many at once, by whichever
//! instance of the group is free.
//!
//! Each such handler has a native group of its own in every partition of its categories. All instances
//! read all of these partitions, and the store gives each entry to one of them.

mod runner;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug_span};
use uuid::Uuid;

use super::shared::{Opened, Shared, pauses};
use super::waiting::{Outcome, Waiting};
use super::{IdleError, LOOK_EVERY, Settings, Stopped, is_trimmed, settle};
use crate::dispatcher::{Dispatcher, Route};
use crate::event::Category;
use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::{Position, RecordedEvent};
use crate::store::{Consumer, ParallelGroup, ParallelReader, ReadError, StoreError};
use runner::ParallelRunner;

/// For each handler that may run at once, so many entries may be here and not be finished.
const ENTRIES_PER_PLACE: usize = 8;

/// The bounds of that.
const WINDOW: (usize, usize) = (16, 2_048);

/// Consumers that have done nothing for so many leases are forgotten.
const GONE_AFTER: u32 = 60;

/// What is known of a handler with parallel delivery before it runs.
pub(crate) struct ParallelDefinition {
    pub(crate) start: Start,
    pub(crate) categories: BTreeSet<Category>,
    /// Those in which nobody else of the group parks what is no event.
    pub(crate) parks_undecodable: BTreeSet<Category>,
    /// Has this handler alone.
    pub(crate) dispatcher: Arc<Dispatcher>,
}

/// A handler with parallel delivery.
pub(super) struct ParallelHandler {
    shared: Arc<Shared>,
    definition: ParallelDefinition,
    consumer: Consumer,
    lease: Duration,
    window: usize,
    dead_letter_limit: usize,
    waiting: Waiting,
    /// All partitions of its categories, known since the group was opened.
    partitions: Opened,
    /// Who holds it handles events; everybody else waits.
    engine: tokio::sync::Mutex<()>,
}

impl ParallelHandler {
    pub(super) fn new(
        shared: Arc<Shared>,
        definition: ParallelDefinition,
        settings: &Settings,
    ) -> Self {
        let handler = Arc::clone(&definition.dispatcher.routes[0].name);
        Self {
            consumer: Consumer {
                group: ParallelGroup {
                    group: Arc::clone(&shared.group),
                    handler,
                },
                instance: Arc::clone(&settings.instance),
            },
            lease: settings.lease,
            window: settings
                .concurrency
                .saturating_mul(ENTRIES_PER_PLACE)
                .clamp(WINDOW.0, WINDOW.1),
            dead_letter_limit: settings.dead_letter_limit,
            waiting: Waiting::default(),
            partitions: Opened::default(),
            engine: tokio::sync::Mutex::new(()),
            shared,
            definition,
        }
    }

    fn route(&self) -> &Route {
        &self.definition.dispatcher.routes[0]
    }

    pub(super) fn group(&self) -> &ParallelGroup {
        &self.consumer.group
    }

    /// Whether it takes events of a category.
    pub(super) fn reads(&self, category: &Category) -> bool {
        self.definition.categories.contains(category)
    }

    pub(super) fn takes(&self, event_type: &str) -> bool {
        self.route().takes(event_type)
    }

    pub(super) fn outcome_of(&self, event_id: Uuid) -> oneshot::Receiver<Outcome> {
        self.waiting.outcome_of(event_id)
    }

    pub(super) fn forget(&self, event_id: Uuid) {
        self.waiting.forget(event_id);
    }

    fn span(&self) -> Span {
        debug_span!("subscription", group = %self.consumer.group)
    }

    /// Makes the group known, and with that fixes where a new one begins.
    pub(super) async fn begin(&self) -> Result<Arc<[Partition]>, ReadError> {
        self.partitions
            .or(async {
                let backend = &self.shared.backend;
                let mut partitions = Vec::new();
                for category in &self.definition.categories {
                    for number in 0..backend.partitions(category).await? {
                        let partition = Partition::new(category.clone(), number);
                        let start = self.definition.start;
                        backend
                            .open_parallel(&self.consumer.group, &partition, start)
                            .await?;
                        partitions.push(partition);
                    }
                }
                Ok(partitions)
            })
            .await
    }

    /// Has the group opened again by whatever comes next.
    pub(super) fn open_anew(&self) {
        self.partitions.forget();
    }

    async fn reader(&self) -> Result<(Arc<[Partition]>, Box<dyn ParallelReader>), ReadError> {
        let partitions = self.begin().await?;
        let backend = &self.shared.backend;
        let reader = backend.parallel_reader(&self.consumer, &partitions).await?;
        Ok((partitions, reader))
    }

    /// Handles events until it is stopped. Reconnects without end.
    ///
    /// # Errors
    /// The failure that stops the group.
    pub(super) async fn run(self: Arc<Self>, stopping: CancellationToken) -> Result<(), Stopped> {
        let _engine = self.engine.lock().await;
        let span = self.span();
        async {
            let mut pauses = pauses();
            let (partitions, reader) = loop {
                tokio::select! {
                    begun = self.reader() => match begun {
                        Ok(begun) => break begun,
                        Err(error) if is_trimmed(&error) => return Err(Stopped::Trimmed(error)),
                        Err(error) => tracing::error!(%error, "the feeds cannot be read; trying again"),
                    },
                    () = stopping.cancelled() => return Ok(()),
                }
                pauses.pause(&stopping).await;
            };
            ParallelRunner::new(&self, partitions, reader, stopping.clone())
                .run()
                .await
                .map_err(Stopped::Failed)
        }
        .instrument(span)
        .await
    }

    /// Handles what there is now, whichever instance it is, and gives the number of entries.
    pub(super) async fn run_until_idle(&self) -> Result<usize, IdleError> {
        let _engine = self.engine.try_lock().map_err(|_| IdleError::Running)?;
        self.run_idle(None).await.map(|(handled, _)| handled)
    }

    async fn run_idle(
        &self,
        outcome: Option<&mut oneshot::Receiver<Outcome>>,
    ) -> Result<(usize, Option<Outcome>), IdleError> {
        let (partitions, reader) = self.reader().await?;
        ParallelRunner::new(self, partitions, reader, CancellationToken::new())
            .run_until_idle(outcome)
            .instrument(self.span())
            .await
    }

    /// Waits for the outcome of an event, and handles events itself while nobody else does.
    pub(super) async fn drive(
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
                    return match told {
                        Some(outcome) => outcome.map_err(IdleError::Failed),
                        None => Err(IdleError::Passed),
                    };
                }
                () = sleep(LOOK_EVERY) => {
                    let backend = &self.shared.backend;
                    let range = position..=position;
                    if backend.is_finished(&self.consumer.group, partition, range).await? {
                        // It may have been told just now.
                        return match outcome.try_recv() {
                            Ok(outcome) => outcome.map_err(IdleError::Failed),
                            Err(_) => Err(IdleError::Passed),
                        };
                    }
                }
            }
        }
    }

    /// Whether nothing is left to do for any instance.
    async fn is_all_finished(&self, partitions: &[Partition]) -> Result<bool, StoreError> {
        for partition in partitions {
            let range = Position::START..=Position::END;
            let backend = &self.shared.backend;
            if !backend
                .is_finished(&self.consumer.group, partition, range)
                .await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Something that is done again and again.
struct Regularly {
    every: Duration,
    next: Instant,
}

impl Regularly {
    fn new(every: Duration) -> Self {
        Self {
            every,
            next: Instant::now() + every,
        }
    }

    /// Whether it is to be done now; the next time is counted from now on.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.next;
        if is_due {
            self.next = now + self.every;
        }
        is_due
    }
}
