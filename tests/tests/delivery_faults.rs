//! Delivery while the server comes and goes: nothing is lost, nothing is emitted twice, and the
//! order of each key is kept.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "delivery_faults/steps.rs"]
mod steps;
#[path = "delivery_faults/wire.rs"]
mod wire;
#[path = "delivery_faults/worker.rs"]
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_core::prelude::*;
use event_core::{Category, FeedEntry, HandlerDefinition, Retry};
use event_redis::RedisStore;
use event_tests::RedisServer;
use event_tests::redis_server::Aof;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

const KEYS: u64 = 32;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("orders.placed", key = customer)]
struct Placed {
    customer: String,
    number: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("invoices.written", key = customer)]
struct Written {
    customer: String,
    number: u64,
}

/// Writes an invoice for each order, and counts its calls.
fn writes(calls: &Arc<AtomicUsize>) -> HandlerDefinition {
    let calls = Arc::clone(calls);
    HandlerDefinition::function("write", move |placed: Placed, _: Context| {
        calls.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::task::yield_now().await;
            Written {
                customer: placed.customer,
                number: placed.number,
            }
        }
    })
    .on("orders.placed")
    .emits("invoices.written")
}

async fn store(server: &RedisServer) -> RedisStore {
    RedisStore::connect(server.url()).await.unwrap()
}

fn service(store: RedisStore, calls: &Arc<AtomicUsize>) -> Service {
    Service::builder("invoicing")
        .without_discovered_handlers()
        .store(store)
        .retry(Retry {
            max: u32::MAX,
            base: Duration::from_millis(1),
            max_delay: Duration::from_millis(50),
        })
        .handler(writes(calls))
        .build()
        .unwrap()
}

fn order(number: u64) -> Placed {
    Placed {
        customer: format!("customer {}", number % KEYS),
        number,
    }
}

async fn publish_all(service: Service, count: u64) {
    for number in 0..count {
        service.publish(order(number)).await.unwrap();
    }
}

async fn read_all(store: &RedisStore, category: &str) -> Vec<RecordedEvent> {
    let category = Category::new(category.to_owned()).unwrap();
    let entries = store
        .read_feed(&category.into(), Position::START, usize::MAX)
        .await
        .unwrap();
    entries
        .into_iter()
        .map(|entry| FeedEntry::into_event(entry).unwrap())
        .collect()
}

/// Each order has one invoice, and those of each customer are in order.
async fn assert_exactly_once(store: &RedisStore, count: u64) {
    assert_eq!(read_all(store, "orders").await.len() as u64, count);
    let mut newest: HashMap<String, u64> = HashMap::new();
    let invoices = read_all(store, "invoices").await;
    for invoice in &invoices {
        let Written { customer, number } = invoice.decode().unwrap();
        assert_eq!(customer, format!("customer {}", number % KEYS));
        if let Some(before) = newest.insert(customer, number) {
            assert_eq!(before + KEYS, number, "in order, none missing, none twice");
        }
    }
    assert_eq!(invoices.len() as u64, count);
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(100), async {
        let mut often = tokio::time::interval(Duration::from_millis(5));
        while !condition().await {
            often.tick().await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}

/// Publishes and handles `count` orders, while `disturb` does what it wants.
async fn run_disturbed(
    count: u64,
    mut server: RedisServer,
    disturb: impl AsyncFnOnce(&mut RedisServer, &AtomicUsize),
) {
    let calls = Arc::default();
    let service = service(store(&server).await, &calls);
    let stopping = CancellationToken::new();
    let running = {
        let (service, stopping) = (service.clone(), stopping.clone());
        tokio::spawn(async move { service.run_until(stopping.cancelled()).await })
    };
    let publishing = tokio::spawn(publish_all(service, count));
    disturb(&mut server, &calls).await;
    publishing.await.unwrap();
    let store = store(&server).await;
    let invoices = Category::new("invoices").unwrap();
    until("all invoices", async || {
        let entries = store
            .read_feed(&(&invoices).into(), Position::START, usize::MAX)
            .await;
        entries.unwrap().len() as u64 >= count
    })
    .await;
    stopping.cancel();
    running.await.unwrap().unwrap();
    assert_exactly_once(&store, count).await;
}

fn server() -> RedisServer {
    RedisServer::builder().aof(Aof::Always).start().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_at_a_third_and_at_a_half_loses_nothing() {
    const COUNT: u64 = 10_000;
    run_disturbed(COUNT, server(), async |server, calls| {
        for part in [3, 2] {
            until("some orders", async || {
                calls.load(Ordering::SeqCst) as u64 >= COUNT / part
            })
            .await;
            server.stop().unwrap();
            server.restart().unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_nothing() {
    const COUNT: u64 = 4_000;
    run_disturbed(COUNT, server(), async |server, calls| {
        // At moments that have nothing to do with each other.
        for moment in [37, 350, 351, 990, 1_733, 2_801, 3_303] {
            until("some orders", async || {
                calls.load(Ordering::SeqCst) >= moment
            })
            .await;
            server.kill();
            server.restart().unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_its_scripts_is_told_them_again() {
    const COUNT: u64 = 2_000;
    run_disturbed(COUNT, server(), async |server, calls| {
        for moment in [100, 500, 1_500] {
            until("some orders", async || {
                calls.load(Ordering::SeqCst) >= moment
            })
            .await;
            server.command(&["SCRIPT", "FLUSH"]).unwrap();
        }
    })
    .await;
}
