//! What is special about projections on a server.

use event_core::projection::ProjectionWrites;
use event_core::{
    Append, Category, EventStore, Position, ProjectionId, ProjectionStep, Projections, StoreError,
    Writes,
};

use crate::support::{event, only, sdlc, server, store};

fn pushes(version: u32) -> ProjectionId {
    ProjectionId::new("pushes", version).unwrap()
}

fn step(from: u64, to: u64, writes: Writes) -> ProjectionStep {
    ProjectionStep {
        from: Position::new(from, 0),
        to: Position::new(to, 0),
        writes: ProjectionWrites::of(writes).unwrap(),
    }
}

/// A version whose removal was broken off is written no more, and is gone when it is opened again.
#[tokio::test]
async fn a_removal_that_was_broken_off_is_ended() {
    let server = server();
    let store = store(&server).await;
    store.open_projection(&pushes(1), &[sdlc()]).await.unwrap();
    store.open_projection(&pushes(2), &[sdlc()]).await.unwrap();
    let mut writes = Writes::default();
    (0..700).for_each(|key| writes.increment(key.to_string(), "n", 1));
    let written = step(0, 1, writes.clone());
    store
        .apply_projection(&pushes(2), &only(), &written)
        .await
        .unwrap();
    let versions = "{projection:pushes}:versions";
    server
        .command(&["HSET", versions, "2", "dropping"])
        .unwrap();

    let refused = store
        .apply_projection(&pushes(2), &only(), &step(1, 2, writes))
        .await;
    assert!(refused.is_err());
    let known = store.projection_versions("pushes").await.unwrap();
    assert_eq!(known.versions.keys().collect::<Vec<_>>(), [&1]);
    let known = store.open_projection(&pushes(2), &[sdlc()]).await.unwrap();
    assert!(!known.is_live(2));
    let left = server
        .command(&["KEYS", "{projection:pushes}:v2:*"])
        .unwrap();
    assert_eq!(left, "");
}

/// Thousands of keys and fields are written by one step.
#[tokio::test]
async fn a_step_may_be_large() {
    const COUNT: usize = 9_000;
    let server = server();
    let store = store(&server).await;
    store.open_projection(&pushes(1), &[sdlc()]).await.unwrap();
    let mut writes = Writes::default();
    for number in 0..COUNT {
        writes.increment("one", number.to_string(), 1);
        writes.set(number.to_string(), &number).unwrap();
    }
    let again = writes.clone();
    for (from, writes) in [(0, writes), (1, again)] {
        let step = step(from, from + 1, writes);
        store
            .apply_projection(&pushes(1), &only(), &step)
            .await
            .unwrap();
    }
    let mut writes = Writes::default();
    (0..COUNT / 2).for_each(|number| writes.remove_field("one", number.to_string()));
    store
        .apply_projection(&pushes(1), &only(), &step(2, 3, writes))
        .await
        .unwrap();
    let fields = store.projection_fields(&pushes(1), "one").await.unwrap();
    assert_eq!(fields.len(), COUNT / 2);
    assert!(fields.values().all(|count| count == "2"));
    let keys = store
        .projection_keys(&pushes(1), None, 2 * COUNT)
        .await
        .unwrap();
    assert_eq!(keys.len(), COUNT + 1);
}

/// A client that may not write what a projection needs is told so at once, before anything is written.
#[tokio::test]
async fn a_client_that_may_not_write_is_told_so() {
    let server = server();
    let user = [
        "ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-zadd",
    ];
    server.command(&user).unwrap();
    let url = server.url().replace("redis://", "redis://reader:secret@");
    let store = event_redis::RedisStore::builder(url).accept_weaker_durability();
    let store = store.connect().await.unwrap();
    let opened = store.open_projection(&pushes(1), &[sdlc()]).await;
    assert!(
        matches!(opened, Err(StoreError::Refused { .. })),
        "{opened:?}"
    );
    let known = store.projection_versions("pushes").await.unwrap();
    assert_eq!(known.served, None);
}

/// What a projection holds is counted where entries were trimmed away, too.
#[tokio::test]
async fn entries_are_counted_in_a_trimmed_feed() {
    let server = server();
    let store = store(&server).await;
    let feed = |count| {
        let category = Category::new("sdlc").unwrap();
        Append::to_feed(category, (0..count).map(|_| event("{}")).collect())
    };
    let first = store.append(&feed(10)).await.unwrap();
    store.append(&feed(5)).await.unwrap();
    server
        .command(&["XTRIM", "events:sdlc", "MAXLEN", "3"])
        .unwrap();
    let after = store.entries_after(&only(), Position::START).await.unwrap();
    assert_eq!(after, 3);
    let head = store.head(&only()).await.unwrap();
    assert_eq!(store.entries_after(&only(), head).await.unwrap(), 0);
    assert!(first.position() < head);
}
