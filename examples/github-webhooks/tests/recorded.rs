//! What GitHub has told once, handled again: the recording of the sample comes to what the golden file has.
//!
//! `UPDATE_GOLDEN=1 cargo test -p github-webhooks --test recorded` writes both anew. Read what has changed
//! before you keep it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod ingesting;

use std::sync::Arc;

use event_core::testing::{TestService, assert_replay_safe};
use event_core::{Backend, Category, MemoryStore, Recording, ServiceBuilder};
use event_redis::RedisStore;
use event_tests::RedisServer;
use github_webhooks::analyzer::PathAnalyzer;
use github_webhooks::github;
use github_webhooks::repository::GithubRepository;
use github_webhooks::service::builder;
use tokio::sync::OnceCell;

use ingesting::ingest_sample_on;

const RECORDING: &str = "tests/recorded/sample.jsonl";
const GOLDEN: &str = "tests/recorded/sample.golden.json";

/// What the sample leaves in a store.
async fn sample() -> Recording {
    let store = MemoryStore::new();
    ingest_sample_on(&store).await;
    let recorder = Recording::of(&store).category(Category::new(github::CATEGORY).unwrap());
    recorder.record().await.unwrap()
}

async fn recording() -> &'static Recording {
    static READ: OnceCell<Recording> = OnceCell::const_new();
    READ.get_or_init(|| async {
        if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
            let sample = sample().await;
            // Where it tells the same, its times and positions stay.
            if !Recording::read(RECORDING).is_ok_and(|read| told(&read) == told(&sample)) {
                sample.write(RECORDING).unwrap();
            }
        }
        Recording::read(RECORDING).unwrap()
    })
    .await
}

fn service() -> ServiceBuilder {
    builder(Arc::new(PathAnalyzer))
}

/// What matters of each event: positions and times are those of the day.
fn told(recording: &Recording) -> Vec<(String, String)> {
    let lines = recording.lines().iter();
    lines
        .map(|line| {
            let id = line.event.metadata().event_id;
            (
                format!("{} {id}", line.event.event_type()),
                line.event.payload().to_owned(),
            )
        })
        .collect()
}

#[tokio::test]
async fn the_recording_is_that_of_the_sample() {
    assert_eq!(told(recording().await), told(&sample().await));
}

async fn comes_to_the_golden_file<S: Backend + Clone>(test: TestService<S>) {
    let replayed = test.replay(recording().await).await.unwrap();
    let repositories = test.repository::<GithubRepository>();
    let replayed = replayed.states_of(&repositories).await.unwrap();
    let replayed = replayed.ignoring("commands");
    replayed.assert_emits_only_declared();
    replayed.assert_golden(GOLDEN);

    // What the repositories have recorded meanwhile rebuilds them, whole and from any snapshot.
    let own = Category::new("codebase").unwrap();
    let own = Recording::of(test.store())
        .category(own)
        .record()
        .await
        .unwrap();
    assert_replay_safe::<GithubRepository>(&own);
}

#[tokio::test]
async fn the_recording_comes_to_the_golden_file_on_memory() {
    comes_to_the_golden_file(TestService::start(service()).await.unwrap()).await;
}

#[tokio::test]
async fn the_recording_comes_to_the_golden_file_on_redis() {
    let server = RedisServer::start().unwrap();
    let store = RedisStore::connect(server.url()).await.unwrap();
    comes_to_the_golden_file(TestService::start_on(store, service()).await.unwrap()).await;
}

#[tokio::test]
async fn two_replays_agree() {
    TestService::assert_deterministic(recording().await, async || {
        TestService::start(service()).await
    })
    .await
    .unwrap();
}
