//! Handlers with parallel delivery: what one partition costs the others, and how they stop.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_core::prelude::*;
use event_core::{
    Append, Codec, Consumer, Delivery, HandlerDefinition, ParallelGroup, ParallelGroups, Partition,
    ServiceBuilder, StoreError,
};
use tokio::sync::{Semaphore, watch};

use crate::support::{Asked, Hindered};
use crate::{GROUP, PARTITIONS, Placed, Running, memory, orders, partitions, service, until};

const LEASE: Duration = Duration::from_secs(3);

/// Enough that some lie in each partition.
const COUNT: u64 = 40;

fn placed(number: u64) -> Placed {
    Placed {
        customer: format!("customer {number}"),
        number,
    }
}

fn partition_of(number: u64) -> Partition {
    let event = Codec::default().encode(&placed(number)).unwrap();
    let append = Append::to_feed(orders(), vec![event]);
    append.partition(PARTITIONS).unwrap()
}

async fn place(store: &MemoryStore, numbers: impl IntoIterator<Item = u64>) {
    let shop = Service::builder("shop").without_discovered_handlers();
    let shop = shop.store(store.clone()).build().unwrap();
    let placed: Vec<_> = numbers.into_iter().map(placed).collect();
    shop.publish(placed).await.unwrap();
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<u64>>>);

impl Seen {
    fn numbers(&self) -> Vec<u64> {
        let mut numbers = self.0.lock().unwrap().clone();
        numbers.sort_unstable();
        numbers
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Notes each order, and waits for a place before it is through with any but the first.
fn with_handler(builder: ServiceBuilder, seen: &Seen, places: &Arc<Semaphore>) -> ServiceBuilder {
    let (seen, places) = (seen.clone(), Arc::clone(places));
    let handler = HandlerDefinition::function("pack", move |placed: Placed, _: Context| {
        let places = Arc::clone(&places);
        seen.0.lock().unwrap().push(placed.number);
        async move {
            if placed.number > 0 {
                places.acquire().await.unwrap().forget();
            }
        }
    });
    builder
        .lease(LEASE)
        .concurrency(1_000)
        .handler(handler.on("orders.placed").delivery(Delivery::Parallel))
}

fn free() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1_000_000))
}

fn refused() -> StoreError {
    StoreError::Refused {
        operation: "test",
        source: "NOPERM".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_back_is_tried_again_after_pauses() {
    let inner = memory();
    let (is_broken, tries) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (broken, tried) = (Arc::clone(&is_broken), Arc::clone(&tries));
    let store = Hindered::new(inner.clone(), move |asked: Asked| {
        let is_refused = asked.operation == "take_back" && broken.load(Ordering::SeqCst);
        let count = match is_refused {
            true => tried.fetch_add(1, Ordering::SeqCst),
            false => 0,
        };
        async move {
            if count > 1_000 {
                // So that the test ends.
                std::future::pending::<()>().await;
            }
            if is_refused { Err(refused()) } else { Ok(()) }
        }
    });
    let seen = Seen::default();
    let running = Running::start(with_handler(service(&store, "a"), &seen, &free()));
    place(&inner, 0..COUNT).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let count = tries.load(Ordering::SeqCst);
    assert!(count > PARTITIONS as usize, "{count}");
    assert!(count < 1_000, "{count}");
    is_broken.store(false, Ordering::SeqCst);
    until("all are handled", async || seen.count() == COUNT as usize).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_stored_costs_no_entries_of_other_partitions() {
    let inner = memory();
    let stuck = partition_of(0);
    let stuck_here = stuck.clone();
    let store = Hindered::new(inner.clone(), move |asked: Asked| {
        let hangs = asked.operation == "finish"
            && asked.instance == "a"
            && asked.partition.as_ref() == Some(&stuck_here);
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    let (by_first, by_second) = (Seen::default(), Seen::default());
    let places = Arc::new(Semaphore::new(0));
    let first = with_handler(service(&store, "a"), &by_first, &places);
    let first = Running::start(first);
    place(&inner, 0..COUNT).await;
    until("all have begun", async || {
        by_first.count() == COUNT as usize
    })
    .await;
    let second = with_handler(service(&store, "b"), &by_second, &free());
    let second = Running::start(second);
    // Long enough for entries to be claimed that are not kept alive.
    tokio::time::sleep(LEASE * 4).await;
    let elsewhere = |number: &u64| partition_of(*number) != stuck;
    let claimed: Vec<_> = by_second.numbers().into_iter().filter(elsewhere).collect();
    assert!(claimed.is_empty(), "{claimed:?}");
    second.stop().await;
    first.vanish().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_claimed_holds_up_no_other_partition() {
    let inner = memory();
    let stuck = partition_of(0);
    let stuck_here = stuck.clone();
    let store = Hindered::new(inner.clone(), move |asked: Asked| {
        let hangs = matches!(asked.operation, "claim" | "take_back" | "keep_alive")
            && asked.instance == "b"
            && asked.partition.as_ref() == Some(&stuck_here);
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    let (by_first, by_second) = (Seen::default(), Seen::default());
    let places = Arc::new(Semaphore::new(0));
    let first = with_handler(service(&store, "a"), &by_first, &places);
    let first = Running::start(first);
    place(&inner, 1..COUNT).await;
    until("all have begun", async || {
        by_first.count() + 1 == COUNT as usize
    })
    .await;
    first.vanish().await;
    let second = with_handler(service(&store, "b"), &by_second, &free());
    let second = Running::start(second);
    let elsewhere: HashSet<_> = (1..COUNT).filter(|n| partition_of(*n) != stuck).collect();
    until("the others are handled", async || {
        let seen: HashSet<_> = by_second.numbers().into_iter().collect();
        seen == elsewhere
    })
    .await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_no_longer_for_more_partitions() {
    let store = Hindered::new(memory(), |asked: Asked| async move {
        if matches!(asked.operation, "leave_parallel" | "let_go") {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let running = with_handler(service(&store, "a"), &Seen::default(), &free());
    Running::start(running).stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_what_is_refused() {
    let inner = memory();
    let store = Hindered::new(inner.clone(), |asked: Asked| async move {
        match asked.operation {
            "finish" => Err(refused()),
            _ => Ok(()),
        }
    });
    let seen = Seen::default();
    let running = Running::start(with_handler(service(&store, "a"), &seen, &free()));
    place(&inner, 0..COUNT).await;
    until("all are handled", async || seen.count() == COUNT as usize).await;
    running.stop().await;
    // Others find everything as it was.
    let seen = Seen::default();
    let other = Hindered::new(inner, |_| async { Ok(()) });
    let other = Running::start(with_handler(service(&other, "b"), &seen, &free()));
    until("all are handled", async || seen.count() == COUNT as usize).await;
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_that_was_forgotten_is_opened_anew() {
    let inner = memory();
    let forgotten = Arc::new(Mutex::new(HashSet::new()));
    let opened = Arc::new(AtomicUsize::new(0));
    let (forget, open) = (Arc::clone(&forgotten), Arc::clone(&opened));
    let store = Hindered::new(inner.clone(), move |asked: Asked| {
        if asked.operation == "open_parallel" {
            open.fetch_add(1, Ordering::SeqCst);
        }
        // Once in each partition.
        let is_forgotten =
            asked.operation == "finish" && forget.lock().unwrap().insert(asked.partition.unwrap());
        async move {
            match is_forgotten {
                true => Err(StoreError::Forgotten {
                    operation: "finish",
                    source: "it was reset".into(),
                }),
                false => Ok(()),
            }
        }
    });
    let seen = Seen::default();
    place(&inner, 0..COUNT).await;
    let running = Running::start(with_handler(service(&store, "a"), &seen, &free()));
    until("all are handled anew", async || {
        seen.count() >= 2 * COUNT as usize
    })
    .await;
    running.stop().await;
    assert_eq!(opened.load(Ordering::SeqCst) % PARTITIONS as usize, 0);
    for partition in partitions() {
        assert!(forgotten.lock().unwrap().contains(&partition));
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_the_window_is_full_is_kept_alive() {
    let inner = memory();
    let (over, is_over) = watch::channel(false);
    let store = Hindered::new(inner.clone(), |_| async { Ok(()) });
    let store = store.withholding(partition_of(1), is_over);
    let seen = Seen::default();
    place(&inner, 1..=COUNT).await;
    let running = with_handler(service(&store, "a"), &seen, &Arc::new(Semaphore::new(0)));
    let running = Running::start(running.concurrency(2));
    until("some have begun", async || seen.count() == 2).await;
    over.send_replace(true);
    tokio::time::sleep(LEASE * 4).await;
    let other = Consumer {
        group: ParallelGroup {
            group: GROUP.into(),
            handler: "pack".into(),
        },
        instance: "b".into(),
    };
    for partition in partitions() {
        let claimed = inner.claim(&other, &partition, LEASE, 1_000).await.unwrap();
        assert!(claimed.is_empty(), "{partition}: {claimed:?}");
    }
    running.vanish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_claimed_while_it_is_being_taken_is_handled_once() {
    let inner = memory();
    let (over, is_over) = watch::channel(false);
    let store = Hindered::new(inner.clone(), |_| async { Ok(()) });
    let store = store.withholding(partition_of(1), is_over);
    let seen = Seen::default();
    place(&inner, 1..=COUNT).await;
    let running = Running::start(with_handler(service(&store, "a"), &seen, &free()));
    // Nobody keeps it alive, so that the instance claims it from itself.
    until("all are handled", async || seen.count() == COUNT as usize).await;
    tokio::time::sleep(LEASE).await;
    over.send_replace(true);
    tokio::time::sleep(LEASE).await;
    running.stop().await;
    assert_eq!(seen.numbers(), (1..=COUNT).collect::<Vec<_>>());
}
