//! Memory: bytes of the server for each event, with 1, 5 and 20 events an order.
//!
//! Ours is what appending leaves: the feed and the histories. The ceiling is the feed alone, without
//! any histories: the same entries, at the same positions, on a server of its own. Events have the
//! metadata of a service whose handlers emit: id, time, correlation, cause and source.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use event_core::{AggregateId, Append, Codec, EventStore, Expected};
use event_tests::RedisServer;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use uuid::Uuid;

use crate::bare;
use crate::order::{self, FEED, Order};
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{Sides, time};
use crate::start_server;

const TASKS: usize = 64;

/// Entries that are copied at once.
const CHUNK: usize = 1_000;

/// How long to wait until the server has closed its connections.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    for (row, versions, most) in [
        ("memory.1", 1, 2.4),
        ("memory.5", 5, 2.0),
        ("memory.20", 20, 1.9),
    ] {
        if plan.wants(row) {
            // Not in rounds: it does not depend on what else the machine does.
            let events = plan.amount(40_000, 200_000);
            let sides = measure_row(events, versions).await?;
            report.add(row, "bytes/event", sides, Reach::ratio(Bound::AtMost(most)));
        }
    }
    Ok(())
}

async fn measure_row(events: usize, versions: usize) -> anyhow::Result<Sides> {
    let ours = start_server()?;
    let before = used_memory(&ours).await?;
    append(&ours, events / versions, versions).await?;
    let our_bytes = used_memory(&ours).await? - before;

    let feed_alone = start_server()?;
    let before = used_memory(&feed_alone).await?;
    let copied = copy_feed(&ours, &feed_alone).await?;
    ensure!(copied == events, "copied {copied} of {events} events");
    let feed_bytes = used_memory(&feed_alone).await? - before;

    Ok(Sides {
        ceiling: feed_bytes / events as f64,
        ours: our_bytes / events as f64,
    })
}

/// Appends one event after the other to each order, so that all histories grow together.
async fn append(server: &RedisServer, orders: usize, versions: usize) -> anyhow::Result<()> {
    let store = order::store(server, "").await?;
    let tasks = (0..TASKS).map(|task| {
        let store = store.clone();
        async move {
            let codec = Codec::default().with_source("order-service");
            for version in 1..=versions {
                for number in (task..orders).step_by(TASKS) {
                    let mut event = order::encoded(&codec, number, version)?;
                    let metadata = event.metadata_mut();
                    metadata.correlation_id = Uuid::now_v7().to_string();
                    metadata.causation_id = Some(Uuid::now_v7().to_string());
                    let aggregate = AggregateId::of::<Order>(&order::id(number))?;
                    let expected = Expected::Exact(version as u64 - 1);
                    store
                        .append(&Append::to(aggregate, expected, vec![event]))
                        .await?;
                }
            }
            Ok(())
        }
    });
    time(tasks).await?;
    Ok(())
}

/// Copies the feed, and nothing else, to another server.
async fn copy_feed(from: &RedisServer, to: &RedisServer) -> anyhow::Result<usize> {
    let (mut from, mut to) = (bare::connect(from).await?, bare::connect(to).await?);
    let mut after = b"-".to_vec();
    let mut copied = 0;
    loop {
        let mut command = redis::cmd("XRANGE");
        command
            .arg(FEED)
            .arg(&after)
            .arg("+")
            .arg("COUNT")
            .arg(CHUNK);
        let entries = bare::array(bare::ask(&mut from, &command).await?)?;
        if entries.is_empty() {
            return Ok(copied);
        }
        copied += entries.len();
        let last = copy_entries(&mut to, entries).await?;
        after = [b"(", last.as_slice()].concat();
    }
}

/// Adds entries where they were, and gives the position of the last one.
async fn copy_entries(
    to: &mut MultiplexedConnection,
    entries: Vec<Value>,
) -> anyhow::Result<Vec<u8>> {
    let mut pipeline = Pipeline::new();
    let mut last = Vec::new();
    for entry in entries {
        let mut entry = bare::array(entry)?.into_iter();
        let id = entry.next().context("an entry without an id")?;
        last = bare::bytes(&id)?.to_vec();
        let added = pipeline.cmd("XADD").arg(FEED).arg(&last);
        for field in bare::array(entry.next().unwrap_or(Value::Nil))? {
            added.arg(bare::bytes(&field)?);
        }
    }
    let () = pipeline.exec_async(to).await?;
    Ok(last)
}

/// The bytes that the server uses when nobody else is connected.
async fn used_memory(server: &RedisServer) -> anyhow::Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    while info(server, "connected_clients")? > 1.0 {
        ensure!(Instant::now() < deadline, "a connection was not closed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Until the AOF's buffer is written, it counts as used, too.
    tokio::time::sleep(Duration::from_millis(200)).await;
    info(server, "used_memory")
}

fn info(server: &RedisServer, name: &str) -> anyhow::Result<f64> {
    let info = server.command(&["INFO", "everything"])?;
    let value = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .find_map(|(key, value)| (key == name).then_some(value))
        .with_context(|| format!("INFO has no {name}"))?;
    Ok(value.parse()?)
}
