//! A storm: far more events than a service can handle, for a while. What it must show is that the
//! service's memory does not grow with them, and that everything is handled afterwards.

use std::fs;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use event_core::prelude::*;
use event_core::{Category, Groups, HandlerDefinition, Start};
use event_redis::RedisStore;
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::{Instant, interval};

const GROUP: &str = "slow";

/// So much memory may a process have used that handles a storm, in KiB.
const MEMORY_KIB: u64 = 200 * 1024;

/// How heavy the storm is.
#[derive(Args, Clone, Debug)]
pub(crate) struct Storm {
    /// Events in a second.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// For how many seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// The server that a slow service handles events of; this program starts it itself.
#[derive(Args, Clone, Debug)]
pub(crate) struct Slow {
    #[arg(long)]
    url: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event("storm.dropped", key = cloud)]
struct Drop {
    cloud: u64,
    text: String,
}

/// Takes 10 ms for each event, 64 at once.
pub(crate) async fn handle(slow: Slow) -> anyhow::Result<ExitCode> {
    let handler = HandlerDefinition::function("take", |_: Drop, _: Context| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
    });
    let service = Service::builder(GROUP)
        .without_discovered_handlers()
        .store(RedisStore::connect(slow.url).await?)
        .handler(handler.on("storm.dropped"))
        .concurrency(64)
        .build()?;
    service.run_until(shutdown_signal()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Sends the storm, waits until it is handled, and tells what it took.
pub(crate) async fn rage(storm: Storm) -> anyhow::Result<ExitCode> {
    let server = RedisServer::start().context("cannot start a server")?;
    let mut slow = Command::new(std::env::current_exe()?)
        .args(["slow", "--url", &server.url()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the slow service")?;
    let pid = slow.id().context("the slow service has ended")?;
    let store = RedisStore::connect(server.url()).await?;
    let publisher = Service::builder("storm")
        .without_discovered_handlers()
        .store(store.clone())
        .build()?;

    let start = Instant::now();
    let mut ticks = interval(Duration::from_millis(10));
    let total = storm.rate * storm.seconds;
    let mut sent = 0;
    while sent < total {
        ticks.tick().await;
        let due = (start.elapsed().as_millis() as u64 * storm.rate / 1_000).min(total);
        while sent < due {
            let count = (due - sent).min(500);
            let drops: Vec<_> = (sent..sent + count).map(drop_of).collect();
            publisher.publish(drops).await?;
            sent += count;
        }
    }
    let sending = start.elapsed();

    let partition = Category::new("storm")?.into();
    let head = store.head(&partition).await?;
    let mut often = interval(Duration::from_millis(50));
    loop {
        often.tick().await;
        ensure!(slow.try_wait()?.is_none(), "the slow service has ended");
        let progress = store.open(GROUP, &partition, Start::Beginning).await?;
        if progress.checkpoint >= head {
            break;
        }
        if start.elapsed() > sending * 30 {
            bail!("the storm is not handled in {:?}", start.elapsed());
        }
    }
    let lag = store.lag(GROUP, &partition).await?;
    let memory = peak_kib(pid)?;
    println!(
        "storm: {total} events sent in {:.1} s, all handled {:.1} s after the first; {lag} left; the service used {} MiB at most",
        sending.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        memory / 1024
    );
    slow.kill().await?;
    if lag == 0 && memory <= MEMORY_KIB {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "storm: at most {} MiB and nothing left are allowed",
        MEMORY_KIB / 1024
    );
    Ok(ExitCode::FAILURE)
}

fn drop_of(number: u64) -> Drop {
    Drop {
        cloud: number % 10_000,
        text: format!("{number:0>120}"),
    }
}

/// The most memory that a process has used, in KiB.
fn peak_kib(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .context("the memory of a process can be told on Linux only")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok())
        .context("/proc does not tell how much memory was used")
}
