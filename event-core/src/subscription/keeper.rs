//! The keeper: says that this instance is there, keeps its leases, and takes and gives partitions so
//! that all instances have as many.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use tokio::time::{Instant, timeout};

use super::LOOK_EVERY;
use super::share::share;
use super::shared::Shared;
use crate::partition::Partition;
use crate::store::{Acquired, Lease, Progress, StoreError};

/// A lease that is about to end is looked at this much later: clocks differ a little.
const AFTERWARDS: Duration = Duration::from_millis(10);

/// The keeper does not come back sooner than this.
const SOONEST: Duration = Duration::from_millis(20);

/// A store is waited for at least so long, however short leases are.
const PATIENCE: Duration = Duration::from_secs(1);

const RENEWING: &str = "renew";
const JOINING: &str = "join";
const ACQUIRING: &str = "acquire";

/// What the keeper has found and done.
pub(super) struct Kept {
    /// Leases that are lost.
    pub(super) lost: Vec<Lease>,
    /// Partitions that are owned now.
    pub(super) acquired: Vec<(Lease, Progress)>,
    /// How many partitions this instance owns too many.
    pub(super) excess: usize,
    /// When to look again.
    pub(super) next: Duration,
}

/// Looks after everything once.
pub(super) async fn keep(
    shared: Arc<Shared>,
    instance: Arc<str>,
    lease: Duration,
    partitions: Vec<Partition>,
    owned: Vec<Lease>,
    going: Vec<Lease>,
) -> Result<Kept, StoreError> {
    let (backend, group) = (&shared.backend, &shared.group);
    let mut next = lease / 3;
    let longest = next.max(PATIENCE);
    let held: Vec<_> = owned.iter().chain(&going).collect();
    let renewing = held
        .iter()
        .map(|held| within(RENEWING, longest, backend.renew(held, lease)));
    let joining = within(JOINING, longest, backend.join(group, &instance, lease));
    let (renewed, members) = join(join_all(renewing), joining).await;
    let mut lost = Vec::new();
    for (held, renewed) in held.into_iter().zip(renewed) {
        match renewed {
            Ok(true) => {}
            Ok(false) => lost.push(held.clone()),
            // Partitions may lie on different servers, of which one does not answer.
            Err(error) => {
                let partition = &held.partition;
                tracing::warn!(%partition, %error, "the lease is not renewed; trying again");
                next = next.min(LOOK_EVERY);
            }
        }
    }

    let members = members?;
    for member in &members {
        if *member.instance != *instance {
            next = next.min(member.remaining + AFTERWARDS);
        }
    }
    let names: Vec<_> = members.into_iter().map(|member| member.instance).collect();
    let share = share(partitions.len(), &names, &instance);

    let mut count = owned.iter().filter(|lease| !lost.contains(lease)).count();
    let excess = count.saturating_sub(share);
    let mut acquired = Vec::new();
    let mut failure = None;
    let deadline = Instant::now() + longest;
    // Each begins elsewhere, so that they do not all ask for the same first.
    let begin = names
        .iter()
        .position(|name| **name == *instance)
        .unwrap_or(0)
        * share;
    let in_turn = partitions.iter().cycle().skip(begin).take(partitions.len());
    for partition in in_turn {
        if count >= share || Instant::now() >= deadline {
            break;
        }
        let is_held = |lease: &Lease| lease.partition == *partition;
        if going.iter().any(is_held) || owned.iter().any(|l| is_held(l) && !lost.contains(l)) {
            continue;
        }
        let acquiring = backend.acquire(group, partition, &instance, lease);
        let taken = match within(ACQUIRING, (longest / 4).max(PATIENCE), acquiring).await {
            Ok(taken) => taken,
            // Neither what is taken already must be forgotten for that, nor what lies elsewhere.
            Err(error) => {
                tracing::warn!(%partition, %error, "the partition cannot be taken; trying again");
                next = next.min(LOOK_EVERY);
                failure = Some(error);
                continue;
            }
        };
        match taken {
            Acquired::Yes {
                lease,
                progress,
                history_lost,
            } => {
                if history_lost {
                    tracing::error!(
                        %partition,
                        group = &**group,
                        "the feed has lost events that were handled already, as after a failover; going on with what comes"
                    );
                }
                tracing::info!(%partition, group = &**group, epoch = lease.epoch, "the partition is owned now");
                acquired.push((lease, progress));
                count += 1;
            }
            Acquired::No { remaining } => next = next.min(remaining + AFTERWARDS),
        }
    }
    if let Some(error) = failure
        && acquired.is_empty()
        && owned.is_empty()
    {
        return Err(error);
    }
    Ok(Kept {
        lost,
        acquired,
        excess,
        next: next.max(SOONEST),
    })
}

/// Waits only so long: a server that does not answer must not cost the leases that others keep.
async fn within<T>(
    operation: &'static str,
    longest: Duration,
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout(longest, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::Unavailable {
            operation,
            waited: longest,
            source: "it has not answered in the time that a lease leaves".into(),
        }),
    }
}
