//! Replays: chosen handlers are given the past once more, and the group knows nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::orders::{Invoiced, Placed, billing, placed, shop};
use super::steps::{Seen, Shop, all_events, build, dead_letters, notes, progress, service};
use crate::handler::{Context, HandlerDefinition, Start};
use crate::partition::Partition;
use crate::positions::Positions;
use crate::recorded::{Position, RecordedEvent};
use crate::replay::{Replay, ReplayError};
use crate::store::{Groups, Progress};
use crate::subscription::RateLimit;
use crate::testing::store_contract::StoreHarness;
use crate::testing::store_contract::bank::category;
use crate::testing::store_contract::steps::{fresh, within};

/// So many orders of five keys.
async fn place(shop: &Shop, count: u64) {
    let orders = (0..count).map(|number| placed(format!("o{}", number % 5), number));
    shop.publish(orders.collect::<Vec<_>>()).await;
}

/// Emits an invoice for each order, and notes in a replay that it is one.
fn invoices(seen: &Seen) -> HandlerDefinition {
    let seen = seen.clone();
    let by: Arc<str> = "invoices".into();
    HandlerDefinition::function("invoices", move |event: Placed, context: Context| {
        if context.is_replay() {
            seen.note(&by, event.order.clone(), event.number);
        }
        async move {
            Invoiced {
                order: event.order,
                number: event.number,
            }
        }
    })
    .on("shop.order.placed")
    .emits("billing.invoiced")
}

/// A replay gives a handler all events of the past, those of each key in order, from all partitions, and
/// touches neither progress nor dead letters; what is emitted is not stored again.
pub async fn a_replay_gives_the_past_and_touches_nothing<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&shop(), 4).await;
    let count = 2_000 / H::LOAD_DIVISOR as u64;
    place(&Shop::on(&store), count).await;
    let (live, again) = (Seen::new(), Seen::new());
    let service = build(
        service(&store, "g")
            .handler(notes("left-out", &live))
            .handler(invoices(&again).allow_replay()),
    );
    service.run_until_idle().await.unwrap();
    let invoices = all_events(&store, &billing()).await;
    assert_eq!(invoices.len() as u64, count);
    let mut before = Vec::new();
    for number in 0..4 {
        let partition = Partition::new(shop(), number);
        before.push((partition.clone(), progress_of(&store, &partition).await));
    }

    let report = within("a replay ends", service.replay(Replay::all())).await;
    let report = report.unwrap();
    assert_eq!((report.read, report.dropped), (count, count));
    assert_eq!(report.handled["invoices"], count);
    assert_eq!(report.left_out, ["left-out"]);
    assert!(!report.is_stopped && report.failures.is_empty());
    assert_eq!(live.count() as u64, count, "it does not allow a replay");
    assert_eq!(again.count() as u64, count);
    for numbers in again.by_order().values() {
        assert!(numbers.is_sorted(), "a key must be in order: {numbers:?}");
    }
    assert_eq!(all_events(&store, &billing()).await, invoices);
    for (partition, progress) in before {
        assert_eq!(progress_of(&store, &partition).await, progress);
    }
}

async fn progress_of(store: &impl Groups, partition: &Partition) -> Progress {
    store.open("g", partition, Start::Beginning).await.unwrap()
}

/// A replay gives only what lies between its positions and matches what is wanted, and one that is asked
/// for a handler by name calls that alone.
pub async fn a_replay_gives_what_is_wanted<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    let mut positions = Vec::new();
    for number in 0..10 {
        let events = shop.publish(placed("a", number)).await;
        positions.push(events[0].position());
    }
    let (one, other) = (Seen::new(), Seen::new());
    let service = build(
        service(&store, "g")
            .handler(notes("one", &one).allow_replay())
            .handler(notes("other", &other).allow_replay()),
    );
    let within = Positions::after(positions[1]).to(positions[7]);
    let replay = Replay::of(["one"])
        .positions(within)
        .matching("shop.order.*".parse().unwrap())
        .filter(|event| !event.payload().contains("\"number\":4"));
    let report = service.replay(replay).await.unwrap();
    assert_eq!(one.by("one"), [2, 3, 5, 6, 7]);
    assert_eq!(
        (report.read, report.handled.len(), other.count()),
        (6, 1, 0)
    );
    let nothing = Replay::all().matching("shop.visited".parse().unwrap());
    assert_eq!(service.replay(nothing).await.unwrap().handled["one"], 0);
}

/// A handler that is not there, or that does not allow it, refuses the replay before anything is handled.
pub async fn a_replay_that_is_not_allowed_is_refused<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    place(&Shop::on(&store), 3).await;
    let seen = Seen::new();
    let allowing = build(
        service(&store, "g")
            .handler(notes("allows", &seen).allow_replay())
            .handler(notes("refuses", &seen)),
    );
    let refused = allowing.replay(Replay::of(["allows", "refuses"])).await;
    assert!(
        matches!(&refused, Err(ReplayError::NotAllowed { handler }) if handler == "refuses"),
        "{refused:?}"
    );
    let refused = allowing.replay(Replay::of(["unknown"])).await;
    assert!(
        matches!(&refused, Err(ReplayError::UnknownHandler { there_are, .. })
            if there_are == &["allows", "refuses"]),
        "{refused:?}"
    );
    let none = build(service(&store, "h").handler(notes("refuses", &seen)));
    let refused = none.replay(Replay::all()).await;
    assert!(matches!(refused, Err(ReplayError::NoneAllows { .. })));
    assert_eq!(seen.count(), 0);
}

/// What fails is tried again as the handler's policy says; where it fails for good, later events of the key
/// are held back, and nothing is a dead letter.
pub async fn a_replay_tells_what_has_failed<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let orders: Vec<_> = (0..9)
        .map(|n| placed(["a", "b", "c"][n as usize % 3], n))
        .collect();
    let events = Shop::on(&store).publish(orders).await;
    let seen = Seen::new();
    let by: Arc<str> = "picky".into();
    let noted = seen.clone();
    let attempts = AtomicU32::new(0);
    let picky = HandlerDefinition::function("picky", move |event: Placed, _: Context| {
        // The first of `a` fails once, and the second of `b` for ever.
        let fails = match event.number {
            0 => attempts.fetch_add(1, Ordering::SeqCst) == 0,
            4 => true,
            _ => false,
        };
        if !fails {
            noted.note(&by, event.order, event.number);
        }
        async move {
            if fails {
                Err("it does not want to")
            } else {
                Ok(())
            }
        }
    })
    .on("shop.order.placed")
    .allow_replay();
    let service = build(service(&store, "g").handler(picky));
    let report = service.replay(Replay::all()).await.unwrap();
    assert_eq!(seen.of("a"), [0, 3, 6]);
    assert_eq!(seen.of("b"), [1]);
    assert_eq!(seen.of("c"), [2, 5, 8]);
    assert_eq!((report.failed, report.held_back), (1, 1));
    let [failure] = &report.failures[..] else {
        panic!("{report:?}");
    };
    assert_eq!(failure.position, events[4].position());
    assert_eq!(
        (failure.failure.attempts, &*failure.failure.handler),
        (3, "picky")
    );
    assert!(dead_letters(&store, "g").await.is_empty());
    assert_eq!(progress(&store, "g").await.reached, Position::START);
}

/// A replay that is stopped begins nothing more, and goes on from its report.
pub async fn a_stopped_replay_goes_on_from_its_report<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let orders: Vec<_> = (0..40).map(|number| placed("a", number)).collect();
    Shop::on(&store).publish(orders).await;
    let seen = Seen::new();
    let service = build(service(&store, "g").handler(notes("notes", &seen).allow_replay()));
    let limit = RateLimit {
        per_second: 50.try_into().unwrap(),
        burst: 1.try_into().unwrap(),
    };
    let replay = Replay::all().rate_limit(limit);
    let report = service.replay_until(replay, seen.wait(5)).await.unwrap();
    assert!(report.is_stopped && seen.count() < 40, "{report:?}");
    assert_eq!(report.read, seen.count() as u64);
    let rest = service
        .replay(Replay::all().going_on(&report))
        .await
        .unwrap();
    assert_eq!(report.read + rest.read, 40);
    assert!(!rest.is_stopped);
    assert_eq!(seen.of("a"), (0..40).collect::<Vec<_>>());
}

/// What is no event is passed over, and counted; a category without events is no error.
pub async fn a_replay_passes_over_what_is_no_event<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop_itself = Shop::on(&store);
    shop_itself.publish(placed("a", 1)).await;
    let fields = [("type", "no event"), ("payload", "{}")];
    harness.append_foreign(&store, &shop(), &fields).await;
    shop_itself.publish(placed("a", 2)).await;
    let seen = Seen::new();
    let others = HandlerDefinition::function("others", |_: RecordedEvent, _: Context| async {});
    let service = build(
        service(&store, "g")
            .handler(notes("notes", &seen).allow_replay())
            .handler(others.on("empty.noted").allow_replay()),
    );
    let report = service.replay(Replay::all()).await.unwrap();
    assert_eq!((report.read, report.undecodable), (3, 1));
    assert_eq!(seen.of("a"), [1, 2]);
    assert_eq!(report.reached[&category("empty").into()], Position::START);
}
