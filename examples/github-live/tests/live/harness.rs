//! A server in this process, and deliveries to it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use event_core::{Backend, MemoryStore};
use github_live::health::record_metrics;
use github_live::live::{Live, Settings};
use github_live::server::Server;
use github_webhooks::signature::Secret;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::client::{Answer, get, http};

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const SECRET: &str = "octo-test-secret";
pub(crate) const LAB: &str = "octo-test/lab";

/// Gives up long after what is waited for should have happened.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it did not happen")
}

/// A server that runs.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) live: Live,
}

impl Served {
    /// In memory, without a sample.
    pub(crate) async fn in_memory() -> Self {
        Self::on(MemoryStore::new(), quick(), None).await
    }

    pub(crate) async fn on(
        store: impl Backend + Clone,
        settings: Settings,
        secret: Option<&str>,
    ) -> Self {
        record_metrics().unwrap();
        let live = Live::new(store, settings).await.unwrap();
        let secret = secret.map(|secret| Secret::new(secret).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(live.clone(), secret);
        let serving = server.serve(listener, std::future::pending());
        tokio::spawn(async move { serving.await.unwrap() });
        until_healthy(address).await;
        Self { address, live }
    }

    /// Waits until everything that is stored is handled, and what came of it, too.
    pub(crate) async fn settled(&self) {
        soon(async {
            loop {
                let health = self.live.health().await.unwrap();
                let partitions = health.iter().flat_map(|one| &one.partitions);
                let projections = health.iter().flat_map(|one| &one.projections);
                let behind: u64 = partitions.map(|one| one.lag).sum::<u64>()
                    + projections
                        .flat_map(|one| &one.partitions)
                        .map(|one| one.lag)
                        .sum::<u64>();
                if behind == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Delivers an event, which must be taken in; its id.
    pub(crate) async fn deliver(&self, event: &str, payload: Value) -> String {
        deliver(self.address, event, payload).await
    }
}

/// Settings without pauses.
pub(crate) fn quick() -> Settings {
    Settings {
        ai_pause: Duration::ZERO,
        ..Settings::default()
    }
}

pub(crate) async fn until_healthy(address: SocketAddr) {
    soon(async {
        while get(address, "/healthz").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) async fn deliver(address: SocketAddr, event: &str, payload: Value) -> String {
    let id = Uuid::new_v4().to_string();
    let answer = post(
        address,
        event,
        Some(&id),
        payload.to_string().as_bytes(),
        None,
    )
    .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json(), json!({ "eventId": id }));
    id
}

/// A delivery as GitHub sends it.
pub(crate) async fn post(
    address: SocketAddr,
    event: &str,
    delivery: Option<&str>,
    body: &[u8],
    signature: Option<&str>,
) -> Answer {
    let mut headers = vec![
        ("Content-Type", "application/json"),
        ("X-GitHub-Event", event),
    ];
    headers.extend(delivery.map(|id| ("X-GitHub-Delivery", id)));
    headers.extend(signature.map(|signature| ("X-Hub-Signature-256", signature)));
    http(address, "POST", "/webhooks/github", &headers, body).await
}

/// The signature of a body, as GitHub writes it.
pub(crate) fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// A push of so many commits to the default branch of the lab.
pub(crate) fn push(commits: usize) -> Value {
    let commits: Vec<Value> = (0..commits)
        .map(|number| json!({ "id": format!("{number:040}"), "message": "More", "added": ["src/lib.rs"] }))
        .collect();
    lab(json!({
        "ref": "refs/heads/main",
        "before": "0".repeat(40),
        "after": "a".repeat(40),
        "commits": commits,
    }))
}

/// An issue of the lab.
pub(crate) fn issue(action: &str, number: u64) -> Value {
    lab(json!({ "action": action, "issue": { "number": number, "title": "It rains" } }))
}

/// Something that happens in the lab.
pub(crate) fn lab(mut payload: Value) -> Value {
    payload["repository"] = json!({ "id": 7, "full_name": LAB, "default_branch": "main" });
    payload
}
