//! What tests turn and look at.

use std::ops::Range;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use event_core::{Category, Maintenance, Service, TrimPolicy};
use event_graphql::{EventSubscriptionBridge, GraphqlTransport};
use event_redis::RedisStore;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::events::Stepped;
use crate::rights::Rights;
use crate::schema::ServerSchema;
use crate::stars::{Barrier, CachedStars};

/// How many events are stored by one append.
const BATCH: u64 = 100;

#[derive(Clone)]
pub(crate) struct Controls {
    pub(crate) store: RedisStore,
    pub(crate) bridge: EventSubscriptionBridge,
    pub(crate) service: Service,
    pub(crate) transport: GraphqlTransport<ServerSchema>,
    pub(crate) rights: Rights,
    pub(crate) stars: CachedStars,
    pub(crate) barrier: Arc<Barrier>,
}

pub(crate) fn router(controls: Controls) -> Router {
    Router::new()
        // A page of this origin, from which scripts may ask this server.
        .route(
            "/page",
            get(|| async { Html("<!doctype html><title>test</title>") }),
        )
        .route("/stats", get(stats))
        .route("/publish", post(publish))
        .route("/trim", post(trim))
        .route("/revoke", post(revoke))
        .route("/forget", post(forget))
        .route("/hold", post(hold))
        .route("/release", post(release))
        .with_state(controls)
}

async fn stats(State(controls): State<Controls>) -> Json<Value> {
    Json(json!({
        "readers": controls.bridge.readers(),
        "clients": controls.bridge.clients(),
        "shared": controls.transport.shared_executions(),
        // How far feeds have been read.
        "read": controls.bridge.positions().to_string(),
        "held": controls.barrier.held(),
        "sockets": sockets(),
        "rss": status("VmRSS:"),
        "peak": status("VmHWM:"),
    }))
}

/// How many sockets this process has, where the system tells it.
fn sockets() -> Option<usize> {
    let files = std::fs::read_dir("/proc/self/fd").ok()?;
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let sockets = targets.filter(|target| target.to_string_lossy().starts_with("socket:"));
    Some(sockets.count())
}

/// How many bytes of memory this process has or had, where the system tells it.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// Steps of a lane, from a number on to before another.
#[derive(Deserialize)]
struct Steps {
    lane: String,
    from: u64,
    to: u64,
    #[serde(default)]
    bytes: usize,
}

async fn publish(
    State(controls): State<Controls>,
    Query(steps): Query<Steps>,
) -> Result<StatusCode, (StatusCode, String)> {
    let text = "x".repeat(steps.bytes);
    for first in (steps.from..steps.to).step_by(BATCH as usize) {
        let numbers: Range<u64> = first..steps.to.min(first + BATCH);
        let stepped = numbers.map(|number| Stepped {
            lane: steps.lane.clone(),
            number,
            text: text.clone(),
        });
        let published = controls.service.publish(stepped.collect::<Vec<_>>()).await;
        published.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// How much of the feed of steps is to stay.
#[derive(Deserialize)]
struct Trim {
    keep: u64,
}

async fn trim(
    State(controls): State<Controls>,
    Query(trim): Query<Trim>,
) -> Result<StatusCode, (StatusCode, String)> {
    let failed = |error: String| (StatusCode::BAD_GATEWAY, error);
    let category = Category::new("web").map_err(|error| failed(error.to_string()))?;
    let policy = TrimPolicy::new().max_entries(trim.keep);
    let trimmed = controls.store.trim(&category, &policy).await;
    trimmed.map_err(|error| failed(error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct User {
    user: String,
}

async fn revoke(State(controls): State<Controls>, Query(user): Query<User>) -> StatusCode {
    controls.rights.revoke(&user.user);
    StatusCode::NO_CONTENT
}

async fn forget(State(controls): State<Controls>) -> StatusCode {
    controls.stars.cache().clear();
    StatusCode::NO_CONTENT
}

async fn hold(State(controls): State<Controls>) -> StatusCode {
    controls.barrier.arm();
    StatusCode::NO_CONTENT
}

async fn release(State(controls): State<Controls>) -> StatusCode {
    controls.barrier.open();
    StatusCode::NO_CONTENT
}
