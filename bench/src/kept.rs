//! States that are kept: snapshots and cached states, and what they spare.
//!
//! `load.snapshot`: an order of 10,000 events with a snapshot 20 events before its end. Ours is
//! [`Repository::load`]; the ceiling is HMGET of the snapshot and LRANGE of what came after, read by
//! serde_json and folded. `load.cached`: the same order, unchanged and cached, against one LLEN, which
//! would be the least that asks whether it is unchanged. `execute.cached`: commands on 1,000 cached
//! orders by 64 tasks, against the ceiling of `append.single`: ready calls of the script.

use std::sync::Arc;

use anyhow::{Context, ensure};
use event_core::{Aggregate, AggregateId, Append, Codec, EventStore, Expected, Repository};
use event_core::{SnapshotPolicy, Versions};
use redis::aio::MultiplexedConnection;

use crate::append;
use crate::bare::{self, AppendScript, Element};
use crate::order::{self, FEED, Order};
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{in_turns, rate, time};
use crate::start_server;

/// Events of the order whose state is kept, and those after its snapshot.
const VERSIONS: usize = 10_000;
const TAIL: usize = 20;

/// Loads that are under way at once.
const LOADERS: usize = 2;

const COMMANDERS: usize = 64;
const HOT_ORDERS: usize = 1_000;

/// Bytes of the caches: more than all orders take.
const CACHE: usize = 64 << 20;

/// Ours has a part of the server for itself where both sides write.
const OURS: &str = "ours:";

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if plan.wants("load.snapshot") || plan.wants("load.cached") {
        measure_loads(plan, report).await?;
    }
    if plan.wants("execute.cached") {
        measure_commands(plan, report).await?;
    }
    Ok(())
}

async fn measure_loads(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let server = start_server()?;
    let store = order::store(&server, "").await?;
    order::fill(&store, 1, VERSIONS).await?;
    let connection = bare::connect(&server).await?;
    let id = order::id(0);

    let kept = Repository::<Order>::new(store.clone());
    let kept = kept.with_snapshots(SnapshotPolicy::every(u64::MAX));
    save_snapshot(&store, &id).await?;
    let loads = plan.amount(6_000, 20_000);
    let row = "load.snapshot";
    if plan.wants(row) {
        let bare = |mut connection: MultiplexedConnection, id: String| async move {
            load_bare(&mut connection, &id).await
        };
        let sides = measure_row(loads, &connection, kept, bare, plan).await?;
        report.add(row, "loads/s", sides, Reach::ratio(Bound::AtLeast(0.7)));
    }
    let row = "load.cached";
    if plan.wants(row) {
        let cached = Repository::<Order>::new(store).with_cache(CACHE);
        cached.load(&id).await?;
        let bare = |mut connection: MultiplexedConnection, id: String| async move {
            let mut command = redis::cmd("LLEN");
            command.arg(bare::history_key(FEED, &id));
            match bare::ask(&mut connection, &command).await? {
                redis::Value::Int(length) => Ok(u64::try_from(length)?),
                other => anyhow::bail!("not a length: {other:?}"),
            }
        };
        let sides = measure_row(loads, &connection, cached, bare, plan).await?;
        report.add(row, "loads/s", sides, Reach::ratio(Bound::AtLeast(0.8)));
    }
    Ok(())
}

/// Loads the order so often, by hand and by ours.
async fn measure_row<F>(
    loads: usize,
    connection: &MultiplexedConnection,
    repository: Repository<Order>,
    load_bare: fn(MultiplexedConnection, String) -> F,
    plan: &Plan,
) -> anyhow::Result<crate::rounds::Sides>
where
    F: Future<Output = anyhow::Result<u64>> + Send + 'static,
{
    let repository = Arc::new(repository);
    let id = order::id(0);
    in_turns(
        plan.rounds(),
        async || {
            let tasks = (0..LOADERS).map(|_| {
                let (connection, id) = (connection.clone(), id.clone());
                async move {
                    for _ in 0..loads / LOADERS {
                        let version = load_bare(connection.clone(), id.clone()).await?;
                        ensure!(version == VERSIONS as u64, "loaded version {version}");
                    }
                    Ok(())
                }
            });
            Ok(rate(loads, time(tasks).await?))
        },
        async || {
            let tasks = (0..LOADERS).map(|_| {
                let (repository, id) = (Arc::clone(&repository), id.clone());
                async move {
                    for _ in 0..loads / LOADERS {
                        let version = repository.load(&id).await?.version;
                        ensure!(version == VERSIONS as u64, "loaded version {version}");
                    }
                    Ok(())
                }
            });
            Ok(rate(loads, time(tasks).await?))
        },
    )
    .await
}

/// Keeps the state of an order as it was some events before its end.
async fn save_snapshot(store: &event_redis::RedisStore, id: &str) -> anyhow::Result<()> {
    let orders = Repository::<Order>::new(store.clone());
    let version = (VERSIONS - TAIL) as u64;
    let past = orders.load_at(id, event_core::At::Version(version)).await?;
    let aggregate = AggregateId::of::<Order>(id)?;
    let only = Versions::from(version).to(version);
    let event = store.read_aggregate(&aggregate, &only).await?;
    let event = event.first().context("there is no such version")?;
    let snapshot = event_core::Snapshot {
        version,
        event_id: event.metadata().event_id,
        state_version: 1,
        state: serde_json::to_string(&past.state)?,
    };
    store.save_snapshot(&aggregate, &snapshot).await?;
    Ok(())
}

/// Loads an order by hand, from its snapshot on; gives its version.
async fn load_bare(connection: &mut MultiplexedConnection, id: &str) -> anyhow::Result<u64> {
    let history = bare::history_key(FEED, id);
    let mut command = redis::cmd("HMGET");
    command.arg(history.replace("}:history:", "}:snapshot:"));
    command
        .arg("version")
        .arg("event")
        .arg("stateVersion")
        .arg("state");
    let fields = bare::array(bare::ask(connection, &command).await?)?;
    let [version, _, _, state] = &fields[..] else {
        anyhow::bail!("a snapshot of {} fields", fields.len());
    };
    let mut version: u64 = std::str::from_utf8(bare::bytes(version)?)?.parse()?;
    let mut state: Order = serde_json::from_slice(bare::bytes(state)?)?;
    let mut command = redis::cmd("LRANGE");
    command.arg(history).arg(version - 1).arg(-1);
    let elements = bare::array(bare::ask(connection, &command).await?)?;
    for element in elements.iter().skip(1) {
        let element = Element::decode(bare::bytes(element)?)?;
        state.apply(&element.event);
        version = element.version;
    }
    ensure!(state != Order::default(), "the state is empty");
    Ok(version)
}

async fn measure_commands(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let commands = plan.amount(12_000, 40_000);
    let each = commands / HOT_ORDERS;
    let server = start_server()?;
    let mut connection = bare::connect(&server).await?;
    let script = AppendScript::load(&mut connection).await?;
    let store = order::store(&server, OURS).await?;
    order::fill(&store, HOT_ORDERS, 1).await?;
    order::fill(&order::store(&server, "").await?, HOT_ORDERS, 1).await?;
    let repository = Arc::new(Repository::<Order>::new(store).with_cache(CACHE));

    let codec = Codec::default();
    let numbers = |task| (task..HOT_ORDERS).step_by(COMMANDERS);
    let (mut bare_version, mut our_version) = (1, 1);
    let sides = in_turns(
        plan.rounds(),
        async || {
            let first = bare_version + 1;
            bare_version += each;
            let mut ready = Vec::new();
            for task in 0..COMMANDERS {
                let mut own = Vec::new();
                for version in first..first + each {
                    for number in numbers(task) {
                        let event = order::encoded(&codec, number, version)?;
                        let aggregate = AggregateId::of::<Order>(&order::id(number))?;
                        let expected = Expected::Exact(version as u64 - 1);
                        let append = Append::to(aggregate, expected, vec![event]);
                        own.push(append::command(&script, &append)?);
                    }
                }
                ready.push(own);
            }
            let tasks = ready.into_iter().map(|commands| {
                let mut connection = connection.clone();
                async move {
                    for command in &commands {
                        bare::expect_stored(&bare::ask(&mut connection, command).await?)?;
                    }
                    Ok(())
                }
            });
            Ok(rate(each * HOT_ORDERS, time(tasks).await?))
        },
        async || {
            let first = our_version + 1;
            our_version += each;
            let tasks = (0..COMMANDERS).map(|task| {
                let repository = Arc::clone(&repository);
                let numbers: Vec<_> = numbers(task).collect();
                async move {
                    for version in first..first + each {
                        for number in &numbers {
                            let item = order::item(*number, version);
                            let done = repository.execute(&order::id(*number), item).await?;
                            ensure!(done.version == version as u64, "reached {}", done.version);
                        }
                    }
                    Ok(())
                }
            });
            Ok(rate(each * HOT_ORDERS, time(tasks).await?))
        },
    )
    .await?;
    let reach = Reach::ratio(Bound::AtLeast(0.6));
    report.add("execute.cached", "commands/s", sides, reach);
    Ok(())
}
