//! The metrics, in a process of their own: a recorder is installed once for all of it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "transport/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the transport")]
mod client;

use std::collections::BTreeMap;
use std::time::Duration;

use async_graphql::{Context, EmptyMutation, Object, Result, Schema, SimpleObject, Subscription};
use event_core::metrics::Metric;
use event_core::prelude::*;
use event_core::{Category, EventStore, Partition};
use event_graphql::{
    BridgeError, CloseCode, Edge, EventSubscriptionBridge, GraphqlTransport, Live, SlowClient,
    metrics,
};
use futures::{Stream, StreamExt};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use client::{Client, soon};

const DOCUMENT: &str = include_str!("../../docs/reference/graphql.md");

#[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
#[event("counter.moved")]
struct Moved {
    number: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
#[event("counter.shown", realtime)]
struct Shown {
    number: u64,
}

struct Query;

#[Object]
impl Query {
    async fn nothing(&self) -> bool {
        true
    }
}

struct Subscriptions;

#[Subscription]
impl Subscriptions {
    async fn moved(&self, ctx: &Context<'_>) -> Result<impl Stream<Item = Result<Edge<Moved>>>> {
        let bridge = ctx.data::<EventSubscriptionBridge>()?;
        bridge.events::<Moved>().resume(ctx).subscribe().await
    }
}

/// What was recorded so far, by name and label.
struct Recorded {
    snapshotter: Snapshotter,
    totals: BTreeMap<String, f64>,
}

impl Recorded {
    /// Adds what was recorded since: a snapshot begins anew with each.
    fn look(&mut self) {
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let key = key.key();
            let labels: Vec<_> = key.labels().map(|label| label.value()).collect();
            let value = match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(value) => value.into_inner(),
                DebugValue::Histogram(_) => f64::NAN,
            };
            let key = format!("{} {}", key.name(), labels.join(" "));
            *self.totals.entry(key).or_default() += value;
        }
    }

    #[track_caller]
    fn is(&self, metric: &Metric, label: &str, value: f64) {
        let key = format!("{} {label}", metric.name);
        assert_eq!(
            self.totals.get(&key),
            Some(&value),
            "{key} of {:#?}",
            self.totals
        );
    }
}

async fn publish<E: Event>(store: &MemoryStore, event: E) {
    let service = Service::builder("counter").without_discovered_handlers();
    let service = service.store(store.clone()).build().unwrap();
    service.publish(event).await.unwrap();
}

/// Waits until a reader has begun.
async fn until_reading(bridge: &EventSubscriptionBridge) {
    soon(async {
        while bridge.positions().iter().next().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Waits until everything that is stored was read.
async fn until_read(store: &MemoryStore, bridge: &EventSubscriptionBridge) {
    let partition = Partition::new(Category::new("counter").unwrap(), 0);
    let head = store.head(&partition).await.unwrap();
    soon(async {
        while bridge.positions().iter().all(|(_, read)| read < head) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_clients_get_is_counted() {
    let recorder = DebuggingRecorder::new();
    let mut recorded = Recorded {
        snapshotter: recorder.snapshotter(),
        totals: BTreeMap::new(),
    };
    recorder.install().unwrap();
    metrics::describe();

    let store = MemoryStore::new();
    let bridge = EventSubscriptionBridge::builder(store.clone())
        .window(4, 1_000_000)
        .build();
    let slow = bridge.events::<Moved>().slow_client(SlowClient::DropOldest);
    let mut slow = slow.subscribe().await.unwrap();
    until_reading(&bridge).await;
    publish(&store, Moved { number: 0 }).await;
    let first = soon(slow.next()).await.unwrap().unwrap();
    let mut hearing = bridge.realtime::<Shown>().subscribe().await.unwrap();
    recorded.look();
    recorded.is(&metrics::READERS, "", 2.0);
    recorded.is(&metrics::CLIENTS, "", 2.0);
    recorded.is(&metrics::ENTRIES, "counter", 1.0);

    for number in 1..=9 {
        publish(&store, Moved { number }).await;
        publish(&store, Shown { number }).await;
    }
    until_read(&store, &bridge).await;
    let next = soon(slow.next()).await.unwrap().unwrap();
    assert_eq!((next.event().number, next.left_out()), (6, 5));
    let heard: Live<Shown> = soon(hearing.next()).await.unwrap().unwrap();
    recorded.look();
    recorded.is(&metrics::LEFT_OUT, "", 5.0 + heard.lost() as f64);
    recorded.is(&metrics::PAGES, "counter", 0.0);
    recorded.is(&metrics::MISSED, "", 0.0);
    let history = bridge.events::<Moved>();
    let history = history.after(Some(first.cursor_behind().clone()));
    let mut history = history.subscribe().await.unwrap();
    soon(history.next()).await.unwrap().unwrap();
    recorded.look();
    recorded.is(&metrics::PAGES, "counter", 1.0);
    drop((slow, hearing, history));
    recorded.look();
    recorded.is(&metrics::READERS, "", 0.0);
    recorded.is(&metrics::CLIENTS, "", 0.0);

    connections_are_counted(&store, bridge, &mut recorded).await;
}

async fn connections_are_counted(
    store: &MemoryStore,
    bridge: EventSubscriptionBridge,
    recorded: &mut Recorded,
) {
    let schema = Schema::build(Query, EmptyMutation, Subscriptions);
    let transport = GraphqlTransport::builder(schema.data(bridge.clone()).finish());
    let transport = transport.share(["moved"]).build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = axum::serve(listener, transport.router());
    tokio::spawn(async move { serving.await.unwrap() });
    let mut clients = [Client::init(address).await, Client::init(address).await];
    for client in &mut clients {
        client
            .subscribe("1", "subscription { moved { node { number } } }")
            .await;
        client.say(serde_json::json!({ "type": "ping" })).await;
        client.hear().await;
    }
    until_reading(&bridge).await;
    publish(store, Moved { number: 10 }).await;
    for client in &mut clients {
        assert_eq!(client.hear().await["type"], "next");
    }
    recorded.look();
    recorded.is(&metrics::CONNECTIONS, "websocket", 2.0);
    recorded.is(&metrics::CONNECTIONS, "sse", 0.0);
    recorded.is(&metrics::RESULTS, "websocket", 2.0);
    recorded.is(&metrics::SHARED, "", 1.0);
    clients[0]
        .say(serde_json::json!({ "type": "nonsense" }))
        .await;
    assert_eq!(clients[0].closed().await.0, 4400);
    drop(clients);
    transport.shutdown().await;
    recorded.look();
    recorded.is(&metrics::CLOSES, "4400", 1.0);
    recorded.is(&metrics::CONNECTIONS, "websocket", 0.0);
    recorded.is(&metrics::SHARED, "", 0.0);
}

/// The cells of the rows that begin with this.
fn rows(begin: &str) -> Vec<Vec<String>> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with(begin));
    rows.map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

#[test]
fn the_document_has_every_metric_and_no_other() {
    let expected: Vec<Vec<String>> = metrics::ALL
        .iter()
        .map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
            vec![
                format!("`{}`", metric.name),
                metric.kind.name().to_owned(),
                metric.unit.as_str().to_owned(),
                labels.join(", "),
                metric.description.to_owned(),
            ]
        })
        .collect();
    let table: Vec<_> = expected
        .iter()
        .map(|row| format!("| {} |", row.join(" | ")))
        .collect();
    assert_eq!(
        rows("| `event."),
        expected,
        "docs/reference/graphql.md must have these rows:\n{}",
        table.join("\n")
    );
}

#[test]
fn the_document_has_every_code() {
    let closes: Vec<_> = rows("| 1").into_iter().chain(rows("| 4")).collect();
    let codes: Vec<_> = closes
        .iter()
        .map(|row| row[0].parse::<u16>().unwrap())
        .collect();
    let known = [
        CloseCode::TooLong,
        CloseCode::ServiceRestart,
        CloseCode::InvalidMessage,
        CloseCode::Unauthorized,
        CloseCode::Forbidden,
        CloseCode::SubprotocolNotAcceptable,
        CloseCode::InitTimeout,
        CloseCode::SubscriberExists,
        CloseCode::TooManyInits,
    ];
    assert_eq!(codes, known.map(CloseCode::code));
    for error in [
        BridgeError::CursorInvalid,
        BridgeError::CursorOfAnotherFeed,
        BridgeError::TooSlow,
        BridgeError::Forbidden,
        BridgeError::Revoked,
    ] {
        let code = format!("| `{}` |", error.code());
        assert!(DOCUMENT.contains(&code), "{code}");
    }
}
