//! All of it together: starts everything, lets things go wrong, and judges what is left.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use event_tests::RedisServer;
use event_tests::redis_server::Aof;
use tokio::time::sleep;

use crate::events::{BILLING, RECEIPTS};
use crate::faults::{self, Count};
use crate::feeds::{Progress, Reader};
use crate::instances::{Common, Instance};
use crate::load::Load;
use crate::proxy::Proxy;
use crate::verdict::{Kind, Verdict, judge};
use crate::{Plan, Plant};

/// How many workers each group has.
const WORKERS: u32 = 3;

/// So many violations are shown, of all kinds together.
const SHOWN: usize = 20;

/// Where nothing moves for so long, it is not going to.
const STUCK: Duration = Duration::from_secs(45);

/// Without a safeguard it may never come to the end, and nobody need wait for it.
const STUCK_WITHOUT_SAFEGUARD: Duration = Duration::from_secs(5);

/// Does everything, and prints one line of verdict.
pub(crate) async fn run(plan: Plan) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let seed = plan.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!(
        "chaos: seed {seed}, things go wrong for {:?}",
        plan.duration()
    );
    let mut random = fastrand::Rng::with_seed(seed);
    let lease = Duration::from_millis(random.u64(1_000..=2_000));
    let schedule = faults::schedule(&plan, &mut random);

    let mut server = RedisServer::builder().aof(Aof::Always).start()?;
    let address = server.tcp_address().context("the server has no port")?;
    let proxy = Proxy::start(address).await?;
    let mut logs = tempfile::Builder::new().prefix("chaos-").tempdir()?;
    logs.disable_cleanup(plan.keep_logs);
    let common = Common {
        url: proxy.url(),
        lease,
        slots: plan.slots || plan.plant == Some(Plant::Marks),
        plant: plan.plant,
        logs: logs.path().to_owned(),
    };
    let load = Load {
        events: plan.events,
        keys: plan.keys.max(1),
    };
    let (url, duration) = (proxy.url(), plan.duration());
    let publishing = tokio::spawn(async move { load.publish(&url, duration).await });
    let mut instances = Vec::new();
    for group in [BILLING, RECEIPTS] {
        for number in 0..WORKERS {
            instances.push(Instance::start(&common, group, number).await?);
        }
    }

    let count = faults::happen(schedule, random, lease, &instances, &proxy, &mut server).await?;
    publishing.await??;
    let mut reader = Reader::connect(&server.url()).await?;
    let stuck = match plan.plant {
        Some(_) => STUCK_WITHOUT_SAFEGUARD,
        None => STUCK,
    };
    wait(&mut reader, &instances, stuck).await?;
    // Whoever is late would do what it must not do now.
    sleep(lease * 2).await;

    let mut ended = Vec::new();
    for instance in &instances {
        instance.look_after().await?;
        ended.extend(instance.ended());
        match instance.end().await? {
            Some(status) if status.success() => {}
            status => ended.push(format!(
                "{instance} did not end as it was asked to: {status:?}"
            )),
        }
    }
    let feeds = reader.feeds().await?;
    let progress = reader.progress().await?;
    let mut verdict = judge(load.customers(), &feeds, &progress);
    for ended in ended {
        verdict.say(Kind::Other, ended);
    }
    if plan.keep_logs {
        println!(
            "chaos: the logs of the workers are in {}",
            logs.path().display()
        );
    }
    Ok(tell(&verdict, seed, count, begun.elapsed()))
}

/// Waits until both groups have handled everything, or nothing moves any more.
async fn wait(
    reader: &mut Reader,
    instances: &[std::sync::Arc<Instance>],
    stuck: Duration,
) -> anyhow::Result<()> {
    let mut before: Vec<Progress> = Vec::new();
    let mut moved = Instant::now();
    while moved.elapsed() < stuck {
        for instance in instances {
            instance.look_after().await?;
        }
        let progress = reader.progress().await?;
        if progress.iter().all(Progress::is_at_head) {
            return Ok(());
        }
        if progress != before {
            before = progress;
            moved = Instant::now();
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn tell(verdict: &Verdict, seed: u64, count: Count, took: Duration) -> ExitCode {
    let Verdict {
        violations,
        orders,
        invoices,
        audits,
        receipts,
        bookings,
    } = verdict;
    let mut kinds = Vec::new();
    for (kind, said) in violations {
        kinds.push(format!("{} {kind}", said.len()));
        for what in said.iter().take(SHOWN / violations.len()) {
            println!("  {kind}: {what}");
        }
    }
    let Count {
        kills,
        freezes,
        stops,
        server_kills,
        cuts,
        lost_replies,
    } = count;
    let (word, code) = if kinds.is_empty() {
        ("no violation".to_owned(), ExitCode::SUCCESS)
    } else {
        (format!("VIOLATED: {}", kinds.join(", ")), ExitCode::FAILURE)
    };
    println!(
        "chaos: seed {seed}: {word}; {orders} orders, {invoices} invoices, {audits} audits, \
         {receipts} receipts, {bookings} bookings; {kills} kills, {freezes} freezes, {stops} stops, {server_kills} server \
         kills, {cuts} cuts, {lost_replies} lost replies; {:.0} s",
        took.as_secs_f64()
    );
    code
}
