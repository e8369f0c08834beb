//! `/healthz` and `/metrics`: for those who watch.

use std::convert::Infallible;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use event_core::{BoxError, ServiceState};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use tokio::time::timeout;

use crate::live::Live;

/// What `/metrics` is written in.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of how long handlers take, in seconds.
const SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// How often what was measured is put into its buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// How long the store may take to answer: whoever asks gives up before it does.
const PATIENCE: Duration = Duration::from_secs(2);

/// There is one recorder in a process.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to record metrics, before there is anything to record. Later calls do nothing.
///
/// # Errors
/// Where the process has another recorder.
pub fn record_metrics() -> Result<(), BoxError> {
    // One at a time: the second finds it installed.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if RECORDER.get().is_none() {
        let handle = PrometheusBuilder::new()
            .set_buckets(&SECONDS)?
            .install_recorder()?;
        event_core::metrics::describe();
        event_graphql::metrics::describe();
        let _ = RECORDER.set(handle);
    }
    Ok(())
}

/// Puts what was measured into its buckets now and then, so that it does not pile up where nobody looks.
pub(crate) async fn keep_up() -> Infallible {
    loop {
        tokio::time::sleep(UPKEEP).await;
        if let Some(recorder) = RECORDER.get() {
            recorder.run_upkeep();
        }
    }
}

/// Everything that was recorded, in the text format of Prometheus.
pub(crate) async fn metrics() -> Response {
    match RECORDER.get() {
        Some(recorder) => {
            // What was measured since goes into the buckets.
            recorder.run_upkeep();
            ([(header::CONTENT_TYPE, TEXT)], recorder.render()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no metrics are recorded here\n").into_response(),
    }
}

/// 200 where every service runs and the store answers within two seconds, else 503; and how they are doing.
pub(crate) async fn healthz(State(live): State<Live>) -> Response {
    let health = match timeout(PATIENCE, live.health()).await {
        Ok(Ok(health)) => health,
        unknown => {
            match unknown {
                Ok(Err(error)) => tracing::error!(%error, "the health is not known"),
                _ => tracing::error!("the health is not known: the store does not answer"),
            }
            let body = json!({
                "status": "unavailable",
                "reason": "the store does not answer",
            });
            return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
        }
    };
    let idle = health.iter().find(|one| one.state != ServiceState::Running);
    let (status, word, reason) = match idle {
        None => (StatusCode::OK, "ok", None),
        Some(idle) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            Some(format!("the service {} does not run", idle.service)),
        ),
    };
    let body = json!({ "status": word, "reason": reason, "services": health });
    (status, Json(body)).into_response()
}
