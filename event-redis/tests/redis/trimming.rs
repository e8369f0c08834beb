//! Trimming, where others trim, delete and read, too.

use event_core::{
    EventStore, Expected, Groups, Maintenance, ParallelGroup, ParallelGroups, Position, ReadError,
    Start, StoreError, TrimPolicy, Trimmed,
};
use event_redis::RedisStore;
use event_tests::RedisServer;

use crate::support::{events, only, server, store, to};

async fn trim(store: &RedisStore) -> Trimmed {
    let policy = TrimPolicy::new().max_entries(0);
    store.trim_partition(&only(), &policy).await.unwrap()
}

async fn append(store: &RedisStore, count: usize) -> Vec<Position> {
    let append = to("gothic", Expected::Any, events(count));
    let appended = store.append(&append).await.unwrap();
    appended.events.iter().map(|event| event.position).collect()
}

fn is_trimmed<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::FeedTrimmed { .. }))
}

async fn reads(store: &RedisStore, after: Position) -> bool {
    match store.read_feed(&only(), after, 100).await {
        Ok(_) => true,
        Err(ReadError::Store(StoreError::FeedTrimmed { .. })) => false,
        Err(error) => panic!("{error}"),
    }
}

fn command(server: &RedisServer, command: &[&str]) -> String {
    server.command(command).unwrap()
}

#[tokio::test]
async fn what_others_trim_is_told_to_whoever_begins() {
    let server = server();
    let store = store(&server).await;
    store.open("old", &only(), Start::Beginning).await.unwrap();
    let at = append(&store, 6).await;
    command(&server, &["XTRIM", "events:sdlc", "MAXLEN", "3"]);
    let first = store.first_available(&only()).await.unwrap();
    assert_eq!(first, at[3]);
    let new = store.open("new", &only(), Start::Beginning).await;
    assert!(is_trimmed(&new), "{new:?}");
    let handler = ParallelGroup {
        group: "new".into(),
        handler: "h".into(),
    };
    let new = store
        .open_parallel(&handler, &only(), Start::Beginning)
        .await;
    assert!(is_trimmed(&new), "{new:?}");
    assert!(!reads(&store, Position::START).await);
    // Where it has read already, nobody is told: the server does not say what it was that went.
    assert!(reads(&store, at[2]).await);
    assert!(store.follow(&only(), Position::START).await.is_err());
    // One that is known goes on with what there is.
    store.open("old", &only(), Start::Beginning).await.unwrap();

    // Ours behind theirs, and theirs behind ours.
    store
        .reset("old", &only(), event_core::Reset::Forget)
        .await
        .unwrap();
    let policy = TrimPolicy::new().max_entries(2);
    assert_eq!(
        store
            .trim_partition(&only(), &policy)
            .await
            .unwrap()
            .removed,
        1
    );
    assert!(!reads(&store, at[2]).await);
    assert!(reads(&store, at[3]).await);
    command(&server, &["XTRIM", "events:sdlc", "MAXLEN", "0"]);
    let first = store.first_available(&only()).await.unwrap();
    assert_eq!(first, at[5].next());
    let new = store.open("new", &only(), Start::at(at[5])).await;
    assert!(is_trimmed(&new), "{new:?}");
    store.open("new", &only(), Start::at(first)).await.unwrap();
}

#[tokio::test]
async fn what_is_deleted_in_the_middle_is_not_trimmed() {
    let server = server();
    let store = store(&server).await;
    let at = append(&store, 4).await;
    command(&server, &["XDEL", "events:sdlc", &at[2].to_string()]);
    assert!(reads(&store, Position::START).await);
    store.open("g", &only(), Start::Beginning).await.unwrap();
    store
        .reset("g", &only(), event_core::Reset::Forget)
        .await
        .unwrap();
    let policy = TrimPolicy::new().max_entries(2);
    assert_eq!(
        store
            .trim_partition(&only(), &policy)
            .await
            .unwrap()
            .removed,
        1
    );
    assert!(!reads(&store, Position::START).await);
    assert!(reads(&store, at[0]).await);
}

#[tokio::test]
async fn consumer_groups_of_others_keep_back() {
    let server = server();
    let store = store(&server).await;
    let at = append(&store, 4).await;
    command(&server, &["XGROUP", "CREATE", "events:sdlc", "theirs", "0"]);
    let held_back = trim(&store).await.held_back_by.unwrap();
    assert_eq!(
        (&*held_back.by, held_back.needs_after),
        ("theirs", Position::START)
    );
    let read = [
        "XREADGROUP",
        "GROUP",
        "theirs",
        "c",
        "COUNT",
        "3",
        "STREAMS",
        "events:sdlc",
        ">",
    ];
    command(&server, &read);
    assert_eq!(trim(&store).await.removed, 0);
    command(
        &server,
        &[
            "XACK",
            "events:sdlc",
            "theirs",
            &at[0].to_string(),
            &at[2].to_string(),
        ],
    );
    assert_eq!(trim(&store).await.removed, 1);
    command(&server, &["XGROUP", "DESTROY", "events:sdlc", "theirs"]);
    assert_eq!(trim(&store).await.removed, 3);
}

#[tokio::test]
async fn a_lost_native_group_keeps_back_what_is_remembered_of_it() {
    let server = server();
    let store = store(&server).await;
    let handler = ParallelGroup {
        group: "g".into(),
        handler: "h".into(),
    };
    store
        .open_parallel(&handler, &only(), Start::Beginning)
        .await
        .unwrap();
    append(&store, 4).await;
    command(&server, &["XGROUP", "DESTROY", "events:sdlc", "g/h"]);
    let trimmed = trim(&store).await;
    assert_eq!(trimmed.removed, 0);
    assert_eq!(trimmed.held_back_by.unwrap().by, "g/h");
}

#[tokio::test]
async fn many_entries_go_in_steps() {
    let server = server();
    let store = store(&server).await;
    for _ in 0..6 {
        append(&store, 1_000).await;
    }
    let policy = TrimPolicy::new().max_entries(17);
    assert_eq!(
        store
            .trim_partition(&only(), &policy)
            .await
            .unwrap()
            .removed,
        5_983
    );
    assert_eq!(command(&server, &["XLEN", "events:sdlc"]), "17");
    let calls = command(&server, &["INFO", "commandstats"]);
    let calls = calls
        .lines()
        .find(|line| line.starts_with("cmdstat_xtrim:"));
    let calls = calls.unwrap();
    assert!(calls.starts_with("cmdstat_xtrim:calls=6,"), "{calls}");
}
