//! Projecting: counters by key are made of a backlog of 200,000 events.
//!
//! Ours is a [`Projection`](event_core::Projection) of a service, from its first event until the counters and
//! the checkpoint behind the last event are stored: the events are decoded, and a method adds to the counter
//! of one of 1,000 shelves. The ceiling is a loop that decodes nothing: while XREAD reads the next 2,000
//! entries, a script does HINCRBY for each of the 2,000 before, whose shelf is cut out of the payload as it
//! lies there.

use anyhow::{Context, ensure};
use event_core::prelude::*;
use event_core::{Category, Partition, Projections};
use event_redis::RedisStore;
use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::bare;
use crate::order::{self, FEED, OrderEvent};
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{in_turns, rate, time};
use crate::start_server;

const ROW: &str = "projection.redis";
const VERSIONS: usize = 500;

/// Entries that are written at once, on both sides.
const BATCH: usize = 2_000;

const COUNT: &str = "for i = 1, #KEYS do redis.call('HINCRBY', KEYS[i], 'items', 1) end";

/// A version that is served cannot be dropped.
const FORGET: &str =
    "for _, key in ipairs(redis.call('KEYS', '{projection:*')) do redis.call('DEL', key) end";

struct Shelves;

#[projection(name = "shelves", version = 1)]
impl Shelves {
    #[on("order.item_added")]
    fn count(&self, event: OrderEvent, writes: &mut Writes) {
        if let OrderEvent::ItemAdded(item) = event {
            writes.increment(shelf(item.sku()), "items", 1);
        }
    }
}

/// The shelf that an item lies on: one of 1,000.
fn shelf(sku: &str) -> &str {
    &sku[sku.len().saturating_sub(3)..]
}

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if !plan.wants(ROW) {
        return Ok(());
    }
    let orders = plan.amount(80, 400);
    let events = orders * VERSIONS;
    let server = start_server()?;
    let store = order::store(&server, "").await?;
    order::fill(&store, orders, VERSIONS).await?;
    let mut connection = bare::connect(&server).await?;
    let load = redis::cmd("SCRIPT").arg("LOAD").arg(COUNT).to_owned();
    let hash = bare::bytes(&bare::ask(&mut connection, &load).await?)?.to_vec();

    let mut forgetting = connection.clone();
    let sides = in_turns(
        plan.rounds(),
        async || {
            let counting = count_bare(connection.clone(), hash.clone(), events);
            Ok(rate(events, time([counting]).await?))
        },
        async || {
            let took = time([project(store.clone(), events)]).await?;
            forget(&store, &mut forgetting).await?;
            Ok(rate(events, took))
        },
    )
    .await?;
    report.add(ROW, "events/s", sides, Reach::ratio(Bound::AtLeast(0.6)));
    Ok(())
}

/// Has a new projection take in all events.
async fn project(store: RedisStore, events: usize) -> anyhow::Result<()> {
    let service = Service::builder("shelves")
        .store(store.clone())
        .projection(Shelves);
    let taken = service.build()?.run_until_idle().await?.entries;
    ensure!(taken == events, "took in {taken} of {events} events");
    Ok(())
}

/// Looks whether everything was counted, and removes the projection.
async fn forget(store: &RedisStore, connection: &mut MultiplexedConnection) -> anyhow::Result<()> {
    let feed = Partition::from(Category::new("order")?);
    let [told] = store
        .projection_checkpoints(&feed)
        .await?
        .try_into()
        .ok()
        .context("one")?;
    ensure!(
        told.position == store.head(&feed).await?,
        "the checkpoint is not at the end"
    );
    let shelves = event_core::ProjectionView::new(store.clone(), "shelves")?;
    ensure!(
        shelves.keys(None, 2_000).await?.len() == 1_000,
        "other shelves"
    );
    bare::ask(connection, redis::cmd("EVAL").arg(FORGET).arg(0)).await?;
    Ok(())
}

/// Counts so many events by hand.
async fn count_bare(
    mut connection: MultiplexedConnection,
    hash: Vec<u8>,
    count: usize,
) -> anyhow::Result<()> {
    let mut after = b"0-0".to_vec();
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut events = 0;
    while events < count || !keys.is_empty() {
        let mut writing = connection.clone();
        let mut write = redis::cmd("EVALSHA");
        write.arg(&hash).arg(keys.len()).arg(&keys);
        let is_first = keys.is_empty();
        let writing = async {
            if !is_first {
                bare::ask(&mut writing, &write).await?;
            }
            anyhow::Ok(())
        };
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT")
            .arg(BATCH)
            .arg("STREAMS")
            .arg(FEED)
            .arg(&after);
        let ((), entries) = futures::try_join!(writing, bare::ask(&mut connection, &read))?;
        let entries = bare::entries(entries)?;
        events += entries.len();
        if let Some(last) = entries.last() {
            after = bare::id(last)?.to_vec();
        }
        keys = entries.into_iter().filter_map(key).collect();
    }
    ensure!(events == count, "read {events} of {count} entries");
    Ok(())
}

/// The counter of an entry, by the last three digits of what follows `SKU-`.
fn key(entry: Value) -> Option<Vec<u8>> {
    let fields = bare::array(entry).ok()?.into_iter().nth(1)?;
    let fields = bare::array(fields).ok()?;
    let payload = bare::bytes(fields.get(3)?).ok()?;
    let at = payload.windows(4).position(|four| four == b"SKU-")?;
    let digits = payload.get(at + 4..)?.split(|byte| *byte == b'"').next()?;
    let shelf = digits.get(digits.len().checked_sub(3)?..)?;
    Some([b"bare:", shelf].concat())
}
