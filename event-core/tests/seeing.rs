//! What a service tells of itself: its health, and its system events.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_core::prelude::*;
use event_core::system::{
    ErrorKind, ErrorOccurred, ServiceHealthChanged, ServiceStarted, ServiceStopped,
};
use event_core::testing::TestService;
use event_core::{
    Category, CircuitBreaker, CircuitState, Delivery, FeedEntry, HandlerDefinition, Health,
    OnExhausted, Owner, ParallelHealth, Partition, Pause, Policy, Retry, ServiceBuilder,
    ServiceError, ServiceState,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("github.push", key = repository)]
struct GithubPush {
    repository: String,
    fails: bool,
}

fn push(repository: impl Into<String>) -> GithubPush {
    GithubPush {
        repository: repository.into(),
        fails: false,
    }
}

fn poison(repository: impl Into<String>) -> GithubPush {
    GithubPush {
        fails: true,
        ..push(repository)
    }
}

fn handles_pushes() -> HandlerDefinition {
    HandlerDefinition::function("handle", |push: GithubPush, _: Context| async move {
        if push.fails {
            return Err(format!("{} is poison", push.repository));
        }
        Ok(())
    })
    .on("github.push")
}

fn builder(store: &MemoryStore, instance: &str) -> ServiceBuilder {
    Service::builder("agent")
        .without_discovered_handlers()
        .handler(handles_pushes())
        .store(store.clone())
        .instance(instance)
        .retry(Retry {
            base: Duration::from_millis(1),
            max_delay: Duration::from_millis(1),
            max: 1,
        })
}

struct Running {
    service: Service,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServiceError>>,
}

impl Running {
    fn start(builder: ServiceBuilder) -> Self {
        let service = builder.build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let own = service.clone();
        let task = tokio::spawn(async move {
            own.run_until(async {
                // Also where the test forgets it.
                let _ = stopped.await;
            })
            .await
        });
        Self {
            service,
            stop,
            task,
        }
    }

    async fn health_when(&self, what: &str, is_so: impl Fn(&Health) -> bool) -> Health {
        let mut last = None;
        for _ in 0..2_000 {
            let health = self.service.health().await.unwrap();
            if is_so(&health) {
                return health;
            }
            last = Some(health);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("waited in vain until {what}: {last:#?}");
    }

    async fn stop(self) -> Result<(), ServiceError> {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

async fn feed<E: Event>(store: &MemoryStore, category: &str) -> Vec<E> {
    let partition = Partition::from(Category::new(category.to_owned()).unwrap());
    let entries = store.read_feed(&partition, Position::START, 10_000).await;
    entries
        .unwrap()
        .into_iter()
        .filter_map(|entry| match entry {
            FeedEntry::Event(event) => event.view::<E>().unwrap(),
            FeedEntry::Undecodable { .. } => None,
        })
        .collect()
}

async fn until<E: Event>(store: &MemoryStore, category: &str, count: usize) -> Vec<E> {
    for _ in 0..2_000 {
        let events = feed(store, category).await;
        if events.len() >= count {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain for {count} events of {category}");
}

#[tokio::test]
async fn health_tells_who_owns_what_and_how_far_behind_it_is() {
    let github = Category::new("github").unwrap();
    let store = MemoryStore::new().partitions(github, 2);
    let idle = builder(&store, "b").build().unwrap();
    idle.publish(vec![push("a"), push("b"), push("c"), push("d")])
        .await
        .unwrap();
    let before = idle.health().await.unwrap();
    assert_eq!(before.state, ServiceState::Built);
    assert_eq!((&*before.group, &*before.instance), ("agent", "b"));
    assert_eq!(before.handlers, ["handle"]);
    assert_eq!(before.circuit, CircuitState::Closed);
    let names: Vec<_> = before.partitions.iter().map(|p| &*p.partition).collect();
    assert_eq!(names, ["github", "github:1"]);
    let lag = |health: &Health| health.partitions.iter().map(|p| p.lag).sum::<u64>();
    assert_eq!(lag(&before), 4);
    let owned_by = |health: &Health, owner| health.partitions.iter().all(|p| p.owner == owner);
    assert!(owned_by(&before, Owner::Nobody));

    let running = Running::start(builder(&store, "a"));
    let now = running
        .health_when("all is handled", |health| {
            owned_by(health, Owner::Ours) && lag(health) == 0
        })
        .await;
    assert_eq!(now.state, ServiceState::Running);
    assert!(
        now.partitions
            .iter()
            .all(|p| p.checkpoint > Position::START)
    );
    assert!(now.partitions.iter().all(|p| p.paused.is_none()));
    let elsewhere = idle.health().await.unwrap();
    assert!(owned_by(&elsewhere, Owner::Elsewhere), "{elsewhere:?}");
    for (ours, theirs) in now.partitions.iter().zip(&elsewhere.partitions) {
        assert_eq!(ours.checkpoint, theirs.checkpoint);
    }

    let json = serde_json::to_string(&now).unwrap();
    assert!(json.contains(r#""owner":"ours""#), "{json}");
    assert_eq!(serde_json::from_str::<Health>(&json).unwrap(), now);

    let service = running.service.clone();
    running.stop().await.unwrap();
    let after = service.health().await.unwrap();
    assert_eq!(after.state, ServiceState::Stopped);
    assert!(owned_by(&after, Owner::Nobody));
}

#[tokio::test]
async fn health_tells_how_far_handlers_with_parallel_delivery_are() {
    let store = MemoryStore::new();
    let (open, gate) = watch::channel(false);
    let in_parallel = HandlerDefinition::function("pack", move |push: GithubPush, _: Context| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|is_open| *is_open).await?;
            match push.fails {
                true => Err::<(), BoxError>("no".into()),
                false => Ok(()),
            }
        }
    });
    let in_parallel = in_parallel.on("github.push").delivery(Delivery::Parallel);
    let running = Running::start(
        Service::builder("packers")
            .without_discovered_handlers()
            .store(store)
            .retry(Retry {
                max: 1,
                ..Retry::default()
            })
            .handler(in_parallel),
    );
    let events = vec![push("a"), poison("b"), push("c")];
    running.service.publish(events).await.unwrap();
    let health = running
        .health_when("all are taken", |health| health.parallel[0].pending == 3)
        .await;
    let expected = ParallelHealth {
        handler: "pack".into(),
        partition: "github".into(),
        lag: 3,
        pending: 3,
        dead_letters: 0,
    };
    assert_eq!(health.parallel, std::slice::from_ref(&expected));
    assert_eq!(health.partitions[0].lag, 0, "nobody reads it in order");
    open.send_replace(true);
    let health = running
        .health_when("all are handled", |health| health.parallel[0].lag == 0)
        .await;
    let expected = ParallelHealth {
        lag: 0,
        pending: 0,
        dead_letters: 1,
        ..expected
    };
    assert_eq!(health.parallel, [expected]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn health_tells_why_nothing_is_read() {
    let store = MemoryStore::new();
    let full = Running::start(builder(&store, "a").dead_letter_limit(2).system_events());
    full.service
        .publish(vec![poison("a"), poison("b")])
        .await
        .unwrap();
    let health = full
        .health_when("it is full", |health| health.partitions[0].paused.is_some())
        .await;
    assert_eq!(health.partitions[0].paused, Some(Pause::DeadLettersFull));
    assert_eq!(health.partitions[0].dead_letters, 2);
    full.service.publish(push("c")).await.unwrap();
    let health = full.service.health().await.unwrap();
    assert_eq!(health.partitions[0].lag, 1);
    let changed = until::<ServiceHealthChanged>(&store, "service", 1).await;
    assert_eq!(changed[0].paused[0].partition, "github");
    assert_eq!(changed[0].paused[0].pause, Pause::DeadLettersFull);
    full.stop().await.unwrap();

    let store = MemoryStore::new();
    let open = Running::start(builder(&store, "a").circuit_breaker(CircuitBreaker {
        failure_ratio: 0.5,
        attempts: 2,
        open_for: Duration::from_secs(600),
    }));
    open.service
        .publish(vec![poison("a"), poison("b")])
        .await
        .unwrap();
    let health = open
        .health_when("the circuit is open", |health| {
            health.circuit == CircuitState::Open
        })
        .await;
    assert_eq!(health.partitions[0].paused, Some(Pause::CircuitOpen));
    open.stop().await.unwrap();
}

#[tokio::test]
async fn a_service_says_that_it_runs_and_what_goes_wrong() {
    let store = MemoryStore::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = {
        let heard = Arc::clone(&heard);
        HandlerDefinition::function("hear", move |error: ErrorOccurred, _: Context| {
            heard.lock().unwrap().push(error);
            async {}
        })
        .on("error.occurred")
    };
    let running = Running::start(builder(&store, "a").handler(hears).system_events());
    let started = until::<ServiceStarted>(&store, "service", 1).await;
    assert_eq!(
        (&*started[0].service, &*started[0].instance),
        ("agent", "a")
    );
    assert_eq!(started[0].handlers, ["handle", "hear"]);

    let published = running.service.publish(poison("x")).await.unwrap();
    let failed = &published.events[0].event;
    let errors = until::<ErrorOccurred>(&store, "error", 1).await;
    let error = &errors[0];
    assert_eq!(error.kind, ErrorKind::DeadLetter);
    assert_eq!(error.event_id, Some(failed.metadata().event_id));
    assert_eq!(error.position, Some(failed.position()));
    assert_eq!(error.handler.as_deref(), Some("handle"));
    assert!(error.errors.last().unwrap().contains("x is poison"));
    running
        .health_when("the error is handled", |health| {
            health.partitions.iter().all(|p| p.lag == 0)
        })
        .await;
    assert_eq!(*heard.lock().unwrap(), errors);

    running.stop().await.unwrap();
    let stopped = feed::<ServiceStopped>(&store, "service").await;
    assert_eq!(stopped[0].error, None);
}

#[tokio::test]
async fn a_group_that_stops_says_why() {
    let store = MemoryStore::new();
    let policy = Policy {
        on_exhausted: OnExhausted::Stop,
        retry: Retry {
            max: 1,
            ..Retry::default()
        },
        ..Policy::default()
    };
    let running = Running::start(
        builder(&store, "a")
            .policy("handle", policy)
            .system_events(),
    );
    running.service.publish(poison("x")).await.unwrap();
    let service = running.service.clone();
    running.task.await.unwrap().unwrap_err();
    assert_eq!(service.health().await.unwrap().state, ServiceState::Failed);
    let errors = feed::<ErrorOccurred>(&store, "error").await;
    assert_eq!(errors[0].kind, ErrorKind::GroupStopped);
    let stopped = feed::<ServiceStopped>(&store, "service").await;
    assert!(stopped[0].error.as_ref().unwrap().contains("x is poison"));
}

#[tokio::test]
async fn a_lost_partition_is_told() {
    let store = MemoryStore::new();
    let lease = Duration::from_millis(50);
    let running = Running::start(builder(&store, "a").lease(lease).system_events());
    running.service.publish(push("x")).await.unwrap();
    running
        .health_when("it is owned", |health| {
            health.partitions[0].owner == Owner::Ours
        })
        .await;
    // Nothing here gives way, so the service cannot prolong its lease, and another instance takes the
    // partition as soon as that has ended.
    let github = Partition::from(Category::new("github").unwrap());
    loop {
        std::thread::yield_now();
        let acquired =
            event_core::Groups::acquire(&store, "agent", &github, "b", Duration::from_secs(600));
        if let event_core::Acquired::Yes { .. } = acquired.await.unwrap() {
            break;
        }
    }
    let errors = until::<ErrorOccurred>(&store, "error", 1).await;
    assert_eq!(errors[0].kind, ErrorKind::PartitionLost);
    assert_eq!(errors[0].partition, "github");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn errors_make_no_more_errors_and_are_bounded() {
    let fails = HandlerDefinition::function("hear", |_: ErrorOccurred, _: Context| async {
        Err::<(), _>("deaf")
    })
    .on("error.occurred");
    let store = MemoryStore::new();
    let service = builder(&store, "a")
        .handler(fails)
        .system_events()
        .build()
        .unwrap();
    service.dispatch(poison("x")).await.unwrap_err();
    // The handler of errors fails now.
    service.run_until_idle().await.unwrap_err();
    service.run_until_idle().await.unwrap();
    assert_eq!(feed::<ErrorOccurred>(&store, "error").await.len(), 1);

    let many: Vec<_> = (0..500).map(|n| poison(format!("r{n}"))).collect();
    service.publish(many).await.unwrap();
    service.run_until_idle().await.unwrap_err();
    let count = feed::<ErrorOccurred>(&store, "error").await.len();
    let per_second = NonZeroU32::get(event_core::system::ERRORS_PER_SECOND) as usize;
    assert!((2..=10 * per_second).contains(&count), "{count}");
    // What was left out is told with the next that is not: sooner or later one is not.
    let told = async {
        for all in 502.. {
            let last = poison(format!("last {all}"));
            service.dispatch(last).await.unwrap_err();
            let errors = feed::<ErrorOccurred>(&store, "error").await;
            let told = errors.iter().map(|error| 1 + error.suppressed).sum::<u64>();
            assert!(told <= all, "{told} told of {all}");
            if told == all {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told)
        .await
        .unwrap();
}

#[tokio::test]
async fn without_the_option_nothing_is_told() {
    let test = TestService::start(
        Service::builder("agent")
            .without_discovered_handlers()
            .handler(handles_pushes())
            .retry(Retry {
                max: 1,
                ..Retry::default()
            }),
    )
    .await
    .unwrap();
    test.dispatch(poison("x")).await.unwrap_err();
    assert!(test.recorded::<ErrorOccurred>().await.unwrap().is_empty());
}

#[tokio::test]
async fn where_nobody_traces_the_trace_context_comes_from_the_cause() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
    #[event("repository.analyzed")]
    struct Analyzed {}

    let store = MemoryStore::new();
    let analyze =
        HandlerDefinition::function("analyze", |_: GithubPush, _: Context| async { Analyzed {} })
            .on("github.push")
            .emits("repository.analyzed");
    let service = builder(&store, "a").handler(analyze).build().unwrap();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let metadata = format!(r#"{{"traceparent":"{traceparent}"}}"#);
    store.append_foreign(
        &Category::new("github").unwrap(),
        &[
            ("type", "github.push"),
            ("payload", r#"{"repository":"a","fails":false}"#),
            ("metadata", &metadata),
        ],
    );
    service.run_until_idle().await.unwrap();
    let partition = Partition::from(Category::new("repository").unwrap());
    let entries = store
        .read_feed(&partition, Position::START, 10)
        .await
        .unwrap();
    let event = entries.into_iter().next().unwrap().into_event().unwrap();
    assert_eq!(event.metadata().traceparent.as_deref(), Some(traceparent));
}
