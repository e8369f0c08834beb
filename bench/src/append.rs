//! Appending: 64 tasks, 10,000 orders, each append at the exact version of its order.
//!
//! Ours is [`EventStore::append`] on events that are encoded already. The ceiling is the same script
//! with the same arguments, which lie there as ready commands, on one connection with the same
//! settings and as many tasks. Between the two lies what the store itself does: it checks the limits,
//! encodes metadata, puts the command together and reads the reply.

use std::sync::Arc;

use event_core::codec::{entry, history};
use event_core::{AggregateId, Append, Codec, EventStore, Expected};
use redis::Cmd;
use redis::aio::MultiplexedConnection;

use crate::bare::{self, AppendScript, Arguments};
use crate::order::{self, FEED, Order};
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{in_turns, rate, time};
use crate::start_server;

const TASKS: usize = 64;
const ORDERS: usize = 10_000;

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    for (row, events, appends) in [
        ("append.single", 1, plan.amount(12_000, 40_000)),
        ("append.batch10", 10, plan.amount(2_000, 5_000)),
    ] {
        if plan.wants(row) {
            measure_row(row, events, appends, plan, report).await?;
        }
    }
    Ok(())
}

async fn measure_row(
    row: &str,
    events: usize,
    appends: usize,
    plan: &Plan,
    report: &mut Report,
) -> anyhow::Result<()> {
    let server = start_server()?;
    let mut connection = bare::connect(&server).await?;
    let script = AppendScript::load(&mut connection).await?;
    let store = order::store(&server, "").await?;

    let shares = share(events, appends)?;
    let commands: Vec<_> = shares
        .iter()
        .map(|share| {
            let commands = share.iter().map(|append| command(&script, append));
            Ok(Arc::new(commands.collect::<anyhow::Result<Vec<_>>>()?))
        })
        .collect::<anyhow::Result<_>>()?;
    let shares: Vec<_> = shares.into_iter().map(Arc::new).collect();

    let stored = appends * events;
    let flush = async |connection: &MultiplexedConnection| {
        let mut connection = connection.clone();
        bare::flush(&mut connection).await
    };
    let sides = in_turns(
        plan.rounds(),
        async || {
            flush(&connection).await?;
            let tasks = commands.iter().map(|commands| {
                let (commands, mut connection) = (Arc::clone(commands), connection.clone());
                async move {
                    for command in commands.iter() {
                        bare::expect_stored(&bare::ask(&mut connection, command).await?)?;
                    }
                    Ok(())
                }
            });
            Ok(rate(stored, time(tasks).await?))
        },
        async || {
            flush(&connection).await?;
            let tasks = shares.iter().map(|share| {
                let (share, store) = (Arc::clone(share), store.clone());
                async move {
                    for append in share.iter() {
                        store.append(append).await?;
                    }
                    Ok(())
                }
            });
            Ok(rate(stored, time(tasks).await?))
        },
    )
    .await?;
    let reach = Reach::ratio(Bound::AtLeast(0.85));
    report.add(row, "events/s", sides, reach);
    Ok(())
}

/// The appends of each task: each has orders of its own, so that none comes in another's way.
fn share(events: usize, appends: usize) -> anyhow::Result<Vec<Vec<Append>>> {
    let codec = Codec::default();
    (0..TASKS)
        .map(|task| {
            let orders: Vec<_> = (task..ORDERS).step_by(TASKS).collect();
            (task..appends)
                .step_by(TASKS)
                .enumerate()
                .map(|(index, _)| {
                    let number = orders[index % orders.len()];
                    let before = index / orders.len() * events;
                    let new = (before + 1..=before + events)
                        .map(|version| order::encoded(&codec, number, version))
                        .collect::<anyhow::Result<_>>()?;
                    let aggregate = AggregateId::of::<Order>(&order::id(number))?;
                    Ok(Append::to(aggregate, Expected::Exact(before as u64), new))
                })
                .collect()
        })
        .collect()
}

/// The call of the script that the store makes of an append.
pub(crate) fn command(script: &AppendScript, append: &Append) -> anyhow::Result<Cmd> {
    let texts = append
        .events()
        .iter()
        .map(|event| {
            Ok((
                event.metadata().event_id.to_string(),
                entry::encode_metadata(event)?,
                history::encode_tail(event)?,
            ))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let events = append
        .events()
        .iter()
        .zip(&texts)
        .map(|(event, (event_id, metadata, tail))| Arguments {
            event_id,
            event_type: event.event_type(),
            payload: event.payload(),
            metadata,
            tail,
        });
    let order = append.aggregate().map_or("", AggregateId::id);
    let version = append.expected().exact().unwrap_or_default();
    Ok(script.call(FEED, order, version, events))
}
