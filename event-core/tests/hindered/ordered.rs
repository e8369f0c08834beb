//! Handlers that keep the order: who owns which partition.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_core::prelude::*;
use event_core::{Groups, HandlerDefinition, Partition, ServiceBuilder};
use tokio::sync::Semaphore;

use crate::support::{Asked, Hindered};
use crate::{GROUP, Placed, Running, memory, partitions, service, soon, until};

fn with_handler(builder: ServiceBuilder) -> ServiceBuilder {
    let handler = HandlerDefinition::function("see", |_: Placed, _: Context| async {});
    builder.handler(handler.on("orders.placed"))
}

async fn owners(store: &MemoryStore, partitions: &[Partition]) -> Vec<Option<String>> {
    let mut owners = Vec::new();
    for partition in partitions {
        owners.push(store.owner(GROUP, partition).await.unwrap());
    }
    owners
}

/// All partitions but the last do not answer any more, and one owner after the other goes.
async fn partitions_behind_stuck_ones_find_an_owner(members_are_stuck: bool) {
    let inner = memory();
    let is_frozen = Arc::new(AtomicBool::new(false));
    let all: Vec<_> = partitions().collect();
    let (healthy, stuck) = all.split_last().unwrap();
    let stuck: HashSet<_> = stuck.iter().cloned().collect();
    let frozen = Arc::clone(&is_frozen);
    let store = Hindered::new(inner.clone(), move |asked: Asked| {
        let is_stuck = match &asked.partition {
            Some(partition) => stuck.contains(partition),
            None => members_are_stuck,
        };
        let hangs = is_stuck && frozen.load(Ordering::SeqCst);
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    // The lease is so short that a round has time for one that does not answer, and no more.
    let lease = Duration::from_secs(3);
    let start = |instance| Running::start(with_handler(service(&store, instance)).lease(lease));
    let first = start("a");
    until("all are owned", async || {
        owners(&inner, &all).await.iter().all(Option::is_some)
    })
    .await;
    is_frozen.store(true, Ordering::SeqCst);
    first.vanish().await;
    let second = start("b");
    let is_owned = async |by: &str| {
        let owner = inner.owner(GROUP, healthy).await.unwrap();
        owner.as_deref() == Some(by)
    };
    until("the healthy one is owned again", async || {
        is_owned("b").await
    })
    .await;
    // It is kept for longer than a lease.
    tokio::time::sleep(lease * 3).await;
    assert!(is_owned("b").await);
    // And it is given back at once where the instance stops, though the group cannot be told.
    is_frozen.store(false, Ordering::SeqCst);
    until("all are owned", async || {
        owners(&inner, &all).await.iter().all(Option::is_some)
    })
    .await;
    let third = start("c");
    until("they are shared", async || {
        let owners = owners(&inner, &all).await;
        owners
            .iter()
            .flatten()
            .filter(|owner| *owner == "c")
            .count()
            == 2
    })
    .await;
    second.stop().await;
    third.stop().await;
}

#[tokio::test(start_paused = true)]
async fn partitions_that_do_not_answer_are_not_in_the_way_of_others() {
    partitions_behind_stuck_ones_find_an_owner(false).await;
}

#[tokio::test(start_paused = true)]
async fn partitions_find_an_owner_though_nobody_knows_who_is_there() {
    partitions_behind_stuck_ones_find_an_owner(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_who_knows_the_instances() {
    let inner = memory();
    let store = Hindered::new(inner.clone(), |asked: Asked| async move {
        if asked.operation == "leave" {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let all: Vec<_> = partitions().collect();
    let running = Running::start(with_handler(service(&store, "a")));
    until("all are owned", async || {
        owners(&inner, &all).await.iter().all(Option::is_some)
    })
    .await;
    running.stop().await;
}

/// Notes where it is dropped before its time.
struct CutOff(Arc<AtomicUsize>);

impl Drop for CutOff {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_being_given_back_is_not_lost() {
    let inner = memory();
    let (cut_off, settled) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let renewals = Arc::new(Mutex::new(0));
    let store = {
        let (cut_off, settled) = (Arc::clone(&cut_off), Arc::clone(&settled));
        let renewals = Arc::clone(&renewals);
        Hindered::new(inner.clone(), move |asked: Asked| {
            if asked.operation == "join" && asked.instance == "a" {
                *renewals.lock().unwrap() += 1;
            }
            let settling = (asked.operation == "released")
                .then(|| (CutOff(Arc::clone(&cut_off)), Arc::clone(&settled)));
            async move {
                if let Some((cut_off, settled)) = settling {
                    settled.acquire().await.unwrap().forget();
                    std::mem::forget(cut_off);
                }
                Ok(())
            }
        })
    };
    let all: Vec<_> = partitions().collect();
    let first = Running::start(with_handler(service(&store, "a")));
    until("all are owned", async || {
        owners(&inner, &all).await.iter().all(Option::is_some)
    })
    .await;
    let second = Running::start(with_handler(service(&store, "b")));
    until("they are shared", async || {
        let owners = owners(&inner, &all).await;
        owners
            .iter()
            .flatten()
            .filter(|owner| *owner == "b")
            .count()
            == 2
    })
    .await;
    // The first looks after its leases a few times while its store settles.
    let seen = *renewals.lock().unwrap();
    until("the leases are looked after", async || {
        *renewals.lock().unwrap() > seen + 3
    })
    .await;
    assert_eq!(cut_off.load(Ordering::SeqCst), 0, "the store still settles");
    settled.add_permits(100);
    soon("both stop", async {
        first.stop().await;
        second.stop().await;
    })
    .await;
    assert_eq!(cut_off.load(Ordering::SeqCst), 0);
}
