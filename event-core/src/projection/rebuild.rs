//! Rebuilding: a new version of a projection fills beside the one that is read, and then takes its place
//! in one step.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{Either, join_all, select};
use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::watch;
use tokio::time::sleep;

use super::error::ProjectionError;
use super::fill::{AT_ONCE, Progress, Target};
use crate::recorded::Position;

/// With no more entries than this behind, a version takes the place of the other.
const CAUGHT_UP: usize = 1_000;

/// Fills a new version of a projection beside the one that is read, from the beginning of history on, and
/// then has it be the one that is read. Made by [`Service::rebuild`](crate::Service::rebuild).
///
/// Nothing is lost if it is stopped, dropped or killed at any time: what is filled has its checkpoints, and
/// the next rebuild goes on from there. The old version is kept, and is filled on by the services that have
/// it, until it is [dropped](crate::Service::drop_projection).
///
/// ```
/// # use event_core::prelude::*;
/// # use std::num::NonZeroU32;
/// # async fn rebuild(service: Service) -> Result<(), BoxError> {
/// let rebuild = service.rebuild("pushes").await?.throttle(NonZeroU32::new(20_000).unwrap());
/// let progress = rebuild.progress();
/// tokio::spawn(async move {
///     let mut progress = progress;
///     while progress.changed().await.is_ok() {
///         let now = *progress.borrow_and_update();
///         println!("{} of {}, {:?} left", now.done, now.total, now.left());
///     }
/// });
/// let rebuilt = rebuild.run_until(shutdown_signal()).await?;
/// println!("{rebuilt:?}");
/// # Ok(())
/// # }
/// ```
pub struct Rebuild {
    target: Target,
    instance: String,
    lease: Duration,
    limiter: Option<Limiter>,
    meter: Meter,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock>;

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RebuildProgress {
    /// How many events are in the new version, those of earlier runs included.
    pub done: u64,
    /// How many there are.
    pub total: u64,
    /// How many this run takes in within a second.
    pub per_second: f64,
}

impl RebuildProgress {
    /// How long it takes to the end at this rate; `None` where that cannot be told yet.
    pub fn left(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.done);
        if left == 0 {
            return Some(Duration::ZERO);
        }
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = left as f64 / self.per_second;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// What has come of a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuilt {
    /// The new version is read now.
    Switched {
        /// The version that was read before.
        from: Option<u32>,
        /// The version that is read now.
        to: u32,
    },
    /// It was stopped. The next rebuild goes on from here.
    Stopped,
}

impl Rebuild {
    pub(crate) fn new(target: Target, instance: String, lease: Duration) -> Self {
        Self {
            target,
            instance,
            lease,
            limiter: None,
            meter: Meter::new(),
        }
    }

    /// Takes in no more than so many events in a second.
    pub fn throttle(mut self, per_second: NonZeroU32) -> Self {
        self.limiter = Some(RateLimiter::direct(Quota::per_second(per_second)));
        self
    }

    /// Tells how far it is, whenever that has changed.
    pub fn progress(&self) -> watch::Receiver<RebuildProgress> {
        self.meter.told.subscribe()
    }

    /// Fills the version and switches to it.
    ///
    /// # Errors
    /// As [`run_until`](Self::run_until).
    pub async fn run(self) -> Result<Rebuilt, ProjectionError> {
        self.run_until(std::future::pending()).await
    }

    /// Fills the version and switches to it, unless `stop` is ready before.
    ///
    /// # Errors
    /// [`ProjectionError::Stopped`] where an event cannot be taken in; [`ProjectionError::Held`] where
    /// another process fills it.
    pub async fn run_until(
        self,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Rebuilt, ProjectionError> {
        let (id, backend) = (&self.target.id, &self.target.backend);
        if !backend
            .hold_projection(id, &self.instance, self.lease)
            .await?
        {
            return Err(ProjectionError::Held { id: id.clone() });
        }
        let holding = self.hold();
        futures::pin_mut!(stop, holding);
        let rebuilt = loop {
            let filling = self.fill();
            futures::pin_mut!(filling);
            let work = select(filling, &mut holding);
            match select(work, &mut stop).await {
                Either::Left((Either::Left((Ok(()), _)), _)) => {}
                Either::Left((Either::Left((Err(error), _)) | Either::Right((error, _)), _)) => {
                    break Err(error);
                }
                Either::Right(((), _)) => break Ok(Rebuilt::Stopped),
            }
            // Not to be broken off, or nobody would know whether it was done.
            match self.switch().await {
                Ok(Some(rebuilt)) => break Ok(rebuilt),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = backend.release_projection(id, &self.instance).await {
            tracing::debug!(projection = %id, %error, "a projection is not given back");
        }
        rebuilt
    }

    /// Prolongs the lease, until it is lost.
    async fn hold(&self) -> ProjectionError {
        let (id, backend) = (&self.target.id, &self.target.backend);
        loop {
            sleep(self.lease / 3).await;
            match backend
                .hold_projection(id, &self.instance, self.lease)
                .await
            {
                Ok(true) => {}
                Ok(false) => return ProjectionError::Held { id: id.clone() },
                Err(error) => return error.into(),
            }
        }
    }

    /// Has the version be the one that is read, if it is not behind the one that is.
    async fn switch(&self) -> Result<Option<Rebuilt>, ProjectionError> {
        let Target { backend, id, .. } = &self.target;
        let to = id.version();
        let Some(from) = backend.served_projection(id.name()).await? else {
            let from = backend.serve_projection(id).await?;
            return Ok(Some(Rebuilt::Switched { from, to }));
        };
        let switched = backend.switch_projection(id, from).await?;
        let from = (from != to).then_some(from);
        Ok(switched.then_some(Rebuilt::Switched { from, to }))
    }

    /// Takes in what there is, until little is left.
    async fn fill(&self) -> Result<(), ProjectionError> {
        let (target, pace) = (&self.target, Pace(self));
        loop {
            let partitions = target.partitions().await?;
            let (mut total, mut left) = (0, 0);
            for partition in &partitions {
                let checkpoint = target.checkpoint(partition).await?;
                let backend = &target.backend;
                total += backend.entries_after(partition, Position::START).await?;
                left += backend.entries_after(partition, checkpoint).await?;
            }
            self.meter.measure(total, left);
            let mut filled = 0;
            for some in partitions.chunks(AT_ONCE) {
                let filling = some.iter();
                let filling = filling.map(|partition| target.fill(partition, Position::END, &pace));
                for result in join_all(filling).await {
                    filled += result?.0;
                }
            }
            if filled <= CAUGHT_UP {
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for Rebuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebuild")
            .field("projection", &self.target.id)
            .finish_non_exhaustive()
    }
}

/// Waits where a throttle says so, and counts.
struct Pace<'a>(&'a Rebuild);

impl Progress for Pace<'_> {
    async fn begin(&self, entries: usize) {
        for _ in 0..entries {
            if let Some(limiter) = &self.0.limiter {
                limiter.until_ready().await;
            }
        }
        self.0.meter.count(entries);
    }
}

/// How far a rebuild is.
struct Meter {
    told: watch::Sender<RebuildProgress>,
    counted: Mutex<Counted>,
}

struct Counted {
    since: Instant,
    of_this_run: u64,
}

impl Meter {
    fn new() -> Self {
        Self {
            told: watch::Sender::new(RebuildProgress::default()),
            counted: Mutex::new(Counted {
                since: Instant::now(),
                of_this_run: 0,
            }),
        }
    }

    fn measure(&self, total: u64, left: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.of_this_run == 0 {
            counted.since = Instant::now();
        }
        self.told.send_modify(|progress| {
            progress.total = total;
            progress.done = total.saturating_sub(left);
        });
    }

    fn count(&self, entries: usize) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.of_this_run += entries as u64;
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let per_second = counted.of_this_run as f64 / counted.since.elapsed().as_secs_f64();
        self.told.send_modify(|progress| {
            progress.done += entries as u64;
            progress.total = progress.total.max(progress.done);
            progress.per_second = per_second;
        });
    }
}
