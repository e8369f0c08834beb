//! Caches that events invalidate.

mod removing;
mod together;

use event_core::prelude::*;
use event_core::testing::TestService;
use event_core::{Category, HandlerDefinition, Service};
use event_redis::{AsOf, RedisCache, RedisStore};
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};

use crate::support::{server, store};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("repository.updated", key = repository)]
struct RepositoryUpdated {
    repository: String,
}

fn updated(repository: &str) -> RepositoryUpdated {
    RepositoryUpdated {
        repository: repository.into(),
    }
}

async fn pages(server: &RedisServer) -> RedisCache {
    store(server).await.cache("pages").unwrap()
}

/// A service that has this handler alone.
async fn service_on(store: RedisStore, handler: HandlerDefinition) -> TestService<RedisStore> {
    let builder = Service::builder("caches").without_discovered_handlers();
    let builder = builder.handler(handler);
    TestService::start_on(store, builder).await.unwrap()
}

async fn service(server: &RedisServer, handler: HandlerDefinition) -> TestService<RedisStore> {
    service_on(store(server).await, handler).await
}

/// Keeps a text of which nothing is known.
async fn keep(cache: &RedisCache, key: &str) {
    let kept = cache.set(key, &key, AsOf::default()).await.unwrap();
    assert!(kept, "{key}");
}

async fn is_kept(cache: &RedisCache, key: &str) -> bool {
    cache.get::<String>(key).await.unwrap().is_some()
}

async fn load_as(cache: &RedisCache, key: &str, value: &str) -> String {
    cache
        .get_or_load(key, async || Ok::<_, BoxError>(value.to_owned()))
        .await
        .unwrap()
}

#[tokio::test]
async fn what_one_process_has_loaded_is_there_for_all() {
    let server = server();
    let (here, elsewhere) = (pages(&server).await, pages(&server).await);
    assert_eq!(load_as(&here, "a", "first").await, "first");
    assert_eq!(load_as(&elsewhere, "a", "second").await, "first");
    assert_eq!(here.get::<String>("b").await.unwrap(), None);
    // Another cache has keys of its own.
    let others = store(&server).await.cache("others").unwrap();
    assert_eq!(load_as(&others, "a", "third").await, "third");

    let failed = here.get_or_load("b", async || Err::<String, _>("not now"));
    let error = failed.await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the value for `b` could not be loaded: not now"
    );
    assert_eq!(load_as(&here, "b", "now").await, "now");

    let bytes = here.entry("c");
    assert!(bytes.set_bytes(b"\0\xff", AsOf::default()).await.unwrap());
    assert_eq!(bytes.get_bytes().await.unwrap().unwrap(), b"\0\xff");
}

#[tokio::test]
async fn what_is_kept_in_another_shape_is_loaded_anew() {
    let server = server();
    let pages = pages(&server).await;
    keep(&pages, "a").await;
    let error = pages.get::<u32>("a").await.unwrap_err();
    assert!(error.to_string().contains("u32"), "{error}");
    let loaded: u32 = pages
        .get_or_load("a", async || Ok::<_, BoxError>(7))
        .await
        .unwrap();
    assert_eq!(loaded, 7);
    assert_eq!(pages.get::<u32>("a").await.unwrap(), Some(7));
}

#[tokio::test]
async fn values_last_as_long_as_is_said() {
    let server = server();
    let pages = pages(&server).await;
    let left = |key: &str| -> u64 {
        let key = format!("cache:pages:{key}");
        let left = server.command(&["PTTL", &key]).unwrap();
        left.trim().parse().unwrap()
    };
    let minutes = |minutes: u64| minutes * 60_000 - 30_000..=minutes * 60_000;
    keep(&pages, "a").await;
    assert!(minutes(60).contains(&left("a")));
    let ttl = std::time::Duration::from_secs(300);
    let entry = pages.entry("b").ttl(ttl);
    // What is being loaded does not stay for ever either.
    let begun = entry.begin().await.unwrap();
    assert!(minutes(1).contains(&left("b")));
    assert!(begun.keep(&"b", AsOf::default()).await.unwrap());
    assert!(minutes(5).contains(&left("b")));
    // One who looks again changes nothing.
    let _ = entry.begin().await.unwrap();
    assert!(minutes(5).contains(&left("b")));
}

#[tokio::test]
async fn names_and_patterns_are_checked() {
    let server = server();
    let store = store(&server).await;
    assert!(store.cache("Pages:all").is_err());
    let pages = store.cache("pages").unwrap();
    assert!(
        pages
            .invalidate::<RepositoryUpdated>("repo:{repository")
            .is_err()
    );
    let handler = pages
        .invalidate::<RepositoryUpdated>("repo:{name}")
        .unwrap();
    let test = service_on(store, handler).await;
    test.publish(updated("a")).await.unwrap();
    // To call it again would not help.
    let error = test.run_until_idle().await.unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("field: \"name\""), "{error}");
    assert!(error.contains("attempts: 1"), "{error}");
}

/// Those that have versions.
#[derive(Default)]
struct Repositories;

impl Aggregate for Repositories {
    const TYPE: &'static str = "repository";
    type Event = RepositoryUpdated;
    type Command = ();
    type Error = std::convert::Infallible;

    fn apply(&mut self, _: &RepositoryUpdated) {}

    fn handle(&self, (): ()) -> Result<Vec<RepositoryUpdated>, Self::Error> {
        Ok(Vec::new())
    }
}

fn repository(id: &str) -> AggregateId {
    AggregateId::of::<Repositories>(id).unwrap()
}
