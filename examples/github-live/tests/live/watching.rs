//! What is told to those who watch.

use std::time::Duration;

use event_redis::RedisStore;
use event_tests::RedisServer;
use serde_json::json;

use crate::client::{Socket, data, get};
use crate::harness::*;

#[tokio::test]
async fn a_healthy_service_says_so() {
    let served = Served::in_memory().await;
    let answer = get(served.address, "/healthz").await;
    assert_eq!(answer.status, 200);
    let health = answer.json();
    assert_eq!(health["status"], "ok");
    let names = health["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["service"]);
    assert_eq!(names.collect::<Vec<_>>(), ["repo-agent", "ai-agent"]);
}

/// Probes and GitHub hear of it before they give up, though the store has more patience than they.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_answer_is_not_waited_for() {
    let mut server = RedisServer::start().unwrap();
    let store = RedisStore::builder(server.url()).patience(Duration::from_secs(600));
    let served = Served::on(store.connect().await.unwrap(), quick(), None).await;
    server.kill();
    let answer = soon(get(served.address, "/healthz")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.json()["reason"], "the store does not answer");
    let body = push(1).to_string();
    let delivered = post(served.address, "push", Some("late"), body.as_bytes(), None);
    let answer = soon(delivered).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], "STORE_UNAVAILABLE");
    // It comes back by itself.
    server.restart().unwrap();
    until_healthy(served.address).await;
}

#[tokio::test]
async fn metrics_are_told_in_the_format_of_prometheus() {
    let served = Served::in_memory().await;
    served.deliver("push", push(1)).await;
    served.settled().await;
    let answer = get(served.address, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4")
    );
    for expected in [
        "# TYPE messaging_client_consumed_messages counter",
        "messaging_process_duration_bucket{",
        "event_handler=\"RepositoryEventHandler::handle_push\"",
        "messaging_consumer_group_name=\"repo-agent\"",
    ] {
        assert!(
            answer.body.contains(expected),
            "{expected} in {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn the_lag_of_consumers_is_followed() {
    let served = Served::in_memory().await;
    let mut socket = Socket::connect(served.address).await;
    let query = "subscription { status { running lag { consumer partition lag owned } } }";
    socket.subscribe("1", query, json!({})).await;
    let status = soon(async {
        loop {
            let status = socket.result().await;
            let lag = status["lag"].as_array().unwrap();
            if lag.iter().all(|one| one["owned"] == true) {
                return status;
            }
        }
    })
    .await;
    assert_eq!(status["running"], true);
    let lag = status["lag"].as_array().unwrap();
    let of = |consumer: &str, partition: &str| {
        let is =
            |one: &&serde_json::Value| one["consumer"] == consumer && one["partition"] == partition;
        lag.iter().filter(is).count()
    };
    for (consumer, partition) in [
        ("repo-agent", "github"),
        ("repo-agent", "codebase"),
        ("ai-agent", "ai"),
        ("repository-names", "codebase"),
    ] {
        assert_eq!(
            of(consumer, partition),
            1,
            "{consumer} of {partition}: {status}"
        );
    }
    let once = data(
        served.address,
        "{ status { running sample { sent } } }",
        json!({}),
    )
    .await;
    assert_eq!(once["status"], json!({ "running": true, "sample": null }));
}
