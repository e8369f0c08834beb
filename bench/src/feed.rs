//! Reading a feed: a backlog of 200,000 events.
//!
//! Ours is [`EventStore::follow`] with each event decoded into its Rust type. The ceiling is a loop
//! of XREAD COUNT 500 that decodes nothing and only looks where the next one begins: so it is a
//! ceiling that nothing that reads events can reach by the same work. Ours reads ahead while its
//! caller works, which it may.

use anyhow::{Context, ensure};
use event_core::prelude::*;
use event_core::{Category, Position};
use event_redis::RedisStore;
use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::bare;
use crate::order::{self, FEED, OrderEvent};
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{in_turns, rate, time};
use crate::start_server;

const ROW: &str = "feed.read";
const ORDERS: usize = 400;
const VERSIONS: usize = 500;
const EVENTS: usize = ORDERS * VERSIONS;
const BATCH: usize = 500;

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if !plan.wants(ROW) {
        return Ok(());
    }
    let server = start_server()?;
    let store = order::store(&server, "").await?;
    order::fill(&store, ORDERS, VERSIONS).await?;
    let connection = bare::connect(&server).await?;

    let sides = in_turns(
        plan.rounds(),
        async || Ok(rate(EVENTS, time([read_bare(connection.clone())]).await?)),
        async || Ok(rate(EVENTS, time([read(store.clone())]).await?)),
    )
    .await?;
    let reach = Reach::ratio(Bound::AtLeast(0.6));
    report.add(ROW, "events/s", sides, reach);
    Ok(())
}

async fn read(store: RedisStore) -> anyhow::Result<()> {
    let mut reader = store
        .follow(&Category::new("order")?.into(), Position::START)
        .await?;
    let (mut events, mut placed) = (0, 0);
    while events < EVENTS {
        for entry in reader.next_batch(BATCH).await? {
            if let OrderEvent::Placed(_) = entry.into_event()?.decode::<OrderEvent>()? {
                placed += 1;
            }
            events += 1;
        }
    }
    ensure!(placed == ORDERS, "read {placed} orders");
    Ok(())
}

async fn read_bare(mut connection: MultiplexedConnection) -> anyhow::Result<()> {
    let mut after = b"0-0".to_vec();
    let mut events = 0;
    while events < EVENTS {
        let mut command = redis::cmd("XREAD");
        command
            .arg("COUNT")
            .arg(BATCH)
            .arg("STREAMS")
            .arg(FEED)
            .arg(&after);
        let entries = entries(bare::ask(&mut connection, &command).await?)?;
        let last = entries.last().context("the feed has ended")?;
        let Value::Array(last) = last else {
            anyhow::bail!("not an entry: {last:?}");
        };
        after = bare::bytes(last.first().context("an entry without an id")?)?.to_vec();
        events += entries.len();
    }
    Ok(())
}

/// The entries of the only stream in a reply to XREAD.
pub(crate) fn entries(reply: Value) -> anyhow::Result<Vec<Value>> {
    match bare::array(reply)?.into_iter().next() {
        None => Ok(Vec::new()),
        Some(stream) => {
            let entries = bare::array(stream)?.into_iter().nth(1);
            bare::array(entries.context("a stream without entries")?)
        }
    }
}
