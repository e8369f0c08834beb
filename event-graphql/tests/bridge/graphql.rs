//! Events through a schema and a transport, to a client of server-sent events that comes again.

use std::net::SocketAddr;

use async_graphql::{Context, EmptyMutation, Object, Result, Schema, SimpleObject, Subscription};
use event_core::Event;
use event_graphql::{Cursor, Edge, EventSubscriptionBridge, GraphqlTransport};
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::*;

on_both_stores![
    a_client_that_comes_again_goes_on_where_it_was,
    every_event_has_an_id_whatever_is_asked_for,
    what_is_wrong_with_a_cursor_is_said_by_a_code,
];

#[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
#[event("counter.shown")]
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
    async fn shown(
        &self,
        ctx: &Context<'_>,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = Result<Edge<Shown>>>> {
        let bridge = ctx.data::<EventSubscriptionBridge>()?;
        let shown = bridge.events::<Shown>().after(after).resume(ctx);
        shown.subscribe().await
    }
}

/// A server with the schema; its address.
async fn serve(bridge: EventSubscriptionBridge) -> SocketAddr {
    let schema = Schema::build(Query, EmptyMutation, Subscriptions);
    let transport = GraphqlTransport::builder(schema.data(bridge).finish()).build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = axum::serve(listener, transport.router());
    tokio::spawn(async move { serving.await.unwrap() });
    address
}

/// A stream of events that is being read.
struct Events(BufReader<TcpStream>);

impl Events {
    /// HTTP/1.0, so that there are no chunks.
    async fn ask(address: SocketAddr, query: &str, last_event_id: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = serde_json::json!({ "query": query }).to_string();
        let last = last_event_id.map(|id| format!("Last-Event-ID: {id}\r\n"));
        let request = format!(
            "POST /graphql/stream HTTP/1.0\r\nHost: {address}\r\nAccept: text/event-stream\r\n\
             Content-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{body}",
            last.unwrap_or_default(),
            body.len(),
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(stream))
    }

    /// The id and the data of the next event.
    async fn next(&mut self) -> (Option<String>, Value) {
        let (mut id, mut data) = (None, None);
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line);
            let read = tokio::time::timeout(PATIENCE, read).await.unwrap();
            assert!(read.unwrap() > 0, "the stream has ended");
            if let Some(text) = line.strip_prefix("id:") {
                id = Some(text.trim().to_owned());
            } else if let Some(text) = line.strip_prefix("data:") {
                data = Some(serde_json::from_str(text.trim()).unwrap());
            } else if line.trim().is_empty()
                && let Some(data) = data.take()
            {
                return (id, data);
            }
        }
    }
}

fn shown(numbers: std::ops::Range<u64>) -> Vec<Shown> {
    numbers.map(|number| Shown { number }).collect()
}

async fn a_client_that_comes_again_goes_on_where_it_was(world: World) {
    let bridge = world.bridge();
    let mut first = bridge.events::<Shown>().subscribe().await.unwrap();
    world.publish(&shown(0..51)).await;
    let first = event(&mut first).await;
    let mut id = Some(first.cursor_behind().to_string());
    let (mut number, stored) = (first.event().number, 51);

    let query = "subscription { shown { node { number } } }";
    // Each time on another instance.
    while number + 1 < stored {
        let bridge = world.bridge();
        let address = serve(bridge.clone()).await;
        let mut events = Events::ask(address, query, id.as_deref()).await;
        for _ in 0..7.min(stored - number - 1) {
            let (next, data) = events.next().await;
            assert_eq!(
                data["data"]["shown"]["node"]["number"],
                number + 1,
                "{data}"
            );
            number += 1;
            id = next;
        }
        drop(events);
        until("nobody looks any more", || bridge.readers() == 0).await;
    }
}

async fn what_is_wrong_with_a_cursor_is_said_by_a_code(world: World) {
    let address = serve(world.bridge()).await;
    let query = r#"subscription { shown(after: "made up") { cursor } }"#;
    let mut events = Events::ask(address, query, None).await;
    let (_, data) = events.next().await;
    assert_eq!(
        data["errors"][0]["extensions"]["code"], "CURSOR_INVALID",
        "{data}"
    );
}

async fn every_event_has_an_id_whatever_is_asked_for(world: World) {
    let bridge = world.bridge();
    let mut stream = bridge.events::<Shown>().subscribe().await.unwrap();
    world.publish(&shown(0..4)).await;
    let first = event(&mut stream).await;
    let address = serve(bridge.clone()).await;
    let after = first.cursor_behind();
    let query = format!(r#"subscription {{ shown(after: "{after}") {{ __typename }} }}"#);
    let mut events = Events::ask(address, &query, None).await;
    for _ in 0..3 {
        let (id, data) = events.next().await;
        assert_eq!(data["data"]["shown"]["__typename"], "ShownEdge", "{data}");
        let cursor = event(&mut stream).await.cursor_behind().to_string();
        assert_eq!(id.as_ref(), Some(&cursor));
    }
}
