//! What delivery costs the server: how many commands, and how much memory. Counted by the server, never
//! timed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_core::prelude::*;
use event_core::{
    Acquired, Append, Category, Clock, Commit, Delivery, Groups, HandlerDefinition, Metadata,
    NewEvent, Partition, ServiceBuilder,
};
use event_redis::{RedisStore, RedisStoreBuilder};
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const KEYS: u64 = 16;

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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("parcels.sent", key = customer)]
struct Sent {
    customer: String,
    number: u64,
    content: String,
}

fn category(name: &'static str) -> Category {
    Category::new(name).unwrap()
}

fn builder(server: &RedisServer) -> RedisStoreBuilder {
    RedisStore::builder(server.url())
}

fn service(name: &str, store: &RedisStore) -> ServiceBuilder {
    Service::builder(name)
        .without_discovered_handlers()
        .store(store.clone())
}

/// Counts the orders.
fn counts(name: &str, calls: &Arc<AtomicU64>) -> HandlerDefinition {
    let calls = Arc::clone(calls);
    HandlerDefinition::function(name, move |_: Placed, _: Context| {
        calls.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .on("orders.placed")
}

/// Writes an invoice for each order.
fn writes() -> HandlerDefinition {
    HandlerDefinition::function("write", |placed: Placed, _: Context| async move {
        Written {
            customer: placed.customer,
            number: placed.number,
        }
    })
    .on("orders.placed")
    .emits("invoices.written")
}

struct Running {
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(service: &Service) -> Self {
        let stopping = CancellationToken::new();
        let (service, stopped) = (service.clone(), stopping.clone());
        let task = tokio::spawn(async move {
            service.run_until(stopped.cancelled()).await.unwrap();
        });
        Self { stopping, task }
    }

    async fn stop(self) {
        self.stopping.cancel();
        self.task.await.unwrap();
    }
}

async fn publish(service: &Service, numbers: std::ops::Range<u64>) {
    let orders: Vec<_> = numbers
        .map(|number| Placed {
            customer: format!("customer {}", number % KEYS),
            number,
        })
        .collect();
    for some in orders.chunks(500) {
        service.publish(some.to_vec()).await.unwrap();
    }
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

fn number(server: &RedisServer, command: &[&str]) -> u64 {
    server.command(command).unwrap().trim().parse().unwrap()
}

/// How often each command was called since the server began to count.
fn calls(server: &RedisServer) -> BTreeMap<String, u64> {
    let info = server.command(&["INFO", "commandstats"]).unwrap();
    let stats = info.lines().filter_map(|line| {
        let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let (calls, _) = stats.split_once(',')?;
        Some((name.to_owned(), calls.parse().unwrap()))
    });
    stats.collect()
}

fn called(calls: &BTreeMap<String, u64>, name: &str) -> u64 {
    calls.get(name).copied().unwrap_or(0)
}

/// The clock of the server, in seconds.
fn clock(server: &RedisServer) -> f64 {
    let time = server.command(&["TIME"]).unwrap();
    let (seconds, microseconds) = time.trim().split_once('\n').unwrap();
    seconds.parse::<f64>().unwrap() + microseconds.parse::<f64>().unwrap() / 1e6
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_service_costs_next_to_nothing() {
    const GROUPS: u64 = 2;
    const PARTITIONS: u64 = 4;
    const LEASE: f64 = 10.0;
    // Of the server's clock.
    const WINDOW: f64 = 12.0;
    // A blocking read comes back after so long.
    const BLOCK: f64 = 5.0;
    let server = RedisServer::start().unwrap();
    let mut running = Vec::new();
    let handled = Arc::default();
    for group in 0..GROUPS {
        let partitions = builder(&server).partitions(category("orders"), PARTITIONS as u32);
        let store = partitions.connect().await.unwrap();
        let service = service(&format!("group{group}"), &store)
            .lease(Duration::from_secs_f64(LEASE))
            .handler(counts("count", &handled))
            .build()
            .unwrap();
        running.push(Running::start(&service));
        publish(&service, 0..100).await;
    }
    until("everything is handled", async || {
        handled.load(Ordering::SeqCst) == GROUPS * GROUPS * 100
    })
    .await;
    // What comes of the last event may still be stored, and new connections are looked at.
    let mut before = 0;
    until("nothing but reads", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let scripts = called(&calls(&server), "evalsha");
        std::mem::replace(&mut before, scripts) == scripts
    })
    .await;
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
    let begun = clock(&server);
    until("some time of the server", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        clock(&server) - begun >= WINDOW
    })
    .await;
    let calls = calls(&server);
    let seconds = clock(&server) - begun;
    let reads = called(&calls, "xread");
    let most_reads = GROUPS as f64 * (seconds / BLOCK + 2.0);
    assert!(reads as f64 <= most_reads, "{seconds} s: {calls:?}");
    // For each group: all leases and the membership in each third of a lease.
    let renewals = GROUPS as f64 * (PARTITIONS + 1) as f64 * (seconds / (LEASE / 3.0) + 2.0);
    let scripts = called(&calls, "evalsha");
    assert!(scripts as f64 <= renewals, "{seconds} s: {calls:?}");
    // What was asked here, and what scripts call, is none of the clients' commands.
    let ours = ["time", "info", "config|resetstat"];
    let in_scripts = [
        "hmget",
        "hset",
        "zadd",
        "zrange",
        "zremrangebyscore",
        "publish",
        "pexpire",
    ];
    let all: u64 = calls
        .iter()
        .filter(|(name, _)| !ours.contains(&&***name) && !in_scripts.contains(&&***name))
        .map(|(_, calls)| calls)
        .sum();
    println!(
        "idle for {seconds:.1} s: {all} commands, {reads} reads, {scripts} scripts; {calls:?}"
    );
    let most = 6.0 * GROUPS as f64 * seconds;
    assert!((all as f64) < most, "{seconds} s: {calls:?}");
    for each in running {
        each.stop().await;
    }
}

/// The keys that are no feed, no memory of ids of a feed and no history; with how much lies in them, and
/// how much memory they take.
fn bookkeeping(server: &RedisServer) -> BTreeMap<String, (u64, u64)> {
    let keys = server.command(&["KEYS", "*"]).unwrap();
    let keys = keys
        .lines()
        .filter(|key| key.starts_with('{') && !key.contains(":ids:"));
    keys.map(|key| {
        let length = match server.command(&["TYPE", key]).unwrap().trim() {
            "hash" => "HLEN",
            "stream" => "XLEN",
            "zset" => "ZCARD",
            "set" => "SCARD",
            "string" => "STRLEN",
            other => unreachable!("`{key}` is a {other}"),
        };
        let memory = ["MEMORY", "USAGE", key, "SAMPLES", "0"];
        let found = (number(server, &[length, key]), number(server, &memory));
        (key.to_owned(), found)
    })
    .collect()
}

async fn emits_take_the_same_memory_however_many(is_elsewhere: bool) {
    let server = RedisServer::start().unwrap();
    let mut builder = builder(&server).partitions(category("orders"), 2);
    if is_elsewhere {
        builder = builder.without_shared_slots();
    }
    let store = builder.connect().await.unwrap();
    let service = service("invoicing", &store)
        .handler(writes())
        .build()
        .unwrap();
    let mut measured = Vec::new();
    let mut published = 0;
    let running = Running::start(&service);
    for count in [1_000, 10_000] {
        publish(&service, published..count).await;
        published = count;
        until("all invoices", async || {
            number(&server, &["XLEN", "events:invoices"]) >= count
        })
        .await;
        until("everything is stored", async || {
            let partitions = service.health().await.unwrap().partitions;
            partitions.iter().all(|partition| partition.lag == 0)
        })
        .await;
        until("nothing in an outbox", async || {
            server.command(&["KEYS", "*:outbox:*"]).unwrap().is_empty()
        })
        .await;
        assert_eq!(number(&server, &["XLEN", "events:invoices"]), count);
        measured.push(bookkeeping(&server));
    }
    let [few, many] = &measured[..] else {
        unreachable!()
    };
    running.stop().await;
    println!("after 1,000: {few:?}\nafter 10,000: {many:?}");
    assert!(few.keys().any(|key| key.ends_with(":group:invoicing")));
    assert_eq!(
        few.keys().any(|key| key.ends_with(":delivered")),
        is_elsewhere
    );
    assert!(few.keys().eq(many.keys()), "{few:?}, {many:?}");
    for (key, (length, memory)) in few {
        let (length_now, memory_now) = many[key];
        assert_eq!(*length, length_now, "{key}");
        // Numbers that have a digit more.
        assert!(memory_now <= memory + 64, "{key}: {memory}, {memory_now}");
        assert!(memory_now < 8_192, "{key}: {memory_now}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_takes_the_same_memory_for_1_000_emits_and_for_10_000() {
    emits_take_the_same_memory_however_many(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_to_other_slots_takes_the_same_memory_for_1_000_emits_and_for_10_000() {
    emits_take_the_same_memory_however_many(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_delivery_acknowledges_many_events_at_once() {
    const EVENTS: u64 = 5_000;
    let server = RedisServer::start().unwrap();
    let store = builder(&server).connect().await.unwrap();
    let handled = Arc::default();
    let service = service("counting", &store)
        .handler(counts("count", &handled).delivery(Delivery::Parallel))
        .build()
        .unwrap();
    publish(&service, 0..EVENTS).await;
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
    let running = Running::start(&service);
    until("everything is handled", async || {
        handled.load(Ordering::SeqCst) == EVENTS
    })
    .await;
    running.stop().await;
    let pending = server
        .command(&["XPENDING", "events:orders", "counting/count"])
        .unwrap();
    assert_eq!(pending.lines().next(), Some("0"), "{pending}");
    let calls = calls(&server);
    let scripts = called(&calls, "evalsha") + called(&calls, "eval");
    let acknowledgements = called(&calls, "xack");
    println!("{EVENTS} events: {acknowledgements} XACK, {scripts} scripts; {calls:?}");
    assert!(acknowledgements > 0, "{calls:?}");
    assert!(acknowledgements <= EVENTS / 20, "{calls:?}");
    assert!(scripts <= EVENTS / 20, "{calls:?}");
    assert!(called(&calls, "xreadgroup") <= EVENTS / 20, "{calls:?}");
}

/// Sends a parcel, which is heavy, for the orders of one customer, and writes an invoice for those of all
/// others.
fn sends_or_writes() -> HandlerDefinition {
    HandlerDefinition::function("send", |placed: Placed, _: Context| async move {
        let Placed { customer, number } = placed;
        if number.is_multiple_of(KEYS) {
            let content = "x".repeat(64 * 1024);
            let sent = Sent {
                customer,
                number,
                content,
            };
            (Some(sent), None)
        } else {
            (None, Some(Written { customer, number }))
        }
    })
    .on("orders.placed")
    .emits("parcels.sent")
    .emits("invoices.written")
}

/// Leaves what its target does not take in the outbox of a group.
async fn leave_what_is_refused(server: &RedisServer, store: &RedisStore, group: &str) {
    let partition = Partition::from(category("orders"));
    let lease = Duration::from_secs(10);
    let acquired = store.acquire(group, &partition, "before", lease).await;
    let Ok(Acquired::Yes { lease, .. }) = acquired else {
        unreachable!("{acquired:?}")
    };
    let event = |id: u128| {
        let metadata = Metadata::new(Uuid::from_u128(id), Clock::system().now());
        NewEvent::from_parts("parcels.returned", "{}", metadata).unwrap()
    };
    let parcel = AggregateId::new(category("parcels"), "parcel", "lost").unwrap();
    let mut commit = Commit {
        number: 1,
        emitted: vec![vec![Append::to_feed(category("parcels"), vec![event(1)])]],
        ..Commit::default()
    };
    store.commit(&lease, &commit).await.unwrap();
    until("the first one", async || {
        number(server, &["XLEN", "events:parcels"]) == 1
    })
    .await;
    server.command(&["SET", LOST_PARCEL, "no history"]).unwrap();
    commit.number = 2;
    commit.emitted = vec![vec![Append::to(parcel, Expected::Any, vec![event(2)])]];
    store.commit(&lease, &commit).await.unwrap();
    store.release(&lease).await.unwrap();
}

const LOST_PARCEL: &str = "{events:parcels}:history:parcel:lost";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emit_that_its_target_does_not_take_holds_back_no_other_key_until_the_outbox_is_full() {
    const OUTBOX: &str = "{events:orders}:outbox:sending:events:parcels";
    const MOST_BYTES: u64 = 16 * 1024 * 1024;
    let server = RedisServer::start().unwrap();
    let store = builder(&server).without_shared_slots();
    let store = store.connect().await.unwrap();
    leave_what_is_refused(&server, &store, "sending").await;
    let service = service("sending", &store)
        .handler(sends_or_writes())
        .build()
        .unwrap();
    let running = Running::start(&service);
    let length = |key: &str| number(&server, &["XLEN", key]);
    let size = || number(&server, &["MEMORY", "USAGE", OUTBOX, "SAMPLES", "0"]);
    // The slow one's have room.
    publish(&service, 0..100 * KEYS).await;
    until("the invoices of all others", async || {
        length("events:invoices") == 100 * (KEYS - 1)
    })
    .await;
    until("the records of the slow one", async || {
        length(OUTBOX) == 101
    })
    .await;
    assert!(size() < MOST_BYTES);
    // Now they do not.
    publish(&service, 100 * KEYS..400 * KEYS).await;
    until("an outbox that is full", async || size() >= MOST_BYTES).await;
    assert!(length(OUTBOX) < 401);
    assert_eq!(length("events:parcels"), 1);
    server.command(&["DEL", LOST_PARCEL]).unwrap();
    until("all parcels", async || length("events:parcels") >= 402).await;
    until("all invoices", async || {
        length("events:invoices") >= 400 * (KEYS - 1)
    })
    .await;
    running.stop().await;
    assert_eq!(length("events:parcels"), 402);
    assert_eq!(length("events:invoices"), 400 * (KEYS - 1));
    assert_eq!(length(OUTBOX), 0);
}
