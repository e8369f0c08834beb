//! Realtime events and handlers.

use event_core::prelude::*;
use event_core::testing::TestService;
use event_core::{HandlerDefinition, Realtime, RealtimeItem};
use tokio::sync::oneshot;

use crate::events::{ResponseChunk, Seen, builder, eventually, notes_pushes, push};

fn shows(seen: &Seen) -> HandlerDefinition {
    let seen = seen.clone();
    HandlerDefinition::function("shows", move |chunk: ResponseChunk, _: Context| {
        seen.note(chunk.text);
        async {}
    })
    .on("ai.response.*")
    .realtime()
}

fn chunk(text: &str) -> ResponseChunk {
    ResponseChunk { text: text.into() }
}

#[tokio::test]
async fn a_realtime_event_is_handled_and_not_stored() {
    let seen = Seen::default();
    let test = TestService::start(builder("s").handler(shows(&seen)))
        .await
        .unwrap();
    test.publish(vec![chunk("a"), chunk("b")]).await.unwrap();
    assert_eq!(test.run_until_idle().await.unwrap().entries, 2);
    assert_eq!(seen.all(), ["a", "b"]);
    let ai = event_core::Category::new("ai").unwrap();
    assert_eq!(
        test.store().head(&ai.into()).await.unwrap(),
        Position::START
    );
    assert_eq!(test.recorded::<ResponseChunk>().await.unwrap().len(), 2);
}

#[tokio::test]
async fn dispatch_of_a_realtime_event_runs_each_handler_once() {
    let seen = Seen::default();
    let test = TestService::start(builder("s").handler(shows(&seen)))
        .await
        .unwrap();
    test.dispatch(chunk("a")).await.unwrap();
    assert_eq!(seen.all(), ["a"]);
    test.run_until_idle().await.unwrap();
    assert_eq!(seen.all(), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_realtime_handler_runs_in_every_instance() {
    let store = MemoryStore::new();
    let (one, two, stored) = (Seen::default(), Seen::default(), Seen::default());
    let mut stops = Vec::new();
    let mut tasks = Vec::new();
    let mut services = Vec::new();
    for seen in [&one, &two] {
        let service = builder("s")
            .store(store.clone())
            .handler(shows(seen))
            .handler(notes_pushes("note", &stored))
            .build()
            .unwrap();
        // Listening begins with the first thing that is asked of a service.
        service.run_until_idle().await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = service.clone();
        tasks.push(tokio::spawn(async move {
            running
                .run_until(async {
                    let _ = stopped.await;
                })
                .await
        }));
        stops.push(stop);
        services.push(service);
    }
    services[0].publish(chunk("x")).await.unwrap();
    services[1].publish(push("a", 1)).await.unwrap();
    eventually("both instances", || one.count() == 1 && two.count() == 1).await;
    drop(stops);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_slow_subscriber_is_told_what_it_missed() {
    let store = MemoryStore::new();
    let service = builder("s").store(store.clone()).build().unwrap();
    let mut subscription = store.subscribe(&["ai.*".parse().unwrap()]).await.unwrap();
    let sent = event_core::DEFAULT_CAPACITY + 10;
    for _ in 0..sent {
        service.publish(chunk("x")).await.unwrap();
    }
    for _ in 0..event_core::DEFAULT_CAPACITY {
        assert!(matches!(
            subscription.next().await,
            Some(RealtimeItem::Event(_))
        ));
    }
    service.publish(chunk("after")).await.unwrap();
    assert_eq!(
        subscription.next().await,
        Some(RealtimeItem::Missed {
            channel: "ai.response.chunk".into(),
            count: 10
        })
    );
    assert!(matches!(
        subscription.next().await,
        Some(RealtimeItem::Event(_))
    ));
}

#[tokio::test]
async fn stored_events_can_be_sent_on_commit() {
    let github = event_core::Category::new("github").unwrap();
    let store = MemoryStore::new().publish_on_commit(github);
    let service = builder("s").store(store.clone()).build().unwrap();
    let mut subscription = store
        .subscribe(&["github.*".parse().unwrap()])
        .await
        .unwrap();
    service.publish(push("a", 1)).await.unwrap();
    let Some(RealtimeItem::Event(event)) = subscription.next().await else {
        panic!("an event was expected");
    };
    assert_eq!(event.event_type(), "github.push");
}
