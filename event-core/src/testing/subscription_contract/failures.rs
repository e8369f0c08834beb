//! Failures: handlers that fail, panic or never return.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::orders::{Invoiced, Placed, billing, orders, placed};
use super::steps::{
    Running, Seen, Shop, all_events, build, committed, dead_letters, dead_letters_of, notes, quick,
    service,
};
use crate::failure::{ErrorClass, Failure, OnExhausted};
use crate::handler::{Context, HandlerDefinition, HandlerError};
use crate::service::ServiceError;
use crate::store::{DeadLetterReason, Limits};
use crate::testing::store_contract::StoreHarness;
use crate::testing::store_contract::steps::fresh;

/// Fails the attempts that `fails` says, and notes the others.
fn flaky(
    name: &str,
    seen: &Seen,
    fails: impl Fn(&Placed, u32) -> Option<ErrorClass> + Send + Sync + 'static,
) -> HandlerDefinition {
    let (seen, by) = (seen.clone(), Arc::from(name));
    HandlerDefinition::function(name, move |event: Placed, context: Context| {
        let failure = fails(&event, context.attempt());
        if failure.is_none() {
            seen.note(&by, event.order, event.number);
        }
        async move {
            match failure {
                Some(class) => Err(Failure::new(class, "this one fails")),
                None => Ok(()),
            }
        }
    })
    .on("shop.order.placed")
}

/// An event whose handler fails is tried again and keeps its place in its key, and the other keys
/// flow meanwhile.
pub async fn a_failing_event_is_retried_and_other_keys_flow<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let broken = mended.subscribe();
    let handler = flaky("flaky", &seen, move |event, _| {
        (event.order == "bad" && !*broken.borrow()).then_some(ErrorClass::Retry)
    });
    let running = Running::start(service(&store, "g").handler(handler.retry(quick(u32::MAX))));
    let shop = Shop::on(&store);
    for number in 1..=20 {
        shop.publish(vec![
            placed("bad", number),
            placed("a", number),
            placed("b", number),
        ])
        .await;
    }
    seen.wait(40).await;
    assert!(seen.of("bad").is_empty());
    mended.send_replace(true);
    seen.wait(60).await;
    running.stop().await;
    for key in ["bad", "a", "b"] {
        assert!(seen.of(key).into_iter().eq(1..=20), "order `{key}`");
    }
    assert_eq!(dead_letters(&store, "g").await, []);
}

/// After 100 failures in a row all events arrive, once and in order.
pub async fn after_100_failures_in_a_row_all_arrive<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let handler = flaky("flaky", &seen, |event, attempt| {
        (event.number == 3 && attempt <= 100).then_some(ErrorClass::Retry)
    });
    let running = Running::start(service(&store, "g").handler(handler.retry(quick(1_000))));
    Shop::on(&store).publish(orders("a", 1..=10)).await;
    seen.wait(10).await;
    running.stop().await;
    assert!(seen.of("a").into_iter().eq(1..=10));
}

/// A handler that panics has failed: it is called again, and the service goes on.
pub async fn a_panic_is_a_failed_attempt<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let handler = {
        let (seen, by) = (seen.clone(), Arc::from("panics"));
        HandlerDefinition::function("panics", move |event: Placed, context: Context| {
            // On the handler's first step, and on a later one.
            assert!(
                !(event.number == 2 && context.attempt() == 1),
                "on purpose, at once"
            );
            let (seen, by) = (seen.clone(), Arc::clone(&by));
            async move {
                tokio::task::yield_now().await;
                assert!(
                    !(event.number == 3 && context.attempt() == 1),
                    "on purpose, after a wait"
                );
                assert!(event.order != "bad", "always");
                seen.note(&by, event.order, event.number);
            }
        })
        .on("shop.order.placed")
    };
    let running = Running::start(service(&store, "g").handler(handler));
    let shop = Shop::on(&store);
    shop.publish(placed("bad", 1)).await;
    shop.publish(orders("a", 1..=5)).await;
    seen.wait(5).await;
    let letters = dead_letters_of(&store, "g", 1).await;
    running.stop().await;
    assert!(seen.of("a").into_iter().eq(1..=5));
    assert_eq!(letters[0].reason, DeadLetterReason::Panicked);
    assert_eq!(letters[0].attempts, 3);
    let errors = letters[0].errors.join("\n");
    assert!(
        errors.contains("always"),
        "it tells what was said: {errors}"
    );
}

/// A handler that never returns is broken off as often as it may fail; then the event is a dead
/// letter, and the others flow.
pub async fn a_handler_that_never_returns_times_out<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (seen, calls) = (Seen::new(), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (seen, by, calls) = (seen.clone(), Arc::from("hangs"), Arc::clone(&calls));
        HandlerDefinition::function("hangs", move |event: Placed, _: Context| {
            let (seen, by, calls) = (seen.clone(), Arc::clone(&by), Arc::clone(&calls));
            async move {
                if event.order == "bad" {
                    calls.fetch_add(1, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                }
                seen.note(&by, event.order, event.number);
            }
        })
        .on("shop.order.placed")
        .timeout(Duration::from_millis(50))
        .retry(quick(2))
    };
    let running = Running::start(service(&store, "g").handler(handler));
    let shop = Shop::on(&store);
    shop.publish(placed("bad", 1)).await;
    shop.publish(orders("a", 1..=5)).await;
    let letters = dead_letters_of(&store, "g", 1).await;
    seen.wait(5).await;
    running.stop().await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(letters[0].reason, DeadLetterReason::TimedOut);
    assert_eq!(letters[0].attempts, 2);
    assert!(seen.of("a").into_iter().eq(1..=5));
}

/// Of the handlers of one event only the one that failed is called again.
pub async fn only_the_handler_that_failed_is_called_again<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let flaky = flaky("flaky", &seen, |event, attempt| {
        (event.number % 2 == 0 && attempt <= 2).then_some(ErrorClass::Retry)
    });
    let builder = service(&store, "g")
        .handler(notes("before", &seen))
        .handler(flaky)
        .handler(notes("later", &seen));
    let running = Running::start(builder);
    Shop::on(&store).publish(orders("a", 1..=10)).await;
    seen.wait(30).await;
    running.stop().await;
    assert_eq!(seen.count(), 30);
    for by in ["before", "flaky", "later"] {
        assert!(seen.by(by).into_iter().eq(1..=10), "handler `{by}`");
    }
}

/// What is emitted and cannot be stored is a failed attempt of its handler, and stores nothing;
/// what others emitted meanwhile is stored, and the key waits.
pub async fn an_emit_that_is_refused_is_a_failed_attempt<H: StoreHarness>(harness: &H) {
    let store = harness
        .store(Limits {
            payload_bytes: 200,
            ..Limits::default()
        })
        .await;
    let seen = Seen::new();
    let handler = {
        let (seen, by) = (seen.clone(), Arc::from("emits"));
        HandlerDefinition::function("emits", move |event: Placed, context: Context| {
            seen.note(&by, event.order.as_str(), event.number);
            let is_large = event.order == "a"
                && (event.number == 4 || (event.number == 2 && context.attempt() == 1));
            let invoice = |order| Invoiced {
                order,
                number: event.number,
            };
            let large = is_large.then(|| invoice("x".repeat(200)));
            let invoices = (invoice(event.order), large);
            async move { invoices }
        })
        .on("shop.order.placed")
        .emits("billing.invoiced")
    };
    let running = Running::start(service(&store, "g").handler(handler));
    let all: Vec<_> = (1..=6)
        .flat_map(|number| [placed("a", number), placed("b", number)])
        .collect();
    let published = Shop::on(&store).publish(all).await;
    let letters = dead_letters_of(&store, "g", 3).await;
    committed(&store, "g", published[11].position()).await;
    running.stop().await;
    let told: Vec<_> = letters
        .iter()
        .map(|letter| (letter.position, letter.reason, letter.attempts))
        .collect();
    let of_a = |number: usize| published[2 * (number - 1)].position();
    assert_eq!(
        told,
        [
            (of_a(4), DeadLetterReason::Exhausted, 3),
            (of_a(5), DeadLetterReason::Follows, 0),
            (of_a(6), DeadLetterReason::Follows, 0),
        ]
    );
    assert_eq!(seen.of("a"), [1, 2, 2, 3, 4, 4, 4]);
    assert!(seen.of("b").into_iter().eq(1..=6));
    let mut invoiced: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in all_events(&store, &billing()).await {
        let Invoiced { order, number } = event.decode().unwrap();
        invoiced.entry(order).or_default().push(number);
    }
    assert_eq!(invoiced.remove("a"), Some(vec![1, 2, 3]));
    assert_eq!(invoiced.remove("b"), Some((1..=6).collect()));
    assert!(invoiced.is_empty(), "nothing too large is stored");
}

/// Where a handler's policy says so, an event is left out after the last attempt: it is no dead
/// letter, and its key goes on.
pub async fn an_exhausted_event_may_be_left_out<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let handler = flaky("flaky", &seen, |event, _| {
        (event.number == 2).then_some(ErrorClass::Retry)
    });
    let handler = handler.on_exhausted(OnExhausted::Skip);
    let running = Running::start(service(&store, "g").handler(handler));
    let published = Shop::on(&store).publish(orders("a", 1..=4)).await;
    committed(&store, "g", published[3].position()).await;
    running.stop().await;
    assert_eq!(seen.of("a"), [1, 3, 4]);
    assert_eq!(dead_letters(&store, "g").await, []);
}

/// Where a handler's policy says so, the group stops after the last attempt; the event is handled
/// again by the next run, and nothing of its key before it.
pub async fn an_exhausted_event_may_stop_the_group<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let (mended, broken) = watch::channel(false);
    let handler = flaky("flaky", &seen, move |event, _| {
        (event.order == "a" && event.number == 3 && !*broken.borrow()).then_some(ErrorClass::Retry)
    });
    let handler = handler.on_exhausted(OnExhausted::Stop);
    stops_and_goes_on(&store, &seen, handler, &mended, 3).await;
}

/// An error that is fatal stops the group at its first attempt; the event is handled again by the
/// next run.
pub async fn a_fatal_error_stops_the_group<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let (mended, broken) = watch::channel(false);
    let handler = flaky("flaky", &seen, move |event, _| {
        (event.order == "a" && event.number == 3 && !*broken.borrow()).then_some(ErrorClass::Fatal)
    });
    stops_and_goes_on(&store, &seen, handler, &mended, 1).await;
}

/// The group stops at the third event of `a`, and goes on there when it is mended.
async fn stops_and_goes_on<S: super::steps::CloneBackend>(
    store: &S,
    seen: &Seen,
    handler: HandlerDefinition,
    mended: &watch::Sender<bool>,
    attempts: u32,
) {
    let shop = Shop::on(store);
    shop.publish(orders("a", 1..=5)).await;
    let service = build(service(store, "g").handler(handler));
    match Running::of(&service).end().await {
        Err(ServiceError::Stopped(failure)) => {
            assert_eq!(failure.handler, "flaky");
            assert_eq!(failure.attempts, attempts);
            assert!(matches!(failure.source, HandlerError::Failed(_)));
        }
        other => panic!("the group must stop, and it came to {other:?}"),
    }
    assert_eq!(seen.of("a"), [1, 2], "nothing overtakes it");
    assert_eq!(dead_letters(store, "g").await, []);
    // As often as it is started.
    assert!(Running::of(&service).end().await.is_err());
    assert_eq!(seen.of("a"), [1, 2]);
    mended.send_replace(true);
    shop.publish(orders("a", 6..=7)).await;
    let running = Running::of(&service);
    seen.wait(7).await;
    running.stop().await;
    assert!(seen.of("a").into_iter().eq(1..=7));
}

/// An error that rejects the event makes it a dead letter at the first attempt.
pub async fn a_rejected_event_is_a_dead_letter_at_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let handler = flaky("flaky", &seen, |event, _| {
        (event.order == "bad").then_some(ErrorClass::Reject)
    });
    let running = Running::start(service(&store, "g").handler(handler));
    let shop = Shop::on(&store);
    shop.publish(placed("bad", 1)).await;
    shop.publish(orders("a", 1..=3)).await;
    let letters = dead_letters_of(&store, "g", 1).await;
    seen.wait(3).await;
    running.stop().await;
    assert_eq!(letters[0].reason, DeadLetterReason::Rejected);
    assert_eq!(letters[0].attempts, 1);
}

/// An error that says when to try again is not tried again sooner, while other keys flow; and whoever owns
/// the partition next tries it at once.
pub async fn what_is_to_wait_is_not_tried_sooner<H: StoreHarness>(harness: &H) {
    const NEVER: Duration = Duration::from_secs(24 * 3_600);
    const SOON: Duration = Duration::from_millis(20);
    let store = fresh(harness).await;
    let (seen, tried) = (Seen::new(), Seen::new());
    let handler = || {
        let tried = tried.clone();
        flaky("flaky", &seen, move |event, attempt| {
            tried.note(&Arc::from("flaky"), &*event.order, event.number);
            let is_first = attempt == 1 && tried.of(&event.order).len() == 1;
            let later = match event.order.as_str() {
                "never" => NEVER,
                "soon" => SOON,
                _ => return None,
            };
            is_first.then_some(ErrorClass::RetryAfter(later))
        })
    };
    let running = Running::start(service(&store, "g").handler(handler()));
    let shop = Shop::on(&store);
    let waiting = [placed("never", 1), placed("never", 2), placed("soon", 1)];
    shop.publish(waiting.to_vec()).await;
    seen.wait_until("it is tried again", |calls| {
        calls.iter().any(|call| call.order == "soon")
    })
    .await;
    // Without that error it would have been tried as often as it may by now.
    for number in 1..=20 {
        shop.publish(placed("a", number)).await;
        seen.wait_until("another key flows", |calls| {
            calls
                .iter()
                .any(|call| call.order == "a" && call.number == number)
        })
        .await;
    }
    assert_eq!(tried.of("soon"), [1, 1]);
    assert_eq!(tried.of("never"), [1]);
    running.stop().await;
    assert_eq!(tried.of("never"), [1]);
    let running = Running::start(service(&store, "g").handler(handler()));
    seen.wait(23).await;
    running.stop().await;
    assert_eq!(seen.of("never"), [1, 2]);
    assert!(seen.of("a").into_iter().eq(1..=20));
}
