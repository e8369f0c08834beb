//! Each close code, and what leads to it.

use std::time::Duration;

use event_graphql::{CloseCode, Limits};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::client::{Client, soon};
use super::server::Server;

async fn closes_with(client: &mut Client, code: CloseCode, reason: &str) {
    let (sent, said) = client.closed().await;
    assert_eq!(sent, code.code(), "{said}");
    assert!(said.starts_with(reason), "{said}");
}

#[tokio::test]
async fn an_unknown_message_is_4400() {
    let server = Server::start().await;
    for message in [
        Message::Text(r#"{"type":"unknown"}"#.into()),
        Message::Text("no JSON".into()),
        Message::Text(r#"{"type":"subscribe","payload":{"query":"{name}"}}"#.into()),
        Message::Text(r#"{"type":"subscribe","id":"","payload":{"query":"{name}"}}"#.into()),
        Message::Text(r#"{"type":"connection_init","payload":7}"#.into()),
    ] {
        let mut client = Client::init(server.address).await;
        client.send(message).await;
        closes_with(&mut client, CloseCode::InvalidMessage, "Invalid message").await;
    }
}

#[tokio::test]
async fn a_binary_message_is_4400() {
    let server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client.send(Message::Binary(vec![1, 2, 3].into())).await;
    closes_with(
        &mut client,
        CloseCode::InvalidMessage,
        "Message is not text",
    )
    .await;
}

#[tokio::test]
async fn to_subscribe_before_the_acknowledgement_is_4401() {
    let server = Server::start().await;
    let mut client = Client::connect(server.address).await;
    client.subscribe("a", "{name}").await;
    closes_with(&mut client, CloseCode::Unauthorized, "Unauthorized").await;

    let mut client = Client::connect(server.address).await;
    client
        .say(json!({ "type": "connection_init", "payload": { "token": "slow" } }))
        .await;
    client.subscribe("a", "{name}").await;
    closes_with(&mut client, CloseCode::Unauthorized, "Unauthorized").await;
}

#[tokio::test]
async fn a_refused_client_is_4403() {
    let server = Server::start().await;
    let mut client = Client::connect(server.address).await;
    client
        .say(json!({ "type": "connection_init", "payload": { "token": "stolen" } }))
        .await;
    closes_with(
        &mut client,
        CloseCode::Forbidden,
        "forbidden: the token is stolen",
    )
    .await;
}

#[tokio::test]
async fn another_subprotocol_is_4406() {
    let server = Server::start().await;
    let mut client = Client::try_connect(server.address, None).await.unwrap();
    closes_with(
        &mut client,
        CloseCode::SubprotocolNotAcceptable,
        "Subprotocol",
    )
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_begin_is_4408() {
    let server = Server::with_limits(Limits {
        init_timeout: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let mut silent = Client::connect(server.address).await;
    closes_with(
        &mut silent,
        CloseCode::InitTimeout,
        "Connection initialisation timeout",
    )
    .await;
    // A hook that does not answer is no excuse.
    let mut slow = Client::connect(server.address).await;
    slow.say(json!({ "type": "connection_init", "payload": { "token": "slow" } }))
        .await;
    closes_with(
        &mut slow,
        CloseCode::InitTimeout,
        "Connection initialisation timeout",
    )
    .await;
}

#[tokio::test]
async fn an_id_that_is_taken_is_4409() {
    let mut server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client.subscribe("a", "subscription { bell }").await;
    server.streams(1).await;
    client.subscribe("a", "subscription { bell }").await;
    closes_with(
        &mut client,
        CloseCode::SubscriberExists,
        "Subscriber for a already exists",
    )
    .await;
    server.streams(0).await;
}

#[tokio::test]
async fn to_begin_twice_is_4429() {
    let server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client.say(json!({ "type": "connection_init" })).await;
    closes_with(
        &mut client,
        CloseCode::TooManyInits,
        "Too many initialisation requests",
    )
    .await;
}

#[tokio::test]
async fn a_long_message_is_1009() {
    let server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client
        .subscribe("a", &format!("{{name}} #{}", "x".repeat(64 * 1024)))
        .await;
    closes_with(
        &mut client,
        CloseCode::TooLong,
        "Message is longer than 65536 bytes",
    )
    .await;
}

#[tokio::test]
async fn a_shutdown_is_1012_and_waits_until_all_are_gone() {
    let mut server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client.subscribe("a", "subscription { bell }").await;
    server.streams(1).await;
    let transport = server.transport.clone();
    let shutdown = tokio::spawn(async move { transport.shutdown().await });
    closes_with(&mut client, CloseCode::ServiceRestart, "Service restart").await;
    soon(shutdown).await.unwrap();
    assert_eq!(*server.alive.borrow(), 0);
    let refused = Client::try_connect(server.address, Some("graphql-transport-ws")).await;
    assert!(super::limits::is_unavailable(refused));
}

#[tokio::test]
async fn a_token_that_is_cancelled_begins_the_shutdown() {
    let token = CancellationToken::new();
    let server = Server::with(|transport| transport.shutdown_token(&token)).await;
    let mut client = Client::init(server.address).await;
    token.cancel();
    closes_with(&mut client, CloseCode::ServiceRestart, "Service restart").await;
    soon(server.transport.shutdown()).await;
}
