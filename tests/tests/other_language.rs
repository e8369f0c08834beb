//! A service in Python and one in Rust on the same Redis: streams and Pub/Sub, both ways.
//!
//! Run by `cargo xtask test-python`, which gets the Python client first.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::sync::{Arc, Mutex};

use event_core::prelude::*;
use event_redis::RedisStore;
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

#[derive(Serialize, Deserialize, Event)]
#[event("sdlc.phase.changed")]
struct PhaseChanged {
    from: String,
    to: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {
    phase: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event("ai.response.chunk", realtime)]
struct ResponseChunk {
    text: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event("project.phase.entered")]
struct PhaseEntered {
    phase: String,
}

#[derive(Default)]
struct Project;

impl Aggregate for Project {
    const TYPE: &'static str = "project";
    type Event = PhaseEntered;
    type Command = String;
    type Error = std::convert::Infallible;

    fn apply(&mut self, _: &PhaseEntered) {}

    fn handle(&self, phase: String) -> Result<Vec<PhaseEntered>, Self::Error> {
        Ok(vec![PhaseEntered { phase }])
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

#[event_handler]
struct Peer {
    projects: Repository<Project>,
    publisher: Publisher,
    heard: Heard,
}

#[event_handler(group = "python-peer")]
impl Peer {
    #[on("sdlc.phase.changed")]
    #[emits("repository.analyzed")]
    async fn analyze(&self, event: PhaseChanged) -> Result<RepositoryAnalyzed, BoxError> {
        self.projects.execute("gothic", event.to.clone()).await?;
        let text = "from rust".into();
        self.publisher.publish(ResponseChunk { text }).await?;
        Ok(RepositoryAnalyzed { phase: event.to })
    }
}

#[event_handler(group = "python-peer", realtime)]
impl Peer {
    #[on("ai.*")]
    async fn hear(&self, chunk: ResponseChunk) {
        self.heard.0.lock().unwrap().push(chunk.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_service_and_a_rust_service_understand_each_other() {
    let server = RedisServer::start().unwrap();
    let heard = Heard::default();
    let service = Service::builder("python-peer")
        .store(RedisStore::connect(&server.url()).await.unwrap())
        .provide(heard.clone())
        .build()
        .unwrap();
    // Listens from here on, so that nothing that the other side sends is too early.
    service.run_until_idle().await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        service
            .run_until(async {
                let _ = stopped.await;
            })
            .await
    });
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/peer.py");
    let url = server.url();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).arg(url).output().unwrap()
    })
    .await
    .unwrap();
    drop(stop);
    running.await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let heard = heard.0.lock().unwrap();
    assert!(heard.contains(&"from python".to_owned()), "{heard:?}");
}
