//! A chain: from publishing an event, over the handler of a service that emits another, to the handler
//! of a second service, at 1,000/s.
//!
//! Ours is [`Service::publish`] and two running services. The ceiling is XADD, a loop of XREAD BLOCK
//! that adds the payload to a second feed, and a loop of XREAD BLOCK that reads it there. It stands
//! there to compare with; what must be reached is a time.

use event_core::HandlerDefinition;
use event_core::prelude::*;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};

use crate::bare::{self, Follower};
use crate::latency::{Feeds, Listener, METADATA, Pace, Stored};
use crate::order;
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::running::Running;
use crate::start_server;

const ROW: &str = "chain.p99";
const FIRST_FEED: &str = "bare:latency";
const SECOND_FEED: &str = "bare:chain";

/// What the first handler emits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("chain.passed_on")]
struct PassedOn {
    stored: Stored,
}

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if !plan.wants(ROW) {
        return Ok(());
    }
    let server = start_server()?;
    let listener = Listener::new();
    let pace = Pace {
        messages: plan.amount(500, 2_000),
        rate: 1_000,
    };

    let connection = bare::connect(&server).await?;
    let bare_links = [
        tokio::spawn(pass_on_bare(
            Follower::connect(&server, FIRST_FEED).await?,
            connection.clone(),
        )),
        tokio::spawn(hear_bare(
            Follower::connect(&server, SECOND_FEED).await?,
            listener.clone(),
        )),
    ];

    let store = order::store(&server, "").await?;
    let pass_on = HandlerDefinition::function("pass_on", |stored: Stored, _: Context| async {
        PassedOn { stored }
    });
    let first = Service::builder("first")
        .store(store.clone())
        .handler(pass_on.on("latency.stored").emits("chain.passed_on"))
        .build()?;
    let last = listener.clone();
    let hear = HandlerDefinition::function("hear", move |event: PassedOn, _: Context| {
        last.hear(event.stored.due);
        async {}
    });
    let second = Service::builder("second")
        .store(store)
        .handler(hear.on("chain.passed_on"))
        .build()?;
    let links = [Running::start(&first), Running::start(&second)];

    let feeds = Feeds {
        bare: (&connection, FIRST_FEED),
        ours: &first,
    };
    let rounds = plan.few_rounds();
    let sides = listener.p99_of_stored(pace, rounds, feeds).await?;
    for link in links {
        link.stop().await?;
    }
    for link in bare_links {
        link.abort();
    }
    report.add(ROW, "ms", sides, Reach::value(Bound::AtMost(10.0)));
    Ok(())
}

async fn pass_on_bare(
    mut follower: Follower,
    mut connection: MultiplexedConnection,
) -> anyhow::Result<()> {
    loop {
        for payload in follower.next().await? {
            let stored = serde_json::from_slice(&payload)?;
            let payload = serde_json::to_string(&PassedOn { stored })?;
            let command = bare::add(SECOND_FEED, "chain.passed_on", &payload, METADATA);
            bare::ask(&mut connection, &command).await?;
        }
    }
}

async fn hear_bare(mut follower: Follower, listener: Listener) -> anyhow::Result<()> {
    loop {
        for payload in follower.next().await? {
            let event: PassedOn = serde_json::from_slice(&payload)?;
            listener.hear(event.stored.due);
        }
    }
}
