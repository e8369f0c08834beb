//! Instances: how those of a group share its partitions, and what happens when they come, go, or
//! vanish.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};

use super::orders::{Booked, Invoiced, Ledger, Placed, billing, ledger, orders, placed, shop};
use super::steps::{
    Call, CloneBackend, Running, SHORT, Seen, Shop, all_events, build, committed, eventually,
    notes, notes_as, progress, service,
};
use crate::emit::To;
use crate::event::Event;
use crate::handler::{Context, HandlerDefinition, Start};
use crate::partition::Partition;
use crate::recorded::{AggregateId, RecordedEvent, Version};
use crate::service::ServiceBuilder;
use crate::store::{Groups, Lease, Reset, ResetError};
use crate::testing::store_contract::StoreHarness;
use crate::testing::store_contract::steps::{Chance, fresh, head, history, within};

/// A second instance of a group gets nothing of a partition that the first owns.
pub async fn a_second_instance_gets_nothing_of_an_owned_partition<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    let seen = Seen::new();
    let instance = |name: &str| {
        let handler = notes_as("note", name, &seen);
        Running::start(service(&store, "g").instance(name).handler(handler))
    };
    let first = instance("a");
    shop.publish(orders("a", 1..=10)).await;
    seen.wait(10).await;
    let second = instance("b");
    has_joined(&store, "g", 2).await;
    shop.publish(orders("a", 11..=100)).await;
    seen.wait(100).await;
    assert_eq!(seen.by("a"), (1..=100).collect::<Vec<_>>());
    first.stop().await;
    shop.publish(orders("a", 101..=110)).await;
    seen.wait(110).await;
    second.stop().await;
    assert_eq!(seen.by("a"), (1..=100).collect::<Vec<_>>());
    assert_eq!(seen.by("b"), (101..=110).collect::<Vec<_>>());
}

/// Waits until so many instances of a group are there.
async fn has_joined<S: CloneBackend>(store: &S, group: &str, count: usize) {
    let witness = "witness";
    eventually("the instances have joined", || async {
        let members = store.join(group, witness, SHORT).await;
        let left = store.leave(group, witness).await;
        members.is_ok_and(|members| members.len() > count) && left.is_ok()
    })
    .await;
}

/// What an instance gives back when it stops, another takes at once, and does nothing again.
pub async fn another_instance_goes_on_where_one_has_stopped<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    let seen = Seen::new();
    let mut number = 0;
    let mut chance = Chance::new(1);
    for round in 0..20 {
        let running = Running::start(
            service(&store, "g")
                .instance(format!("instance{round}"))
                .handler(notes("note", &seen)),
        );
        // At some moments it has hardly begun when it is stopped.
        if round % 2 == 0 {
            chance.pause().await;
        } else {
            shop.publish(orders("a", number + 1..=number + 10)).await;
            number += 10;
            seen.wait(number as usize).await;
        }
        running.stop().await;
    }
    assert!(seen.of("a").into_iter().eq(1..=100));
}

/// When an instance vanishes, another goes on from its last commit: what was committed is not
/// handled again, and what was not is.
pub async fn another_instance_goes_on_when_one_vanishes<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    let published = shop.publish(orders("a", 1..=10)).await;
    let (seen, begun) = (Seen::new(), Arc::new(Notify::new()));
    let hangs = {
        let (seen, by, begun) = (seen.clone(), Arc::from("one"), Arc::clone(&begun));
        HandlerDefinition::function("note", move |event: Placed, _: Context| {
            let (seen, by, begun) = (seen.clone(), Arc::clone(&by), Arc::clone(&begun));
            async move {
                if event.number == 6 {
                    begun.notify_one();
                    std::future::pending::<()>().await;
                }
                seen.note(&by, event.order, event.number);
            }
        })
        .on("shop.order.placed")
    };
    let builder = |name: &str| service(&store, "g").instance(name).lease(SHORT);
    let one = Running::start(builder("one").handler(hangs));
    within("the sixth event is begun", begun.notified()).await;
    committed(&store, "g", published[4].position()).await;
    let two = Running::start(builder("two").handler(notes_as("note", "two", &seen)));
    has_joined(&store, "g", 2).await;
    one.vanish().await;
    seen.wait_until("the other goes on", |calls| {
        calls.iter().any(|call| call.number == 10)
    })
    .await;
    two.stop().await;
    assert_eq!(
        seen.by("two"),
        (6..=10).collect::<Vec<_>>(),
        "from the last commit on"
    );
}

/// What was handled behind an event that is open still is not handled again by the next owner, not
/// even by those handlers of the open event itself that were through.
pub async fn what_is_behind_an_open_event_is_not_handled_again<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    let seen = Seen::new();
    let waits = |permits| {
        let blocked = Arc::new(Semaphore::new(permits));
        let (seen, by) = (seen.clone(), Arc::from("waits"));
        HandlerDefinition::function("waits", move |event: Placed, _: Context| {
            let (seen, by, blocked) = (seen.clone(), Arc::clone(&by), Arc::clone(&blocked));
            async move {
                if event.order == "slow" {
                    let _permit = blocked.acquire().await;
                }
                seen.note(&by, event.order, event.number);
            }
        })
        .on("shop.order.placed")
    };
    let builder = |name: &str, permits| {
        let builder = service(&store, "g").instance(name).lease(SHORT);
        let builder = builder.handler(notes("at_once", &seen));
        builder.handler(waits(permits))
    };
    let slow = shop.publish(placed("slow", 1)).await;
    let rest: Vec<_> = (1..=40).map(|number| placed("quick", number)).collect();
    let rest = shop.publish(rest).await;
    let one = Running::start(builder("one", 0));
    seen.wait(81).await;
    let last = rest[39].position();
    eventually("what is behind the open event is committed", || async {
        let progress = progress(&store, "g").await;
        progress.reached >= last && progress.open.iter().any(|open| !open.done.is_empty())
    })
    .await;
    let stored = progress(&store, "g").await;
    assert!(stored.checkpoint < slow[0].position());
    assert_eq!(stored.open.len(), 1);
    assert_eq!(stored.open[0].position, slow[0].position());
    assert_eq!(&*stored.open[0].done, [Arc::from("at_once")]);
    one.vanish().await;
    let two = Running::start(builder("two", 1));
    seen.wait(82).await;
    shop.publish(placed("slow", 2)).await;
    seen.wait(84).await;
    two.stop().await;
    assert_eq!(seen.count(), 84);
    for by in ["at_once", "waits"] {
        let calls = seen.all();
        let of = |order: &str| -> Vec<u64> {
            let of = |call: &&Call| &*call.by == by && call.order == order;
            calls.iter().filter(of).map(|call| call.number).collect()
        };
        assert_eq!(of("slow"), [1, 2], "handler `{by}`");
        assert!(of("quick").into_iter().eq(1..=40), "handler `{by}`");
    }
}

/// What was begun and not finished when an instance vanished is handled again.
pub async fn what_was_not_finished_is_handled_again<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let total = 120 / H::LOAD_DIVISOR as u64;
    let all: Vec<_> = (1..=total)
        .map(|number| placed(format!("k{}", number % 7), number))
        .collect();
    Shop::on(&store).publish(all).await;
    let seen = Seen::new();
    let mut chance = Chance::new(3);
    let builder = || {
        let (seen, by) = (seen.clone(), Arc::from("yields"));
        let handler = HandlerDefinition::function("yields", move |event: Placed, _: Context| {
            let (seen, by) = (seen.clone(), Arc::clone(&by));
            async move {
                Chance::new(event.number).pause().await;
                seen.note(&by, event.order, event.number);
            }
        });
        // One name: it takes over from itself at once.
        let builder = service(&store, "g").instance("one").concurrency(4);
        builder.handler(handler.on("shop.order.placed"))
    };
    for _ in 0..10 {
        let before = seen.count();
        let running = Running::start(builder());
        let more = 1 + chance.below(8);
        seen.wait_until("the service goes on", |calls| {
            let distinct: BTreeSet<_> = calls.iter().map(|call| call.number).collect();
            calls.len() >= before + more || distinct.len() as u64 == total
        })
        .await;
        running.vanish().await;
    }
    let running = Running::start(builder());
    seen.wait_until("every event is handled", |calls| {
        let distinct: BTreeSet<_> = calls.iter().map(|call| call.number).collect();
        distinct.len() as u64 == total
    })
    .await;
    running.stop().await;
    // Again, but never out of order: an event is begun only when all before it are through.
    for (key, numbers) in seen.by_order() {
        let mut highest = 0;
        for number in numbers {
            assert!(
                number <= highest || number == next_of(&key, highest, total),
                "order `{key}`: {number} after {highest}"
            );
            highest = highest.max(number);
        }
    }
}

/// The number that comes after another in an order of [`what_was_not_finished_is_handled_again`].
fn next_of(key: &str, number: u64, total: u64) -> u64 {
    (number + 1..=total)
        .find(|next| key == format!("k{}", next % 7))
        .unwrap_or(u64::MAX)
}

/// Each event that handlers emit, to feeds and to aggregates, is stored once, though the owner
/// vanishes at any moment (50 times).
pub async fn emits_are_stored_once_though_owners_vanish<H: StoreHarness>(harness: &H) {
    const KEYS: u64 = 6;
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    let seen = Seen::new();
    let emits = || {
        let (seen, by) = (seen.clone(), Arc::from("emits"));
        HandlerDefinition::function("emits", move |event: Placed, _: Context| {
            let (seen, by) = (seen.clone(), Arc::clone(&by));
            async move {
                Chance::new(event.number).pause().await;
                seen.note(&by, event.order.as_str(), event.number);
                let Placed { order, number } = event;
                let invoice = Invoiced {
                    order: order.clone(),
                    number,
                };
                let account = order.clone();
                (invoice, To::<Ledger>(account, Booked { order, number }))
            }
        })
        .on("shop.order.placed")
        .emits("billing.invoiced")
        .emits("ledger.booked")
    };
    let mut chance = Chance::new(4);
    let (mut number, mut last) = (0, None);
    for round in 0..50 {
        let mut new = Vec::new();
        for _ in 0..4 {
            number += 1;
            new.extend((0..KEYS).map(|key| placed(format!("k{key}"), number)));
        }
        last = shop.publish(new).await.last().map(RecordedEvent::position);
        let before = seen.count();
        // Now and then another instance, which has to wait until the lease ends.
        let running = Running::start(
            service(&store, "g")
                .instance(format!("instance{}", round / 5))
                .lease(SHORT)
                .concurrency(8)
                .handler(emits()),
        );
        let more = 1 + chance.below(20);
        seen.wait_until("the service goes on", |calls| calls.len() >= before + more)
            .await;
        chance.pause().await;
        running.vanish().await;
    }
    let running = Running::start(service(&store, "g").handler(emits()));
    let total = (KEYS * number) as usize;
    committed(&store, "g", last.unwrap()).await;
    running.stop().await;

    let mut invoiced: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let found = all_events(&store, &billing()).await;
    assert_eq!(found.len(), total, "each invoice once");
    for event in &found {
        let Invoiced { order, number } = event.decode().unwrap();
        invoiced.entry(order).or_default().push(number);
    }
    assert_eq!(invoiced.len(), KEYS as usize);
    for (order, numbers) in invoiced {
        assert!(numbers.into_iter().eq(1..=number), "invoices of `{order}`");
        let account = AggregateId::of::<Ledger>(&order).unwrap();
        let booked = history(&store, &account).await;
        let versions: Vec<Version> = booked
            .iter()
            .filter_map(|event| Some(event.aggregate()?.version))
            .collect();
        assert!(versions.into_iter().eq(1..=number), "versions of `{order}`");
        assert!(
            numbers_of::<Booked>(&booked, |booked| booked.number)
                .into_iter()
                .eq(1..=number),
            "entries of `{order}`"
        );
    }
    assert_eq!(all_events(&store, &ledger()).await.len(), total);
}

fn numbers_of<E: Event>(events: &[RecordedEvent], number: impl Fn(E) -> u64) -> Vec<u64> {
    events
        .iter()
        .map(|event| number(event.decode().unwrap()))
        .collect()
}

/// Keys of orders, one in each of four partitions.
fn keys_of_partitions() -> Vec<String> {
    let mut keys = BTreeMap::new();
    let codec = crate::codec::Codec::default();
    for number in 0.. {
        let key = format!("k{number}");
        let event = codec.encode(&placed(key.as_str(), 0)).unwrap();
        let partition = Partition::of_event(shop(), &event, 4).number();
        keys.entry(partition).or_insert(key);
        if keys.len() == 4 {
            break;
        }
    }
    keys.into_values().collect()
}

/// Publishes rounds of one event for each partition until those who handled a round are as the rule
/// wants: so many partitions each, the most first. Gives the next number.
async fn until_shared(
    shop: &Shop,
    seen: &Seen,
    keys: &[String],
    mut number: u64,
    wanted: &[usize],
) -> u64 {
    let mut last = Vec::new();
    let sharing = async {
        loop {
            let round: Vec<_> = keys
                .iter()
                .map(|key| placed(key.as_str(), number))
                .collect();
            shop.publish(round).await;
            seen.wait_until("all events of the round are handled", |calls| {
                let of_round: BTreeSet<_> = calls
                    .iter()
                    .rev()
                    .take(100)
                    .filter(|call| call.number == number)
                    .map(|call| &call.order)
                    .collect();
                of_round.len() == keys.len()
            })
            .await;
            let mut shares: BTreeMap<Arc<str>, BTreeSet<String>> = BTreeMap::new();
            for call in seen.all().iter().filter(|call| call.number == number) {
                let share = shares.entry(Arc::clone(&call.by)).or_default();
                share.insert(call.order.clone());
            }
            number += 1;
            let mut counts: Vec<_> = shares.values().map(BTreeSet::len).collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            last.clone_from(&counts);
            if counts == wanted {
                return;
            }
        }
    };
    within(&format!("the partitions are shared as {wanted:?}"), sharing).await;
    number
}

/// Three instances share four partitions evenly, and share them anew whenever one comes or goes; no
/// event is lost meanwhile, and none is handled twice.
pub async fn instances_share_partitions_and_share_anew<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&shop(), 4).await;
    let shop = Shop::on(&store);
    let keys = keys_of_partitions();
    let seen = Seen::new();
    let instance = |name: &str| {
        let handler = notes_as("note", name, &seen);
        Running::start(service(&store, "g").instance(name).handler(handler))
    };
    let a = instance("a");
    let next = until_shared(&shop, &seen, &keys, 1, &[4]).await;
    let b = instance("b");
    let next = until_shared(&shop, &seen, &keys, next, &[2, 2]).await;
    let c = instance("c");
    let next = until_shared(&shop, &seen, &keys, next, &[2, 1, 1]).await;
    a.stop().await;
    let next = until_shared(&shop, &seen, &keys, next, &[2, 2]).await;
    let a = instance("a");
    let d = instance("d");
    let next = until_shared(&shop, &seen, &keys, next, &[1, 1, 1, 1]).await;
    for running in [b, c, d] {
        running.stop().await;
    }
    let next = until_shared(&shop, &seen, &keys, next, &[4]).await;
    a.stop().await;
    for (key, numbers) in seen.by_order() {
        assert!(
            numbers.into_iter().eq(1..next),
            "order `{key}`: nothing lost, nothing twice, in order"
        );
    }
}

/// When an instance vanishes, the others share its partitions; what it emitted is stored once all
/// the same.
pub async fn partitions_of_a_vanished_instance_are_shared<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&shop(), 4).await;
    let shop = Shop::on(&store);
    let keys = keys_of_partitions();
    let seen = Seen::new();
    let instance = |name: &str| Running::start(emitting(service(&store, "g"), name, &seen));
    let a = instance("a");
    let b = instance("b");
    let c = instance("c");
    let next = until_shared(&shop, &seen, &keys, 1, &[2, 1, 1]).await;
    a.vanish().await;
    let next = until_shared(&shop, &seen, &keys, next, &[2, 2]).await;
    b.vanish().await;
    let next = until_shared(&shop, &seen, &keys, next, &[4]).await;
    let a = instance("a");
    let next = until_shared(&shop, &seen, &keys, next, &[2, 2]).await;
    for running in [a, c] {
        running.stop().await;
    }
    let mut invoiced: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in all_events(&store, &billing()).await {
        let Invoiced { order, number } = event.decode().unwrap();
        invoiced.entry(order).or_default().push(number);
    }
    assert_eq!(invoiced.len(), keys.len());
    for (order, numbers) in invoiced {
        assert!(
            numbers.into_iter().eq(1..next),
            "invoices of `{order}`: each once, in order"
        );
    }
}

/// An instance of a short lease, whose handler emits an invoice for each order.
fn emitting(builder: ServiceBuilder, name: &str, seen: &Seen) -> ServiceBuilder {
    let (seen, by) = (seen.clone(), Arc::from(name));
    let handler = HandlerDefinition::function("emits", move |event: Placed, _: Context| {
        seen.note(&by, event.order.as_str(), event.number);
        async move {
            Invoiced {
                order: event.order,
                number: event.number,
            }
        }
    })
    .on("shop.order.placed")
    .emits("billing.invoiced");
    builder.instance(name).lease(SHORT).handler(handler)
}

/// An instance that is stopped while it takes partitions up gives all of them back.
pub async fn a_stop_at_any_moment_gives_everything_back<H: StoreHarness>(harness: &H) {
    let category = shop();
    let store = harness.partitioned(&category, 4).await;
    let shop = Shop::on(&store);
    let keys = keys_of_partitions();
    let seen = Seen::new();
    let mut chance = Chance::new(5);
    for round in 0..100 {
        let running = Running::start(
            service(&store, "g")
                .instance(format!("instance{round}"))
                .handler(notes("note", &seen)),
        );
        // As many steps of the store, or fewer, as it takes to own all of them.
        for _ in 0..chance.below(16) {
            chance.pause().await;
            head(&store, &category).await;
        }
        running.stop().await;
    }
    let last = build(service(&store, "g").handler(notes("note", &seen)));
    let running = Running::of(&last);
    until_shared(&shop, &seen, &keys, 1, &[4]).await;
    running.stop().await;
}

/// An instance that was frozen while its group was reset, and takes a partition again, begins there as the
/// start of the group says.
pub async fn an_instance_that_slept_through_a_reset_begins_as_its_start_says<H: StoreHarness>(
    harness: &H,
) {
    let store = fresh(harness).await;
    let shop_itself = Shop::on(&store);
    shop_itself.publish(orders("old", 1..=5)).await;
    let seen = Seen::new();
    let builder = service(&store, "g").instance("frozen").start(Start::Now);
    let running = Running::start(builder.handler(notes("note", &seen)));
    let partition = Partition::from(shop());
    let owned = || async { store.owner("g", &partition).await.unwrap().is_some() };
    eventually("the partition is owned", owned).await;
    // As if it had slept for longer than its lease: nobody owns the partition for a moment.
    let mut epoch = 1;
    within("the group is reset", async {
        loop {
            let lease = Lease {
                group: "g".into(),
                partition: partition.clone(),
                instance: "frozen".into(),
                epoch,
            };
            store.release(&lease).await.unwrap();
            match store.reset("g", &partition, Reset::Forget).await {
                Ok(()) => break,
                Err(ResetError::Owned { .. }) => epoch += 1,
                Err(error) => panic!("the group must be reset: {error}"),
            }
        }
    })
    .await;
    eventually("the group has begun anew", || async {
        owned().await && store.lag("g", &partition).await.unwrap() == 0
    })
    .await;
    shop_itself.publish(placed("new", 1)).await;
    seen.wait_until("what comes is handled", |calls| {
        calls.iter().any(|call| call.order == "new")
    })
    .await;
    running.stop().await;
    assert_eq!(seen.count(), 1, "{:?}", seen.all());
}
