//! Dispatch: publish, and wait for the handlers.

use event_core::prelude::*;
use event_core::{HandlerDefinition, ServiceError};
use tokio::sync::oneshot;

use crate::events::{GithubPush, PullRequest, Seen, analyzes, builder, notes_pushes, push};

fn fails() -> HandlerDefinition {
    HandlerDefinition::function("fails", |_: GithubPush, _: Context| async {
        Err::<(), _>("never works")
    })
    .on("github.push")
}

#[tokio::test]
async fn dispatch_returns_what_the_handlers_emitted() {
    let seen = Seen::default();
    let service = builder("s")
        .store(MemoryStore::new())
        .handler(analyzes("analyze"))
        .handler(notes_pushes("note", &seen))
        .build()
        .unwrap();
    let done = service.dispatch(push("a", 3)).await.unwrap();
    assert_eq!(done.published.events.len(), 1);
    assert_eq!(done.emitted.len(), 1);
    assert_eq!(
        done.emitted[0].payload(),
        r#"{"repository":"a","findings":3}"#
    );
    assert_eq!(seen.all(), ["a:3"]);
    // None runs twice.
    service.run_until_idle().await.unwrap();
    assert_eq!(seen.count(), 1);
}

#[tokio::test]
async fn dispatch_handles_what_lies_before_it_first() {
    let seen = Seen::default();
    let service = builder("s")
        .store(MemoryStore::new())
        .handler(notes_pushes("note", &seen))
        .build()
        .unwrap();
    service.publish(push("before", 1)).await.unwrap();
    service.dispatch(push("now", 1)).await.unwrap();
    assert_eq!(seen.all(), ["before:1", "now:1"]);
}

#[tokio::test]
async fn dispatch_of_what_nobody_takes_returns_at_once() {
    let service = builder("s").store(MemoryStore::new()).build().unwrap();
    let done = service
        .dispatch(PullRequest::Opened { number: 1 })
        .await
        .unwrap();
    assert_eq!(done.emitted, []);
    assert_eq!(done.published.events.len(), 1);
}

#[tokio::test]
async fn dispatch_of_a_repeated_event_runs_nothing_again() {
    let seen = Seen::default();
    let service = builder("s")
        .store(MemoryStore::new())
        .handler(notes_pushes("note", &seen))
        .build()
        .unwrap();
    let id = "72d3162e-cc78-11e3-81ab-4c9367dc0958".parse().unwrap();
    for _ in 0..2 {
        let event = Envelope::of(push("a", 1)).event_id(id);
        service.dispatch(event).await.unwrap();
    }
    assert_eq!(seen.count(), 1);
}

#[tokio::test]
async fn dispatch_tells_of_a_handler_that_fails() {
    let service = builder("s")
        .store(MemoryStore::new())
        .handler(fails())
        .build()
        .unwrap();
    let error = service.dispatch(push("a", 1)).await.unwrap_err();
    assert!(
        matches!(&error, ServiceError::Handler(failure) if failure.handler == "fails"),
        "{error}"
    );
    assert!(error.to_string().contains("never works"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatch_waits_for_a_service_that_runs() {
    let seen = Seen::default();
    let service = builder("s")
        .store(MemoryStore::new())
        .handler(analyzes("analyze"))
        .handler(notes_pushes("note", &seen))
        .build()
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = service.clone();
    let running = tokio::spawn(async move {
        running
            .run_until(async {
                let _ = stopped.await;
            })
            .await
    });
    let dispatches: Vec<_> = (0..50)
        .map(|commits| {
            let service = service.clone();
            tokio::spawn(async move { service.dispatch(push("a", commits)).await.unwrap() })
        })
        .collect();
    for (commits, dispatch) in dispatches.into_iter().enumerate() {
        let done = dispatch.await.unwrap();
        assert_eq!(
            done.emitted[0].payload(),
            format!(r#"{{"repository":"a","findings":{commits}}}"#)
        );
    }
    assert_eq!(seen.count(), 50);
    drop(stop);
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatch_tells_of_a_failure_while_the_service_goes_on_trying() {
    let service = builder("s")
        .store(MemoryStore::new())
        .handler(fails())
        .build()
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = service.clone();
    let running = tokio::spawn(async move {
        running
            .run_until(async {
                let _ = stopped.await;
            })
            .await
    });
    let error = service.dispatch(push("a", 1)).await.unwrap_err();
    assert!(matches!(error, ServiceError::Handler(_)), "{error}");
    drop(stop);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_handler_may_return_only_what_it_declares() {
    let closes = HandlerDefinition::function("closes", |_: GithubPush, _: Context| async {
        PullRequest::Closed { number: 1 }
    })
    .on("github.push")
    .emits("github.pr.opened");
    let service = builder("s")
        .store(MemoryStore::new())
        .handler(closes)
        .build()
        .unwrap();
    let error = service.dispatch(push("a", 1)).await.unwrap_err();
    assert!(error.to_string().contains("`github.pr.closed`"), "{error}");
}
