//! The keeper: says that this instance is there, keeps its leases, and takes and gives partitions so
//! that all instances have as many.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::share::share;
use super::shared::Shared;
use crate::partition::Partition;
use crate::store::{Acquired, Lease, Progress, StoreError};

/// A lease that is about to end is looked at this much later: clocks differ a little.
const AFTERWARDS: Duration = Duration::from_millis(10);

/// The keeper does not come back sooner than this.
const SOONEST: Duration = Duration::from_millis(20);

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
    let held: Vec<_> = owned.iter().chain(&going).collect();
    let renewed = join_all(held.iter().map(|held| backend.renew(held, lease))).await;
    let mut lost = Vec::new();
    for (held, renewed) in held.into_iter().zip(renewed) {
        if !renewed? {
            lost.push(held.clone());
        }
    }

    let members = backend.join(group, &instance, lease).await?;
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
    // Each begins elsewhere, so that they do not all ask for the same first.
    let begin = names
        .iter()
        .position(|name| **name == *instance)
        .unwrap_or(0)
        * share;
    let in_turn = partitions.iter().cycle().skip(begin).take(partitions.len());
    for partition in in_turn {
        if count >= share {
            break;
        }
        let is_held = |lease: &Lease| lease.partition == *partition;
        if going.iter().any(is_held) || owned.iter().any(|l| is_held(l) && !lost.contains(l)) {
            continue;
        }
        let taken = match backend.acquire(group, partition, &instance, lease).await {
            Ok(taken) => taken,
            // What is taken already must not be forgotten for that.
            Err(error) if !acquired.is_empty() => {
                tracing::warn!(%partition, %error, "the partition cannot be taken; trying again");
                next = SOONEST;
                break;
            }
            Err(error) => return Err(error),
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
    Ok(Kept {
        lost,
        acquired,
        excess,
        next: next.max(SOONEST),
    })
}
