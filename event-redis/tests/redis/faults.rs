//! Servers that are killed, frozen and restarted in the middle of work.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_core::{
    AppendError, EventStore, Expected, FeedEntry, Ids, Position, Realtime, RealtimeItem,
    StoreError, Versions,
};
use uuid::Uuid;

use crate::support::{builder, event_as, numbered, only, project, server, soon, store, to, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_stored_twice() {
    const TASKS: u64 = 64;
    const EACH: u64 = 160;

    let mut server = server();
    let store = store(&server).await;
    let done = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, done) = (store.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let name = format!("p{task}");
                let mut acknowledged: Vec<(Uuid, Position)> = Vec::new();
                for n in 0..EACH {
                    let event_id = Ids::random().next();
                    let event = event_as(event_id, "sdlc.phase.changed", &n.to_string());
                    // Both ways to find a repetition: by version, and by the remembered ids.
                    let expected = if task % 2 == 0 {
                        Expected::Exact(n)
                    } else {
                        Expected::Any
                    };
                    let append = to(&name, expected, vec![event]);
                    let appended = store.append(&append).await.unwrap();
                    assert_eq!(appended.version(), n + 1);
                    acknowledged.push((event_id, appended.position()));
                    done.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            })
        })
        .collect();
    for part in [1, 2] {
        until("some appends", || {
            done.load(Ordering::Relaxed) >= part * TASKS * EACH / 3
        })
        .await;
        server.kill();
        assert!(done.load(Ordering::Relaxed) < TASKS * EACH);
        server.restart().unwrap();
    }
    let mut acknowledged = HashMap::new();
    for writer in writers {
        acknowledged.extend(soon("a writer", writer).await.unwrap());
    }

    let entries = store
        .read_feed(&only(), Position::START, usize::MAX)
        .await
        .unwrap();
    assert_eq!(entries.len() as u64, TASKS * EACH);
    for entry in entries {
        let FeedEntry::Event(event) = entry else {
            panic!("{entry:?}");
        };
        let position = acknowledged.remove(&event.metadata().event_id);
        assert_eq!(position, Some(event.position()));
    }
    for task in 0..TASKS {
        let id = project(&format!("p{task}"));
        let history = store.read_aggregate(&id, &Versions::all()).await.unwrap();
        let payloads: Vec<_> = history.iter().map(|event| event.payload()).collect();
        let expected: Vec<_> = (0..EACH).map(|n| n.to_string()).collect();
        assert_eq!(payloads, expected);
    }
}

#[tokio::test]
async fn patience_ends_with_an_error_that_says_why() {
    let mut server = server();
    let patience = Duration::from_millis(200);
    let store = builder(&server).patience(patience).connect().await.unwrap();
    let append = to("gothic", Expected::Any, numbered(&[1]));
    server.kill();
    for _ in 0..2 {
        let error = soon("an error", store.append(&append)).await.unwrap_err();
        let AppendError::Store(StoreError::Unavailable { operation, .. }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(operation, "append");
    }
    // It has gone on connecting all the while.
    server.restart().unwrap();
    let patient = async {
        loop {
            match store.append(&append).await {
                Ok(appended) => break appended,
                Err(AppendError::Store(StoreError::Unavailable { .. })) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    assert_eq!(soon("an append", patient).await.version(), 1);
}

#[tokio::test]
async fn a_frozen_server_is_waited_for_and_repetitions_are_found() {
    let server = server();
    let patient = store(&server).await;
    let impatient = builder(&server).patience(Duration::from_millis(200));
    let impatient = impatient.connect().await.unwrap();
    let append = |n: u32| to(&format!("p{n}"), Expected::NoStream, numbered(&[n]));
    for store in [&patient, &impatient] {
        store.append(&append(0)).await.unwrap();
    }
    server.freeze().unwrap();
    let waiting: Vec<_> = (1..=8)
        .map(|n| {
            let (store, append) = (patient.clone(), append(n));
            tokio::spawn(async move { store.append(&append).await })
        })
        .collect();
    // What was asked lies with the server, which will do it when it goes on, and is asked again then.
    for n in 9..=16 {
        let error = soon("an error", impatient.append(&append(n))).await;
        assert!(
            matches!(
                error,
                Err(AppendError::Store(StoreError::Unavailable { .. }))
            ),
            "{error:?}"
        );
    }
    server.thaw().unwrap();
    for task in waiting {
        soon("an append", task).await.unwrap().unwrap();
    }
    for n in 9..=16 {
        soon("an append", patient.append(&append(n))).await.unwrap();
    }
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "17");
}

#[tokio::test]
async fn connections_that_are_cut_are_replaced_at_once() {
    let server = server();
    let store = builder(&server).connections(3).connect().await.unwrap();
    for n in 0..50 {
        server
            .command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .unwrap();
        let append = to("gothic", Expected::Exact(u64::from(n)), numbered(&[n]));
        soon("an append", store.append(&append)).await.unwrap();
    }
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "50");
}

#[tokio::test]
async fn subscribers_and_publishers_go_on_after_a_restart() {
    let mut server = server();
    let store = store(&server).await;
    let mut subscription = store.subscribe(&["sdlc.*".parse().unwrap()]).await.unwrap();
    server.kill();
    server.restart().unwrap();
    until("a subscriber", || {
        server.command(&["PUBSUB", "NUMPAT"]).unwrap() == "1"
    })
    .await;
    let event = event_as(Uuid::from_u128(1), "sdlc.phase.changed", "1");
    soon("a publish", store.publish_realtime(&[event]))
        .await
        .unwrap();
    let item = soon("an event", subscription.next()).await;
    assert!(matches!(item, Some(RealtimeItem::Event(_))), "{item:?}");
}

#[test]
fn a_store_may_outlive_the_runtime_it_was_made_on() {
    let server = server();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let store = runtime().block_on(async { store(&server).await });
    for n in 0..3 {
        runtime().block_on(async {
            let append = to("gothic", Expected::Exact(u64::from(n)), numbered(&[n]));
            soon("an append", store.append(&append)).await.unwrap();
            let event = event_as(Uuid::from_u128(1), "sdlc.phase.changed", "1");
            soon("a publish", store.publish_realtime(&[event]))
                .await
                .unwrap();
        });
    }
}
