//! Takeover: the owner of a feed is killed, and another instance of its group goes on.
//!
//! Ours is the time from the SIGKILL of a process that owns the feed, by a lease of a second, to the
//! handler of the instance in this process, which gets an event that was published after the kill.
//! That depends on how old the lease is at the kill, so rounds spread over all ages it can have, and
//! the longest time counts. What stands there as the ceiling is the lease itself.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use event_core::HandlerDefinition;
use event_core::prelude::*;
use event_redis::RedisStore;
use event_tests::RedisServer;
use tokio::sync::mpsc;

use crate::latency::Stored;
use crate::order;
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::Sides;
use crate::running::Running;
use crate::start_server;

const ROW: &str = "takeover.ms";
const LEASE: Duration = Duration::from_secs(1);

/// An owner renews its leases so often.
const RENEWAL: Duration = Duration::from_millis(333);

/// How much longer than the lease it may take, in milliseconds.
const ALLOWANCE: f64 = 500.0;

/// How long to wait for what should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);

const GROUP: &str = "takeover";

/// The instances of the group. The first by name gets the only feed.
const OWNER: &str = "1-owner";
const SUCCESSOR: &str = "2-successor";

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if !plan.wants(ROW) {
        return Ok(());
    }
    let rounds = plan.amount(3, 9) as u32;
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        longest = longest.max(take_over(RENEWAL * round / rounds).await?);
    }
    let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
    let sides = Sides {
        ceiling: milliseconds(LEASE),
        ours: milliseconds(longest),
    };
    let most = milliseconds(LEASE) + ALLOWANCE;
    report.add(ROW, "ms", sides, Reach::value(Bound::AtMost(most)));
    Ok(())
}

/// Kills the owner after so long, and gives the time until the successor has handled an event.
async fn take_over(age: Duration) -> anyhow::Result<Duration> {
    let server = start_server()?;
    let mut owner = Owner::start(&server)?;
    let store = order::store(&server, "").await?;
    // The first one counts.
    let (sender, mut heard) = mpsc::channel(1);
    let successor = service(store, SUCCESSOR, move || {
        // Nobody listens any more where measuring has failed.
        let _ = sender.try_send(Instant::now());
    })?;
    wait_for_members(&server, 1).await?;
    let running = Running::start(&successor);
    wait_for_members(&server, 2).await?;

    successor.publish(Stored::new(0)).await?;
    owner.has_handled()?;
    tokio::time::sleep(age).await;
    let killed = Instant::now();
    owner.kill()?;
    successor.publish(Stored::new(1)).await?;
    let first = tokio::time::timeout(PATIENCE, heard.recv())
        .await
        .context("nobody has taken over")?
        .context("the successor has ended")?;
    running.stop().await?;
    Ok(first.saturating_duration_since(killed))
}

fn service(
    store: RedisStore,
    instance: &str,
    handled: impl Fn() + Send + Sync + 'static,
) -> anyhow::Result<Service> {
    let handler = HandlerDefinition::function("handle", move |_: Stored, _: Context| {
        handled();
        async {}
    });
    let service = Service::builder(GROUP)
        .store(store)
        .instance(instance)
        .lease(LEASE)
        .handler(handler.on("latency.stored"))
        .build()?;
    Ok(service)
}

async fn wait_for_members(server: &RedisServer, count: usize) -> anyhow::Result<()> {
    let key = format!("{{group:{GROUP}}}:members");
    let deadline = Instant::now() + PATIENCE;
    while server.command(&["ZCARD", &key])?.trim() != count.to_string() {
        ensure!(Instant::now() < deadline, "an instance does not join");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// The process of the owner. Ends with this value.
struct Owner {
    process: Child,
}

impl Owner {
    fn start(server: &RedisServer) -> anyhow::Result<Self> {
        let url = server.unix_url().context("the server has no unix socket")?;
        let process = Command::new(env::current_exe()?)
            .args(["own", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start another process")?;
        Ok(Self { process })
    }

    /// Waits until it says so.
    fn has_handled(&mut self) -> anyhow::Result<()> {
        let output = self.process.stdout.take().context("it is asked twice")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(!line.is_empty(), "the owner has ended");
        Ok(())
    }

    /// Kills it with SIGKILL.
    fn kill(&mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.kill();
    }
}

/// What the process of the owner does: it says when it has handled an event, and runs until it is
/// killed, or who has started it has ended.
pub(crate) async fn own(url: &str) -> anyhow::Result<()> {
    let store = RedisStore::builder(url).connect().await?;
    let service = service(store, OWNER, || println!("handled"))?;
    let orphaned = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
    let orphaned = async {
        // However that ends, nobody is there any more.
        let _ = orphaned.await;
    };
    service.run_until(orphaned).await?;
    Ok(())
}
