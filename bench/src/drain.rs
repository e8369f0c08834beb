//! Draining: a service comes to a backlog of 200,000 events, and works it off.
//!
//! Ours is [`Service::run_until`], from the start of a new group until it is stopped after the last
//! event: the events are decoded, go through their lanes to a handler that does nothing, and the
//! checkpoint behind the last one is stored. The ceiling of `drain.ordered` is that of `feed.read`, a
//! loop of XREAD COUNT 500 that decodes nothing and keeps no checkpoint. That of `drain.vs_group` has
//! the server keep one: XREADGROUP COUNT 500, and with each call one XACK of all entries of the call
//! before.
//!
//! In `drain.parallel` the handler takes its events in any order, and the ceiling is that of
//! `drain.vs_group`.
//!
//! In `groups.20` there are 20 such groups on one feed, and 20 loops of XREAD, all at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use event_core::prelude::*;
use event_core::{Category, Delivery, Groups, HandlerDefinition, Partition, Start};
use event_redis::RedisStore;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;

use crate::bare;
use crate::feed::{self, BATCH};
use crate::order::{self, FEED};
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{Sides, in_turns, rate, time};
use crate::start_server;

/// Events of each order.
const VERSIONS: usize = 500;

/// Reads so many entries by hand.
type ReadBare<F> = fn(MultiplexedConnection, usize) -> F;

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let events = plan.amount(40_000, 200_000);
    let row = "drain.ordered";
    if plan.wants(row) {
        let sides = measure_row(Delivery::Ordered, events, 1, feed::read_bare, plan).await?;
        report.add(row, "events/s", sides, Reach::ratio(Bound::AtLeast(0.6)));
    }
    let row = "drain.vs_group";
    if plan.wants(row) {
        let sides = measure_row(Delivery::Ordered, events, 1, read_in_group, plan).await?;
        report.add(row, "events/s", sides, Reach::ratio(Bound::AtLeast(1.5)));
    }
    let row = "drain.parallel";
    if plan.wants(row) {
        let sides = measure_row(Delivery::Parallel, events, 1, read_in_group, plan).await?;
        report.add(row, "events/s", sides, Reach::ratio(Bound::AtLeast(0.7)));
    }
    let row = "groups.20";
    if plan.wants(row) {
        let events = plan.amount(4_000, 40_000);
        let sides = measure_row(Delivery::Ordered, events, 20, feed::read_bare, plan).await?;
        report.add(row, "events/s", sides, Reach::ratio(Bound::AtLeast(0.5)));
    }
    Ok(())
}

async fn measure_row<F>(
    delivery: Delivery,
    events: usize,
    groups: usize,
    read_bare: ReadBare<F>,
    plan: &Plan,
) -> anyhow::Result<Sides>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let server = start_server()?;
    let store = order::store(&server, "").await?;
    order::fill(&store, events / VERSIONS, VERSIONS).await?;

    let mut connections = Vec::new();
    for _ in 0..groups {
        connections.push(bare::connect(&server).await?);
    }
    let mut round = 0;
    in_turns(
        plan.rounds(),
        async || {
            let reading = connections.iter().cloned();
            let reading = reading.map(|connection| read_bare(connection, events));
            Ok(rate(events * groups, time(reading).await?))
        },
        async || {
            round += 1;
            let names: Vec<_> = (0..groups).map(|n| format!("drain-{round}-{n}")).collect();
            let draining = names.iter().cloned();
            let draining = draining.map(|group| drain(store.clone(), group, delivery, events));
            let took = time(draining).await?;
            // What is handled in any order has no checkpoint of ours.
            if delivery == Delivery::Ordered {
                for group in &names {
                    expect_drained(&store, group).await?;
                }
            }
            Ok(rate(events * groups, took))
        },
    )
    .await
}

/// Has a new group handle all events.
async fn drain(
    store: RedisStore,
    group: String,
    delivery: Delivery,
    events: usize,
) -> anyhow::Result<()> {
    let backlog = Arc::new(Backlog::new(events));
    let left = Arc::clone(&backlog);
    let handler = HandlerDefinition::function("ignore", move |_: RecordedEvent, _: Context| {
        left.handled();
        async {}
    });
    let service = Service::builder(group)
        .store(store)
        .handler(handler.on("order.*").delivery(delivery))
        .build()?;
    service.run_until(backlog.worked_off()).await?;
    Ok(())
}

/// Makes sure that the checkpoint is where the feed ends.
async fn expect_drained(store: &RedisStore, group: &str) -> anyhow::Result<()> {
    let feed = Partition::from(Category::new("order")?);
    let progress = store.open(group, &feed, Start::Beginning).await?;
    let head = store.head(&feed).await?;
    ensure!(
        progress.checkpoint == head,
        "the checkpoint of {group} is {}, the feed ends at {head}",
        progress.checkpoint
    );
    Ok(())
}

/// Reads entries as a consumer of a native group.
async fn read_in_group(mut connection: MultiplexedConnection, count: usize) -> anyhow::Result<()> {
    const GROUP: &str = "bare";
    let mut command = redis::cmd("XGROUP");
    command.arg("CREATE").arg(FEED).arg(GROUP).arg("0");
    bare::ask(&mut connection, &command).await?;

    let mut unacknowledged = Vec::new();
    let mut events = 0;
    while events < count || !unacknowledged.is_empty() {
        let mut acknowledge = redis::cmd("XACK");
        acknowledge.arg(FEED).arg(GROUP).arg(&unacknowledged);
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg("consumer");
        read.arg("COUNT").arg(BATCH);
        read.arg("STREAMS").arg(FEED).arg(">");

        // Both on their way at once.
        let mut acknowledging = connection.clone();
        let acknowledging = async {
            if !unacknowledged.is_empty() {
                bare::ask(&mut acknowledging, &acknowledge).await?;
            }
            anyhow::Ok(())
        };
        let reading = bare::ask(&mut connection, &read);
        let ((), entries) = futures::try_join!(acknowledging, reading)?;
        let entries = bare::entries(entries)?;
        events += entries.len();
        unacknowledged = entries
            .iter()
            .map(|entry| Ok(bare::id(entry)?.to_vec()))
            .collect::<anyhow::Result<_>>()?;
    }
    ensure!(events == count, "read {events} of {count} entries");
    let mut command = redis::cmd("XGROUP");
    command.arg("DESTROY").arg(FEED).arg(GROUP);
    bare::ask(&mut connection, &command).await?;
    Ok(())
}

/// What is still to be handled.
pub(crate) struct Backlog {
    left: AtomicUsize,
    worked_off: Notify,
}

impl Backlog {
    pub(crate) fn new(events: usize) -> Self {
        Self {
            left: AtomicUsize::new(events),
            worked_off: Notify::new(),
        }
    }

    /// One event was handled.
    pub(crate) fn handled(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.worked_off.notify_one();
        }
    }

    pub(crate) async fn worked_off(&self) {
        self.worked_off.notified().await;
    }
}
