//! The keeper: says that this instance is there, keeps its leases, and takes and gives partitions so
//! that all instances have as many.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{join, join_all};
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};

use super::LOOK_EVERY;
use super::share::share;
use super::shared::Shared;
use crate::partition::Partition;
use crate::store::{Acquired, Lease, Member, Progress, StoreError};

/// A lease that is about to end is looked at this much later: clocks differ a little.
const AFTERWARDS: Duration = Duration::from_millis(10);

/// The keeper does not come back sooner than this.
const SOONEST: Duration = Duration::from_millis(20);

/// A store is waited for at least so long, however short leases are.
const PATIENCE: Duration = Duration::from_secs(1);

/// Partitions that have not been taken for so long are waited for no longer before others are asked for.
const SLOW: Duration = Duration::from_millis(250);

/// As many partitions are asked for at once, those not counted that are slow.
const AT_ONCE: usize = 64;

const RENEWING: &str = "renew";
const JOINING: &str = "join";
const ACQUIRING: &str = "acquire";
const LEAVING: &str = "leave";

/// An instance of the group, as it was told last.
#[derive(Clone)]
pub(super) struct Known {
    instance: String,
    /// Until then it is there, unless it says so again.
    until: Instant,
}

/// What an instance has when the keeper begins to look.
pub(super) struct Standing {
    pub(super) owned: Vec<Lease>,
    /// Those that are about to be given back.
    pub(super) going: Vec<Lease>,
    /// Those that are being given back: nobody keeps them any more.
    pub(super) returning: Vec<Partition>,
    /// The instances that were there when they could be asked for last.
    pub(super) known: Vec<Known>,
}

/// What the keeper has found and done.
pub(super) struct Kept {
    /// Leases that are lost.
    pub(super) lost: Vec<Lease>,
    /// Partitions that are owned now.
    pub(super) acquired: Vec<(Lease, Progress)>,
    /// The instances that are there, as far as is known.
    pub(super) known: Vec<Known>,
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
    standing: Standing,
) -> Result<Kept, StoreError> {
    let Standing {
        owned,
        going,
        returning,
        mut known,
    } = standing;
    let (backend, group) = (&shared.backend, &shared.group);
    let mut next = lease / 3;
    let longest = longest(lease);
    let held: Vec<_> = owned.iter().chain(&going).collect();
    let renewing = held
        .iter()
        .map(|held| within(RENEWING, longest, backend.renew(held, lease)));
    let shorter = (longest / 4).max(PATIENCE);
    let joining = within(JOINING, shorter, backend.join(group, &instance, lease));
    let (renewed, members) = join(join_all(renewing), joining).await;
    let mut lost = Vec::new();
    let mut is_answered = false;
    for (held, renewed) in held.into_iter().zip(renewed) {
        match renewed {
            Ok(true) => is_answered = true,
            Ok(false) => {
                is_answered = true;
                lost.push(held.clone());
            }
            // Partitions may lie on different servers, of which one does not answer.
            Err(error) => {
                let partition = &held.partition;
                tracing::warn!(%partition, %error, "the lease is not renewed; trying again");
                next = next.min(LOOK_EVERY);
            }
        }
    }

    let now = Instant::now();
    let unknown = match members {
        Ok(members) => {
            let until = |member: Member| Known {
                until: now + member.remaining,
                instance: member.instance,
            };
            known = members.into_iter().map(until).collect();
            None
        }
        // Whose partitions these are, leases decide. So who is there need not be known to take what
        // nobody has.
        Err(error @ StoreError::Unavailable { .. }) => {
            known.retain(|member| member.until > now);
            next = next.min(LOOK_EVERY);
            Some(error)
        }
        Err(error) => return Err(error),
    };
    for member in &known {
        if *member.instance != *instance {
            let remaining = member.until.saturating_duration_since(now);
            next = next.min(remaining + AFTERWARDS);
        }
    }
    let names: Vec<_> = known.iter().map(|member| member.instance.clone()).collect();
    let share = share(partitions.len(), &names, &instance);

    let mut count = owned.iter().filter(|lease| !lost.contains(lease)).count();
    // What is given back for somebody who has gone meanwhile, would be taken again.
    let excess = match unknown {
        None => count.saturating_sub(share),
        Some(_) => 0,
    };
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
    let is_here = |partition: &Partition| {
        let is_held = |lease: &Lease| lease.partition == *partition;
        going.iter().any(is_held)
            || owned.iter().any(|l| is_held(l) && !lost.contains(l))
            || returning.contains(partition)
    };
    let mut free = in_turn.filter(|partition| !is_here(partition));
    let mut asked = FuturesUnordered::new();
    // How many are asked for at once. Those that do not answer are not counted, and while there are
    // some, more and more are, so that those on other servers have their turn.
    let (mut more, mut slow) = (1, 0);
    let mut turn = 0_u32;
    let mut slow_at = Instant::now() + SLOW;
    loop {
        while count < share
            && asked.len() < slow + ((share - count) * more).min(AT_ONCE)
            && Instant::now() < deadline
            && let Some(partition) = free.next()
        {
            let acquiring = backend.acquire(group, partition, &instance, lease);
            let acquiring = within(ACQUIRING, shorter, acquiring);
            asked.push(async move { (turn, partition, acquiring.await) });
        }
        let (asked_in, partition, taken) = tokio::select! {
            biased;
            answer = asked.next() => match answer {
                Some(answer) => answer,
                None => break,
            },
            () = sleep_until(slow_at) => {
                (turn, more, slow) = (turn + 1, more.saturating_mul(2), asked.len());
                slow_at = Instant::now() + SLOW;
                continue;
            }
        };
        if asked_in < turn {
            slow = slow.saturating_sub(1);
        }
        match taken {
            Ok(Acquired::Yes {
                lease,
                progress,
                history_lost,
            }) => {
                is_answered = true;
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
            Ok(Acquired::No { remaining }) => {
                is_answered = true;
                next = next.min(remaining + AFTERWARDS);
            }
            // Neither what is taken already must be forgotten for that, nor what lies elsewhere.
            Err(error) => {
                tracing::warn!(%partition, %error, "the partition cannot be taken; trying again");
                next = next.min(LOOK_EVERY);
                failure = Some(error);
            }
        }
    }
    if let Some(error) = unknown {
        if !is_answered {
            return Err(error);
        }
        tracing::warn!(group = &**group, %error, "it is not known which instances are there; taking what nobody has");
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
        known,
        excess,
        next: next.max(SOONEST),
    })
}

/// Says that this instance has gone, unless that takes too long.
pub(super) async fn leave(
    shared: &Shared,
    instance: &str,
    lease: Duration,
) -> Result<(), StoreError> {
    let leaving = shared.backend.leave(&shared.group, instance);
    within(LEAVING, longest(lease), leaving).await
}

/// How long a store may take where leases are so long.
fn longest(lease: Duration) -> Duration {
    (lease / 3).max(PATIENCE)
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
