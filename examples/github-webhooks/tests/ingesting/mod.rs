//! Ingesting in a test: texts in, reports out.

// Each test file uses what it needs.
#![allow(dead_code)]

use event_core::MemoryStore;
use github_webhooks::ingest::ingest;
use github_webhooks::lines::Lines;
use github_webhooks::report::Report;
use github_webhooks::sample;
use github_webhooks::service::repo_agent;
use github_webhooks::signature::{Secret, Signatures};
use serde_json::{Value, json};

/// The signatures of the sample are checked, and nothing else must be signed.
pub(crate) fn sample_signatures() -> Signatures {
    Signatures::WhereGiven(Secret::new(sample::SECRET).unwrap())
}

pub(crate) async fn ingest_on(
    store: &MemoryStore,
    lines: &[u8],
    signatures: &Signatures,
) -> Report {
    let service = repo_agent(store.clone()).unwrap();
    ingest(&mut Lines::of(lines), signatures, &service, store, |_| {})
        .await
        .unwrap()
}

pub(crate) async fn ingest_sample_on(store: &MemoryStore) -> Report {
    ingest_on(store, sample::DELIVERIES.as_bytes(), &sample_signatures()).await
}

/// A line of a delivery to `octo-test/lab`.
pub(crate) fn line(name: &str, action: &str, mut payload: Value) -> String {
    payload["action"] = json!(action);
    payload["repository"] = json!({"full_name": "octo-test/lab", "default_branch": "main"});
    json!({"name": name, "payload": payload}).to_string()
}
