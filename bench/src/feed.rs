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
use redis::aio::MultiplexedConnection;

use crate::bare;
use crate::order::{self, FEED, OrderEvent};
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{in_turns, rate, time};
use crate::start_server;

const ROW: &str = "feed.read";
const VERSIONS: usize = 500;

/// Entries that are read at once.
pub(crate) const BATCH: usize = 500;

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if !plan.wants(ROW) {
        return Ok(());
    }
    let orders = plan.amount(120, 400);
    let events = orders * VERSIONS;
    let server = start_server()?;
    let store = order::store(&server, "").await?;
    order::fill(&store, orders, VERSIONS).await?;
    let connection = bare::connect(&server).await?;

    let sides = in_turns(
        plan.rounds(),
        async || {
            let reading = read_bare(connection.clone(), events);
            Ok(rate(events, time([reading]).await?))
        },
        async || Ok(rate(events, time([read(store.clone(), orders)]).await?)),
    )
    .await?;
    let reach = Reach::ratio(Bound::AtLeast(0.6));
    report.add(ROW, "events/s", sides, reach);
    Ok(())
}

async fn read(store: RedisStore, orders: usize) -> anyhow::Result<()> {
    let mut reader = store
        .follow(&Category::new("order")?.into(), Position::START)
        .await?;
    let (mut events, mut placed) = (0, 0);
    while events < orders * VERSIONS {
        for entry in reader.next_batch(BATCH).await? {
            if let OrderEvent::Placed(_) = entry.into_event()?.decode::<OrderEvent>()? {
                placed += 1;
            }
            events += 1;
        }
    }
    ensure!(placed == orders, "read {placed} orders");
    Ok(())
}

/// Reads so many entries of the feed by hand.
pub(crate) async fn read_bare(
    mut connection: MultiplexedConnection,
    count: usize,
) -> anyhow::Result<()> {
    let mut after = b"0-0".to_vec();
    let mut events = 0;
    while events < count {
        let mut command = redis::cmd("XREAD");
        command
            .arg("COUNT")
            .arg(BATCH)
            .arg("STREAMS")
            .arg(FEED)
            .arg(&after);
        let entries = bare::entries(bare::ask(&mut connection, &command).await?)?;
        after = bare::id(entries.last().context("the feed has ended")?)?.to_vec();
        events += entries.len();
    }
    Ok(())
}
