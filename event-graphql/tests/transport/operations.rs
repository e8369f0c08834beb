//! Queries, mutations and subscriptions over a socket.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::client::Client;
use super::server::Server;

#[tokio::test]
async fn a_subscription_gives_its_results_and_completes() {
    let server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client.subscribe("a", "subscription { count(to: 2) }").await;
    for count in 0..2 {
        assert_eq!(
            client.hear().await,
            json!({ "type": "next", "id": "a", "payload": { "data": { "count": count } } })
        );
    }
    assert_eq!(
        client.hear().await,
        json!({ "type": "complete", "id": "a" })
    );
    // Its id is free again.
    client.subscribe("a", "subscription { count(to: 0) }").await;
    assert_eq!(
        client.hear().await,
        json!({ "type": "complete", "id": "a" })
    );
}

#[tokio::test]
async fn queries_and_mutations_give_one_result() {
    let server = Server::start().await;
    let mut client = Client::connect(server.address).await;
    client
        .say(json!({ "type": "connection_init", "payload": { "token": "ada" } }))
        .await;
    assert_eq!(
        client.hear().await,
        json!({ "type": "connection_ack", "payload": { "agent": "test" } })
    );
    client.subscribe("q", "{ name }").await;
    assert_eq!(client.hear().await["payload"]["data"]["name"], "ada");
    assert_eq!(
        client.hear().await,
        json!({ "type": "complete", "id": "q" })
    );
    let query = "mutation ($number: Int!) { double(number: $number) }";
    let payload = json!({ "query": query, "variables": { "number": 21 } });
    client
        .say(json!({ "type": "subscribe", "id": "m", "payload": payload }))
        .await;
    assert_eq!(client.hear().await["payload"]["data"]["double"], 42);
    assert_eq!(
        client.hear().await,
        json!({ "type": "complete", "id": "m" })
    );
}

#[tokio::test]
async fn an_operation_that_is_not_begun_is_an_error() {
    let server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client.subscribe("a", "{ nothing }").await;
    let error = client.hear().await;
    assert_eq!(
        (&error["type"], &error["id"]),
        (&json!("error"), &json!("a"))
    );
    assert!(
        error["payload"][0]["message"]
            .as_str()
            .unwrap()
            .contains("nothing")
    );
    // One that fails while it runs is a result.
    client.subscribe("a", "{ failing }").await;
    let next = client.hear().await;
    assert_eq!(next["type"], "next");
    assert_eq!(next["payload"]["errors"][0]["message"], "it failed");
    assert_eq!(
        client.hear().await,
        json!({ "type": "complete", "id": "a" })
    );
}

#[tokio::test]
async fn a_panic_ends_its_operation_alone() {
    let mut server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client.subscribe("bell", "subscription { bell }").await;
    server.streams(1).await;
    client.subscribe("panic", "{ panicking }").await;
    let error = client.hear().await;
    assert_eq!(
        (&error["type"], &error["id"]),
        (&json!("error"), &json!("panic"))
    );
    assert_eq!(error["payload"][0]["extensions"]["code"], "INTERNAL");
    server.bell.send(7).unwrap();
    assert_eq!(client.hear().await["payload"]["data"]["bell"], 7);
}

#[tokio::test]
async fn complete_stops_the_stream() {
    let mut server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client.subscribe("a", "subscription { bell }").await;
    server.streams(1).await;
    client.say(json!({ "type": "complete", "id": "a" })).await;
    server.streams(0).await;
    // One that nobody knows is no mistake: it may have ended meanwhile.
    client.say(json!({ "type": "complete", "id": "b" })).await;
    client.subscribe("a", "subscription { bell }").await;
    server.streams(1).await;
    server.bell.send(1).unwrap();
    assert_eq!(client.hear().await["payload"]["data"]["bell"], 1);
}

#[tokio::test]
async fn a_client_that_leaves_stops_its_streams() {
    let mut server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client.subscribe("a", "subscription { bell }").await;
    client
        .subscribe("b", "subscription { forever(bytes: 10) }")
        .await;
    server.streams(2).await;
    drop(client);
    server.streams(0).await;
}

#[tokio::test]
async fn pings_are_answered() {
    let server = Server::start().await;
    let mut client = Client::connect(server.address).await;
    // Before the handshake too.
    client
        .say(json!({ "type": "ping", "payload": { "n": 1 } }))
        .await;
    assert_eq!(
        client.hear().await,
        json!({ "type": "pong", "payload": { "n": 1 } })
    );
    client.say(json!({ "type": "pong" })).await;
    client.say(json!({ "type": "ping" })).await;
    assert_eq!(client.hear().await, json!({ "type": "pong" }));
    client.send(Message::Ping("frame".into())).await;
    assert_eq!(client.frame().await, Message::Pong("frame".into()));
}

#[tokio::test]
async fn a_subscription_to_several_fields_is_refused() {
    let server = Server::start().await;
    let mut client = Client::init(server.address).await;
    client
        .subscribe(
            "1",
            "subscription { one: count(to: 1) other: count(to: 1) }",
        )
        .await;
    assert_eq!(refused(&mut client).await, "SEVERAL_FIELDS");
}

/// It would be executed as if there were nothing: async-graphql does not look into fragments there.
#[tokio::test]
async fn a_subscription_whose_field_is_in_a_fragment_is_refused() {
    let server = Server::start().await;
    let mut client = Client::init(server.address).await;
    for query in [
        "subscription { ...One } fragment One on Subscriptions { count(to: 1) }",
        "subscription { ... { count(to: 1) } }",
    ] {
        client.subscribe("1", query).await;
        assert_eq!(refused(&mut client).await, "FIELD_IN_FRAGMENT", "{query}");
    }
}

async fn refused(client: &mut Client) -> Value {
    let message = client.hear().await;
    assert_eq!(message["type"], "error", "{message}");
    message["payload"][0]["extensions"]["code"].clone()
}
