//! Producers are held back while a group is too far behind, and go on when it has caught up.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use event_core::prelude::*;
use event_core::{
    AppendError, Backend, Backpressure, Category, Delivery, HandlerDefinition, PublishError,
    ServiceError, WhenBacklogged,
};
use event_redis::RedisStore;
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("orders.placed")]
struct Placed {
    number: u64,
}

fn rule(backlogged: WhenBacklogged) -> Backpressure {
    Backpressure {
        category: Category::new("orders").unwrap(),
        group: "slow".into(),
        limit: 10,
        backlogged,
    }
}

fn service(store: impl Backend, delivery: Delivery) -> Service {
    let handler = HandlerDefinition::function("note", |_: Placed, _: Context| async {});
    let handler = handler.delivery(delivery);
    Service::builder("slow")
        .without_discovered_handlers()
        .store(store)
        .handler(handler.on("orders.placed"))
        .build()
        .unwrap()
}

/// Publishes until it is held back; gives how many events that were.
async fn fill(service: &Service) -> u64 {
    for number in 0..1_000 {
        match service.publish(Placed { number }).await {
            Ok(_) => {}
            Err(ServiceError::Publish(PublishError::Append(AppendError::Backlogged {
                group,
                lag,
                limit,
                ..
            }))) => {
                assert_eq!((group.as_str(), limit), ("slow", 10));
                assert!(lag >= limit);
                return number;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("never held back");
}

async fn fails_until_the_group_has_caught_up(store: impl Backend, delivery: Delivery) {
    let service = service(store, delivery);
    assert_eq!(fill(&service).await, 10);
    assert_eq!(service.run_until_idle().await.unwrap().entries, 10);
    assert_eq!(fill(&service).await, 10);
}

async fn waits_until_the_group_has_caught_up(store: impl Backend) {
    let service = service(store, Delivery::Ordered);
    for number in 0..10 {
        service.publish(Placed { number }).await.unwrap();
    }
    let waiting = {
        let service = service.clone();
        tokio::spawn(async move { service.publish(Placed { number: 10 }).await })
    };
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    service.run_until_idle().await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    waited.unwrap().unwrap().unwrap();
    assert_eq!(service.run_until_idle().await.unwrap().entries, 1);
}

const LONG: WhenBacklogged = WhenBacklogged::Wait(Duration::from_secs(60));

#[tokio::test]
async fn on_memory_an_append_fails_while_a_group_is_behind() {
    let store = MemoryStore::new().backpressure(rule(WhenBacklogged::Fail));
    fails_until_the_group_has_caught_up(store, Delivery::Ordered).await;
}

#[tokio::test]
async fn on_memory_an_append_waits_while_a_group_is_behind() {
    waits_until_the_group_has_caught_up(MemoryStore::new().backpressure(rule(LONG))).await;
}

#[tokio::test]
async fn on_redis_an_append_fails_while_a_group_is_behind() {
    let server = RedisServer::start().unwrap();
    let store = RedisStore::builder(server.url()).backpressure(rule(WhenBacklogged::Fail));
    let store = store.connect().await.unwrap();
    fails_until_the_group_has_caught_up(store, Delivery::Ordered).await;
}

#[tokio::test]
async fn on_redis_an_append_waits_while_a_group_is_behind() {
    let server = RedisServer::start().unwrap();
    let store = RedisStore::builder(server.url()).backpressure(rule(LONG));
    waits_until_the_group_has_caught_up(store.connect().await.unwrap()).await;
}

#[tokio::test]
async fn on_memory_a_handler_with_parallel_delivery_must_keep_up_too() {
    let store = MemoryStore::new().backpressure(rule(WhenBacklogged::Fail));
    fails_until_the_group_has_caught_up(store, Delivery::Parallel).await;
}

#[tokio::test]
async fn on_redis_a_handler_with_parallel_delivery_must_keep_up_too() {
    let server = RedisServer::start().unwrap();
    let store = RedisStore::builder(server.url()).backpressure(rule(WhenBacklogged::Fail));
    let store = store.connect().await.unwrap();
    fails_until_the_group_has_caught_up(store, Delivery::Parallel).await;
}
