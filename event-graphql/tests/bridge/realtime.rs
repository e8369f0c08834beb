//! Realtime events: one subscription at the store for all who want the same, and what is lost is counted.

use std::collections::HashMap;
use std::sync::Mutex;

use event_core::{Codec, Event, NewEvent};
use event_graphql::{Access, EventSubscriptionBridge, Live, LiveStream, SlowClient};
use futures::StreamExt;
use serde::{Deserialize, Deserializer, Serialize};
use tokio_util::sync::CancellationToken;

use crate::harness::*;

on_both_stores![
    all_clients_share_one_subscription_at_the_store,
    listeners_come_and_go_with_their_clients,
    a_client_gets_what_its_filter_lets_through,
    an_event_is_decoded_once_for_all_clients,
    what_a_slow_client_loses_is_counted,
    a_slow_client_may_want_the_newest_only,
    a_slow_client_may_be_told_and_go,
    rights_are_asked_for_and_can_be_taken_away,
    what_does_not_fit_is_left_out_and_counted,
    realtime_events_are_found_by_patterns,
    stored_and_realtime_events_are_not_confused,
];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("ai.response.chunk", realtime)]
struct Chunk {
    session: String,
    number: u64,
}

/// An event that notes how often it is decoded.
#[derive(Clone, Debug, Serialize, Event)]
#[event("ai.response.noted", realtime)]
struct NotedChunk {
    session: String,
}

static NOTED: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);

impl<'de> Deserialize<'de> for NotedChunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Chunk { session, .. } = Chunk::deserialize(deserializer)?;
        let mut noted = NOTED.lock().unwrap();
        let noted = noted.get_or_insert_default();
        *noted.entry(session.clone()).or_default() += 1;
        Ok(Self { session })
    }
}

fn chunk(session: &str, number: u64) -> Chunk {
    Chunk {
        session: session.to_owned(),
        number,
    }
}

/// An event as another program may write it.
fn written(event_type: &str, payload: &str) -> NewEvent {
    let own = Codec::default().encode(&chunk("", 0)).unwrap();
    NewEvent::from_parts(event_type, payload, own.metadata().clone()).unwrap()
}

async fn send(world: &World, events: &[NewEvent]) {
    world.store.publish_realtime(events).await.unwrap();
}

async fn send_chunks(world: &World, session: &str, numbers: std::ops::Range<u64>) {
    let encode = |number| Codec::default().encode(&chunk(session, number)).unwrap();
    send(world, &numbers.map(encode).collect::<Vec<_>>()).await;
}

async fn listen(bridge: &EventSubscriptionBridge) -> LiveStream<Chunk> {
    bridge.realtime::<Chunk>().subscribe().await.unwrap()
}

async fn next_live<E: Send + Sync + 'static>(
    stream: &mut LiveStream<E>,
) -> Option<async_graphql::Result<Live<E>>> {
    tokio::time::timeout(PATIENCE, stream.next()).await.unwrap()
}

/// The number of the event that comes next, and how many were lost before it.
async fn live(stream: &mut LiveStream<Chunk>) -> (u64, u64) {
    let live = next_live(stream).await.unwrap().unwrap();
    (live.event().number, live.lost())
}

async fn all_clients_share_one_subscription_at_the_store(world: World) {
    let bridge = world.bridge();
    let mut streams = Vec::new();
    for _ in 0..1_000 {
        streams.push(listen(&bridge).await);
    }
    assert_eq!((bridge.readers(), bridge.clients()), (1, 1_000));
    send_chunks(&world, "s", 0..3).await;
    for stream in &mut streams {
        for number in 0..3 {
            assert_eq!(live(stream).await, (number, 0));
        }
    }
    drop(streams);
    assert_eq!((bridge.readers(), bridge.clients()), (0, 0));
}

/// A thousand times somebody comes or goes, or an event is sent; whoever is there gets it.
async fn listeners_come_and_go_with_their_clients(world: World) {
    let bridge = world.bridge();
    let mut streams = Vec::new();
    let mut random = fastrand(11);
    let mut number = 0;
    for _ in 0..1_000 {
        match random() % 4 {
            // Two at once, of which one may be the one that asks the store.
            0 => {
                let both = tokio::join!(listen(&bridge), listen(&bridge));
                streams.extend([(number, both.0), (number, both.1)]);
            }
            1 if streams.len() < 4 => streams.clear(),
            1 | 2 if !streams.is_empty() => {
                let (mut expected, mut stream) =
                    streams.swap_remove(random() as usize % streams.len());
                while expected < number {
                    let (came, lost) = live(&mut stream).await;
                    assert_eq!(lost, 0);
                    // What was sent just before it came may still arrive.
                    if came >= expected {
                        assert_eq!(came, expected);
                        expected += 1;
                    }
                }
            }
            _ => {
                send_chunks(&world, "s", number..number + 1).await;
                number += 1;
            }
        }
        assert_eq!(bridge.readers(), usize::from(!streams.is_empty()));
        assert_eq!(bridge.clients(), streams.len());
    }
    assert!(number > 100);
}

async fn a_client_gets_what_its_filter_lets_through(world: World) {
    let bridge = world.bridge();
    let mine = bridge.realtime::<Chunk>();
    let mine = mine.filter(|chunk| chunk.session == "mine");
    let mut mine = mine.subscribe().await.unwrap();
    for number in 0..3 {
        send_chunks(&world, "yours", number..number + 1).await;
        send_chunks(&world, "mine", number..number + 1).await;
    }
    for number in 0..3 {
        assert_eq!(live(&mut mine).await, (number, 0));
    }
}

async fn an_event_is_decoded_once_for_all_clients(world: World) {
    let bridge = world.bridge();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let stream = bridge.realtime::<NotedChunk>().subscribe();
        streams.push(stream.await.unwrap());
    }
    let unique = Codec::default().encode(&chunk("", 0)).unwrap();
    let session = unique.metadata().event_id.to_string();
    let payload = serde_json::to_string(&chunk(&session, 1)).unwrap();
    send(&world, &[written("ai.response.noted", &payload)]).await;
    for stream in &mut streams {
        let live = next_live(stream).await.unwrap().unwrap();
        assert_eq!(live.event().session, session);
    }
    let noted = NOTED.lock().unwrap().clone().unwrap();
    assert_eq!(noted.get(&session), Some(&1));
}

/// A bridge whose clients may be so many events behind.
fn narrow(world: &World, window: usize) -> EventSubscriptionBridge {
    world.builder().window(window, 1024 * 1024).build()
}

/// Waits until a client that keeps up has got everything up to `number`.
async fn until_heard(keeps_up: &mut LiveStream<Chunk>, number: u64) {
    while live(keeps_up).await.0 < number {}
}

async fn what_a_slow_client_loses_is_counted(world: World) {
    let bridge = narrow(&world, 8);
    let (mut slow, mut quick) = (listen(&bridge).await, listen(&bridge).await);
    for number in 0..50 {
        send_chunks(&world, "s", number..number + 1).await;
        until_heard(&mut quick, number).await;
    }
    assert_eq!(live(&mut slow).await, (42, 42));
    for number in 43..50 {
        assert_eq!(live(&mut slow).await, (number, 0));
    }
    // It is the client that was too slow: everything has arrived here.
    assert_eq!(bridge.missed(), 0);
}

async fn a_slow_client_may_want_the_newest_only(world: World) {
    let bridge = narrow(&world, 8);
    let latest = bridge.realtime::<Chunk>().slow_client(SlowClient::Latest);
    let mut latest = latest.subscribe().await.unwrap();
    let mut quick = listen(&bridge).await;
    let mut before = 0;
    for newest in [4, 5, 49] {
        for number in before..=newest {
            send_chunks(&world, "s", number..number + 1).await;
            until_heard(&mut quick, number).await;
        }
        assert_eq!(live(&mut latest).await, (newest, newest - before));
        before = newest + 1;
    }
}

async fn a_slow_client_may_be_told_and_go(world: World) {
    let bridge = narrow(&world, 8);
    let slow = bridge
        .realtime::<Chunk>()
        .slow_client(SlowClient::Disconnect);
    let (mut slow, mut quick) = (slow.subscribe().await.unwrap(), listen(&bridge).await);
    for number in 0..9 {
        send_chunks(&world, "s", number..number + 1).await;
        until_heard(&mut quick, number).await;
    }
    let error = next_live(&mut slow).await.unwrap().unwrap_err();
    assert_eq!(code(&error), "TOO_SLOW");
    assert!(next_live(&mut slow).await.is_none());
    assert_eq!(bridge.clients(), 1);
}

async fn rights_are_asked_for_and_can_be_taken_away(world: World) {
    let bridge = world.bridge();
    let refused = bridge
        .realtime::<Chunk>()
        .authorize(|event| match event {
            None => Access::Hidden,
            Some(_) => Access::Granted,
        })
        .subscribe()
        .await;
    assert_eq!(code(&refused.err().unwrap()), "FORBIDDEN");
    assert_eq!(bridge.readers(), 0);

    let some = bridge.realtime::<Chunk>().authorize(|event| match event {
        Some(event) if event.number == 0 => Access::Hidden,
        Some(event) if event.number == 2 => Access::Revoked,
        _ => Access::Granted,
    });
    let mut some = some.subscribe().await.unwrap();
    let revoked = CancellationToken::new();
    let waits = bridge.realtime::<Chunk>().until_revoked(revoked.clone());
    let mut waits = waits.subscribe().await.unwrap();
    send_chunks(&world, "s", 0..3).await;
    assert_eq!(live(&mut some).await.0, 1);
    let error = next_live(&mut some).await.unwrap().unwrap_err();
    assert_eq!(code(&error), "REVOKED");
    assert!(next_live(&mut some).await.is_none());

    for number in 0..3 {
        assert_eq!(live(&mut waits).await.0, number);
    }
    let waiting = tokio::spawn(async move { next_live(&mut waits).await });
    revoked.cancel();
    let error = waiting.await.unwrap().unwrap().unwrap_err();
    assert_eq!(code(&error), "REVOKED");
    until("nobody listens any more", || bridge.readers() == 0).await;
}

async fn what_does_not_fit_is_left_out_and_counted(world: World) {
    let bridge = world.bridge();
    let mut stream = listen(&bridge).await;
    let odd = written("ai.response.chunk", r#"{"number":"x"}"#);
    send(&world, &[odd]).await;
    send_chunks(&world, "s", 5..6).await;
    assert_eq!(live(&mut stream).await, (5, 1));
}

async fn realtime_events_are_found_by_patterns(world: World) {
    let bridge = world.bridge();
    let all = bridge.realtime_matching(["ai.*".parse().unwrap(), "*.chunk".parse().unwrap()]);
    let mut all = all.subscribe().await.unwrap();
    send_chunks(&world, "s", 0..1).await;
    let live = next_live(&mut all).await.unwrap().unwrap();
    let recorded = live.event().recorded();
    assert_eq!(recorded.event_type(), "ai.response.chunk");
    assert_eq!(recorded.payload(), r#"{"session":"s","number":0}"#);
}

async fn stored_and_realtime_events_are_not_confused(world: World) {
    let bridge = world.bridge();
    let error = bridge.events::<Chunk>().subscribe().await.err().unwrap();
    assert!(error.message.contains("by `realtime`"), "{}", error.message);
    let error = bridge.realtime::<Moved>().subscribe().await.err().unwrap();
    assert!(error.message.contains("by `events`"), "{}", error.message);
    assert_eq!(code(&error), "INTERNAL");
}
