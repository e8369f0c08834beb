//! What the index of events by correlation costs and gives, on a real Redis:
//! `cargo bench -p github-live --bench correlation_index`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_core::{
    Append, Backend, BoxError, Category, Codec, Event, EventStore, Metadata, Service,
};
use event_redis::RedisStore;
use event_tests::RedisServer;
use github_live::correlation::{CorrelationIndex, Correlations};
use github_live::feeds;
use github_webhooks::repository::GithubRepository;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many events there are.
const EVENTS: usize = 100_000;

/// How many belong together.
const TOGETHER: usize = 5;

/// How many are appended at once.
const AT_ONCE: usize = 500;

/// How often is asked where that is quick, and where it is not.
const ASKED: (usize, usize) = (1_000, 10);

/// Longer than the clocks of two nodes may differ: a scan looks so far behind what it has found.
const LATER: Duration = Duration::from_secs(6);

/// An event of a usual size.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event("repository.measured")]
struct Measured {
    repository: String,
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = RedisServer::start()?;
    let store = RedisStore::connect(server.url()).await?;
    let correlations = append(&store, EVENTS).await?;
    let before = used_memory(&server)?;

    let service = Service::builder("measured")
        .without_discovered_handlers()
        .store(store.clone())
        .aggregate::<GithubRepository>()
        .projection(CorrelationIndex)
        .build()?;
    let begun = Instant::now();
    service.run_until_idle().await?;
    let filled = begun.elapsed();
    let bytes = used_memory(&server)?.saturating_sub(before);
    println!("{EVENTS} events of 200 bytes, {TOGETHER} to a correlation");
    println!(
        "index: {:.0} bytes/event in Redis (the events themselves: {:.0})",
        per_event(bytes),
        per_event(before)
    );
    println!(
        "index: filled with {:.0} events/s",
        EVENTS as f64 / filled.as_secs_f64()
    );

    let backend: Arc<dyn Backend> = Arc::new(store.clone());
    let view = service.projection(CorrelationIndex::NAME)?;
    let indexed = Correlations::new(backend.clone(), feeds::categories()?, Some(view));
    let scanning = Correlations::new(backend, feeds::categories()?, None);
    let (often, seldom) = ASKED;
    let some = correlations.iter().step_by(17);
    tell("index: any", &indexed, some, often).await?;
    let oldest = correlations.iter().take(1).cycle();
    tell("scan: the oldest of 100,000", &scanning, oldest, seldom).await?;
    let newest = correlations.iter().rev().take(1).cycle();
    tell("scan: the newest of a busy time", &scanning, newest, seldom).await?;
    tokio::time::sleep(LATER).await;
    let later = append(&store, TOGETHER).await?;
    let newest = later.iter().cycle();
    tell("scan: the newest of a quiet time", &scanning, newest, often).await?;
    Ok(())
}

/// Appends so many events; the ids of their correlations.
async fn append(store: &RedisStore, count: usize) -> Result<Vec<String>, BoxError> {
    let codec = Codec::default();
    let category = Category::new("repository")?;
    let mut correlations = Vec::with_capacity(count / TOGETHER);
    for first in (0..count).step_by(AT_ONCE) {
        let mut events = Vec::with_capacity(AT_ONCE);
        for number in first..count.min(first + AT_ONCE) {
            let mut event = codec.encode(&Measured {
                repository: format!("octo-test/{}", number % 100),
                text: "x".repeat(150),
            })?;
            let metadata: &mut Metadata = event.metadata_mut();
            if number % TOGETHER == 0 {
                correlations.push(metadata.event_id.to_string());
            } else {
                metadata.causation_id = Some(Uuid::new_v4().to_string());
            }
            if let Some(correlation) = correlations.last() {
                metadata.correlation_id.clone_from(correlation);
            }
            events.push(event);
        }
        store
            .append(&Append::to_feed(category.clone(), events))
            .await?;
    }
    Ok(correlations)
}

/// How long it takes to find a correlation.
async fn tell<'a>(
    what: &str,
    correlations: &Correlations,
    ids: impl Iterator<Item = &'a String>,
    most: usize,
) -> Result<(), BoxError> {
    let mut took: Vec<Duration> = Vec::new();
    let mut read = 0;
    for id in ids.take(most) {
        let begun = Instant::now();
        let found = correlations.find(id).await?;
        took.push(begun.elapsed());
        read = found.read;
        if found.events.len() != TOGETHER {
            return Err(format!("{} events were found of {TOGETHER}", found.events.len()).into());
        }
    }
    took.sort();
    let at = |share: usize| {
        took.get((took.len() - 1) * share / 100)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{what}: p50 {:.2?}, p99 {:.2?}, {read} events read",
        at(50),
        at(99)
    );
    Ok(())
}

fn used_memory(server: &RedisServer) -> Result<u64, BoxError> {
    let info = server.command(&["INFO", "memory"])?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    Ok(line
        .ok_or("Redis does not say what it uses")?
        .trim()
        .parse()?)
}

fn per_event(bytes: u64) -> f64 {
    bytes as f64 / EVENTS as f64
}
