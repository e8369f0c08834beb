//! Delivery: where a group begins, what it gets, and that it gets it once and in order.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use super::orders::{Placed, orders, placed, shop};
use super::steps::{
    Call, CloneBackend, Running, Seen, Shop, build, committed, notes, notes_as, quick, service,
};
use crate::codec::NewEvent;
use crate::event::Category;
use crate::handler::{Context, Delivery, HandlerDefinition, Start};
use crate::recorded::RecordedEvent;
use crate::service::{Service, ServiceError};
use crate::store::{Reset, ResetError};
use crate::testing::store_contract::StoreHarness;
use crate::testing::store_contract::bank::{category, event_with};
use crate::testing::store_contract::steps::{Chance, append_to_feed, fresh, head, within};

/// A new group begins at the first event of the feed.
pub async fn a_new_group_begins_at_the_beginning<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    Shop::on(&store).publish(orders("a", 1..=10)).await;
    let seen = Seen::new();
    let running = Running::start(service(&store, "late").handler(notes("note", &seen)));
    seen.wait(10).await;
    running.stop().await;
    assert_eq!(seen.of("a"), (1..=10).collect::<Vec<_>>());
}

/// A new group that starts now gets what comes after it began, and its start is remembered.
pub async fn a_group_that_starts_now_gets_what_comes_after<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    shop.publish(orders("a", 1..=5)).await;
    let seen = Seen::new();
    let late = || service(&store, "late").handler(notes("note", &seen).start(Start::Now));
    let first = build(late());
    // It begins before it publishes, since it could not see its own event otherwise.
    let published = first.publish(orders("a", 6..=8)).await;
    assert!(published.is_ok(), "{published:?}");
    // It has begun, though it has not run: what comes now is not before its start.
    shop.publish(orders("a", 9..=10)).await;
    let running = Running::start(late());
    seen.wait(5).await;
    running.stop().await;
    shop.publish(orders("a", 11..=12)).await;
    let running = Running::start(late());
    seen.wait(7).await;
    running.stop().await;
    assert_eq!(seen.of("a"), (6..=12).collect::<Vec<_>>());
}

/// A new group that starts after a position gets what lies behind it, from all partitions, and its start
/// is remembered; the service has the last word on it.
pub async fn a_group_that_starts_at_a_position_gets_what_lies_behind<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&shop(), 3).await;
    let shop = Shop::on(&store);
    let names: Vec<String> = (1..=12).map(|number| format!("o{number}")).collect();
    let mut published = Vec::new();
    for name in &names {
        published.extend(shop.publish(orders(name, 1..=3)).await);
    }
    let after = published[17].position();
    let expected = published.iter().filter(|event| event.position() > after);
    let count = expected.count();
    for (start, is_of_service) in [(Start::After(after), false), (Start::Now, true)] {
        let seen = Seen::new();
        let group = format!("late{is_of_service}");
        let late = |number: usize| {
            let late = service(&store, &group).handler(notes("note", &seen).start(start));
            match (is_of_service, number) {
                (true, 0) => late.start(Start::After(after)),
                _ => late,
            }
        };
        // It is decided once.
        for number in 0..2 {
            let running = Running::start(late(number));
            seen.wait(count).await;
            running.stop().await;
        }
        assert_eq!(seen.count(), count);
        for (order, numbers) in seen.by_order() {
            assert!(numbers.is_sorted(), "{order}: {numbers:?}");
        }
    }
}

/// A group that is reset begins as its start says, or where it was moved to, with what it could not handle
/// before; and none is reset while it runs.
pub async fn a_group_that_is_reset_begins_anew<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&shop(), 3).await;
    let shop = Shop::on(&store);
    let seen = Seen::new();
    let failing = || {
        let fails = |event: Placed, _: Context| async move {
            match event.number {
                2 => Err("no"),
                _ => Ok(()),
            }
        };
        HandlerDefinition::function("fails", fails)
            .on("shop.order.placed")
            .retry(quick(1))
    };
    let parallel = || notes_as("parallel", "parallel", &seen).delivery(Delivery::Parallel);
    let builder = |start| {
        let handlers = service(&store, "g").handler(notes("note", &seen));
        handlers.handler(failing()).handler(parallel()).start(start)
    };
    let names: Vec<String> = (1..=8).map(|number| format!("o{number}")).collect();
    for name in &names {
        shop.publish(orders(name, 1..=3)).await;
    }
    let count = 3 * names.len();
    let health = async |service: &Service, parked: usize| {
        let health = service.health().await.unwrap();
        let found: usize = health.partitions.iter().map(|p| p.dead_letters).sum();
        assert_eq!(found, parked, "{health:?}");
    };
    let has_all = |count: usize| {
        let of = move |calls: &[Call], by| calls.iter().filter(|call| &*call.by == by).count();
        move |calls: &[Call]| of(calls, "note") >= count && of(calls, "parallel") >= count
    };
    let service = build(builder(Start::Beginning));
    let running = Running::of(&service);
    seen.wait_until("all are handled", has_all(count)).await;
    let alive = service.reset(Reset::Forget).await;
    let is_alive = |error: &ServiceError| matches!(error, ServiceError::Reset(ResetError::Alive { group, .. }) if group == "g");
    assert!(matches!(&alive, Err(error) if is_alive(error)), "{alive:?}");
    running.stop().await;
    // What fails, and what follows it.
    health(&service, 2 * names.len()).await;

    service.reset(Reset::Forget).await.unwrap();
    health(&service, 0).await;
    let running = Running::of(&service);
    seen.wait_until("all are handled again", has_all(2 * count))
        .await;
    running.stop().await;
    health(&service, 2 * names.len()).await;

    service.reset(Reset::MoveTo(Start::Now)).await.unwrap();
    health(&service, 2 * names.len()).await;
    service.reset(Reset::Forget).await.unwrap();
    let late = build(builder(Start::Now));
    late.publish(placed("late", 1)).await.unwrap();
    let running = Running::of(&late);
    seen.wait_until("what comes is handled", has_all(2 * count + 1))
        .await;
    running.stop().await;
    health(&late, 0).await;
    assert_eq!(seen.count(), 2 * (2 * count + 1));
}

/// A group gets what lies in the feed, and then what comes, in one order.
pub async fn a_group_gets_old_then_new<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    shop.publish(orders("a", 1..=20)).await;
    let seen = Seen::new();
    let running = Running::start(service(&store, "g").handler(notes("note", &seen)));
    for number in 21..=60 {
        shop.publish(placed("a", number)).await;
        if number % 7 == 0 {
            seen.wait(number as usize).await;
        }
    }
    seen.wait(60).await;
    running.stop().await;
    assert_eq!(seen.of("a"), (1..=60).collect::<Vec<_>>());
}

/// Whenever a service starts while others append, it gets every event once and in order: there is
/// no gap and no repetition where old events meet new ones (1000 random timings, on every store).
pub async fn there_is_no_gap_and_nothing_twice_at_the_seam<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let at_once = Arc::new(Semaphore::new(8));
    let mut rounds = JoinSet::new();
    for round in 0..1_000 {
        let (store, at_once) = (store.clone(), Arc::clone(&at_once));
        rounds.spawn(async move {
            let _permit = at_once.acquire_owned().await.unwrap();
            start_across_the_seam(store, round).await;
        });
    }
    rounds.join_all().await;
}

async fn start_across_the_seam<S: CloneBackend>(store: S, round: u64) {
    const APPENDS: usize = 6;
    let category = category(&format!("seam{round}"));
    let mut chance = Chance::new(round);
    let (appended, mut count) = watch::channel(0);
    let writer = {
        let (store, category) = (store.clone(), category.clone());
        let mut chance = Chance::new(round + 1_000_000);
        tokio::spawn(async move {
            let mut sent = Vec::new();
            for _ in 0..APPENDS {
                let new: Vec<_> = (0..1 + chance.below(3))
                    .map(|_| keyed(&format!("{category}.happened"), "k", 0))
                    .collect();
                sent.extend(new.iter().map(|event| event.metadata().event_id));
                append_to_feed(&store, &category, new).await;
                appended.send_modify(|count| *count += 1);
                chance.pause().await;
            }
            sent
        })
    };
    let done = chance.below(APPENDS + 1);
    let begun = within("the writer goes on", count.wait_for(|count| *count >= done))
        .await
        .is_ok();
    assert!(begun, "the writer ends after its last append");
    chance.pause().await;
    let (found, mut handled) = watch::channel(Vec::new());
    let handler = HandlerDefinition::function("note", move |event: RecordedEvent, _: Context| {
        found.send_modify(|found| found.push(event.metadata().event_id));
        async {}
    })
    .on(format!("{category}.*"));
    let running = Running::start(service(&store, &format!("group{round}")).handler(handler));
    let sent = writer.await.unwrap();
    let all = within(
        "every event is handled",
        handled.wait_for(|handled| handled.len() >= sent.len()),
    )
    .await
    .is_ok();
    assert!(all, "the handler is kept until the service ends");
    running.stop().await;
    assert_eq!(
        *handled.borrow(),
        sent,
        "round {round}: nothing left out, nothing twice, in order"
    );
}

/// An event of any type, with a key.
fn keyed(event_type: &str, key: &str, number: u64) -> NewEvent {
    let mut event = event_with(event_type, &format!(r#"{{"number":{number}}}"#));
    event.metadata_mut().key = Some(key.to_owned());
    event
}

/// A handler gets the types that one of its patterns matches, and no others, be they old or new.
pub async fn patterns_choose_among_old_and_new<H: StoreHarness>(harness: &H) {
    const TYPES: [&str; 5] = [
        "shop.order.placed",
        "shop.order.shipped",
        "shop.orders.closed",
        "shop.stock.counted",
        "bank.order.placed",
    ];
    const HANDLERS: [(&str, &[&str], &[usize]); 6] = [
        ("exact", &["shop.order.placed"], &[0]),
        ("star", &["shop.order.*"], &[0, 1]),
        ("part", &["shop.order*"], &[0, 1, 2]),
        ("category", &["shop.*"], &[0, 1, 2, 3]),
        (
            "two",
            &["shop.stock.counted", "shop.*.shipped", "shop.stock.*"],
            &[1, 3],
        ),
        ("other", &["bank.*", "shop.order.placed"], &[0, 4]),
    ];
    let store = fresh(harness).await;
    let seen = Seen::new();
    let mut builder = service(&store, "g");
    for (name, patterns, _) in HANDLERS {
        let (seen, by) = (seen.clone(), Arc::from(name));
        let handler = HandlerDefinition::function(name, move |event: RecordedEvent, _: Context| {
            let index = TYPES.iter().position(|name| *name == event.event_type());
            seen.note(&by, event.event_type(), index.unwrap_or(TYPES.len()) as u64);
            async {}
        });
        builder = builder.handler(patterns.iter().fold(handler, |h, pattern| h.on(*pattern)));
    }
    let publish = async || {
        for (number, event_type) in TYPES.iter().enumerate() {
            let category = Category::of(event_type).unwrap();
            let event = keyed(event_type, "k", number as u64);
            append_to_feed(&store, &category, vec![event]).await;
        }
    };
    let calls: usize = HANDLERS.iter().map(|(.., types)| types.len()).sum();
    publish().await;
    let running = Running::start(builder);
    seen.wait(calls).await;
    publish().await;
    seen.wait(2 * calls).await;
    running.stop().await;
    for (name, _, types) in HANDLERS {
        let mut found = seen.by(name);
        // Each category has an order of its own.
        let (old, new) = found.split_at_mut(types.len());
        old.sort_unstable();
        new.sort_unstable();
        let expected: Vec<_> = types.iter().map(|number| *number as u64).collect();
        assert_eq!((&*old, &*new), (&*expected, &*expected), "handler `{name}`");
    }
}

/// Two groups each get everything, whatever the other does.
pub async fn each_group_gets_everything<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    let seen = Seen::new();
    let group = |name: &str| service(&store, name).handler(notes_as("note", name, &seen));
    shop.publish(orders("a", 1..=30)).await;
    let one = Running::start(group("one"));
    let two = Running::start(group("two"));
    shop.publish(orders("a", 31..=60)).await;
    seen.wait(120).await;
    one.stop().await;
    shop.publish(orders("a", 61..=90)).await;
    let three = Running::start(group("three"));
    seen.wait(120 + 30 + 90).await;
    for running in [two, three] {
        running.stop().await;
    }
    assert_eq!(seen.by("one"), (1..=60).collect::<Vec<_>>());
    assert_eq!(seen.by("two"), (1..=90).collect::<Vec<_>>());
    assert_eq!(seen.by("three"), (1..=90).collect::<Vec<_>>());
}

/// Nothing is handled after a stop, and the next run goes on behind it.
pub async fn nothing_is_handled_after_a_stop_and_the_next_run_goes_on<H: StoreHarness>(
    harness: &H,
) {
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    let (seen, witnessed) = (Seen::new(), Seen::new());
    let service_under_test = build(service(&store, "g").handler(notes("note", &seen)));
    let witness = Running::start(service(&store, "witness").handler(notes("note", &witnessed)));
    let mut last = 0;
    for _ in 0..3 {
        let running = Running::of(&service_under_test);
        shop.publish(orders("a", last + 1..=last + 10)).await;
        seen.wait(last as usize + 10).await;
        running.stop().await;
        let before = seen.count();
        shop.publish(orders("a", last + 11..=last + 20)).await;
        witnessed.wait(last as usize + 20).await;
        assert_eq!(
            seen.count(),
            before,
            "a stopped service must handle nothing"
        );
        last += 20;
    }
    let running = Running::of(&service_under_test);
    seen.wait(last as usize).await;
    running.stop().await;
    witness.stop().await;
    assert_eq!(seen.of("a"), (1..=last).collect::<Vec<_>>());
}

/// A stop waits for what runs, which is not handled again, and leaves the rest to the next run.
pub async fn a_stop_finishes_what_runs_and_begins_nothing<H: StoreHarness>(harness: &H) {
    const EVENTS: u64 = 500;
    let store = fresh(harness).await;
    Shop::on(&store).publish(orders("a", 1..=EVENTS)).await;
    let seen = Seen::new();
    let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let handler = {
        let (seen, by) = (seen.clone(), Arc::from("waits"));
        let (began, go_on) = (Arc::clone(&began), Arc::clone(&go_on));
        HandlerDefinition::function("waits", move |event: Placed, _: Context| {
            let (seen, by) = (seen.clone(), Arc::clone(&by));
            let (began, go_on) = (Arc::clone(&began), Arc::clone(&go_on));
            async move {
                began.notify_one();
                let _permit = go_on.acquire().await;
                tokio::task::yield_now().await;
                seen.note(&by, event.order, event.number);
            }
        })
        .on("shop.order.placed")
    };
    let service = build(service(&store, "g").handler(handler));
    let running = Running::of(&service);
    within("the first event is begun", began.notified()).await;
    let ended = running.ask_to_stop().await;
    assert!(!ended.is_finished(), "a stop must wait for what runs");
    go_on.add_permits(1);
    let ended = within("it ends when what runs is finished", ended).await;
    assert!(ended.unwrap().is_ok());
    let first = seen.count();
    assert_eq!(first, 1, "what runs must be finished, and no more begun");
    let running = Running::of(&service);
    seen.wait(EVENTS as usize).await;
    running.stop().await;
    assert!(seen.of("a").into_iter().eq(1..=EVENTS));
}

/// A service that is stopped ten times in the midst of it loses nothing and does nothing twice.
pub async fn ten_stops_in_the_midst_lose_nothing<H: StoreHarness>(harness: &H) {
    const KEYS: u64 = 5;
    let numbers = 1..=200 / H::LOAD_DIVISOR as u64;
    let store = fresh(harness).await;
    let total = (KEYS * numbers.end()) as usize;
    let writer = {
        let (shop, numbers) = (Shop::on(&store), numbers.clone());
        tokio::spawn(async move {
            for number in numbers {
                let all = (0..KEYS).map(|key| placed(format!("k{key}"), number));
                shop.publish(all.collect::<Vec<_>>()).await;
            }
        })
    };
    let seen = Seen::new();
    let yields = || {
        let (seen, by) = (seen.clone(), Arc::from("yields"));
        HandlerDefinition::function("yields", move |event: Placed, _: Context| {
            let (seen, by) = (seen.clone(), Arc::clone(&by));
            async move {
                Chance::new(event.number).pause().await;
                seen.note(&by, event.order, event.number);
            }
        })
        .on("shop.order.placed")
        .retry(quick(3))
    };
    for stop in 1..=10 {
        // Another instance each time, so that what is not given back is missed.
        let running = Running::start(service(&store, "g").handler(yields()));
        seen.wait(total * stop / 12).await;
        running.stop().await;
    }
    writer.await.unwrap();
    let running = Running::start(service(&store, "g").handler(yields()));
    seen.wait(total).await;
    running.stop().await;
    let numbers: Vec<_> = numbers.collect();
    for (key, found) in seen.by_order() {
        assert_eq!(found, numbers, "order `{key}`: nothing lost, nothing twice");
    }
    let last = head(&store, &shop()).await;
    committed(&store, "g", last).await;
}
