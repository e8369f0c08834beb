//! Loading: orders of 20, 1,000 and 10,000 events, without a snapshot and without a cache.
//!
//! Ours is [`Repository::load`]. The ceiling is one LRANGE of the same list, each element read by
//! serde_json straight into the same event type in one pass, and folded into the same state. Both
//! sides load with one task for each core.

use std::sync::Arc;

use anyhow::ensure;
use event_core::{Aggregate, Repository};
use redis::aio::MultiplexedConnection;

use crate::bare::{self, Element};
use crate::order::{self, FEED, Order};
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{in_turns, rate, time};
use crate::start_server;

/// Loads that are under way at once.
const TASKS: usize = 2;

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let least = Reach::ratio(Bound::AtLeast(0.7));
    for (row, versions, orders, reach) in [
        ("load.20", 20, 1_000, least),
        (
            "load.1000",
            1_000,
            40,
            least.and_value(Bound::AtLeast(900_000.0)),
        ),
        ("load.10000", 10_000, 4, least),
    ] {
        if plan.wants(row) {
            let events = plan.amount(120_000, 400_000);
            let loads = events / versions;
            measure_row(row, versions, orders, loads, reach, plan, report).await?;
        }
    }
    Ok(())
}

async fn measure_row(
    row: &str,
    versions: usize,
    orders: usize,
    loads: usize,
    reach: Reach,
    plan: &Plan,
    report: &mut Report,
) -> anyhow::Result<()> {
    let server = start_server()?;
    let store = order::store(&server, "").await?;
    order::fill(&store, orders, versions).await?;
    let connection = bare::connect(&server).await?;
    let repository = Arc::new(Repository::<Order>::new(store));

    let numbers = move |task| (task..loads).step_by(TASKS).map(move |load| load % orders);
    let sides = in_turns(
        plan.rounds(),
        async || {
            let tasks = (0..TASKS).map(|task| {
                let mut connection = connection.clone();
                async move {
                    for number in numbers(task) {
                        let (_, version) = load(&mut connection, FEED, &order::id(number)).await?;
                        ensure!(version == versions as u64, "loaded {version} events");
                    }
                    Ok(())
                }
            });
            Ok(rate(loads * versions, time(tasks).await?))
        },
        async || {
            let tasks = (0..TASKS).map(|task| {
                let repository = Arc::clone(&repository);
                async move {
                    for number in numbers(task) {
                        let version = repository.load(&order::id(number)).await?.version;
                        ensure!(version == versions as u64, "loaded {version} events");
                    }
                    Ok(())
                }
            });
            Ok(rate(loads * versions, time(tasks).await?))
        },
    )
    .await?;
    report.add(row, "events/s", sides, reach);
    Ok(())
}

/// Loads an order by hand: its state and version.
pub(crate) async fn load(
    connection: &mut MultiplexedConnection,
    feed: &str,
    order: &str,
) -> anyhow::Result<(Order, u64)> {
    let mut command = redis::cmd("LRANGE");
    command.arg(bare::history_key(feed, order)).arg(0).arg(-1);
    let elements = bare::array(bare::ask(connection, &command).await?)?;
    let (mut state, mut version) = (Order::default(), 0);
    for element in &elements {
        let element = Element::decode(bare::bytes(element)?)?;
        state.apply(&element.event);
        version = element.version;
    }
    Ok((state, version))
}
