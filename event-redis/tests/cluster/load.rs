//! Appends and a subscription that go on while a test disturbs the cluster.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_core::prelude::*;
use event_core::{
    Append, AppendError, Category, Delivery, EventStore, FeedEntry, HandlerDefinition, Partition,
};
use event_redis::RedisStore;
use event_tests::RedisCluster;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{keyed, soon};

/// Events that are appended for each customer.
const EACH: u64 = 125;

/// Customers, whose orders must stay in order; each has a task that appends.
const CUSTOMERS: u64 = 16;

/// All events.
pub(crate) const COUNT: usize = (EACH * CUSTOMERS) as usize;

/// The group of the subscription.
pub(crate) const GROUP: &str = "watching";

/// Partitions, in slots all over the cluster.
pub(crate) const PARTITIONS: u32 = 8;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("orders.placed", key = customer)]
pub(crate) struct Placed {
    customer: String,
    number: u64,
}

pub(crate) fn orders() -> Category {
    Category::new("orders").unwrap()
}

pub(crate) fn partitions() -> impl Iterator<Item = Partition> {
    (0..PARTITIONS).map(|number| Partition::new(orders(), number))
}

fn feed(partition: &Partition) -> String {
    format!("events:{partition}")
}

/// A key of each partition.
pub(crate) fn feeds() -> Vec<String> {
    partitions().map(|partition| feed(&partition)).collect()
}

/// What the handler has been called with, in order, for each customer.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<HashMap<String, Vec<u64>>>>);

impl Seen {
    fn note(&self, placed: Placed) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(placed.customer).or_default().push(placed.number);
    }

    /// How many different events it has been called with.
    fn count(&self) -> usize {
        self.count_but(&[])
    }

    /// As many, but for those of some customers.
    fn count_but(&self, left_out: &[String]) -> usize {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let different = |numbers: &Vec<u64>| {
            let mut numbers = numbers.clone();
            numbers.sort_unstable();
            numbers.dedup();
            numbers.len()
        };
        let counted = seen.iter();
        let counted = counted.filter(|(customer, _)| !left_out.contains(*customer));
        counted.map(|(_, numbers)| different(numbers)).sum()
    }
}

/// Appends and a subscription, which run.
pub(crate) struct Load {
    store: RedisStore,
    seen: Seen,
    /// By a handler that takes them in any order.
    seen_in_parallel: Seen,
    appending: JoinSet<()>,
    running: tokio::task::JoinHandle<()>,
    stopping: CancellationToken,
}

impl Load {
    /// Begins; the store must have so many partitions.
    pub(crate) fn start(store: &RedisStore) -> Self {
        Self::with_lease(store, Duration::from_secs(10))
    }

    /// As [`start`](Self::start), with leases that end sooner.
    pub(crate) fn with_lease(store: &RedisStore, lease: Duration) -> Self {
        let (seen, seen_in_parallel) = (Seen::default(), Seen::default());
        let handler = |name, seen: &Seen| {
            let seen = seen.clone();
            HandlerDefinition::function(name, move |placed: Placed, _: Context| {
                seen.note(placed);
                async {}
            })
            .on("orders.placed")
        };
        let service = Service::builder(GROUP)
            .lease(lease)
            .without_discovered_handlers()
            .store(store.clone())
            .handler(handler("see", &seen))
            .handler(handler("see_in_parallel", &seen_in_parallel).delivery(Delivery::Parallel))
            .build()
            .unwrap();
        let stopping = CancellationToken::new();
        let stopped = stopping.clone();
        let running = tokio::spawn(async move {
            service.run_until(stopped.cancelled()).await.unwrap();
        });
        let mut appending = JoinSet::new();
        for customer in customers() {
            appending.spawn(append_all(store.clone(), customer));
        }
        Self {
            store: store.clone(),
            seen,
            seen_in_parallel,
            appending,
            running,
            stopping,
        }
    }

    /// Waits until the handler has seen so many events.
    pub(crate) async fn handled(&self, count: usize) {
        soon("events are handled", async {
            let mut often = tokio::time::interval(Duration::from_millis(5));
            while self.seen.count() < count {
                often.tick().await;
            }
        })
        .await;
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.count()
    }

    /// Waits until everything is handled but what is of some customers.
    pub(crate) async fn handled_but(&self, left_out: &[String]) {
        let count = COUNT - left_out.len() * EACH as usize;
        soon("all else is handled", async {
            let mut often = tokio::time::interval(Duration::from_millis(5));
            while self.seen.count_but(left_out) < count {
                often.tick().await;
            }
        })
        .await;
    }

    /// Whether something is still to be appended.
    pub(crate) fn is_appending(&mut self) -> bool {
        while self.appending.try_join_next().is_some() {}
        !self.appending.is_empty()
    }

    /// Waits until everything is appended and handled. Everything lies in the feed once and in order.
    /// Gives what the handler has been called with.
    pub(crate) async fn finish(mut self) -> HashMap<String, Vec<u64>> {
        soon("everything is appended", async {
            while let Some(ended) = self.appending.join_next().await {
                ended.unwrap();
            }
        })
        .await;
        self.handled(COUNT).await;
        soon("everything is handled in parallel", async {
            let mut often = tokio::time::interval(Duration::from_millis(5));
            while self.seen_in_parallel.count() < COUNT {
                often.tick().await;
            }
        })
        .await;
        self.stopping.cancel();
        soon("the service stops", self.running).await.unwrap();

        let mut stored: HashMap<String, Vec<u64>> = HashMap::new();
        for partition in partitions() {
            let entries = self
                .store
                .read_feed(&partition, Position::START, usize::MAX);
            for entry in entries.await.unwrap() {
                let Placed { customer, number } =
                    FeedEntry::into_event(entry).unwrap().decode().unwrap();
                stored.entry(customer).or_default().push(number);
            }
        }
        assert_eq!(stored.len() as u64, CUSTOMERS);
        for (customer, numbers) in stored {
            assert!(
                numbers.into_iter().eq(0..EACH),
                "{customer}: each once, in order"
            );
        }
        let seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

fn customers() -> impl Iterator<Item = String> {
    (0..CUSTOMERS).map(|number| format!("customer {number}"))
}

/// The customers whose orders lie on a node.
pub(crate) fn stuck_customers(servers: &RedisCluster, node: usize) -> Vec<String> {
    let lies_there = |customer: &String| {
        let event = keyed("orders.placed", customer, "{}");
        let append = Append::to_feed(orders(), vec![event]);
        let partition = append.partition(PARTITIONS).unwrap();
        servers.owner_of(&feed(&partition)).unwrap() == node
    };
    customers().filter(lies_there).collect()
}

/// Appends all events of a customer, each until it is acknowledged.
async fn append_all(store: RedisStore, customer: String) {
    for number in 0..EACH {
        let placed = Placed {
            customer: customer.clone(),
            number,
        };
        let payload = serde_json::to_string(&placed).unwrap();
        let event = keyed("orders.placed", &customer, &payload);
        let append = Append::to_feed(orders(), vec![event]);
        loop {
            match store.append(&append).await {
                Ok(_) => break,
                // The same again: it has the same id.
                Err(AppendError::NotReplicated { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

/// Each customer's events, once and in order.
pub(crate) fn assert_once(seen: &HashMap<String, Vec<u64>>) {
    for (customer, numbers) in seen {
        assert!(
            numbers.iter().copied().eq(0..EACH),
            "{customer}: {numbers:?}"
        );
    }
}

/// Each customer's events in order, of which the last ones may have come again: what had been handled and
/// not committed.
pub(crate) fn assert_in_order(seen: &HashMap<String, Vec<u64>>) {
    for (customer, numbers) in seen {
        let is_next = |pair: &[u64]| pair[1] <= pair[0] + 1;
        assert!(numbers.windows(2).all(is_next), "{customer}: {numbers:?}");
        assert_eq!(numbers.first(), Some(&0), "{customer}");
    }
}
