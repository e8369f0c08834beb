//! Realtime events: patterns, order, and what is counted as missed.

use std::collections::HashMap;

use event_core::{
    Append, Clock, Codec, Event, EventDefinition, EventStore, Expected, Metadata, NewEvent,
    Pattern, Realtime, RealtimeItem, RealtimeSubscription,
};
use event_redis::RedisStore;
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};

use crate::support::{builder, event_as, id, numbered, sdlc, server, soon, store, to, until};

#[derive(Serialize, Deserialize)]
struct Chunk {
    n: u64,
}

impl Event for Chunk {
    const DEFINITIONS: &'static [EventDefinition] =
        &[EventDefinition::new("ai.response.chunk").realtime()];

    fn definition(&self) -> &'static EventDefinition {
        &Self::DEFINITIONS[0]
    }
}

fn chunk(n: u64) -> NewEvent {
    Codec::default().encode(&Chunk { n }).unwrap()
}

fn other(event_type: &str) -> NewEvent {
    NewEvent::from_parts(
        event_type,
        "{}",
        Metadata::new(id(1), Clock::system().now()),
    )
    .unwrap()
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

async fn listen(store: &RedisStore, texts: &[&str]) -> RealtimeSubscription {
    store.subscribe(&patterns(texts)).await.unwrap()
}

async fn drain(subscription: &mut RealtimeSubscription) -> Vec<RealtimeItem> {
    soon("a flush", subscription.drain()).await.unwrap()
}

fn types(items: &[RealtimeItem]) -> Vec<&str> {
    items
        .iter()
        .map(|item| match item {
            RealtimeItem::Event(event) => event.event_type(),
            RealtimeItem::Missed { .. } => "missed",
        })
        .collect()
}

fn number(item: &RealtimeItem) -> u64 {
    match item {
        RealtimeItem::Event(event) => event.decode::<Chunk>().unwrap().n,
        RealtimeItem::Missed { .. } => panic!("missed"),
    }
}

/// Cuts the connections of all subscribers.
fn cut(server: &RedisServer) {
    server
        .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .unwrap();
}

#[tokio::test]
async fn patterns_choose_and_an_event_comes_once() {
    let server = server();
    let store = store(&server).await;
    let mut exact = listen(&store, &["repository.updated"]).await;
    let mut all = listen(
        &store,
        &["*", "repository.*", "repository.updated", "*.updated"],
    )
    .await;
    let mut none = listen(&store, &["github.*"]).await;
    let sent = [
        "repository.updated",
        "repository.analyzed",
        "ai.response.chunk",
        "a.updated",
    ];
    for event_type in sent {
        store.publish_realtime(&[other(event_type)]).await.unwrap();
    }
    assert_eq!(types(&drain(&mut exact).await), ["repository.updated"]);
    assert_eq!(types(&drain(&mut all).await), sent);
    assert!(drain(&mut none).await.is_empty());
}

#[tokio::test]
async fn any_client_can_publish_and_listen() {
    let server = server();
    let store = store(&server).await;
    let mut subscription = listen(&store, &["repository.*", "*", "repository.updated"]).await;
    for message in [
        "no json",
        r#"{"payload":{"a":1}}"#,
        r#"{"payload":{"a":1}}"#,
    ] {
        server
            .command(&["PUBLISH", "repository.updated", message])
            .unwrap();
    }
    server
        .command(&["PUBLISH", "Not an event type", r#"{"payload":1}"#])
        .unwrap();
    let items = drain(&mut subscription).await;
    assert_eq!(types(&items), ["repository.updated", "repository.updated"]);
    let RealtimeItem::Event(event) = &items[0] else {
        panic!("{items:?}");
    };
    assert_eq!(event.payload(), r#"{"a":1}"#);
}

#[tokio::test]
async fn concurrent_publishers_of_one_store_keep_their_numbers_in_order() {
    let server = server();
    let store = store(&server).await;
    let mut subscription = builder(&server)
        .realtime_capacity(100_000)
        .connect()
        .await
        .unwrap()
        .subscribe(&patterns(&["ai.*"]))
        .await
        .unwrap();
    let publishers: Vec<_> = (0..16)
        .map(|publisher| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..250 {
                    let event = chunk(publisher * 1_000 + n);
                    store.publish_realtime(&[event]).await.unwrap();
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let items = drain(&mut subscription).await;
    // Out of order would be told as missed, and then as a repetition.
    assert_eq!(items.len(), 16 * 250);
    let mut next = HashMap::new();
    for item in &items {
        let (publisher, n) = (number(item) / 1_000, number(item) % 1_000);
        let expected = next.entry(publisher).or_insert(0);
        assert_eq!(n, *expected);
        *expected += 1;
    }
}

#[tokio::test]
async fn what_is_missed_while_the_connection_is_lost_is_counted() {
    let server = server();
    let store = store(&server).await;
    let mut subscription = listen(&store, &["ai.*"]).await;
    store.publish_realtime(&[chunk(1)]).await.unwrap();
    assert_eq!(number(&drain(&mut subscription).await[0]), 1);
    cut(&server);
    // Nobody listens now: the server says how many received it.
    store
        .publish_realtime(&[chunk(2), chunk(3), chunk(4)])
        .await
        .unwrap();
    until("a new connection", || {
        server.command(&["PUBSUB", "NUMPAT"]).unwrap() == "1"
    })
    .await;
    // Some of the three may have come through after all, had it been faster than they.
    store.publish_realtime(&[chunk(5)]).await.unwrap();
    let items = drain(&mut subscription).await;
    let missed: u64 = items
        .iter()
        .map(|item| match item {
            RealtimeItem::Missed { count, channel } => {
                assert_eq!(channel, "ai.response.chunk");
                *count
            }
            RealtimeItem::Event(_) => 1,
        })
        .sum();
    assert_eq!(missed, 4, "{items:?}");
    assert!(
        matches!(items.first(), Some(RealtimeItem::Missed { .. })),
        "{items:?}"
    );
    assert_eq!(number(items.last().unwrap()), 5);
}

#[tokio::test]
async fn what_does_not_fit_in_the_buffer_is_counted() {
    let server = server();
    let small = builder(&server)
        .realtime_capacity(10)
        .connect()
        .await
        .unwrap();
    let mut subscription = listen(&small, &["*"]).await;
    let events: Vec<_> = (1..=1_000).map(chunk).collect();
    small.publish_realtime(&events).await.unwrap();
    let first = drain(&mut subscription).await;
    assert_eq!(
        first.iter().map(number).collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>()
    );
    small.publish_realtime(&[chunk(1_001)]).await.unwrap();
    let items = drain(&mut subscription).await;
    assert!(
        matches!(items[0], RealtimeItem::Missed { count: 990, .. }),
        "{items:?}"
    );
    assert_eq!(number(&items[1]), 1_001);
}

#[tokio::test]
async fn a_subscription_waits_for_the_next_event() {
    let server = server();
    let store = store(&server).await;
    let mut subscription = listen(&store, &["ai.response.chunk"]).await;
    let waiting = tokio::spawn(async move { subscription.next().await });
    store.publish_realtime(&[chunk(7)]).await.unwrap();
    let item = soon("an event", waiting).await.unwrap().unwrap();
    assert_eq!(number(&item), 7);
}

#[tokio::test]
async fn a_dropped_subscription_leaves_no_connection() {
    let server = server();
    let store = store(&server).await;
    let connections = || {
        let clients = server
            .command(&["CLIENT", "LIST", "TYPE", "pubsub"])
            .unwrap();
        clients.lines().count()
    };
    let subscriptions = [
        listen(&store, &["a.*"]).await,
        listen(&store, &["a.b"]).await,
    ];
    assert_eq!(connections(), 2);
    drop(subscriptions);
    until("no connections", || connections() == 0).await;
}

#[tokio::test]
async fn a_dropped_store_leaves_no_connection() {
    let server = server();
    let store = store(&server).await;
    store.publish_realtime(&[chunk(1)]).await.unwrap();
    let append = to("gothic", Expected::Any, numbered(&[1]));
    store.append(&append).await.unwrap();
    let connections = || {
        let clients = server.command(&["CLIENT", "LIST"]).unwrap();
        // The one that asks is one of them.
        clients.lines().count() - 1
    };
    assert!(connections() > 0);
    drop(store);
    until("no connections", || connections() == 0).await;
}

#[tokio::test]
async fn stored_events_are_published_when_they_are_stored() {
    let server = server();
    let publishing = builder(&server)
        .publish_on_commit(sdlc())
        .connect()
        .await
        .unwrap();
    let silent = store(&server).await;
    let mut subscription = listen(&silent, &["sdlc.*"]).await;

    let append = to("gothic", Expected::Exact(0), numbered(&[1, 2]));
    publishing.append(&append).await.unwrap();
    // Neither a repetition nor a conflict is sent, and what is in part known only in part.
    assert!(publishing.append(&append).await.unwrap().events[0].repeated);
    let conflict = to("gothic", Expected::Exact(0), numbered(&[9]));
    publishing.append(&conflict).await.unwrap_err();
    let feed = |numbers: &[u32]| Append::to_feed(sdlc(), numbered(numbers));
    publishing.append(&feed(&[3])).await.unwrap();
    publishing.append(&feed(&[3, 4])).await.unwrap();
    silent.append(&feed(&[5])).await.unwrap();

    let items = drain(&mut subscription).await;
    let received: Vec<_> = items
        .iter()
        .map(|item| match item {
            RealtimeItem::Event(event) => (event.payload(), event.metadata().event_id),
            RealtimeItem::Missed { .. } => panic!("missed"),
        })
        .collect();
    let expected: Vec<_> = ["1", "2", "3", "4"]
        .into_iter()
        .zip((1..=4).map(id))
        .collect();
    assert_eq!(received, expected);
    let published = ["HGET", "{events:sdlc}:published", "sdlc.phase.changed"];
    assert_eq!(server.command(&published).unwrap(), "4");
}

/// The numbers of a subscription's events, where none may be missed.
fn payloads(items: &[RealtimeItem]) -> Vec<&str> {
    items
        .iter()
        .map(|item| match item {
            RealtimeItem::Event(event) => event.payload(),
            RealtimeItem::Missed { .. } => panic!("missed: {items:?}"),
        })
        .collect()
}

#[tokio::test]
async fn numbers_that_are_given_out_again_are_no_repetition() {
    const PUBLISHED: &str = "{events:sdlc}:published";
    let mut server = server();
    let connect = || builder(&server).publish_on_commit(sdlc()).connect();
    let store = connect().await.unwrap();
    let listener = connect().await.unwrap();
    let mut subscription = listen(&listener, &["sdlc.*"]).await;
    let feed = |n| Append::to_feed(sdlc(), numbered(&[n]));

    for n in 1..=3 {
        store.append(&feed(n)).await.unwrap();
    }
    server.command(&["DEL", PUBLISHED]).unwrap();
    store.append(&feed(4)).await.unwrap();
    store.append(&feed(5)).await.unwrap();
    let items = drain(&mut subscription).await;
    assert_eq!(payloads(&items), ["1", "2", "3", "4", "5"]);

    // A server that comes back with what it had some time ago.
    let lost = ["HSET", PUBLISHED, "sdlc.phase.changed", "0"];
    server.command(&lost).unwrap();
    server.restart().unwrap();
    until("a subscriber", || {
        server.command(&["PUBSUB", "NUMPAT"]).unwrap() == "1"
    })
    .await;
    store.append(&feed(6)).await.unwrap();
    assert_eq!(payloads(&drain(&mut subscription).await), ["6"]);
}

#[tokio::test]
async fn databases_of_one_server_number_apart() {
    let server = server();
    // Channels are shared by all databases, and keys are not.
    let mut stores = Vec::new();
    for database in [0, 3] {
        let url = format!("{}{database}", server.url());
        let builder = RedisStore::builder(url).publish_on_commit(sdlc());
        stores.push(builder.connect().await.unwrap());
    }
    let mut subscription = listen(&stores[0], &["sdlc.*"]).await;
    for n in 0..6 {
        let append = Append::to_feed(sdlc(), numbered(&[n]));
        stores[n as usize % 2].append(&append).await.unwrap();
    }
    let items = drain(&mut subscription).await;
    assert_eq!(payloads(&items), ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn an_event_that_may_not_be_published_is_stored_all_the_same() {
    let server = server();
    let rules = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        "nopass",
        "~*",
        "resetchannels",
        "+@all",
    ];
    server.command(&rules).unwrap();
    let url = server.url().replace("redis://", "redis://app:x@");
    let store = RedisStore::builder(url)
        .publish_on_commit(sdlc())
        .connect()
        .await
        .unwrap();
    let event = event_as(id(1), "sdlc.phase.changed", "1");
    let append = to("gothic", Expected::Any, vec![event]);
    assert_eq!(store.append(&append).await.unwrap().version(), 1);
    let error = store.publish_realtime(&[chunk(1)]).await.unwrap_err();
    assert!(
        matches!(error, event_core::StoreError::Refused { .. }),
        "{error:?}"
    );
    let error = store.subscribe(&patterns(&["ai.*"])).await.err().unwrap();
    assert!(
        matches!(error, event_core::StoreError::Refused { .. }),
        "{error:?}"
    );
}
