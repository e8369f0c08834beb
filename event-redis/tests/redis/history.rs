//! Reading histories: every way to choose versions, compared with the memory store.

use std::ops::ControlFlow;

use event_core::{EventStore, Expected, MemoryStore, ReadError, Version, Versions};

use crate::support::{events, project, server, store, to};

const HISTORY: &str = "{events:sdlc}:history:project:gothic";

async fn read(store: &impl EventStore, versions: &Versions) -> Result<Vec<Version>, ReadError> {
    let events = store.read_aggregate(&project("gothic"), versions).await?;
    Ok(events
        .iter()
        .map(|event| event.aggregate().unwrap().version)
        .collect())
}

#[tokio::test]
async fn every_choice_of_versions_is_as_in_memory() {
    let server = server();
    let redis = store(&server).await;
    let memory = MemoryStore::new();
    // More than two chunks of 1,000.
    for from in [0, 1_000, 2_000] {
        let append = to("gothic", Expected::Exact(from), events(1_000));
        redis.append(&append).await.unwrap();
        memory.append(&append).await.unwrap();
    }
    let append = to("gothic", Expected::Exact(3_000), events(5));
    redis.append(&append).await.unwrap();
    memory.append(&append).await.unwrap();

    let bounds = [
        0, 1, 2, 999, 1_000, 1_001, 2_000, 2_001, 3_004, 3_005, 3_006, 9_999,
    ];
    let limits = [0, 1, 2, 1_000, 1_001, 2_500, 9_999, usize::MAX];
    let mut compared = 0;
    for from in bounds {
        for to in bounds.into_iter().chain([Version::MAX]) {
            for limit in limits {
                let forwards = Versions::from(from).to(to).limit(limit);
                for versions in [forwards.clone(), forwards.backwards()] {
                    let expected = read(&memory, &versions).await.unwrap();
                    let found = read(&redis, &versions).await.unwrap();
                    assert!(expected == found, "{versions:?}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 12 * 13 * 8 * 2);
}

#[tokio::test]
async fn an_unknown_aggregate_is_not_found_however_it_is_read() {
    let server = server();
    let store = store(&server).await;
    for versions in [
        Versions::all(),
        Versions::from(3),
        Versions::last(1),
        Versions::all().limit(0),
        Versions::from(3).to(2),
        Versions::all().to(7).backwards(),
    ] {
        let error = read(&store, &versions).await.unwrap_err();
        assert!(matches!(error, ReadError::NotFound { .. }), "{versions:?}");
    }
}

#[tokio::test]
async fn a_visitor_may_break_off() {
    let server = server();
    let store = store(&server).await;
    for from in [0, 1_000] {
        let append = to("gothic", Expected::Exact(from), events(1_000));
        store.append(&append).await.unwrap();
    }
    for (versions, seen_last) in [(Versions::all(), 1_500), (Versions::last(9_999), 501)] {
        let mut seen = 0;
        let mut last = 0;
        store
            .replay(&project("gothic"), &versions, &mut |entry| {
                seen += 1;
                last = entry.version().unwrap();
                if seen == 1_500 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .await
            .unwrap();
        assert_eq!((seen, last), (1_500, seen_last));
    }
}

#[tokio::test]
async fn a_history_without_its_beginning_is_reported() {
    let server = server();
    let store = store(&server).await;
    store
        .append(&to("gothic", Expected::Any, events(5)))
        .await
        .unwrap();
    server.command(&["LPOP", HISTORY, "2"]).unwrap();
    for versions in [Versions::all(), Versions::all().to(4).backwards()] {
        let error = read(&store, &versions).await.unwrap_err();
        assert!(
            matches!(
                error,
                ReadError::HistoryTrimmed {
                    first_available: 3,
                    ..
                }
            ),
            "{versions:?}: {error:?}"
        );
    }
    assert_eq!(read(&store, &Versions::last(2)).await.unwrap(), [5, 4]);
}
