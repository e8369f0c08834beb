//! Events that belong together: with the index and without, the same.

use event_core::{Append, Backend, Category, Codec, MemoryStore};
use event_redis::RedisStore;
use event_tests::RedisServer;
use github_live::live::Settings;
use serde_json::{Value, json};

use crate::client::data;
use crate::harness::*;

const QUERY: &str = "query ($id: String!) {
    correlation(id: $id) { complete indexed read events { id type causationId correlationId } }
}";

async fn correlation(served: &Served, id: &str) -> Value {
    data(served.address, QUERY, json!({ "id": id })).await["correlation"].take()
}

#[tokio::test]
async fn an_event_is_found_with_its_effects_and_theirs() {
    let served = Served::in_memory().await;
    served.deliver("push", push(1)).await;
    let id = served.deliver("issues", issue("opened", 1)).await;
    served.deliver("push", push(2)).await;
    served.settled().await;
    let found = correlation(&served, &id).await;
    let events = found["events"].as_array().unwrap();
    let types: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["github.issues.opened", "codebase.issue.opened"]);
    assert_eq!(events[1]["causationId"], json!(id));
    assert_eq!(
        (&found["complete"], &found["indexed"]),
        (&json!(true), &json!(false))
    );

    let nothing = correlation(&served, "no such id").await;
    assert_eq!(
        (&nothing["events"], &nothing["complete"]),
        (&json!([]), &json!(true))
    );
}

/// The same deliveries, handled by one instance with the index and asked for at one without it.
async fn both_find_the_same(store: impl Backend + Clone) {
    let settings = Settings {
        correlation_index: true,
        ..quick()
    };
    let indexed = Served::on(store.clone(), settings, None).await;
    let scanning = Served::on(store, quick(), None).await;
    let mut ids = Vec::new();
    for number in 1..20 {
        ids.push(indexed.deliver("issues", issue("opened", number)).await);
        ids.push(scanning.deliver("push", push(1)).await);
    }
    indexed.settled().await;
    for id in &ids {
        let mut by_index = correlation(&indexed, id).await;
        let mut by_scan = correlation(&scanning, id).await;
        assert_eq!(
            (&by_index["indexed"], &by_scan["indexed"]),
            (&json!(true), &json!(false))
        );
        assert!(by_index["events"].as_array().unwrap().len() > 1);
        for found in [&mut by_index, &mut by_scan] {
            found["indexed"].take();
            found["read"].take();
        }
        assert_eq!(by_index, by_scan);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_finds_what_a_scan_finds_in_memory() {
    both_find_the_same(MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_finds_what_a_scan_finds_on_redis() {
    let server = RedisServer::start().unwrap();
    both_find_the_same(RedisStore::connect(server.url()).await.unwrap()).await;
}

/// A scan ends after the newest 100,000 events and says so; the index knows all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_for_a_scan_is_said_not_to_be_looked_at() {
    let store = MemoryStore::new();
    let settings = Settings {
        correlation_index: true,
        ..quick()
    };
    let indexed = Served::on(store.clone(), settings, None).await;
    let id = indexed.deliver("push", push(1)).await;
    indexed.settled().await;
    let whole = correlation(&indexed, &id).await;
    assert_eq!(whole["events"].as_array().unwrap().len(), 6);

    // Of a category that no handler takes, so that it is stored quickly.
    let codec = Codec::default();
    let event = github_webhooks::events::PackagePublished {
        name: "many".to_owned(),
        version: None,
        ecosystem: None,
        repository: None,
    };
    let category = Category::new("package").unwrap();
    for _ in 0..1_000 {
        let events = (0..100).map(|_| codec.encode(&event).unwrap());
        let append = Append::to_feed(category.clone(), events.collect());
        event_core::EventStore::append(&store, &append)
            .await
            .unwrap();
    }
    let scanning = Served::on(store, quick(), None).await;
    let scanned = correlation(&scanning, &id).await;
    assert_eq!(scanned["events"], json!([]));
    assert_eq!(
        (&scanned["complete"], &scanned["read"]),
        (&json!(false), &json!(100_000))
    );

    indexed.settled().await;
    assert_eq!(correlation(&indexed, &id).await["events"], whole["events"]);
}
