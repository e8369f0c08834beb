//! Partitions that instances share: while some change hands, the others go on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_core::prelude::*;
use event_core::{Category, HandlerDefinition};
use event_redis::RedisStore;
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 6;

/// In each round each partition has an order of each of these: one that takes its time, and one that does
/// not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("orders.placed", key = customer)]
struct Placed {
    customer: String,
    partition: u32,
    round: u32,
    is_slow: bool,
}

/// What was handled.
#[derive(Default)]
struct Handled {
    /// The rounds that each partition has handled, by whom.
    rounds: Mutex<BTreeMap<u32, Vec<(u32, String)>>>,
}

impl Handled {
    /// The partitions that have handled a round.
    fn have(&self, round: u32) -> BTreeSet<u32> {
        let rounds = self.rounds.lock().unwrap();
        let have = |handled: &[(u32, String)]| handled.iter().any(|(found, _)| *found == round);
        let partitions = rounds.iter().filter(|(_, handled)| have(handled));
        partitions.map(|(partition, _)| *partition).collect()
    }

    fn all_of(&self, partition: u32) -> Vec<(u32, String)> {
        self.rounds.lock().unwrap()[&partition].clone()
    }
}

struct Instance {
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Instance {
    /// One whose slow orders take until the gate is open.
    async fn start(
        server: &RedisServer,
        name: &str,
        handled: &Arc<Handled>,
        gate: &watch::Sender<bool>,
    ) -> Self {
        let handler = {
            let (handled, name, gate) = (Arc::clone(handled), name.to_owned(), gate.subscribe());
            HandlerDefinition::function("handle", move |placed: Placed, _: Context| {
                let (handled, name, mut gate) = (Arc::clone(&handled), name.clone(), gate.clone());
                async move {
                    if placed.is_slow {
                        let _ = gate.wait_for(|is_open| *is_open).await;
                    } else {
                        let mut rounds = handled.rounds.lock().unwrap();
                        let rounds = rounds.entry(placed.partition).or_default();
                        rounds.push((placed.round, name));
                    }
                }
            })
            .on("orders.placed")
        };
        let service = Service::builder("shipping")
            .without_discovered_handlers()
            .store(store(server).await)
            .instance(name)
            // What is not given back is missed, and nothing is taken because it was late.
            .lease(Duration::from_secs(600))
            .handler(handler)
            .build()
            .unwrap();
        let stopping = CancellationToken::new();
        let stopped = stopping.clone();
        let task = tokio::spawn(async move {
            service.run_until(stopped.cancelled()).await.unwrap();
        });
        Self { stopping, task }
    }
}

async fn store(server: &RedisServer) -> RedisStore {
    let orders = Category::new("orders").unwrap();
    let builder = RedisStore::builder(server.url()).partitions(orders, PARTITIONS);
    builder.connect().await.unwrap()
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        let mut often = tokio::time::interval(Duration::from_millis(5));
        while !condition().await {
            often.tick().await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}

/// The feed of a partition.
fn feed(partition: u32) -> String {
    match partition {
        0 => "events:orders".to_owned(),
        number => format!("events:orders:{number}"),
    }
}

/// Who owns a partition, and which of its owners that is.
fn ownership(server: &RedisServer, partition: u32) -> (String, u64) {
    let key = format!("{{{}}}:group:shipping", feed(partition));
    let found = server.command(&["HMGET", &key, "owner", "epoch"]).unwrap();
    let (owner, epoch) = found.split_once('\n').unwrap_or_default();
    (owner.to_owned(), epoch.trim().parse().unwrap_or(0))
}

fn ownerships(server: &RedisServer) -> BTreeMap<u32, (String, u64)> {
    let all = (0..PARTITIONS).map(|partition| (partition, ownership(server, partition)));
    all.collect()
}

/// How many partitions each instance owns.
fn shares(server: &RedisServer) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for (owner, _) in ownerships(server).into_values() {
        *shares.entry(owner).or_default() += 1;
    }
    shares
}

/// Publishes in rounds.
struct Shop {
    service: Service,
    /// Two customers for each partition.
    customers: Vec<[String; 2]>,
    round: u32,
}

impl Shop {
    /// Asks the server in which partition each customer is.
    async fn new(server: &RedisServer) -> Self {
        let service = Service::builder("shop")
            .without_discovered_handlers()
            .store(store(server).await)
            .build()
            .unwrap();
        let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let length = |partition: u32| server.command(&["XLEN", &feed(partition)]).unwrap();
        for number in 0.. {
            let customer = format!("customer {number}");
            let before: Vec<_> = (0..PARTITIONS).map(length).collect();
            let placed = Placed {
                customer: customer.clone(),
                partition: 0,
                round: 0,
                is_slow: false,
            };
            service.publish(placed).await.unwrap();
            let grown = (0..PARTITIONS)
                .zip(before)
                .find(|(n, before)| length(*n) != *before);
            let (partition, _) = grown.unwrap();
            found.entry(partition).or_default().push(customer);
            let has_two = |customers: &Vec<String>| customers.len() >= 2;
            if found.len() == PARTITIONS as usize && found.values().all(has_two) {
                break;
            }
        }
        server.command(&["FLUSHALL"]).unwrap();
        let service = Service::builder("shop")
            .without_discovered_handlers()
            .store(store(server).await)
            .build()
            .unwrap();
        let first_two = |customers: Vec<String>| [customers[0].clone(), customers[1].clone()];
        Self {
            service,
            customers: found.into_values().map(first_two).collect(),
            round: 0,
        }
    }

    async fn publish(&self, is_slow: bool) {
        for (partition, customers) in (0..).zip(&self.customers) {
            let placed = Placed {
                customer: customers[usize::from(is_slow)].clone(),
                partition,
                round: self.round,
                is_slow,
            };
            self.service.publish(placed).await.unwrap();
        }
    }

    /// Publishes rounds until all partitions but so many have handled some of them in a row, while those have
    /// handled none of them. Gives these.
    async fn until_only_these_wait(&mut self, handled: &Handled, count: usize) -> BTreeSet<u32> {
        const IN_A_ROW: usize = 20;
        let mut in_a_row: Vec<(u32, BTreeSet<u32>)> = Vec::new();
        let all: BTreeSet<u32> = (0..PARTITIONS).collect();
        loop {
            self.round += 1;
            let round = self.round;
            self.publish(false).await;
            until("those that do not change hands go on", async || {
                handled.have(round).len() >= all.len() - count
            })
            .await;
            let waiting: BTreeSet<u32> = &all - &handled.have(round);
            // A round of before may have been handled only later.
            in_a_row.retain(|(round, waited)| {
                *waited == waiting && waited.is_disjoint(&handled.have(*round))
            });
            if waiting.len() == count {
                in_a_row.push((round, waiting.clone()));
            }
            if in_a_row.len() == IN_A_ROW {
                return waiting;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_do_not_change_hands_go_on_while_others_do() {
    let server = RedisServer::start().unwrap();
    let mut shop = Shop::new(&server).await;
    let handled = Arc::new(Handled::default());
    let (gate, _) = watch::channel(false);
    let share = |shares: &[(&str, usize)]| -> BTreeMap<String, usize> {
        shares
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    };
    let a = Instance::start(&server, "a", &handled, &gate).await;
    let b = Instance::start(&server, "b", &handled, &gate).await;
    until("two share all", async || {
        shares(&server) == share(&[("a", 3), ("b", 3)])
    })
    .await;

    // Whatever is given away now is not, until what runs in it has ended.
    let before = ownerships(&server);
    shop.publish(true).await;
    let c = Instance::start(&server, "c", &handled, &gate).await;
    let moving = shop.until_only_these_wait(&handled, 2).await;
    assert_eq!(ownerships(&server), before, "nothing has changed hands yet");
    gate.send_replace(true);
    let thirds = share(&[("a", 2), ("b", 2), ("c", 2)]);
    until("three share all", async || shares(&server) == thirds).await;
    let after = ownerships(&server);
    for (partition, (owner, epoch)) in &before {
        let expected = match moving.contains(partition) {
            true => ("c".to_owned(), epoch + 1),
            false => (owner.clone(), *epoch),
        };
        assert_eq!(after[partition], expected, "partition {partition}");
    }

    // One leaves, and what it owns waits for what runs in it.
    gate.send_replace(false);
    let before = after;
    shop.publish(true).await;
    b.stopping.cancel();
    let moving = shop.until_only_these_wait(&handled, 2).await;
    for partition in &moving {
        assert_eq!(before[partition].0, "b", "partition {partition}");
    }
    assert_eq!(ownerships(&server), before, "nothing has changed hands yet");
    gate.send_replace(true);
    b.task.await.unwrap();
    until("two share all", async || {
        shares(&server) == share(&[("a", 3), ("c", 3)])
    })
    .await;
    let after = ownerships(&server);
    for (partition, ownership) in &before {
        if !moving.contains(partition) {
            assert_eq!(after[partition], *ownership, "partition {partition}");
        }
    }

    until("every round is handled", async || {
        (1..=shop.round).all(|round| handled.have(round).len() == PARTITIONS as usize)
    })
    .await;
    for instance in [a, c] {
        instance.stopping.cancel();
        instance.task.await.unwrap();
    }
    for partition in 0..PARTITIONS {
        let rounds: Vec<_> = handled
            .all_of(partition)
            .into_iter()
            .map(|(round, _)| round)
            .collect();
        assert!(
            rounds.into_iter().eq(1..=shop.round),
            "in order, and each once"
        );
    }
}
