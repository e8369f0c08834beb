//! Services on a real server: what the memory store cannot show.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_core::prelude::*;
use event_redis::RedisStore;
use event_tests::RedisServer;
use event_tests::redis_server::Aof;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("sdlc.phase.changed")]
struct PhaseChanged {
    from: String,
    to: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("github.push", key = repository)]
struct GithubPush {
    repository: String,
    number: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("repository.analyzed", key = repository)]
struct RepositoryAnalyzed {
    repository: String,
    number: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("ai.response.chunk", realtime)]
struct ResponseChunk {
    text: String,
}

/// What the handlers have seen.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[event_handler]
struct Watches {
    seen: Seen,
}

#[event_handler(group = "watchers")]
impl Watches {
    #[on("sdlc.phase.changed")]
    async fn phase(&self, event: PhaseChanged, _: &Context) {
        self.seen.note(format!("{}>{}", event.from, event.to));
    }

    #[on("github.*")]
    #[emits("repository.analyzed")]
    async fn push(&self, event: GithubPush) -> RepositoryAnalyzed {
        RepositoryAnalyzed {
            repository: event.repository,
            number: event.number,
        }
    }

    #[on("repository.analyzed")]
    async fn analyzed(&self, event: &RepositoryAnalyzed) {
        self.seen.note(event.number.to_string());
    }
}

#[event_handler(group = "watchers", realtime)]
impl Watches {
    #[on("*.response.*")]
    async fn chunk(&self, event: ResponseChunk) {
        self.seen.note(event.text);
    }
}

async fn service(url: &str, seen: &Seen) -> Service {
    let store = RedisStore::connect(url).await.unwrap();
    Service::builder("watchers")
        .store(store)
        .provide(seen.clone())
        .build()
        .unwrap()
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), event_core::ServiceError>>,
}

impl Running {
    fn start(service: Service) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            service
                .run_until(async {
                    let _ = stopped.await;
                })
                .await
        });
        Self { stop, task }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
    }
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        let mut often = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            often.tick().await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_written_by_hand_reaches_a_handler() {
    let server = RedisServer::start().unwrap();
    let seen = Seen::default();
    let service = service(&server.url(), &seen).await;
    let payload = r#"{"from":"plan","to":"build"}"#;
    let entry = [
        "XADD",
        "events:sdlc",
        "*",
        "type",
        "phase.changed",
        "payload",
        payload,
    ];
    server.command(&entry).unwrap();
    service.run_until_idle().await.unwrap();
    assert_eq!(seen.all(), ["plan>build"]);

    let running = Running::start(service);
    server.command(&entry).unwrap();
    eventually("the entry to be handled", || seen.all().len() == 2).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_service_writes_is_read_in_words() {
    let server = RedisServer::start().unwrap();
    let seen = Seen::default();
    let service = service(&server.url(), &seen).await;
    let push = GithubPush {
        repository: "octo/hello".into(),
        number: 1,
    };
    service.dispatch(push).await.unwrap();
    let shown = server
        .command(&["XRANGE", "events:repository", "-", "+"])
        .unwrap();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(
        lines[1..4],
        ["type", "repository.analyzed", "payload"],
        "{shown}"
    );
    assert_eq!(lines[4], r#"{"repository":"octo/hello","number":1}"#);
    assert_eq!(lines[5], "metadata");
    let metadata: serde_json::Value = serde_json::from_str(lines[6]).unwrap();
    assert_eq!(metadata["source"], "watchers");
    assert_eq!(metadata["key"], "octo/hello");
    assert!(metadata["causationId"].is_string() && metadata["correlationId"].is_string());
    assert_eq!(lines.len(), 7, "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_service_goes_on_where_its_group_stopped() {
    let server = RedisServer::start().unwrap();
    for round in 0..3_u32 {
        let seen = Seen::default();
        let service = service(&server.url(), &seen).await;
        let push = GithubPush {
            repository: "octo/hello".into(),
            number: round,
        };
        service.publish(push).await.unwrap();
        service.run_until_idle().await.unwrap();
        assert_eq!(seen.all(), [round.to_string()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn realtime_handlers_hear_by_pub_sub() {
    let server = RedisServer::start().unwrap();
    let seen = Seen::default();
    let service = service(&server.url(), &seen).await;
    let chunk = |text: &str| ResponseChunk { text: text.into() };
    service.publish(chunk("typed")).await.unwrap();
    let raw = r#"{"payload":{"text":"raw"}}"#;
    server
        .command(&["PUBLISH", "ai.response.chunk", raw])
        .unwrap();
    service.run_until_idle().await.unwrap();
    assert_eq!(seen.all(), ["typed", "raw"]);
    let keys = server.command(&["KEYS", "*"]).unwrap();
    assert!(!keys.contains("ai"), "{keys}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_outlives_its_server() {
    let mut server = RedisServer::builder().aof(Aof::Always).start().unwrap();
    let seen = Seen::default();
    let service = service(&server.url(), &seen).await;
    let running = Running::start(service.clone());
    let enough = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn({
        let enough = Arc::clone(&enough);
        async move {
            let mut number = 0;
            while !enough.load(Ordering::Relaxed) {
                let repository = "octo/hello".into();
                service
                    .publish(GithubPush { repository, number })
                    .await
                    .unwrap();
                number += 1;
            }
            number
        }
    });
    for handled in [200, 600] {
        eventually("the service to get going", || seen.all().len() > handled).await;
        assert!(!publisher.is_finished(), "it is killed while it is written");
        server.kill();
        server.restart().unwrap();
    }
    eventually("the service to go on", || seen.all().len() > 1_000).await;
    enough.store(true, Ordering::Relaxed);
    let published: u32 = publisher.await.unwrap();
    eventually("every event", || {
        seen.all().last() == Some(&(published - 1).to_string())
    })
    .await;
    running.stop().await;
    // At least once: an event may be noted twice around a kill, but each is, and in order.
    let mut noted = HashSet::new();
    let mut numbers: Vec<u32> = seen.all().iter().map(|n| n.parse().unwrap()).collect();
    numbers.retain(|number| noted.insert(*number));
    assert_eq!(numbers, (0..published).collect::<Vec<_>>());
    let emitted = server.command(&["XLEN", "events:repository"]).unwrap();
    assert_eq!(
        emitted.trim(),
        published.to_string(),
        "each emit lies in the feed once"
    );
}
