//! What a client may ask for, and how long it is waited for.

use std::time::Duration;

use event_graphql::Limits;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::client::{Client, raw, raw_text, soon};
use super::server::Server;

pub(crate) fn is_unavailable(connected: Result<Client, Error>) -> bool {
    matches!(connected, Err(Error::Http(response)) if response.status() == 503)
}

#[tokio::test]
async fn subscriptions_of_a_socket_are_limited() {
    let mut server = Server::with_limits(Limits {
        subscriptions: 2,
        ..Limits::default()
    })
    .await;
    let mut client = Client::init(server.address).await;
    client.subscribe("a", "subscription { bell }").await;
    client.subscribe("b", "subscription { bell }").await;
    client.subscribe("c", "subscription { bell }").await;
    let error = client.hear().await;
    assert_eq!(
        (&error["type"], &error["id"]),
        (&json!("error"), &json!("c"))
    );
    assert_eq!(
        error["payload"][0]["extensions"]["code"],
        "TOO_MANY_SUBSCRIPTIONS"
    );
    client.say(json!({ "type": "complete", "id": "a" })).await;
    server.streams(1).await;
    client.subscribe("c", "subscription { bell }").await;
    server.streams(2).await;
}

#[tokio::test]
async fn connections_are_limited() {
    let server = Server::with_limits(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let mut first = Client::init(server.address).await;
    let connect = || Client::try_connect(server.address, Some("graphql-transport-ws"));
    assert!(is_unavailable(connect().await));
    soon(first.socket.close(None)).await.unwrap();
    drop(first);
    soon(async {
        while is_unavailable(connect().await) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    let server = Server::with_limits(Limits {
        ping_interval: Duration::from_millis(20),
        ..Limits::default()
    })
    .await;
    let mut client = Client::init(server.address).await;
    for _ in 0..3 {
        // The client's library answers while it reads.
        assert!(matches!(client.frame().await, Message::Ping(_)));
    }
    client.subscribe("q", "{ name }").await;
    assert_eq!(client.hear().await["payload"]["data"]["name"], "nobody");
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_dropped() {
    let mut server = Server::with_limits(Limits {
        ping_interval: Duration::from_millis(20),
        pong_timeout: Duration::from_millis(500),
        ..Limits::default()
    })
    .await;
    let mut client = raw(server.address).await;
    raw_text(&mut client, r#"{"type":"connection_init"}"#).await;
    let subscribe = r#"{"type":"subscribe","id":"a","payload":{"query":"subscription { bell }"}}"#;
    raw_text(&mut client, subscribe).await;
    // It reads all, and says nothing.
    let mut heard = Vec::new();
    let _ = soon(client.read_to_end(&mut heard)).await;
    server.streams(0).await;
    assert!(heard.windows(14).any(|part| part == b"connection_ack"));
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped() {
    let mut server = Server::with_limits(Limits {
        write_timeout: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let mut client = raw(server.address).await;
    raw_text(&mut client, r#"{"type":"connection_init"}"#).await;
    let subscribe = r#"{"type":"subscribe","id":"a","payload":{"query":"subscription { forever(bytes: 100000) }"}}"#;
    raw_text(&mut client, subscribe).await;
    server.streams(1).await;
    server.streams(0).await;
    // The client is still there, and its place is free.
    soon(server.transport.shutdown()).await;
    drop(client);
}

#[tokio::test]
async fn a_quiet_subscription_is_heard_beside_a_hot_one() {
    let mut server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client.subscribe("quiet", "subscription { bell }").await;
    client
        .subscribe("hot", "subscription { forever(bytes: 1000) }")
        .await;
    server.streams(2).await;
    for ring in 0..10 {
        server.bell.send(ring).unwrap();
        soon(async {
            loop {
                let next = client.hear().await;
                if next["id"] == "quiet" {
                    assert_eq!(next["payload"]["data"]["bell"], ring);
                    break;
                }
            }
        })
        .await;
    }
    // Nor does the hot one keep the client from being heard.
    client.say(json!({ "type": "complete", "id": "hot" })).await;
    server.streams(1).await;
}
