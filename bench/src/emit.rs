//! Emitting: a service works off a backlog, and each event that it handles leads to another, in the
//! feed of another category. There are 10,000 keys, which come in turns.
//!
//! Ours is [`Service::run_until`] as in `drain.ordered`: what is emitted is stored exactly once, with
//! the checkpoint. The ceiling reads nothing and keeps no checkpoint: it is a script with one XADD of
//! an entry of the same size in each call, by 64 tasks on one connection; the commands lie there
//! ready.

use std::sync::Arc;

use anyhow::ensure;
use event_core::prelude::*;
use event_core::{Append, Category, Codec, HandlerDefinition};
use event_redis::RedisStore;
use event_tests::RedisServer;
use redis::{Cmd, Script};
use serde::{Deserialize, Serialize};

use crate::bare;
use crate::drain::Backlog;
use crate::order;
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{in_turns, rate, time};
use crate::start_server;

const ROW: &str = "drain.emit";
const KEYS: usize = 10_000;
const TASKS: usize = 64;

/// Events of one append while the backlog is stored.
const FILLING_EVENTS: usize = 500;

/// The feed of what is emitted.
const FEED: &str = "events:shipping";

const BARE_SCRIPT: &str = "return redis.call('XADD', KEYS[1], '*', 'type', ARGV[1], \
                           'payload', ARGV[2], 'metadata', ARGV[3])";

/// Metadata as that of what is emitted.
const METADATA: &str = r#"{"eventId":"019ab000-0000-7000-8000-000000000000","timestamp":"2026-01-01T00:00:00.000000Z","correlationId":"019ab000-0000-7000-8000-000000000000","causationId":"019ab000-0000-7000-8000-000000000000","key":"order-000000","source":"emit-0","schemaVersion":1}"#;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("payment.received", key = order)]
struct PaymentReceived {
    order: String,
    cents: u64,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("shipping.requested", key = order)]
struct ShippingRequested {
    order: String,
    text: String,
}

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if !plan.wants(ROW) {
        return Ok(());
    }
    let events = plan.amount(20_000, 100_000);
    let server = start_server()?;
    let store = order::store(&server, "").await?;
    fill(&store, events).await?;
    let connection = bare::connect(&server).await?;
    let commands = Arc::new(commands(events)?);
    let loaded = redis::cmd("SCRIPT").arg("LOAD").arg(BARE_SCRIPT).to_owned();
    bare::ask(&mut connection.clone(), &loaded).await?;

    let mut round = 0;
    let sides = in_turns(
        plan.rounds(),
        async || {
            begin(&server)?;
            let tasks = (0..TASKS).map(|task| {
                let (commands, mut connection) = (Arc::clone(&commands), connection.clone());
                async move {
                    for command in commands.iter().skip(task).step_by(TASKS) {
                        bare::ask(&mut connection, command).await?;
                    }
                    Ok(())
                }
            });
            let took = time(tasks).await?;
            expect_emitted(&server, events)?;
            Ok(rate(events, took))
        },
        async || {
            begin(&server)?;
            round += 1;
            let took = time([drain(store.clone(), format!("emit-{round}"), events)]).await?;
            expect_emitted(&server, events)?;
            Ok(rate(events, took))
        },
    )
    .await?;
    report.add(ROW, "events/s", sides, Reach::ratio(Bound::AtLeast(0.6)));
    Ok(())
}

/// Stores the backlog.
async fn fill(store: &RedisStore, events: usize) -> anyhow::Result<()> {
    let codec = Codec::default();
    let numbers: Vec<_> = (0..events).collect();
    for numbers in numbers.chunks(FILLING_EVENTS) {
        let events = numbers.iter().map(|number| {
            codec.encode(&PaymentReceived {
                order: order::id(number % KEYS),
                cents: 3_499,
                text: text(),
            })
        });
        let events = events.collect::<Result<_, _>>()?;
        let append = Append::to_feed(Category::new("payment")?, events);
        store.append(&append).await?;
    }
    Ok(())
}

/// Makes a payload about 200 bytes long.
fn text() -> String {
    "Enamelled steel kettle, 1.7 litres, matt black; wrap it as a gift, with no invoice inside the \
     parcel, and leave it with the neighbours on the third floor if nobody is there"
        .into()
}

/// Has a new group handle all events.
async fn drain(store: RedisStore, group: String, events: usize) -> anyhow::Result<()> {
    let backlog = Arc::new(Backlog::new(events));
    let left = Arc::clone(&backlog);
    let handler = HandlerDefinition::function("ship", move |event: PaymentReceived, _: Context| {
        left.handled();
        async move {
            ShippingRequested {
                order: event.order,
                text: event.text,
            }
        }
    });
    let handler = handler.on("payment.received").emits("shipping.requested");
    let service = Service::builder(group)
        .store(store)
        .handler(handler)
        .build()?;
    service.run_until(backlog.worked_off()).await?;
    Ok(())
}

/// The calls of the bare script.
fn commands(events: usize) -> anyhow::Result<Vec<Cmd>> {
    let script = Script::new(BARE_SCRIPT);
    (0..events)
        .map(|number| {
            let event = ShippingRequested {
                order: order::id(number % KEYS),
                text: text(),
            };
            let mut command = redis::cmd("EVALSHA");
            command.arg(script.get_hash()).arg(1).arg(FEED);
            command.arg("shipping.requested");
            command.arg(serde_json::to_string(&event)?).arg(METADATA);
            Ok(command)
        })
        .collect()
}

/// Deletes what was emitted in the round before.
fn begin(server: &RedisServer) -> anyhow::Result<()> {
    server.command(&["DEL", FEED])?;
    Ok(())
}

/// Makes sure that each event has led to one.
fn expect_emitted(server: &RedisServer, events: usize) -> anyhow::Result<()> {
    let emitted: usize = server.command(&["XLEN", FEED])?.trim().parse()?;
    ensure!(emitted == events, "emitted {emitted} of {events} events");
    Ok(())
}
