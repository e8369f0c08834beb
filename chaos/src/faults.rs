//! What goes wrong, and when: all of it follows from the seed.

use std::sync::Arc;
use std::time::Duration;

use event_tests::RedisServer;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::instances::Instance;
use crate::proxy::Proxy;
use crate::{Plan, Plant};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    Freeze,
    Stop,
    KillServer,
    CutOne,
    CutAll,
    LoseReply,
}

/// What has gone wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) kills: u32,
    pub(crate) freezes: u32,
    pub(crate) stops: u32,
    pub(crate) server_kills: u32,
    pub(crate) cuts: u32,
    pub(crate) lost_replies: u32,
}

/// What goes wrong when, in order.
pub(crate) fn schedule(plan: &Plan, random: &mut fastrand::Rng) -> Vec<(Duration, Fault)> {
    let duration = plan.duration();
    let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    let replies = match plan.plant {
        Some(Plant::Dedup | Plant::Marks) => 30,
        _ => 3,
    };
    let mut faults = Vec::new();
    for (fault, count) in [
        (Fault::Kill, plan.kills),
        (Fault::Freeze, plan.freezes),
        (Fault::Stop, plan.stops),
        (Fault::KillServer, plan.server_kills),
        (Fault::CutOne, seconds * 2),
        (Fault::CutAll, seconds / 10),
        (Fault::LoseReply, seconds * replies),
    ] {
        // One in each of as many equal parts of the time, anywhere in it.
        for part in 0..count {
            let share = (f64::from(part) + random.f64()) / f64::from(count);
            faults.push((duration.mul_f64(share), fault));
        }
    }
    faults.sort_by_key(|(when, _)| *when);
    faults
}

/// Lets everything go wrong that is planned.
pub(crate) async fn happen(
    schedule: Vec<(Duration, Fault)>,
    mut random: fastrand::Rng,
    lease: Duration,
    instances: &[Arc<Instance>],
    proxy: &Proxy,
    server: &mut RedisServer,
) -> anyhow::Result<Count> {
    let start = Instant::now();
    let mut count = Count::default();
    let mut going_on = JoinSet::new();
    for (when, fault) in schedule {
        sleep_until(start + when).await;
        for instance in instances {
            instance.look_after().await?;
        }
        match fault {
            Fault::Kill => {
                take(instances, &mut random).await.kill().await?;
                count.kills += 1;
            }
            Fault::Freeze => {
                let instance = take(instances, &mut random).await;
                let longer = Duration::from_millis(random.u64(300..1_500));
                going_on.spawn(async move { instance.freeze(lease + longer).await });
                count.freezes += 1;
            }
            Fault::Stop => {
                let instance = take(instances, &mut random).await;
                going_on.spawn(async move { instance.stop().await });
                count.stops += 1;
            }
            Fault::KillServer => {
                server.kill();
                sleep(Duration::from_millis(random.u64(50..800))).await;
                tokio::task::block_in_place(|| server.restart())?;
                count.server_kills += 1;
            }
            Fault::CutOne => {
                proxy.cut_one(&mut random);
                count.cuts += 1;
            }
            Fault::CutAll => {
                proxy.cut_all();
                count.cuts += 1;
            }
            Fault::LoseReply => {
                proxy.lose_reply(&mut random);
                count.lost_replies += 1;
            }
        }
    }
    while let Some(ended) = going_on.join_next().await {
        ended??;
    }
    Ok(count)
}

/// An instance that nothing else is done to.
async fn take(instances: &[Arc<Instance>], random: &mut fastrand::Rng) -> Arc<Instance> {
    loop {
        let instance = &instances[random.usize(..instances.len())];
        if instance.take() {
            return Arc::clone(instance);
        }
        sleep(Duration::from_millis(10)).await;
    }
}
