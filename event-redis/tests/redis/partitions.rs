//! Feeds of several partitions.

use std::collections::BTreeSet;

use event_core::{
    Append, AppendError, EventStore, Expected, Metadata, NewEvent, Partition, Position, Versions,
};
use event_redis::{ConnectError, RedisStore};
use event_tests::RedisServer;
use uuid::Uuid;

use crate::support::{builder, events, id, numbered, project, sdlc, server, store, to};

async fn parted(server: &RedisServer, count: u32) -> Result<RedisStore, ConnectError> {
    builder(server).partitions(sdlc(), count).connect().await
}

fn mismatch(error: ConnectError) -> (u32, u32) {
    let message = error.to_string();
    let ConnectError::Partitions { wanted, found, .. } = error else {
        panic!("{error:?}");
    };
    assert!(
        message.contains("`sdlc`") && message.contains(&format!("ask for {found}")),
        "{message}"
    );
    (wanted, found)
}

fn keyed(event_id: Uuid, key: &str) -> NewEvent {
    let mut metadata = Metadata::new(event_id, event_core::Clock::system().now());
    metadata.key = Some(key.into());
    NewEvent::from_parts("sdlc.phase.changed", "{}", metadata).unwrap()
}

#[tokio::test]
async fn a_category_has_one_partition_where_nobody_says() {
    let server = server();
    let store = store(&server).await;
    assert_eq!(store.partitions(&sdlc()).await.unwrap(), 1);
    // Only events settle it.
    assert_eq!(server.command(&["KEYS", "*"]).unwrap(), "");
    let append = to("gothic", Expected::Any, numbered(&[1]));
    store.append(&append).await.unwrap();
    assert_eq!(store.partitions(&sdlc()).await.unwrap(), 1);
    assert_eq!(
        mismatch(parted(&server, 4).await.unwrap_err()),
        (4, 1),
        "there are events already"
    );
    parted(&server, 1).await.unwrap();
}

#[tokio::test]
async fn the_number_is_recorded_and_never_changes() {
    let server = server();
    let four = parted(&server, 4).await.unwrap();
    assert_eq!(
        server
            .command(&["GET", "{events:sdlc}:partitions"])
            .unwrap(),
        "4"
    );
    assert_eq!(four.partitions(&sdlc()).await.unwrap(), 4);
    assert_eq!(mismatch(parted(&server, 3).await.unwrap_err()), (3, 4));
    parted(&server, 4).await.unwrap();
    // Whoever does not say takes what there is.
    let other = store(&server).await;
    assert_eq!(other.partitions(&sdlc()).await.unwrap(), 4);
}

#[tokio::test]
async fn a_feed_that_another_program_has_written_has_one_partition() {
    let server = server();
    let add = [
        "XADD",
        "events:sdlc",
        "*",
        "type",
        "phase.changed",
        "payload",
        "1",
    ];
    server.command(&add).unwrap();
    assert_eq!(mismatch(parted(&server, 2).await.unwrap_err()), (2, 1));
    let store = store(&server).await;
    assert_eq!(store.partitions(&sdlc()).await.unwrap(), 1);
}

#[tokio::test]
async fn events_lie_in_the_partition_of_their_aggregate() {
    let server = server();
    let store = parted(&server, 4).await.unwrap();
    let mut used = BTreeSet::new();
    for n in 1..=20 {
        let name = format!("p{n}");
        let append = to(&name, Expected::NoStream, numbered(&[n, n + 1_000]));
        store.append(&append).await.unwrap();
        let partition = Partition::of_aggregate(&project(&name), 4);
        let braced = match partition.number() {
            0 => "{events:sdlc}".to_owned(),
            number => format!("{{events:sdlc:{number}}}"),
        };
        let history = format!("{braced}:history:project:{name}");
        assert_eq!(server.command(&["LLEN", &history]).unwrap(), "2");
        let events = store
            .read_aggregate(&project(&name), &Versions::all())
            .await
            .unwrap();
        assert_eq!(events.len(), 2);
        let head = store.head(&partition).await.unwrap();
        assert_eq!(head, events[1].position());
        used.insert(partition);
    }
    assert_eq!(used.len(), 4);
    let mut count = 0;
    for partition in used {
        let entries = store
            .read_feed(&partition, Position::START, 100)
            .await
            .unwrap();
        count += entries.len();
    }
    assert_eq!(count, 40);
}

#[tokio::test]
async fn who_took_it_for_one_partition_notices_when_appending() {
    let server = server();
    let early = store(&server).await;
    assert_eq!(early.partitions(&sdlc()).await.unwrap(), 1);
    parted(&server, 8).await.unwrap();
    // Enough that not all of them belong in partition 0.
    for n in 1..=10 {
        let name = format!("p{n}");
        let append = to(&name, Expected::NoStream, numbered(&[n]));
        early.append(&append).await.unwrap();
        let other = store(&server).await;
        let events = other
            .read_aggregate(&project(&name), &Versions::all())
            .await
            .unwrap();
        assert_eq!(events.len(), 1);
    }
    assert_eq!(early.partitions(&sdlc()).await.unwrap(), 8);
}

#[tokio::test]
async fn events_of_several_partitions_are_no_append() {
    let server = server();
    let store = parted(&server, 16).await.unwrap();
    let append = Append::to_feed(sdlc(), events(50));
    let error = store.append(&append).await.unwrap_err();
    assert!(
        matches!(&error, AppendError::SeveralPartitions { category } if category == "sdlc"),
        "{error:?}"
    );
    let keys = server.command(&["KEYS", "*"]).unwrap();
    assert_eq!(keys, "{events:sdlc}:partitions");

    // What has one key belongs together.
    let one_key = (1..=50).map(|n| keyed(id(n), "octo/hello")).collect();
    let append = Append::to_feed(sdlc(), one_key);
    store.append(&append).await.unwrap();
    let again = store.append(&append).await.unwrap();
    assert!(again.events.iter().all(|event| event.repeated));
}

#[tokio::test]
async fn several_partitions_are_followed_each() {
    let server = server();
    let store = parted(&server, 2).await.unwrap();
    let mut found = 0;
    for number in 0..2 {
        let partition = Partition::new(sdlc(), number);
        let mut reader = store.follow(&partition, Position::START).await.unwrap();
        for n in 1..=10 {
            let name = format!("{number}-{n}");
            if Partition::of_aggregate(&project(&name), 2) == partition {
                let append = to(&name, Expected::NoStream, events(1));
                store.append(&append).await.unwrap();
                let batch = crate::support::soon("an event", reader.next_batch(10)).await;
                found += batch.unwrap().len();
            }
        }
    }
    assert!(found > 2, "{found}");
}
