//! Delivery: at least once, in order, from the checkpoint on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use event_core::prelude::*;
use event_core::testing::TestService;
use event_core::{
    Category, DeadLetterReason, DeadLetters, Groups, HandlerDefinition, OnExhausted, Policy, Retry,
    ServiceError, Start,
};
use tokio::sync::{Notify, oneshot};

use crate::events::{GithubPush, Seen, builder, eventually, notes_pushes, push};

/// Fails on the first `failures` attempts to handle a push to `a`.
fn fails_first(failures: u32, seen: &Seen) -> HandlerDefinition {
    let (seen, attempts) = (seen.clone(), AtomicU32::new(0));
    HandlerDefinition::function("flaky", move |push: GithubPush, context: Context| {
        let attempt = match push.repository.as_str() {
            "a" => attempts.fetch_add(1, Ordering::SeqCst),
            _ => u32::MAX,
        };
        if attempt >= failures {
            seen.note(format!(
                "{}{} at attempt {}",
                push.repository,
                push.commits,
                context.attempt()
            ));
        }
        async move {
            if attempt < failures {
                Err(format!("attempt {attempt} is too early"))
            } else {
                Ok(())
            }
        }
    })
    .on("github.push")
}

#[tokio::test]
async fn a_failing_handler_is_tried_again_and_keeps_its_place() {
    let seen = Seen::default();
    let test = TestService::start(builder("s").handler(fails_first(2, &seen)))
        .await
        .unwrap();
    test.publish(vec![push("a", 1), push("a", 2), push("b", 1)])
        .await
        .unwrap();
    test.run_until_idle().await.unwrap();
    // The other keys do not wait.
    assert_eq!(
        seen.all(),
        ["b1 at attempt 1", "a1 at attempt 3", "a2 at attempt 1"]
    );
}

#[tokio::test]
async fn what_fails_for_good_is_reported_and_is_a_dead_letter() {
    let seen = Seen::default();
    let test = TestService::start(builder("s").handler(fails_first(3, &seen)))
        .await
        .unwrap();
    test.publish(vec![push("a", 1), push("b", 1)])
        .await
        .unwrap();
    let error = test.run_until_idle().await.unwrap_err();
    assert!(
        matches!(&error, ServiceError::Handler(failure) if failure.attempts == 3),
        "{error}"
    );
    assert!(
        error.to_string().contains("attempt 2 is too early"),
        "{error}"
    );
    assert_eq!(seen.all(), ["b1 at attempt 1"]);
    test.run_until_idle().await.unwrap();
    assert_eq!(seen.count(), 1);
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt() {
    let seen = Seen::default();
    let (noted, calls) = (seen.clone(), AtomicU32::new(0));
    let panics = HandlerDefinition::function("panics", move |_: GithubPush, _: Context| {
        let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        let noted = noted.clone();
        async move {
            assert!(!first, "on purpose");
            noted.note("through");
        }
    })
    .on("github.push");
    let test = TestService::start(builder("s").handler(panics))
        .await
        .unwrap();
    test.publish(push("a", 1)).await.unwrap();
    test.run_until_idle().await.unwrap();
    assert_eq!(seen.all(), ["through"]);
}

#[tokio::test]
async fn only_the_handler_that_failed_is_called_again() {
    let (good, flaky) = (Seen::default(), Seen::default());
    let test = TestService::start(
        builder("s")
            .handler(notes_pushes("a_good_one", &good))
            .handler(fails_first(2, &flaky)),
    )
    .await
    .unwrap();
    test.publish(push("a", 1)).await.unwrap();
    test.run_until_idle().await.unwrap();
    assert_eq!((good.count(), flaky.count()), (1, 1));
}

#[tokio::test]
async fn a_service_goes_on_where_its_group_stopped() {
    let store = MemoryStore::new();
    let run = async |name: &str, commits: u32| {
        let seen = Seen::default();
        let service = builder(name)
            .store(store.clone())
            .handler(notes_pushes("note", &seen))
            .build()
            .unwrap();
        service.publish(push("a", commits)).await.unwrap();
        service.run_until_idle().await.unwrap();
        seen.all()
    };
    assert_eq!(run("one", 1).await, ["a:1"]);
    assert_eq!(run("one", 2).await, ["a:2"]);
    // A new group begins at the beginning.
    assert_eq!(run("two", 3).await, ["a:1", "a:2", "a:3"]);
}

#[tokio::test]
async fn a_group_may_start_now() {
    let store = MemoryStore::new();
    let service = |seen: &Seen| {
        builder("late")
            .store(store.clone())
            .handler(notes_pushes("note", seen).start(Start::Now))
            .build()
            .unwrap()
    };
    let publisher = builder("publisher").store(store.clone()).build().unwrap();
    publisher.publish(push("old", 1)).await.unwrap();
    let seen = Seen::default();
    service(&seen).run_until_idle().await.unwrap();
    publisher.publish(push("new", 1)).await.unwrap();
    // Another instance: the start is remembered, so it does not start anew.
    service(&seen).run_until_idle().await.unwrap();
    assert_eq!(seen.all(), ["new:1"]);
}

/// Runs a service until the test says so; gives what it returned.
struct Running {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), ServiceError>>,
}

impl Running {
    fn start(service: &Service) -> Self {
        let (stop, stopped) = oneshot::channel();
        let service = service.clone();
        let task = tokio::spawn(async move {
            service
                .run_until(async {
                    let _ = stopped.await;
                })
                .await
        });
        Self { stop, task }
    }

    async fn stop(self) -> Result<(), ServiceError> {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_service_handles_events_as_they_come() {
    let seen = Seen::default();
    let service = builder("s")
        .store(MemoryStore::new())
        .handler(notes_pushes("note", &seen))
        .build()
        .unwrap();
    service.publish(push("before", 1)).await.unwrap();
    let running = Running::start(&service);
    for commits in 1..=100 {
        service.publish(push("during", commits)).await.unwrap();
    }
    eventually("101 events", || seen.count() == 101).await;
    assert!(matches!(
        service.run_until_idle().await,
        Err(ServiceError::Running)
    ));
    running.stop().await.unwrap();
    let expected: Vec<_> = std::iter::once("before:1".to_owned())
        .chain((1..=100).map(|commits| format!("during:{commits}")))
        .collect();
    assert_eq!(seen.all(), expected);
    // The checkpoint is stored: nothing is left.
    assert_eq!(service.run_until_idle().await.unwrap().entries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_handler_does_not_hold_up_the_stop() {
    let seen = Seen::default();
    let service = builder("s")
        .retry(event_core::Retry {
            base: Duration::from_secs(3_600),
            max_delay: Duration::from_secs(3_600),
            max: 3,
        })
        .store(MemoryStore::new())
        .handler(fails_first(1, &seen))
        .handler(notes_pushes("first", &seen))
        .build()
        .unwrap();
    service.publish(push("a", 1)).await.unwrap();
    let running = Running::start(&service);
    eventually("the good handler", || seen.count() == 1).await;
    running.stop().await.unwrap();
    // Not handled, so it is handled now.
    service.run_until_idle().await.unwrap();
    assert!(
        seen.all().contains(&"a1 at attempt 1".to_owned()),
        "{:?}",
        seen.all()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_tried_again_holds_back_nothing_but_itself() {
    // Far more than a process keeps of a partition.
    const OTHERS: u32 = 10_000;
    let seen = Seen::default();
    let service = builder("s")
        .retry(event_core::Retry {
            max: u32::MAX,
            base: Duration::from_millis(1),
            max_delay: Duration::from_millis(1),
        })
        .store(MemoryStore::new())
        .handler(fails_first(u32::MAX, &seen))
        .build()
        .unwrap();
    service.publish(push("a", 1)).await.unwrap();
    let running = Running::start(&service);
    for commits in 0..OTHERS {
        service.publish(push("b", commits)).await.unwrap();
    }
    eventually("the others", || seen.count() == OTHERS as usize).await;
    running.stop().await.unwrap();
}

fn waits(started: &Arc<Notify>, go_on: &Arc<Notify>, seen: &Seen) -> HandlerDefinition {
    let (started, go_on, seen) = (started.clone(), go_on.clone(), seen.clone());
    HandlerDefinition::function("waits", move |_: GithubPush, _: Context| {
        let (started, go_on, seen) = (started.clone(), go_on.clone(), seen.clone());
        async move {
            started.notify_one();
            go_on.notified().await;
            seen.note("through");
        }
    })
    .on("github.push")
}

#[tokio::test]
async fn a_stop_finishes_what_runs() {
    let (started, go_on, seen) = (Arc::<Notify>::default(), Arc::default(), Seen::default());
    let service = builder("s")
        .store(MemoryStore::new())
        .concurrency(1)
        .handler(waits(&started, &go_on, &seen))
        .build()
        .unwrap();
    service
        .publish(vec![push("a", 1), push("b", 1)])
        .await
        .unwrap();
    let stop = async {
        started.notified().await;
        let go_on = go_on.clone();
        // On this single thread it runs only when the service has taken the stop.
        tokio::spawn(async move { go_on.notify_one() });
    };
    service.run_until(stop).await.unwrap();
    assert_eq!(seen.all(), ["through"]);
    // The second was not begun, and is handled by the next run.
    go_on.notify_one();
    assert_eq!(service.run_until_idle().await.unwrap().entries, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_ever() {
    let (started, go_on, seen) = (Arc::default(), Arc::default(), Seen::default());
    let service = builder("s")
        .store(MemoryStore::new())
        .shutdown_deadline(Duration::from_millis(20))
        .handler(waits(&started, &go_on, &seen))
        .build()
        .unwrap();
    service.publish(push("a", 1)).await.unwrap();
    let running = Running::start(&service);
    started.notified().await;
    let error = running.stop().await.unwrap_err();
    assert!(
        matches!(error, ServiceError::ShutdownDeadline { .. }),
        "{error}"
    );
    // At least once: it runs again.
    go_on.notify_one();
    service.run_until_idle().await.unwrap();
    assert_eq!(seen.all(), ["through"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dropped_run_left_is_handled_by_the_next() {
    let (started, go_on, seen) = (Arc::default(), Arc::default(), Seen::default());
    let store = MemoryStore::new();
    let service = builder("s")
        .store(store.clone())
        .handler(waits(&started, &go_on, &seen))
        .build()
        .unwrap();
    service
        .publish(vec![push("a", 1), push("b", 1)])
        .await
        .unwrap();
    tokio::select! {
        ended = service.run_until(std::future::pending()) => panic!("{ended:?}"),
        () = started.notified() => {}
    }
    let running = Running::start(&service);
    let github = Category::new("github").unwrap().into();
    let head = store.head(&github).await.unwrap();
    let handled = async {
        loop {
            go_on.notify_one();
            let progress = store.open("s", &github, Start::Beginning).await.unwrap();
            if progress.checkpoint == head {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), handled)
        .await
        .unwrap();
    running.stop().await.unwrap();
    // What the first run had begun may have come to its end before it was broken off.
    assert!((2..=4).contains(&seen.count()), "{:?}", seen.all());
}

#[tokio::test]
async fn a_policy_is_the_builders_for_one_handler_else_the_handlers_else_the_default() {
    let attempts = |max| Retry {
        max,
        base: Duration::from_millis(1),
        max_delay: Duration::from_millis(1),
    };
    let calls = Seen::default();
    let handler = |name: &'static str, returns: bool| {
        let calls = calls.clone();
        HandlerDefinition::function(name, move |_: GithubPush, _: Context| {
            calls.note(name);
            async move {
                if !returns {
                    std::future::pending::<()>().await;
                }
                Err::<(), _>("on purpose")
            }
        })
        .on("github.push")
    };
    // Of the default it has what it does not say itself: how long a call may take.
    let declared = handler("declared", false)
        .retry(attempts(3))
        .on_exhausted(OnExhausted::Park);
    let overridden = handler("overridden", true)
        .retry(attempts(5))
        .on_exhausted(OnExhausted::Park);
    let store = MemoryStore::new();
    let service = Service::builder("s")
        .without_discovered_handlers()
        .store(store.clone())
        .handler(handler("silent", true))
        .handler(declared)
        .handler(overridden)
        .default_policy(Policy {
            retry: attempts(2),
            timeout: Some(Duration::from_millis(5)),
            on_exhausted: OnExhausted::Skip,
        })
        .policy(
            "overridden",
            Policy {
                retry: attempts(1),
                timeout: None,
                on_exhausted: OnExhausted::Skip,
            },
        )
        .build()
        .unwrap();
    service.publish(push("a", 1)).await.unwrap();
    while service.run_until_idle().await.is_err() {}
    let count = |name: &str| calls.all().iter().filter(|call| *call == name).count();
    assert_eq!(
        ["silent", "declared", "overridden"].map(count),
        [2, 3, 1],
        "{:?}",
        calls.all()
    );
    let github = Category::new("github").unwrap().into();
    let letters = store.list_dead_letters("s", &github, None, usize::MAX);
    let letters: Vec<_> = letters.await.unwrap();
    let found: Vec<_> = letters.iter().map(|l| (&*l.handler, l.reason)).collect();
    assert_eq!(found, [("declared", DeadLetterReason::TimedOut)]);
}
