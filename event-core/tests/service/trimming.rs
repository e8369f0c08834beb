//! Services that trim feeds, and those that come too late for a feed's beginning.

use std::time::Duration;

use event_core::prelude::*;
use event_core::{
    Category, Delivery, HandlerDefinition, Maintenance, Position, Positions, ReadError, Recording,
    RecordingError, Replay, ReplayError, ServiceError, Start, StoreError, TrimPolicy,
};
use futures::FutureExt;
use tokio::sync::oneshot;

use crate::events::{GithubPush, eventually, push};

fn github() -> Category {
    Category::new("github").unwrap()
}

fn handler(name: &str) -> HandlerDefinition {
    let handler = HandlerDefinition::function(name, |_: GithubPush, _: Context| async {});
    handler.on("github.push")
}

/// A feed whose first event is trimmed away.
async fn trimmed() -> MemoryStore {
    let store = MemoryStore::new();
    let publisher = Service::builder("publisher")
        .without_discovered_handlers()
        .store(store.clone())
        .build()
        .unwrap();
    publisher
        .publish(vec![push("a", 1), push("b", 2)])
        .await
        .unwrap();
    let policy = TrimPolicy::new().max_entries(1);
    assert_eq!(store.trim(&github(), &policy).await.unwrap()[0].removed, 1);
    store
}

fn is_told<T>(result: &Result<T, ServiceError>) -> bool {
    matches!(
        result,
        Err(ServiceError::Read(ReadError::Store(
            StoreError::FeedTrimmed { .. }
        )))
    )
}

#[tokio::test]
async fn a_service_trims_what_its_policy_says_while_it_runs() {
    let store = MemoryStore::new();
    let service = Service::builder("s")
        .without_discovered_handlers()
        .store(store.clone())
        .handler(handler("h"))
        .trim(github(), TrimPolicy::new().max_entries(3))
        .trim_every(Duration::from_millis(10))
        .build()
        .unwrap();
    let events: Vec<_> = (0..20).map(|n| push("a", n)).collect();
    let published = service.publish(events).await.unwrap();
    let first_kept = published.events[17].event.position();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = {
        let service = service.clone();
        tokio::spawn(async move {
            service
                .run_until(async {
                    let _ = stopped.await;
                })
                .await
        })
    };
    eventually("it is trimmed", || {
        let first = store.first_available(&github().into()).now_or_never();
        first.unwrap().unwrap() > published.events[16].event.position()
    })
    .await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    let left = store
        .read_feed(&github().into(), first_kept.before(), 10)
        .await;
    assert_eq!(left.unwrap().len(), 3);
}

#[tokio::test]
async fn a_new_group_whose_beginning_is_gone_does_not_run() {
    for delivery in [Delivery::Ordered, Delivery::Parallel] {
        let store = trimmed().await;
        let builder = || {
            Service::builder("late")
                .without_discovered_handlers()
                .store(store.clone())
                .handler(handler("h").delivery(delivery))
        };
        let service = builder().build().unwrap();
        let idle = service.run_until_idle().await;
        assert!(is_told(&idle), "{idle:?}");
        let run = service.run_until(std::future::pending());
        let run = tokio::time::timeout(Duration::from_secs(30), run)
            .await
            .unwrap();
        assert!(is_told(&run), "{run:?}");

        let first = store.first_available(&github().into()).await.unwrap();
        let service = builder().start(Start::at(first)).build().unwrap();
        assert_eq!(service.run_until_idle().await.unwrap().entries, 1);
    }
}

#[tokio::test]
async fn a_replay_and_a_recording_of_what_is_gone_are_told() {
    let store = trimmed().await;
    let first = store.first_available(&github().into()).await.unwrap();
    let service = Service::builder("late")
        .without_discovered_handlers()
        .store(store.clone())
        .handler(handler("h").allow_replay())
        .start(Start::at(first))
        .build()
        .unwrap();
    let gone = StoreError::FeedTrimmed {
        partition: github().into(),
        first_available: first,
    };
    let replayed = service.replay(Replay::all()).await;
    match replayed {
        Err(ReplayError::Read {
            source: ReadError::Store(error),
            ..
        }) => {
            assert_eq!(error.to_string(), gone.to_string());
        }
        other => panic!("it must be told, and came to {other:?}"),
    }
    let recorded = Recording::of(&store).category(github()).record().await;
    match recorded {
        Err(RecordingError::Read(ReadError::Store(error))) => {
            assert_eq!(error.to_string(), gone.to_string());
        }
        other => panic!("it must be told, and came to {other:?}"),
    }

    // From where it is whole on, both are there.
    let whole = || Positions::after(first.before());
    let replayed = service.replay(Replay::all().positions(whole())).await;
    assert_eq!(replayed.unwrap().handled["h"], 1);
    let recorded = Recording::of(&store).category(github()).positions(whole());
    assert_eq!(recorded.record().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_replay_that_cannot_read_on_says_what_it_has_done() {
    let store = MemoryStore::new();
    let trimmer = store.clone();
    let handler = HandlerDefinition::function("h", move |push: GithubPush, _: Context| {
        let store = trimmer.clone();
        async move {
            // The group has never run, so it holds nothing back.
            if push.commits == 0 {
                let policy = TrimPolicy::new().max_entries(1);
                store.trim(&github(), &policy).await?;
            }
            Ok::<_, BoxError>(())
        }
    });
    let service = Service::builder("late")
        .without_discovered_handlers()
        .store(store.clone())
        .handler(handler.on("github.push").allow_replay())
        .build()
        .unwrap();
    // So many that they are not all read before the first is handled.
    let events: Vec<_> = (0..2_000).map(|n| push("a", n)).collect();
    let publisher = Service::builder("publisher")
        .without_discovered_handlers()
        .store(store.clone())
        .build()
        .unwrap();
    for events in events.chunks(1_000) {
        publisher.publish(events.to_vec()).await.unwrap();
    }
    let replayed = service.replay(Replay::all()).await;
    let Err(ReplayError::Read { source, report }) = replayed else {
        panic!("it cannot read on, and came to {replayed:?}");
    };
    assert!(
        matches!(source, ReadError::Store(StoreError::FeedTrimmed { .. })),
        "{source}"
    );
    assert!((1..2_000).contains(&report.read), "{report:?}");
    assert_eq!(report.handled["h"], report.read);
    assert!(report.reached[&github().into()] > Position::START);
    assert!(report.is_stopped);

    // It goes on with what is left, once it is said from where.
    let first = store.first_available(&github().into()).await.unwrap();
    let rest = Replay::all().positions(Positions::after(first.before()));
    let rest = service.replay(rest.going_on(&report)).await.unwrap();
    assert_eq!(rest.handled["h"], 1);
}
