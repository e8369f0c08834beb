//! Keeping the projections of a service filled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Filled;
use super::error::ProjectionStopped;
use super::fill::{AT_ONCE, FillError, Kind, Silent, Target};
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{ProjectionVersions, ReadError, StoreError, Wanted};

/// How long to wait before it is looked again whether a version is to be filled.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How far a projection is. Part of [`Health`](crate::Health).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionHealth {
    /// Its name.
    pub name: String,
    /// The version that this service fills.
    pub version: u32,
    /// Whether this is the version that is read.
    pub is_served: bool,
    /// Whether it is filled with the appends of the service.
    pub is_inline: bool,
    /// How far it is in each of its partitions.
    pub partitions: Vec<ProjectionPartition>,
}

/// How far a projection is in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionPartition {
    /// The partition.
    pub partition: String,
    /// Everything up to here is in the state.
    pub checkpoint: Position,
    /// How many entries lie behind it.
    pub lag: u64,
    /// Why this instance goes no further, if so: it tries the same event again and again.
    pub stopped: Option<String>,
}

/// A projection of a service.
pub(crate) struct Registered {
    pub(crate) target: Target,
    pub(crate) filled: Filled,
    stopped: Mutex<BTreeMap<Partition, Failing>>,
}

/// A partition in which a projection goes no further.
struct Failing {
    why: ProjectionStopped,
    pauses: backon::ExponentialBackoff,
    again: Instant,
}

/// All projections of a service.
pub(crate) struct ProjectionRunner {
    pub(crate) projections: Vec<Registered>,
    pub(crate) instance: String,
    pub(crate) lease: Duration,
}

impl Target {
    /// Makes the version known, unless another is there that is read: then it is for a rebuild to do so.
    pub(crate) async fn open_if_first(&self) -> Result<ProjectionVersions, StoreError> {
        let versions = self.backend.projection_versions(self.id.name()).await?;
        let known = versions.versions.get(&self.id.version());
        // Where it is made of other categories now, whoever waits or trims must know.
        if known.is_some_and(|known| known.categories == *self.categories) {
            return Ok(versions);
        }
        if self.is_sink() {
            let opened = self.backend.open_projection(&self.id, &self.categories);
            return opened.await;
        }
        let opened = self
            .backend
            .open_first_projection(&self.id, &self.categories);
        opened.await
    }

    /// Whether it is to be filled without being asked.
    pub(crate) async fn is_live(&self) -> Result<bool, StoreError> {
        let versions = self.open_if_first().await?;
        Ok(versions.is_live(self.id.version()) || self.is_sink())
    }

    pub(crate) fn is_sink(&self) -> bool {
        matches!(self.kind, Kind::Sink(..))
    }
}

impl Registered {
    pub(crate) fn new(target: Target, filled: Filled) -> Self {
        Self {
            target,
            filled,
            stopped: Mutex::default(),
        }
    }

    fn stopped(&self) -> MutexGuard<'_, BTreeMap<Partition, Failing>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a partition has, unless it has stopped there and it is too early to try again.
    async fn fill(&self, partition: &Partition) -> Result<(usize, Option<Position>), FillError> {
        let is_waiting = |failing: &Failing| failing.again > Instant::now();
        if self.stopped().get(partition).is_some_and(is_waiting) {
            return Ok((0, None));
        }
        match self.target.fill(partition, Position::END, &Silent).await {
            Ok((filled, reached)) => {
                if self.stopped().remove(partition).is_some() {
                    tracing::info!(projection = %self.target.id, %partition, "the projection goes on");
                }
                Ok((filled, Some(reached)))
            }
            Err(FillError::Stopped(why)) => {
                tracing::error!(error = %why, "a projection has stopped");
                self.note(why);
                Ok((0, None))
            }
            Err(error) => Err(error),
        }
    }

    fn note(&self, why: ProjectionStopped) {
        let mut stopped = self.stopped();
        let mut pauses = match stopped.remove(&why.partition) {
            Some(failing) if failing.why.position == why.position => failing.pauses,
            _ => ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(30))
                .with_jitter()
                .without_max_times()
                .build(),
        };
        let again = Instant::now() + pauses.next().unwrap_or(LOOK_AGAIN);
        let failing = Failing { why, pauses, again };
        stopped.insert(failing.why.partition.clone(), failing);
    }

    /// When something that has failed is to be tried again.
    fn next_attempt(&self) -> Option<Instant> {
        self.stopped().values().map(|failing| failing.again).min()
    }

    async fn run(&self, runner: &ProjectionRunner, stopping: &CancellationToken) {
        let mut pauses = pauses();
        loop {
            let ended = tokio::select! {
                () = stopping.cancelled() => return,
                ended = self.fill_while_held(runner) => ended,
            };
            let pause = match ended {
                // It is filled by another instance, or not to be filled.
                Ok(()) => {
                    pauses = self::pauses();
                    LOOK_AGAIN.min(runner.lease / 3)
                }
                Err(error) => {
                    tracing::warn!(projection = %self.target.id, %error, "a projection is filled again after a pause");
                    pauses.next().unwrap_or(LOOK_AGAIN)
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Fills the version for as long as this instance is the one that does so.
    async fn fill_while_held(&self, runner: &ProjectionRunner) -> Result<(), FillError> {
        let Target { backend, id, .. } = &self.target;
        if !self.target.is_live().await? {
            return Ok(());
        }
        let hold = || backend.hold_projection(id, &runner.instance, runner.lease);
        if !hold().await? {
            return Ok(());
        }
        let holding = async {
            loop {
                sleep(runner.lease / 3).await;
                if !hold().await? {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            ended = holding => ended,
            ended = self.follow() => ended,
        }
    }

    /// Takes in what there is and what comes.
    async fn follow(&self) -> Result<(), FillError> {
        let backend = &self.target.backend;
        let name = format!("projection:{}", self.target.id.name());
        let mut reader = backend.group_reader(&name).await?;
        loop {
            let partitions = self.target.partitions().await?;
            let mut filled = Vec::with_capacity(partitions.len());
            for some in partitions.chunks(AT_ONCE) {
                filled.extend(join_all(some.iter().map(|partition| self.fill(partition))).await);
            }
            let mut wanted = Vec::new();
            for (partition, filled) in partitions.into_iter().zip(filled) {
                if let (_, Some(after)) = filled? {
                    wanted.push(Wanted {
                        partition,
                        after,
                        limit: 1,
                    });
                }
            }
            let again = self.next_attempt();
            // So that partitions that are added to an empty category are seen.
            let again = again.unwrap_or_else(|| Instant::now() + 10 * LOOK_AGAIN);
            tokio::select! {
                read = reader.next(&wanted) => { read?; }
                () = sleep_until(again) => {}
            }
        }
    }

    /// Takes in what there is.
    async fn fill_now(&self) -> Result<usize, FillError> {
        if !self.target.is_live().await? {
            return Ok(0);
        }
        let mut entries = 0;
        for partition in self.target.partitions().await? {
            entries += self
                .target
                .fill(&partition, Position::END, &Silent)
                .await?
                .0;
        }
        Ok(entries)
    }

    async fn health(&self) -> Result<ProjectionHealth, ReadError> {
        let Target { backend, id, .. } = &self.target;
        let versions = backend.projection_versions(id.name()).await?;
        let mut partitions = Vec::new();
        for partition in self.target.partitions().await? {
            let checkpoint = backend.projection_checkpoint(id, &partition).await?;
            let lag = backend.entries_after(&partition, checkpoint).await?;
            let why = self.stopped().get(&partition).map(|f| f.why.to_string());
            partitions.push(ProjectionPartition {
                partition: partition.to_string(),
                checkpoint,
                lag,
                stopped: why,
            });
        }
        Ok(ProjectionHealth {
            name: id.name().to_owned(),
            version: id.version(),
            is_served: versions.served == Some(id.version()),
            is_inline: self.filled == Filled::Inline,
            partitions,
        })
    }
}

fn pauses() -> backon::ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .without_max_times()
        .build()
}

impl ProjectionRunner {
    /// Keeps all filled until the service is stopped.
    pub(crate) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut running = JoinSet::new();
        for index in 0..self.projections.len() {
            let (this, stopping) = (Arc::clone(&self), stopping.clone());
            running.spawn(
                async move {
                    if let Some(projection) = this.projections.get(index) {
                        projection.run(&this, &stopping).await;
                    }
                }
                .in_current_span(),
            );
        }
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                // Whoever waits for this task sees it.
                std::panic::resume_unwind(error.into_panic());
            }
        }
        for projection in &self.projections {
            let Target { backend, id, .. } = &projection.target;
            if let Err(error) = backend.release_projection(id, &self.instance).await {
                tracing::debug!(projection = %id, %error, "a projection is not given back");
            }
        }
    }

    /// Takes in what there is for all of them.
    pub(crate) async fn run_until_idle(&self) -> Result<usize, FillError> {
        let mut entries = 0;
        for projection in &self.projections {
            entries += projection.fill_now().await?;
        }
        Ok(entries)
    }

    pub(crate) async fn health(&self) -> Result<Vec<ProjectionHealth>, ReadError> {
        let mut all = Vec::new();
        for projection in &self.projections {
            all.push(projection.health().await?);
        }
        Ok(all)
    }

    /// The newest version that is registered under a name.
    pub(crate) fn newest(&self, name: &str) -> Option<&Registered> {
        let named = self.projections.iter();
        let named = named.filter(|projection| projection.target.id.name() == name);
        named.max_by_key(|projection| projection.target.id.version())
    }
}
