//! Appends to a feed that are under way at the same time go together.

use event_core::prelude::*;
use event_core::{Append, AppendError, Appended, FeedEntry, StoreError};
use event_redis::RedisStore;
use event_tests::RedisServer;
use tokio::task::{JoinHandle, yield_now};

use crate::support::{builder, event, id, numbered, only, sdlc, server, soon, store, to};

type Appending = JoinHandle<Result<Appended, AppendError>>;

/// A store that has appended before, and so knows the feed.
async fn known(store: RedisStore) -> RedisStore {
    let append = Append::to_feed(sdlc(), vec![event("0")]);
    store.append(&append).await.unwrap();
    store
}

/// Begins an append for each list of numbers while the server answers nobody. When it returns, all of
/// them are under way.
async fn begin(server: &RedisServer, store: &RedisStore, numbers: &[&[u32]]) -> Vec<Appending> {
    server
        .command(&["CLIENT", "PAUSE", "60000", "WRITE"])
        .unwrap();
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
    let begun = numbers.iter().map(|numbers| {
        let (store, append) = (store.clone(), Append::to_feed(sdlc(), numbered(numbers)));
        tokio::spawn(async move { store.append(&append).await })
    });
    let begun = begun.collect();
    // They run on this thread, some at a time, each until it has to wait.
    for _ in 0..numbers.len() {
        yield_now().await;
    }
    begun
}

fn go_on(server: &RedisServer) {
    server.command(&["CLIENT", "UNPAUSE"]).unwrap();
}

async fn outcome(appending: Appending) -> Result<Appended, AppendError> {
    soon("an append", appending).await.unwrap()
}

/// The payloads from a position on, and where they lie.
async fn feed(store: &RedisStore) -> Vec<(String, Position)> {
    let entries = store.read_feed(&only(), Position::START, 10_000).await;
    let entries = entries.unwrap().into_iter().skip(1);
    let entries = entries.map(|entry| match entry {
        FeedEntry::Event(event) => (event.payload().to_owned(), event.position()),
        FeedEntry::Undecodable { position, error } => panic!("{position}: {error}"),
    });
    entries.collect()
}

fn calls(server: &RedisServer) -> u32 {
    let stats = server.command(&["INFO", "commandstats"]).unwrap();
    let calls = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    calls
        .and_then(|rest| rest.split(',').next()?.parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
async fn what_is_appended_at_the_same_time_goes_together_and_in_order() {
    let server = server();
    let store = known(store(&server).await).await;
    // Two events each, so that parts of several lengths have to be told apart.
    let numbers: Vec<Vec<u32>> = (0..100)
        .map(|n| (0..=n % 3).map(|i| 10 * n + i).collect())
        .collect();
    let numbers: Vec<&[u32]> = numbers.iter().map(Vec::as_slice).collect();
    let begun = begin(&server, &store, &numbers).await;
    go_on(&server);
    let mut stored = Vec::new();
    for (numbers, appending) in numbers.iter().zip(begun) {
        let appended = outcome(appending).await.unwrap();
        assert_eq!(appended.events.len(), numbers.len());
        for (number, event) in numbers.iter().zip(appended.events) {
            assert!(!event.repeated);
            stored.push((number.to_string(), event.position));
        }
    }
    assert_eq!(calls(&server), 5, "four that went at once, and all others");
    assert_eq!(feed(&store).await, stored);
}

#[tokio::test]
async fn an_append_with_the_id_of_another_fails_alone() {
    let server = server();
    let store = known(store(&server).await).await;
    let taken = to("a", Expected::Any, numbered(&[13]));
    store.append(&taken).await.unwrap();
    let numbers: Vec<[u32; 1]> = (10..20).map(|n| [n]).collect();
    let numbers: Vec<&[u32]> = numbers.iter().map(<[u32; 1]>::as_slice).collect();
    let begun = begin(&server, &store, &numbers).await;
    go_on(&server);
    for (number, appending) in (10..20).zip(begun) {
        match outcome(appending).await {
            Err(AppendError::IdTaken { event_id, .. }) => {
                assert_eq!((number, event_id), (13, id(13)));
            }
            stored => assert!(number != 13 && stored.is_ok(), "{number}: {stored:?}"),
        }
    }
    let mut found: Vec<_> = feed(&store).await.into_iter().map(|(n, _)| n).collect();
    found.sort();
    let all: Vec<_> = (10..20).map(|n| n.to_string()).collect();
    assert_eq!(found, all);
}

#[tokio::test]
async fn the_same_event_appended_at_the_same_time_is_stored_once() {
    let server = server();
    let store = known(store(&server).await).await;
    let begun = begin(
        &server,
        &store,
        &[&[1], &[2], &[3], &[3], &[4], &[3], &[5], &[4], &[5]],
    )
    .await;
    go_on(&server);
    let mut new = 0;
    for appending in begun {
        let appended = outcome(appending).await.unwrap();
        new += appended
            .events
            .iter()
            .filter(|event| !event.repeated)
            .count();
    }
    assert_eq!(new, 5);
    assert_eq!(feed(&store).await.len(), 5);
}

#[tokio::test]
async fn who_goes_away_holds_up_nobody() {
    let server = server();
    let store = known(store(&server).await).await;
    let numbers: Vec<[u32; 1]> = (0..40).map(|n| [n]).collect();
    let numbers: Vec<&[u32]> = numbers.iter().map(<[u32; 1]>::as_slice).collect();
    // Those that have called, and some of those that wait; and again while those behind them call.
    for gone in [&[0, 1, 2, 3, 5, 6, 39][..], &[0], &[1, 7]] {
        let begun = begin(&server, &store, &numbers).await;
        for gone in gone {
            begun[*gone].abort();
        }
        yield_now().await;
        begun[8].abort();
        go_on(&server);
        for (number, appending) in begun.into_iter().enumerate() {
            if number == 8 || gone.contains(&number) {
                continue;
            }
            let appended = outcome(appending).await.unwrap();
            assert_eq!(appended.events.len(), 1, "{number}");
        }
        let mut found: Vec<_> = feed(&store).await.into_iter().map(|(n, _)| n).collect();
        let count = found.len();
        found.sort();
        found.dedup();
        assert_eq!(found.len(), count, "stored once each");
    }
    // Nobody has kept the right to call for himself.
    let begun = begin(
        &server,
        &store,
        &[&[100], &[101], &[102], &[103], &[104], &[105]],
    )
    .await;
    go_on(&server);
    for appending in begun {
        outcome(appending).await.unwrap();
    }
    assert_eq!(calls(&server), 5);
}

#[tokio::test]
async fn who_waits_for_a_call_gets_no_answer_for_as_long_as_one_who_calls() {
    let server = server();
    let patience = std::time::Duration::from_millis(200);
    let store = builder(&server).patience(patience).connect().await.unwrap();
    let store = known(store).await;
    let begun = begin(&server, &store, &[&[1], &[2], &[3], &[4], &[5], &[6]]).await;
    for appending in begun {
        let error = outcome(appending).await.unwrap_err();
        assert!(
            matches!(&error, AppendError::Store(StoreError::Unavailable { .. })),
            "{error:?}"
        );
    }
    go_on(&server);
    let again = Append::to_feed(sdlc(), numbered(&[1, 2, 3, 4, 5, 6]));
    soon("the server is back", store.append(&again))
        .await
        .unwrap();
    assert_eq!(feed(&store).await.len(), 6);
}
