//! Invalidation: values that go by a pattern, 10,000 among 1,000,000, and what others notice of it.
//!
//! Ours is the 99th percentile of GET on a connection of its own, one each millisecond, while
//! [`RedisCache::remove_matching`] goes through all keys, as an event has it done. The ceiling is the same
//! while nothing else is asked. `invalidate.keys` is how many keys it goes through in a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use event_redis::{RedisCache, RedisStore};
use event_tests::RedisServer;
use redis::Pipeline;

use crate::bare;
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::in_turns;
use crate::start_server;

const ROW: &str = "invalidate.p99";
const KEYS_ROW: &str = "invalidate.keys";

const KEYS: usize = 1_000_000;

/// Each has a hundredth of the keys, and is invalidated once.
const REPOSITORIES: usize = 100;

/// Entries that are written in one go.
const AT_ONCE: usize = 10_000;

/// How long it is looked at what is there when nothing else happens.
const IDLE: Duration = Duration::from_secs(3);

const PACE: Duration = Duration::from_millis(1);

/// What is asked for meanwhile.
const OTHER: &str = "other";

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if !plan.wants(ROW) && !plan.wants(KEYS_ROW) {
        return Ok(());
    }
    let server = start_server()?;
    fill(&server).await?;
    let url = server.unix_url().context("the server has no unix socket")?;
    let pages = RedisStore::connect(url).await?.cache("pages")?;
    let mut repositories = 0..REPOSITORIES;
    let mut rates = Vec::new();
    let sides = in_turns(
        plan.amount(2, 6),
        async || {
            let sampler = Sampler::start(&server)?;
            tokio::time::sleep(IDLE).await;
            sampler.p99()
        },
        async || {
            let repository = repositories.next().context("all are invalidated")?;
            let sampler = Sampler::start(&server)?;
            rates.push(KEYS as f64 / invalidate(&pages, repository).await?.as_secs_f64());
            sampler.p99()
        },
    )
    .await?;
    let reach = Reach::ratio(Bound::AtMost(2.0));
    report.add(ROW, "ms", sides, reach);
    rates.sort_by(f64::total_cmp);
    report.add_alone(KEYS_ROW, "keys/s", rates[rates.len() / 2]);
    report.note(&format!(
        "{} of {KEYS} keys go each time",
        KEYS / REPOSITORIES
    ));
    Ok(())
}

/// How long it takes until all values of a repository are gone.
async fn invalidate(pages: &RedisCache, repository: usize) -> anyhow::Result<Duration> {
    let pages = pages.clone();
    let begun = Instant::now();
    let removing = tokio::spawn(async move {
        let pattern = format!("repo:{repository}:*");
        pages.remove_matching(&pattern).await
    });
    let removed = removing.await??;
    let took = begun.elapsed();
    ensure!(removed == (KEYS / REPOSITORIES) as u64, "removed {removed}");
    Ok(took)
}

/// Writes entries as a cache does.
async fn fill(server: &RedisServer) -> anyhow::Result<()> {
    let mut connection = bare::connect(server).await?;
    bare::ask(&mut connection, redis::cmd("SET").arg(OTHER).arg("value")).await?;
    for first in (0..KEYS).step_by(AT_ONCE) {
        let mut pipeline = Pipeline::with_capacity(AT_ONCE);
        for number in first..first + AT_ONCE {
            let repository = number % REPOSITORIES;
            pipeline
                .cmd("HSET")
                .arg(format!("cache:pages:repo:{repository}:{number}"))
                .arg(&["generation", "g", "noted", "[]", "value", "1", "asOf", "{}"])
                .ignore();
        }
        pipeline.exec_async(&mut connection).await?;
    }
    Ok(())
}

/// Asks for one key again and again, on a thread and a connection of its own, and notes how long it takes.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Sampler {
    fn start(server: &RedisServer) -> anyhow::Result<Self> {
        let mut connection = bare::client(server)?.get_connection()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut took = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let value: String = redis::cmd("GET").arg(OTHER).query(&mut connection)?;
                took.push(begun.elapsed());
                ensure!(value == "value", "read {value}");
                thread::sleep(PACE);
            }
            Ok(took)
        });
        Ok(Self { stop, thread })
    }

    /// The 99th percentile of what it has noted, in milliseconds.
    fn p99(self) -> anyhow::Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let took = self.thread.join();
        let mut took = took.map_err(|_| anyhow::anyhow!("the sampler panicked"))??;
        took.sort();
        let p99 = took.get(took.len() * 99 / 100);
        Ok(p99.context("nothing was asked")?.as_secs_f64() * 1_000.0)
    }
}
