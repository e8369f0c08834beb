//! How the service is doing: what lags behind, what is kept, what is played.

use async_graphql::{Enum, SimpleObject};
use event_core::{Health, Owner, ServiceError, ServiceState};

use crate::live::Live;
use crate::sample;

/// How the service is doing.
#[derive(Clone, SimpleObject)]
pub(super) struct Status {
    /// Each consumer in each partition that it reads.
    lag: Vec<ConsumerLag>,
    /// Whether every service runs.
    running: bool,
    /// The contexts of AI sessions.
    contexts: CacheStatus,
    /// The repositories that queries have asked for.
    repositories: CacheStatus,
    /// The sample, where it is played.
    sample: Option<SampleStatus>,
    /// Whether events by correlation are looked up in an index.
    correlation_index: bool,
}

/// How far behind a consumer is.
#[derive(Clone, SimpleObject)]
pub(super) struct ConsumerLag {
    /// The group, or the projection.
    consumer: String,
    /// The partition: a category, and its number where it is not the first.
    partition: String,
    /// How many events it has not handled yet.
    lag: u64,
    /// How many it cannot handle.
    dead_letters: u64,
    /// Whether somebody handles them: this process, or another.
    owned: bool,
    /// Why it goes no further, if so.
    stopped: Option<String>,
}

/// What a cache has.
#[derive(Clone, SimpleObject)]
pub(super) struct CacheStatus {
    /// How many values are kept now.
    kept: u64,
    /// How many events have said that a value is old.
    invalidations: u64,
}

/// What becomes of the sample.
#[derive(Clone, SimpleObject)]
pub(super) struct SampleStatus {
    /// Whether it is being played.
    state: SampleState,
    /// How many deliveries of this round were sent.
    sent: u64,
    /// How many were not taken in: the sample has some that are none.
    rejected: u64,
    /// How many it has.
    total: u64,
}

/// What becomes of the sample.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "sample::State")]
pub(super) enum SampleState {
    /// Deliveries come.
    Playing,
    /// All came. It can be played again.
    Ended,
    /// The store did not take one.
    Failed,
}

impl SampleStatus {
    pub(super) fn of(progress: sample::Progress) -> Self {
        Self {
            state: progress.state.into(),
            sent: progress.sent,
            rejected: progress.rejected,
            total: progress.total,
        }
    }
}

impl Status {
    /// How it is doing now.
    pub(super) async fn now(live: &Live) -> Result<Self, ServiceError> {
        let health = live.health().await?;
        let contexts = live.contexts().invalidated();
        let repositories = live.repositories();
        Ok(Self {
            lag: health.iter().flat_map(lag).collect(),
            running: health.iter().all(|one| one.state == ServiceState::Running),
            contexts: CacheStatus {
                kept: contexts.kept(),
                invalidations: contexts.forgotten(),
            },
            repositories: CacheStatus {
                kept: repositories.kept(),
                invalidations: repositories.forgotten(),
            },
            sample: live
                .sample()
                .map(|sample| SampleStatus::of(sample.progress())),
            correlation_index: live.correlations().is_indexed(),
        })
    }
}

fn lag(health: &Health) -> Vec<ConsumerLag> {
    let of_groups = health.partitions.iter().map(|one| ConsumerLag {
        consumer: health.group.clone(),
        partition: one.partition.clone(),
        lag: one.lag,
        dead_letters: one.dead_letters as u64,
        owned: one.owner != Owner::Nobody,
        stopped: one.paused.map(|pause| format!("{pause:?}")),
    });
    let of_projections = health.projections.iter().flat_map(|projection| {
        projection.partitions.iter().map(|one| ConsumerLag {
            consumer: projection.name.clone(),
            partition: one.partition.clone(),
            lag: one.lag,
            dead_letters: 0,
            owned: true,
            stopped: one.stopped.clone(),
        })
    });
    of_groups.chain(of_projections).collect()
}
