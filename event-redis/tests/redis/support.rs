//! What several tests need.

use std::future::Future;
use std::time::{Duration, Instant};

use event_core::{
    AggregateId, Append, Category, Clock, Expected, Ids, Metadata, NewEvent, Partition,
};
use event_redis::{RedisStore, RedisStoreBuilder};
use event_tests::RedisServer;
use event_tests::redis_server::{Aof, Listen};
use uuid::Uuid;

/// A server that has as little to do as can be.
pub(crate) fn server() -> RedisServer {
    let builder = RedisServer::builder().listen(Listen::Both);
    builder.aof(Aof::Always).start().unwrap()
}

pub(crate) fn builder(server: &RedisServer) -> RedisStoreBuilder {
    RedisStore::builder(server.url())
}

pub(crate) async fn store(server: &RedisServer) -> RedisStore {
    builder(server).connect().await.unwrap()
}

pub(crate) fn sdlc() -> Category {
    Category::new("sdlc").unwrap()
}

/// The only partition of that category.
pub(crate) fn only() -> Partition {
    sdlc().into()
}

pub(crate) fn project(id: &str) -> AggregateId {
    AggregateId::new(sdlc(), "project", id).unwrap()
}

/// A uuid that tests can write down.
pub(crate) fn id(number: u32) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

pub(crate) fn event_as(event_id: Uuid, event_type: &str, payload: &str) -> NewEvent {
    let metadata = Metadata::new(event_id, Clock::system().now());
    NewEvent::from_parts(event_type, payload, metadata).unwrap()
}

pub(crate) fn event(payload: &str) -> NewEvent {
    event_as(Ids::random().next(), "sdlc.phase.changed", payload)
}

pub(crate) fn events(count: usize) -> Vec<NewEvent> {
    (1..=count).map(|n| event(&n.to_string())).collect()
}

pub(crate) fn numbered(numbers: &[u32]) -> Vec<NewEvent> {
    numbers
        .iter()
        .map(|n| event_as(id(*n), "sdlc.phase.changed", &n.to_string()))
        .collect()
}

pub(crate) fn to(aggregate: &str, expected: Expected, events: Vec<NewEvent>) -> Append {
    Append::to(project(aggregate), expected, events)
}

/// A limit for what must not take long, so that a test that hangs says where.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("never: {what}"),
    }
}

/// Looks at a condition until it holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
