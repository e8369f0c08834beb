//! Services whose handlers have parallel delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use super::steps::{
    GROUP, LONG, Packed, Placed, Running, SHORT, Seen, build, consumer, eventually, fresh, group,
    notes, only, packed, packs, place, positions, service, shop, within,
};
use crate::codec::Codec;
use crate::failure::OnExhausted;
use crate::handler::{Context, Delivery, HandlerDefinition, Start};
use crate::service::ServiceError;
use crate::store::{
    Append, Chosen, DeadLetterReason, DeadLetters, EntryEmits, Finish, ParallelGroups,
};
use crate::testing::store_contract::StoreHarness;

/// A handler that waits for a place before it notes an order; `begun` counts its calls.
fn waits(begun: &Arc<AtomicUsize>, places: &Arc<Semaphore>, seen: &Seen) -> HandlerDefinition {
    let (begun, places, seen) = (begun.clone(), places.clone(), seen.clone());
    HandlerDefinition::function("pack", move |placed: Placed, _: Context| {
        let (begun, places, seen) = (begun.clone(), places.clone(), seen.clone());
        async move {
            begun.fetch_add(1, Ordering::SeqCst);
            places.acquire().await.unwrap().forget();
            seen.note("waited", placed.number);
        }
    })
    .on("shop.order.placed")
    .delivery(Delivery::Parallel)
}

/// A handler that fails for odd numbers, as long as `is_broken` is not 0.
fn fails_odd(is_broken: &Arc<AtomicU64>, seen: &Seen) -> HandlerDefinition {
    let (is_broken, seen) = (is_broken.clone(), seen.clone());
    HandlerDefinition::function("pack", move |placed: Placed, _: Context| {
        let fails = placed.number % 2 == 1 && is_broken.load(Ordering::SeqCst) > 0;
        seen.note(if fails { "failed" } else { "packed" }, placed.number);
        async move { if fails { Err("odd") } else { Ok(()) } }
    })
    .on("shop.order.placed")
    .delivery(Delivery::Parallel)
}

/// Each event is handled once, by one of three instances.
pub async fn each_event_is_handled_once_by_one_of_three_instances<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::default();
    let mut running = Vec::new();
    for instance in ["a", "b", "c"] {
        let client = harness.other_client(&store).await;
        let service = service(&client).instance(instance);
        running.push(Running::start(
            service.handler(notes("pack", instance, &seen)),
        ));
    }
    for from in (0..300).step_by(10) {
        place(&store, from..from + 10).await;
    }
    eventually("all are handled", async || seen.count() >= 300).await;
    for running in running {
        running.stop().await;
    }
    assert_eq!(seen.sorted(), (0..300).collect::<Vec<_>>());
}

/// Handlers do not wait for each other.
pub async fn handlers_do_not_wait_for_each_other<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (begun, places, seen) = (Arc::default(), Arc::new(Semaphore::new(0)), Seen::default());
    let service = service(&store)
        .handler(waits(&begun, &places, &seen))
        .handler(notes("bill", "bill", &seen));
    let running = Running::start(service);
    place(&store, 1..=10).await;
    eventually("the other is through", async || seen.by("bill").len() == 10).await;
    assert!(seen.by("waited").is_empty());
    places.add_permits(10);
    eventually("both are through", async || seen.by("waited").len() == 10).await;
    running.stop().await;
}

/// Events that an instance has taken and not handled when it vanishes, are handled by others.
pub async fn events_of_a_vanished_instance_are_handled_by_others<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (begun, places, seen) = (Arc::default(), Arc::new(Semaphore::new(0)), Seen::default());
    let vanishing = service(&harness.other_client(&store).await)
        .lease(SHORT)
        .instance("a")
        .handler(waits(&begun, &places, &seen));
    let vanishing = Running::start(vanishing);
    place(&store, 1..=5).await;
    eventually("all have begun", async || begun.load(Ordering::SeqCst) == 5).await;
    vanishing.vanish().await;
    let next = service(&store).lease(SHORT).instance("b");
    let next = Running::start(next.handler(notes("pack", "b", &seen)));
    eventually("all are handled", async || seen.count() >= 5).await;
    next.stop().await;
    assert_eq!(seen.sorted(), [1, 2, 3, 4, 5]);

    // And where it comes back under its name, it need not wait for the lease.
    let taken = consumer("pack", "c");
    let numbers = place(&store, 6..=7).await;
    let mut reader = store.parallel_reader(&taken, &[only()]).await.unwrap();
    let given = within("entries are taken", reader.take(10, LONG))
        .await
        .unwrap();
    let given = given.entries.into_iter().flat_map(|(_, entries)| entries);
    assert_eq!(positions(given), numbers);
    drop(reader);
    let again = service(&store).instance("c");
    let again = build(again.handler(notes("pack", "c", &seen)));
    again.run_until_idle().await.unwrap();
    assert_eq!(seen.by("c"), [6, 7]);
}

/// A handler that takes longer than the lease keeps its event, as long as its instance lives.
pub async fn a_slow_handler_keeps_its_event<H: StoreHarness>(harness: &H) {
    const LEASE: Duration = Duration::from_millis(1_500);
    /// It takes others for dead sooner than they look for what is idle themselves.
    const OTHERS: Duration = Duration::from_secs(1);
    let store = fresh(harness).await;
    let (begun, places, seen) = (Arc::default(), Arc::new(Semaphore::new(0)), Seen::default());
    let slow = service(&harness.other_client(&store).await)
        .lease(LEASE)
        .instance("a")
        .handler(waits(&begun, &places, &seen));
    let slow = Running::start(slow);
    place(&store, 1..=3).await;
    eventually("all have begun", async || begun.load(Ordering::SeqCst) == 3).await;
    let other = service(&store).lease(OTHERS).instance("b");
    let other = Running::start(other.handler(notes("pack", "b", &seen)));
    // The other looks for what is idle more than twice in this time.
    tokio::time::sleep(OTHERS * 3).await;
    assert_eq!(seen.count(), 0, "nothing may be claimed from who lives");
    places.add_permits(3);
    eventually("all are handled", async || seen.count() == 3).await;
    other.stop().await;
    slow.stop().await;
    assert_eq!(seen.by("waited").len(), 3);
}

/// Emits are stored once, though two have handled the event: what is stored first stays.
pub async fn emits_are_stored_once_though_two_have_handled_the_event<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let frozen = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        HandlerDefinition::function("pack", move |placed: Placed, _: Context| {
            let (begun, go_on) = (begun.clone(), go_on.clone());
            async move {
                begun.notify_one();
                go_on.notified().await;
                let number = placed.number + 100;
                Packed { number }
            }
        })
        .on("shop.order.placed")
        .emits("packing.order.packed")
        .delivery(Delivery::Parallel)
    };
    let client = harness.other_client(&store).await;
    let frozen = Running::start(service(&client).instance("a").handler(frozen));
    let all = place(&store, [1]).await;
    within("the handler is called", begun.notified()).await;

    // Another takes it for dead.
    let b = consumer("pack", "b");
    let claimed = store.claim(&b, &only(), Duration::ZERO, 10).await.unwrap();
    assert_eq!(positions(claimed), all);
    let event = Codec::default().encode(&Packed { number: 1 }).unwrap();
    let emits = EntryEmits {
        position: all[0],
        appends: vec![Append::to_feed(super::steps::packing(), vec![event])],
    };
    let finish = Finish {
        emitted: vec![emits],
        wants_places: true,
        ..Finish::default()
    };
    store.finish(&b, &only(), &finish).await.unwrap();
    go_on.notify_one();
    frozen.stop().await;
    assert_eq!(packed(&store).await, [1]);
}

/// An event whose handler fails is tried again, and then a dead letter, behind which nothing waits.
pub async fn a_failing_event_is_retried_and_parked<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (is_broken, seen) = (Arc::new(AtomicU64::new(1)), Seen::default());
    let service = build(service(&store).handler(fails_odd(&is_broken, &seen)));
    let all = place(&store, 1..=4).await;
    let error = service.run_until_idle().await.unwrap_err();
    assert!(
        matches!(&error, ServiceError::Handler(failure) if failure.attempts == 3),
        "{error}"
    );
    assert_eq!(seen.by("failed"), [1, 1, 1, 3, 3, 3]);
    assert_eq!(seen.by("packed"), [2, 4]);
    let letters = store
        .list_dead_letters(GROUP, &only(), None, 10)
        .await
        .unwrap();
    let parked: Vec<_> = letters.iter().map(|letter| letter.position).collect();
    assert_eq!(parked, [all[0], all[2]]);
    for letter in &letters {
        assert_eq!(letter.handler, "pack");
        assert_eq!(letter.reason, DeadLetterReason::Exhausted);
        assert_eq!((letter.key.as_ref(), letter.attempts), (None, 3));
    }
    assert_eq!(service.run_until_idle().await.unwrap().entries, 0);
}

/// A dead letter is redriven by the owner of its partition, in a category that nobody reads in order,
/// too.
pub async fn a_dead_letter_is_redriven<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (is_broken, seen) = (Arc::new(AtomicU64::new(1)), Seen::default());
    let running = Running::start(service(&store).handler(fails_odd(&is_broken, &seen)));
    place(&store, [1, 3]).await;
    let count = async || {
        let letters = store.list_dead_letters(GROUP, &only(), None, 10).await;
        letters.unwrap().len()
    };
    eventually("both are dead letters", async || count().await == 2).await;
    let redrive = async || {
        let redriven = store
            .redrive_dead_letters(GROUP, &only(), &Chosen::All)
            .await;
        assert_eq!(redriven.unwrap(), 2);
    };
    // In vain, at first.
    redrive().await;
    eventually("both have failed again", async || {
        let letters = store
            .list_dead_letters(GROUP, &only(), None, 10)
            .await
            .unwrap();
        seen.by("failed").len() == 12 && letters.iter().all(|letter| !letter.redrive)
    })
    .await;
    is_broken.store(0, Ordering::SeqCst);
    redrive().await;
    eventually("there are none any more", async || count().await == 0).await;
    running.stop().await;
    assert_eq!(seen.by("packed"), [1, 3]);
}

/// An event may be left out after the last attempt.
pub async fn an_exhausted_event_may_be_left_out<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (is_broken, seen) = (Arc::new(AtomicU64::new(1)), Seen::default());
    let handler = fails_odd(&is_broken, &seen).on_exhausted(OnExhausted::Skip);
    let service = build(service(&store).handler(handler));
    place(&store, 1..=2).await;
    service.run_until_idle().await.unwrap_err();
    assert_eq!(service.run_until_idle().await.unwrap().entries, 0);
    let letters = store.list_dead_letters(GROUP, &only(), None, 10).await;
    assert!(letters.unwrap().is_empty());
}

/// After the last attempt the group may stop, with the event still to be handled.
pub async fn an_exhausted_event_may_stop_the_group<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (is_broken, seen) = (Arc::new(AtomicU64::new(1)), Seen::default());
    let handler = fails_odd(&is_broken, &seen).on_exhausted(OnExhausted::Stop);
    place(&store, [1]).await;
    let builder = service(&store).instance("a").handler(handler.clone());
    let error = Running::start(builder).end().await.unwrap_err();
    assert!(matches!(error, ServiceError::Stopped(_)), "{error}");
    is_broken.store(0, Ordering::SeqCst);
    let next = build(service(&store).instance("b").handler(handler));
    next.run_until_idle().await.unwrap();
    assert_eq!(seen.by("packed"), [1]);
}

/// An emit that cannot be stored is a failure of its handler alone.
pub async fn a_refused_emit_is_a_failure<H: StoreHarness>(harness: &H) {
    let limits = crate::store::Limits {
        payload_bytes: 20,
        ..Default::default()
    };
    let store = harness.store(limits).await;
    let pack = HandlerDefinition::function("pack", |placed: Placed, _: Context| async move {
        let number = match placed.number {
            // Too long for a payload.
            2 => u64::MAX,
            number => number,
        };
        Packed { number }
    })
    .on("shop.order.placed")
    .emits("packing.order.packed")
    .delivery(Delivery::Parallel);
    let service = build(service(&store).handler(pack));
    place(&store, 1..=3).await;
    service.run_until_idle().await.unwrap_err();
    assert_eq!(packed(&store).await, [1, 3]);
    let letters = store.list_dead_letters(GROUP, &only(), None, 10).await;
    assert_eq!(letters.unwrap().len(), 1);
}

/// A stop finishes what runs, begins nothing more, and leaves the rest to others at once.
pub async fn a_stop_finishes_what_runs_and_leaves_the_rest_at_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (begun, places, seen) = (Arc::default(), Arc::new(Semaphore::new(0)), Seen::default());
    let client = harness.other_client(&store).await;
    let first = service(&client).instance("a").concurrency(2);
    let first = Running::start(first.handler(waits(&begun, &places, &seen)));
    place(&store, 1..=20).await;
    eventually("as many run as may", async || {
        begun.load(Ordering::SeqCst) == 2
    })
    .await;
    let stopped = first.ask_to_stop().await;
    places.add_permits(20);
    within("it stops", stopped).await.unwrap().unwrap();
    assert_eq!(
        seen.count(),
        2,
        "what runs must be finished, and no more begun"
    );
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    let next = build(
        service(&store)
            .instance("b")
            .handler(notes("pack", "b", &seen)),
    );
    next.run_until_idle().await.unwrap();
    assert_eq!(seen.sorted(), (1..=20).collect::<Vec<_>>());
}

/// No more handlers run at once than may.
pub async fn no_more_handlers_run_at_once_than_may<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = |name: &str| {
        let (now, most) = (now.clone(), most.clone());
        HandlerDefinition::function(name, move |_: Placed, _: Context| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                now.fetch_sub(1, Ordering::SeqCst);
            }
        })
        .on("shop.order.placed")
        .delivery(Delivery::Parallel)
    };
    let service = service(&store).concurrency(3);
    let service = build(service.handler(handler("pack")).handler(handler("bill")));
    place(&store, 1..=50).await;
    service.run_until_idle().await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

/// A dispatch waits for handlers with parallel delivery, too, and gives what they have emitted.
pub async fn dispatch_waits_for_parallel_handlers<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::default();
    let builder = || {
        service(&store)
            .handler(packs("pack"))
            .handler(notes("bill", "bill", &seen))
            .handler(notes("tell", "tell", &seen).delivery(Delivery::Ordered))
    };
    let service = build(builder());
    for number in 1..=2 {
        let done = service.dispatch(Placed { number }).await.unwrap();
        let emitted: Vec<_> = done
            .emitted
            .iter()
            .map(|event| event.event_type())
            .collect();
        assert_eq!(emitted, ["packing.order.packed"]);
        assert_eq!(seen.count() as u64, 2 * number);
    }
    // The same while it runs.
    let running = tokio::spawn({
        let service = service.clone();
        async move { service.run_until(std::future::pending()).await }
    });
    let done = within("it is handled", service.dispatch(Placed { number: 3 })).await;
    assert_eq!(done.unwrap().published.events.len(), 1);
    assert_eq!(seen.sorted(), [1, 1, 2, 2, 3, 3]);
    assert_eq!(packed(&store).await, [1, 2, 3]);
    running.abort();
}

/// Events flow between handlers that take them in order and others, until the service is idle.
pub async fn events_flow_between_ordered_and_parallel_handlers<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::default();
    let ship = {
        let seen = seen.clone();
        HandlerDefinition::function("ship", move |packed: Packed, _: Context| {
            seen.note("ship", packed.number);
            async {}
        })
        .on("packing.order.packed")
    };
    let late = notes("late", "late", &seen).start(Start::Now);
    place(&store, [1]).await;
    let service = service(&store).handler(packs("pack"));
    let service = build(service.handler(ship).handler(late));
    // What is there before the group is, is not for those that start now.
    service.run_until_idle().await.unwrap();
    place(&store, 2..=50).await;
    service.run_until_idle().await.unwrap();
    assert_eq!(seen.by("ship"), (1..=50).collect::<Vec<_>>());
    assert_eq!(seen.by("late").len(), 49);
    assert_eq!(service.run_until_idle().await.unwrap().entries, 0);
}

/// An entry that is no event is a dead letter once, and stops nobody.
pub async fn an_undecodable_entry_is_a_dead_letter_once<H: StoreHarness>(harness: &H) {
    for delivery in [Delivery::Parallel, Delivery::Ordered] {
        let store = fresh(harness).await;
        let seen = Seen::default();
        harness
            .append_foreign(&store, &shop(), &[("other", "x")])
            .await;
        place(&store, [1]).await;
        let service = service(&store)
            .handler(notes("pack", "pack", &seen))
            .handler(notes("bill", "bill", &seen))
            .handler(notes("tell", "tell", &seen).delivery(delivery));
        build(service).run_until_idle().await.unwrap();
        assert_eq!(seen.sorted(), [1, 1, 1]);
        let letters = store
            .list_dead_letters(GROUP, &only(), None, 10)
            .await
            .unwrap();
        let [letter] = &letters[..] else {
            panic!("an entry that is no event must be one dead letter: {letters:?}");
        };
        assert_eq!(letter.reason, DeadLetterReason::Undecodable);
        assert_eq!(letter.handler, "");
    }
}

/// Five thousand events go through three instances, each once, with what they lead to.
pub async fn five_thousand_events_through_three_instances<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut running = Vec::new();
    for instance in ["a", "b", "c"] {
        let client = harness.other_client(&store).await;
        let service = service(&client).instance(instance);
        running.push(Running::start(service.handler(packs("pack"))));
    }
    for from in (0..5_000).step_by(500) {
        place(&store, from..from + 500).await;
    }
    eventually("all are handled", async || {
        let range = crate::recorded::Position::START..=crate::recorded::Position::END;
        let finished = store.is_finished(&group("pack"), &only(), range).await;
        finished.unwrap()
    })
    .await;
    for running in running {
        running.stop().await;
    }
    assert_eq!(packed(&store).await, (0..5_000).collect::<Vec<_>>());
}
