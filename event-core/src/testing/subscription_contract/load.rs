//! Load: many groups, categories and keys; what runs at once, and how fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::orders::{Placed, orders, placed};
use super::steps::{Running, Seen, Shop, notes, quick, service};
use crate::handler::{Context, HandlerDefinition};
use crate::recorded::RecordedEvent;
use crate::subscription::{CircuitBreaker, RateLimit};
use crate::testing::store_contract::StoreHarness;
use crate::testing::store_contract::bank::{category, event_of};
use crate::testing::store_contract::steps::{Chance, append_to_feed, fresh};

/// Each of 50 groups gets every one of 5,000 messages, once and in order: half of them lie in the feed
/// before the groups begin, the others arrive meanwhile.
pub async fn fifty_groups_each_get_every_message<H: StoreHarness>(harness: &H) {
    const MESSAGES: u64 = 5_000;
    const AT_ONCE: u64 = 25;
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    for first in (1..=MESSAGES / 2).step_by(500) {
        shop.publish(orders("a", first..first + 500)).await;
    }
    let groups: Vec<_> = (0..50)
        .map(|number| {
            let seen = Seen::new();
            let builder = service(&store, &format!("group{number}"));
            (Running::start(builder.handler(notes("note", &seen))), seen)
        })
        .collect();
    for first in (MESSAGES / 2 + 1..=MESSAGES).step_by(AT_ONCE as usize) {
        shop.publish(orders("a", first..first + AT_ONCE)).await;
    }
    for (running, seen) in groups {
        seen.wait(MESSAGES as usize).await;
        running.stop().await;
        assert!(seen.of("a").into_iter().eq(1..=MESSAGES));
    }
}

/// One group gets 100 messages of each of 20 categories.
pub async fn one_group_gets_100_messages_of_20_categories<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let categories: Vec<_> = (0..20)
        .map(|number| category(&format!("load{number}")))
        .collect();
    let seen = Seen::new();
    let handler = {
        let (seen, by) = (seen.clone(), Arc::from("note"));
        HandlerDefinition::function("note", move |event: RecordedEvent, _: Context| {
            seen.note(&by, event.event_type(), 0);
            async {}
        })
    };
    let handler = categories.iter().fold(handler, |handler, category| {
        handler.on(format!("{category}.*"))
    });
    let append = async |rounds| {
        for _ in 0..rounds {
            for category in &categories {
                let events = (0..10).map(|_| event_of(category)).collect();
                append_to_feed(&store, category, events).await;
            }
        }
    };
    append(5).await;
    let running = Running::start(service(&store, "g").handler(handler));
    append(5).await;
    seen.wait(2_000).await;
    running.stop().await;
    let found = seen.by_order();
    assert_eq!(found.len(), 20);
    assert!(found.values().all(|calls| calls.len() == 100));
}

/// The 1,000 events of each of 16 keys are handled in order and once, though 64 handlers may run at once
/// and take their time.
pub async fn keys_keep_their_order_under_concurrency<H: StoreHarness>(harness: &H) {
    const KEYS: u64 = 16;
    const MESSAGES: u64 = 1_000;
    let store = fresh(harness).await;
    let seen = Seen::new();
    let running_now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (seen, by) = (seen.clone(), Arc::from("yields"));
        let (running_now, most) = (Arc::clone(&running_now), Arc::clone(&most));
        HandlerDefinition::function("yields", move |event: Placed, _: Context| {
            let (seen, by) = (seen.clone(), Arc::clone(&by));
            let (running_now, most) = (Arc::clone(&running_now), Arc::clone(&most));
            async move {
                most.fetch_max(
                    running_now.fetch_add(1, Ordering::SeqCst) + 1,
                    Ordering::SeqCst,
                );
                let seed = event.number * KEYS + event.order.len() as u64;
                Chance::new(seed).pause().await;
                seen.note(&by, event.order, event.number);
                running_now.fetch_sub(1, Ordering::SeqCst);
            }
        })
        .on("shop.order.placed")
    };
    let running = Running::start(service(&store, "g").concurrency(64).handler(handler));
    let shop = Shop::on(&store);
    let mut next = 1;
    while next <= MESSAGES {
        let numbers = next..=MESSAGES.min(next + 24);
        next = numbers.end() + 1;
        let all =
            numbers.flat_map(|number| (0..KEYS).map(move |key| placed(format!("k{key}"), number)));
        shop.publish(all.collect::<Vec<_>>()).await;
    }
    seen.wait((KEYS * MESSAGES) as usize).await;
    running.stop().await;
    let found = seen.by_order();
    assert_eq!(found.len(), KEYS as usize);
    for (key, numbers) in found {
        assert!(
            numbers.into_iter().eq(1..=MESSAGES),
            "order `{key}` must be handled in order, and each event once"
        );
    }
    let most = most.load(Ordering::SeqCst);
    assert!(
        (2..=KEYS as usize).contains(&most),
        "keys must be handled beside each other, and each one event at a time: {most} at once"
    );
}

/// A key whose handler takes its time holds back nothing but itself.
pub async fn a_slow_key_holds_back_nothing_but_itself<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let go_on = Arc::new(Semaphore::new(0));
    let handler = {
        let (seen, by, go_on) = (seen.clone(), Arc::from("waits"), Arc::clone(&go_on));
        HandlerDefinition::function("waits", move |event: Placed, _: Context| {
            let (seen, by, go_on) = (seen.clone(), Arc::clone(&by), Arc::clone(&go_on));
            async move {
                if event.order == "slow" {
                    let _permit = go_on.acquire().await;
                }
                seen.note(&by, event.order, event.number);
            }
        })
        .on("shop.order.placed")
    };
    let running = Running::start(service(&store, "g").handler(handler));
    let shop = Shop::on(&store);
    for number in 1..=20 {
        shop.publish(vec![
            placed("slow", number),
            placed("a", number),
            placed("b", number),
        ])
        .await;
    }
    seen.wait(40).await;
    assert!(seen.of("slow").is_empty(), "the slow one waits still");
    go_on.add_permits(1);
    seen.wait(60).await;
    running.stop().await;
    for key in ["slow", "a", "b"] {
        assert!(seen.of(key).into_iter().eq(1..=20), "order `{key}`");
    }
}

/// No more handlers run at once than the group may.
pub async fn no_more_handlers_run_at_once_than_may<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let running_now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let handler = |name: &str| {
        let (seen, by) = (seen.clone(), Arc::from(name));
        let (running_now, most) = (Arc::clone(&running_now), Arc::clone(&most));
        HandlerDefinition::function(name, move |event: Placed, context: Context| {
            let (seen, by) = (seen.clone(), Arc::clone(&by));
            let (running_now, most) = (Arc::clone(&running_now), Arc::clone(&most));
            async move {
                most.fetch_max(
                    running_now.fetch_add(1, Ordering::SeqCst) + 1,
                    Ordering::SeqCst,
                );
                Chance::new(event.number).pause().await;
                running_now.fetch_sub(1, Ordering::SeqCst);
                if event.number.is_multiple_of(5) && context.attempt() == 1 {
                    return Err("the first attempt is too early");
                }
                seen.note(&by, event.order, event.number);
                Ok(())
            }
        })
        .on("shop.order.placed")
    };
    let builder = service(&store, "g").concurrency(3);
    let running = Running::start(builder.handler(handler("one")).handler(handler("two")));
    let all: Vec<_> = (1..=200)
        .map(|number| placed(format!("k{}", number % 50), number))
        .collect();
    Shop::on(&store).publish(all).await;
    seen.wait(400).await;
    running.stop().await;
    assert_eq!(seen.count(), 400);
    assert_eq!(
        most.load(Ordering::SeqCst),
        3,
        "as many as may, and no more"
    );
}

/// A rate limit holds events back while a group without one gets them all, and loses none of them.
pub async fn a_rate_limit_loses_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (seen, witnessed) = (Seen::new(), Seen::new());
    let limited = |per_second: u32| {
        let limit = RateLimit {
            per_second: per_second.try_into().unwrap(),
            burst: 5.try_into().unwrap(),
        };
        let builder = service(&store, "g").rate_limit(limit);
        Running::start(builder.handler(notes("note", &seen)))
    };
    let slow = limited(1);
    let witness = Running::start(service(&store, "witness").handler(notes("note", &witnessed)));
    let all: Vec<_> = (1..=50)
        .flat_map(|number| [placed("a", number), placed("b", number)])
        .collect();
    Shop::on(&store).publish(all).await;
    witnessed.wait(100).await;
    witness.stop().await;
    seen.wait(5).await;
    slow.stop().await;
    let held_back = 100 - seen.count();
    assert!(held_back > 50, "only {held_back} were held back");
    let faster = limited(400);
    seen.wait(100).await;
    faster.stop().await;
    for key in ["a", "b"] {
        assert!(seen.of(key).into_iter().eq(1..=50), "order `{key}`");
    }
}

/// A circuit breaker that opens again and again loses no event, and keeps the order of keys.
pub async fn a_circuit_breaker_loses_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (seen, by, calls) = (seen.clone(), Arc::from("flaky"), Arc::clone(&calls));
        HandlerDefinition::function("flaky", move |event: Placed, _: Context| {
            let fails = calls.fetch_add(1, Ordering::SeqCst) < 20;
            if !fails {
                seen.note(&by, event.order, event.number);
            }
            async move { if fails { Err("not yet") } else { Ok(()) } }
        })
        .on("shop.order.placed")
        .retry(quick(1_000))
    };
    let breaker = CircuitBreaker {
        failure_ratio: 0.5,
        attempts: 4,
        open_for: Duration::from_millis(5),
    };
    let builder = service(&store, "g").circuit_breaker(breaker);
    let running = Running::start(builder.handler(handler));
    let all: Vec<_> = (1..=50)
        .flat_map(|number| [placed("a", number), placed("b", number)])
        .collect();
    Shop::on(&store).publish(all).await;
    seen.wait(100).await;
    running.stop().await;
    assert_eq!(calls.load(Ordering::SeqCst), 120);
    for key in ["a", "b"] {
        assert!(seen.of(key).into_iter().eq(1..=50), "order `{key}`");
    }
}
