//! Executing commands: load, decide, append; many orders with short histories.
//!
//! Ours is [`Repository::execute`]. The ceiling does the same by hand: LRANGE, decode, fold, the
//! order's own decision, an event with a new id and the time, and the same script. Both have orders
//! of their own, which grow alike.

use std::sync::Arc;

use anyhow::ensure;
use chrono::{SecondsFormat, Utc};
use event_core::{Aggregate, Repository};
use redis::aio::MultiplexedConnection;
use uuid::Uuid;

use crate::bare::{self, AppendScript, Arguments};
use crate::load::load;
use crate::order::{self, ItemAdded, Order, OrderEvent};
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{in_turns, rate, time};
use crate::start_server;

/// Events of each order at first; each round adds one.
const VERSIONS: usize = 5;

/// Each side has a part of the server.
const OURS: &str = "ours:";
const BARE: &str = "bare:";
const BARE_FEED: &str = "bare:events:order";

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    for (row, tasks) in [("execute.16", 16), ("execute.64", 64)] {
        if plan.wants(row) {
            measure_row(row, tasks, plan, report).await?;
        }
    }
    Ok(())
}

async fn measure_row(
    row: &str,
    task_count: usize,
    plan: &Plan,
    report: &mut Report,
) -> anyhow::Result<()> {
    let orders = plan.amount(5_000, 10_000);
    let server = start_server()?;
    let store = order::store(&server, OURS).await?;
    order::fill(&store, orders, VERSIONS).await?;
    order::fill(&order::store(&server, BARE).await?, orders, VERSIONS).await?;
    let mut connection = bare::connect(&server).await?;
    let script = AppendScript::load(&mut connection).await?;
    let repository = Arc::new(Repository::<Order>::new(store));

    let numbers = move |task| (task..orders).step_by(task_count);
    let mut bare_version = VERSIONS;
    let mut our_version = VERSIONS;
    let sides = in_turns(
        plan.rounds(),
        async || {
            bare_version += 1;
            let version = bare_version;
            let tasks = (0..task_count).map(|task| {
                let (mut connection, script) = (connection.clone(), script.clone());
                async move {
                    for number in numbers(task) {
                        let item = order::item(number, version);
                        let reached =
                            execute(&mut connection, &script, &order::id(number), item).await?;
                        ensure!(reached == version as u64, "reached version {reached}");
                    }
                    Ok(())
                }
            });
            Ok(rate(orders, time(tasks).await?))
        },
        async || {
            our_version += 1;
            let version = our_version;
            let tasks = (0..task_count).map(|task| {
                let repository = Arc::clone(&repository);
                async move {
                    for number in numbers(task) {
                        let item = order::item(number, version);
                        let reached = repository.execute(&order::id(number), item).await?.version;
                        ensure!(reached == version as u64, "reached version {reached}");
                    }
                    Ok(())
                }
            });
            Ok(rate(orders, time(tasks).await?))
        },
    )
    .await?;
    let reach = Reach::ratio(Bound::AtLeast(0.7)).and_value(Bound::AtLeast(18_000.0));
    report.add(row, "commands/s", sides, reach);
    Ok(())
}

/// Adds an item to an order by hand, and gives the version afterwards.
async fn execute(
    connection: &mut MultiplexedConnection,
    script: &AppendScript,
    order: &str,
    item: ItemAdded,
) -> anyhow::Result<u64> {
    let (mut state, version) = load(connection, BARE_FEED, order).await?;
    let events = state.handle(item)?;
    let stored = events
        .iter()
        .map(Stored::new)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let command = script.call(
        BARE_FEED,
        order,
        version,
        stored.iter().map(Stored::arguments),
    );
    bare::expect_stored(&bare::ask(connection, &command).await?)?;
    for event in &events {
        state.apply(event);
    }
    Ok(version + events.len() as u64)
}

/// An event in the stored form, written by hand.
struct Stored {
    event_id: String,
    event_type: &'static str,
    payload: String,
    metadata: String,
    tail: String,
}

impl Stored {
    fn new(event: &OrderEvent) -> anyhow::Result<Self> {
        let (event_type, payload) = match event {
            OrderEvent::Placed(placed) => ("order.placed", serde_json::to_string(placed)?),
            OrderEvent::ItemAdded(item) => ("order.item_added", serde_json::to_string(item)?),
        };
        let now = Utc::now();
        let event_id = Uuid::now_v7().to_string();
        let timestamp = now.to_rfc3339_opts(SecondsFormat::Micros, true);
        Ok(Self {
            event_type,
            payload,
            metadata: format!(
                r#"{{"eventId":"{event_id}","timestamp":"{timestamp}","correlationId":"{event_id}","schemaVersion":1}}"#
            ),
            tail: format!("{},0,0,1]", now.timestamp_micros()),
            event_id,
        })
    }

    fn arguments(&self) -> Arguments<'_> {
        Arguments {
            event_id: &self.event_id,
            event_type: self.event_type,
            payload: &self.payload,
            metadata: &self.metadata,
            tail: &self.tail,
        }
    }
}
