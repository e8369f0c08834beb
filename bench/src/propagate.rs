//! Propagation: from publishing a stored event to the handler of a running service, at 1,000/s and at
//! 10,000/s. Each event must be handled exactly once.
//!
//! Ours is [`Service::publish`] and a handler of [`Service::run_until`], which reads the feed, decodes
//! the event, keeps the group's checkpoint and would retry. The ceiling is XADD of the same fields,
//! and a loop of XREAD BLOCK on a connection of its own that decodes the payload.

use event_core::HandlerDefinition;
use event_core::prelude::*;

use crate::bare::{self, Follower};
use crate::latency::{Feeds, Listener, Pace, Stored};
use crate::order;
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::Sides;
use crate::running::Running;
use crate::start_server;

const BARE_FEED: &str = "bare:latency";

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let row = "propagate.p99";
    if plan.wants(row) {
        let pace = Pace {
            messages: plan.amount(500, 2_000),
            rate: 1_000,
        };
        let sides = measure_pace(pace, plan.rounds()).await?;
        let reach = Reach::ratio(Bound::AtMost(2.0)).and_value(Bound::AtMost(10.0));
        report.add(row, "ms", sides, reach);
    }
    let row = "propagate10k.p99";
    if plan.wants(row) {
        let pace = Pace {
            messages: plan.amount(20_000, 100_000),
            rate: 10_000,
        };
        let rounds = plan.few_rounds();
        let sides = measure_pace(pace, rounds).await?;
        let reach = Reach::ratio(Bound::AtMost(2.5)).and_value(Bound::AtMost(3.0));
        report.add(row, "ms", sides, reach);
        // One that is not would be an error.
        let events = pace.messages;
        report.note(&format!(
            "delivered: all of {events} events, each once, in every round"
        ));
    }
    Ok(())
}

async fn measure_pace(pace: Pace, rounds: usize) -> anyhow::Result<Sides> {
    let server = start_server()?;
    let listener = Listener::new();

    let connection = bare::connect(&server).await?;
    let follower = Follower::connect(&server, BARE_FEED).await?;
    let reading = tokio::spawn(read_bare(follower, listener.clone()));

    let handler = listener.clone();
    let handler = HandlerDefinition::function("hear", move |event: Stored, _: Context| {
        handler.hear(event.due);
        async {}
    });
    let service = Service::builder("bench")
        .store(order::store(&server, "").await?)
        .handler(handler.on("latency.stored"))
        .build()?;
    let running = Running::start(&service);

    let feeds = Feeds {
        bare: (&connection, BARE_FEED),
        ours: &service,
    };
    let sides = listener.p99_of_stored(pace, rounds, feeds).await?;
    running.stop().await?;
    reading.abort();
    Ok(sides)
}

async fn read_bare(mut follower: Follower, listener: Listener) -> anyhow::Result<()> {
    loop {
        for payload in follower.next().await? {
            listener.hear(serde_json::from_slice::<Stored>(&payload)?.due);
        }
    }
}
