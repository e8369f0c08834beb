//! What is parked: which events become dead letters, what waits behind them, and what becomes of
//! them when somebody redrives or discards them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Semaphore, watch};

use super::orders::{Invoiced, Placed, Visited, billing, orders, placed, shop};
use super::steps::{
    CloneBackend, Running, Seen, Shop, all_events, build, committed, dead_letters, dead_letters_of,
    dead_letters_once, notes, progress, quick, service,
};
use crate::codec::Codec;
use crate::handler::{Context, HandlerDefinition};
use crate::recorded::Position;
use crate::store::{
    Chosen, DeadLetter, DeadLetterId, DeadLetterReason, InspectedDeadLetter, Limits,
};
use crate::testing::store_contract::StoreHarness;
use crate::testing::store_contract::steps::{Chance, fresh};

/// Fails as long as it is not mended, on the events that `is_bad` says, and notes the others.
fn broken(
    name: &str,
    seen: &Seen,
    mended: &watch::Sender<bool>,
    is_bad: impl Fn(&Placed) -> bool + Send + Sync + 'static,
) -> HandlerDefinition {
    let (seen, by, mended) = (seen.clone(), Arc::from(name), mended.subscribe());
    HandlerDefinition::function(name, move |event: Placed, _: Context| {
        let fails = !*mended.borrow() && is_bad(&event);
        if !fails {
            seen.note(&by, event.order, event.number);
        }
        async move {
            if fails {
                Err("the supplier does not answer")
            } else {
                Ok(())
            }
        }
    })
    .on("shop.order.placed")
    .retry(quick(2))
}

fn numbers(letters: &[DeadLetter]) -> Vec<(DeadLetterReason, Position)> {
    letters
        .iter()
        .map(|letter| (letter.reason, letter.position))
        .collect()
}

async fn redrive<S: CloneBackend>(store: &S, group: &str, chosen: Chosen) -> usize {
    let redriven = store
        .redrive_dead_letters(group, &shop().into(), &chosen)
        .await;
    match redriven {
        Ok(count) => count,
        Err(error) => panic!("{chosen:?} must be redriven: {error}"),
    }
}

async fn discard<S: CloneBackend>(store: &S, group: &str, chosen: Chosen) -> usize {
    let discarded = store
        .discard_dead_letters(group, &shop().into(), &chosen)
        .await;
    match discarded {
        Ok(count) => count,
        Err(error) => panic!("{chosen:?} must be discarded: {error}"),
    }
}

async fn inspect<S: CloneBackend>(
    store: &S,
    group: &str,
    id: &DeadLetterId,
) -> InspectedDeadLetter {
    let found = store
        .inspect_dead_letter(group, &shop().into(), id)
        .await
        .expect("a dead letter must be readable");
    found.expect("a dead letter that is listed must be there")
}

#[derive(Debug)]
struct Cause;

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the line is dead")
    }
}

impl Error for Cause {}

#[derive(Debug)]
struct NoAnswer(u32, Cause);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer at attempt {}", self.0)
    }
}

impl Error for NoAnswer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.1)
    }
}

/// After the last attempt an event is a dead letter, which tells everything: what went wrong and
/// what that came from, how often and when, and the entry byte by byte.
pub async fn after_the_last_attempt_an_event_is_a_dead_letter<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let handler = HandlerDefinition::function("fails", |_: Placed, context: Context| async move {
        Err::<(), _>(NoAnswer(context.attempt(), Cause))
    })
    .on("shop.order.placed")
    .retry(quick(4));
    // Times are kept to the microsecond.
    let now = || Codec::default().clock().now();
    let slack = TimeDelta::milliseconds(1);
    let before: DateTime<Utc> = now() - slack;
    let running = Running::start(service(&store, "g").handler(handler));
    let published = Shop::on(&store).publish(placed("a", 1)).await;
    let letters = dead_letters_of(&store, "g", 1).await;
    running.stop().await;
    let after = now() + slack;

    let (event, letter) = (&published[0], &letters[0]);
    assert_eq!(letter.position, event.position());
    assert_eq!(letter.handler, "fails");
    assert_eq!(letter.key.as_deref(), Some("a"));
    assert_eq!(letter.event_type.as_deref(), Some("shop.order.placed"));
    assert_eq!(letter.event_id, Some(event.metadata().event_id));
    assert_eq!(letter.reason, DeadLetterReason::Exhausted);
    assert_eq!(letter.attempts, 4);
    assert!(!letter.redrive);
    let texts = ["no answer at attempt 4", "the line is dead"];
    let of = |text: &str| {
        letter
            .errors
            .iter()
            .rposition(|error| error.ends_with(text))
    };
    assert!(
        of(texts[0]).is_some() && of(texts[0]) < of(texts[1]),
        "it must tell what went wrong last, and below it what that came from: {:?}",
        letter.errors
    );
    assert!(before <= letter.first_failed_at, "{letter:?}");
    assert!(letter.first_failed_at < letter.last_failed_at, "{letter:?}");
    assert!(letter.last_failed_at <= after, "{letter:?}");

    let inspected = inspect(&store, "g", &letter.id()).await;
    assert_eq!(&inspected.letter, letter);
    let raw = |name: &str| {
        let field = inspected
            .raw
            .iter()
            .find(|(field, _)| field == name.as_bytes());
        field.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    assert_eq!(raw("type").as_deref(), Some("shop.order.placed"));
    assert_eq!(raw("payload").as_deref(), Some(event.payload()));
    assert!(
        raw("metadata").is_some_and(|json| json.contains(&event.metadata().event_id.to_string()))
    );
}

/// Later events of the key follow a dead letter, in order and without being tried; other keys flow,
/// and so do other handlers of the key; and events without a key wait for nothing.
pub async fn later_events_of_the_key_follow_and_others_flow<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let visits = {
        let (seen, by) = (seen.clone(), Arc::from("visits"));
        HandlerDefinition::function("visits", move |event: Visited, _: Context| {
            let fails = event.number == 0;
            if !fails {
                seen.note(&by, "visits", event.number);
            }
            async move { if fails { Err("no") } else { Ok(()) } }
        })
        .on("shop.visited")
    };
    let builder = service(&store, "g")
        .handler(broken("broken", &seen, &mended, |event| {
            event.order == "bad" && event.number == 3
        }))
        .handler(notes("other", &seen))
        .handler(visits);
    let running = Running::start(builder);
    let shop = Shop::on(&store);
    shop.publish(Visited { number: 0 }).await;
    let mut bad = Vec::new();
    for number in 1..=10 {
        bad.extend(shop.publish(placed("bad", number)).await);
        shop.publish((placed("good", number), Visited { number }))
            .await;
    }
    let mut letters = dead_letters_of(&store, "g", 9).await;
    seen.wait(2 + 10 + 20 + 10).await;
    running.stop().await;
    let visit = letters.remove(0);
    assert_eq!((visit.handler.as_str(), visit.key), ("visits", None));
    let mut expected = vec![(DeadLetterReason::Exhausted, bad[2].position())];
    expected.extend(
        bad[3..]
            .iter()
            .map(|event| (DeadLetterReason::Follows, event.position())),
    );
    assert_eq!(numbers(&letters), expected);
    assert!(letters[1..].iter().all(|letter| letter.attempts == 0));
    assert!(
        letters
            .iter()
            .all(|letter| letter.handler == "broken" && letter.key.as_deref() == Some("bad"))
    );
    assert_eq!(seen.count(), 42);
    for (by, order) in [("broken", "good"), ("other", "bad"), ("other", "good")] {
        let calls = seen.all();
        let of = calls
            .iter()
            .filter(|call| &*call.by == by && call.order == order)
            .map(|call| call.number);
        assert!(of.eq(1..=10), "`{order}` in handler `{by}`");
    }
    assert!(seen.by("visits").into_iter().eq(1..=10));
}

/// Dead letters hold their key back in the next owner, too.
pub async fn the_next_owner_knows_what_is_parked<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let builder = || {
        let handler = broken("broken", &seen, &mended, |event| event.order == "bad");
        service(&store, "g").handler(handler)
    };
    let shop = Shop::on(&store);
    let running = Running::start(builder());
    shop.publish(placed("bad", 1)).await;
    dead_letters_of(&store, "g", 1).await;
    running.stop().await;
    mended.send_replace(true);
    shop.publish(vec![placed("bad", 2), placed("good", 1)])
        .await;
    let running = Running::start(builder());
    let letters = dead_letters_of(&store, "g", 2).await;
    seen.wait(1).await;
    assert_eq!(letters[1].reason, DeadLetterReason::Follows);
    redrive(&store, "g", Chosen::All).await;
    seen.wait(3).await;
    dead_letters_of(&store, "g", 0).await;
    running.stop().await;
    assert_eq!(seen.of("bad"), [1, 2]);
}

/// A redrive handles the dead letters of a key in order, each once, and then the key flows again.
pub async fn a_redrive_keeps_the_order<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let handler = broken("broken", &seen, &mended, |_| true);
    let running = Running::start(service(&store, "g").handler(handler));
    let shop = Shop::on(&store);
    for number in 1..=20 {
        shop.publish(vec![placed("a", number), placed("b", number)])
            .await;
    }
    dead_letters_of(&store, "g", 40).await;
    mended.send_replace(true);
    assert_eq!(redrive(&store, "g", Chosen::Key("a".into())).await, 20);
    seen.wait(20).await;
    let left = dead_letters_of(&store, "g", 20).await;
    assert!(left.iter().all(|letter| letter.key.as_deref() == Some("b")));
    assert_eq!(redrive(&store, "g", Chosen::All).await, 20);
    seen.wait(40).await;
    dead_letters_of(&store, "g", 0).await;
    shop.publish(vec![placed("a", 21), placed("b", 21)]).await;
    seen.wait(42).await;
    running.stop().await;
    for key in ["a", "b"] {
        assert!(seen.of(key).into_iter().eq(1..=21), "order `{key}`");
    }
}

/// A redrive that nobody was there to see is carried out by the next owner.
pub async fn a_redrive_waits_for_an_owner<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let service = build(service(&store, "g").handler(broken("broken", &seen, &mended, |_| true)));
    let running = Running::of(&service);
    let shop = Shop::on(&store);
    shop.publish(orders("a", 1..=5)).await;
    dead_letters_of(&store, "g", 5).await;
    running.stop().await;
    mended.send_replace(true);
    assert_eq!(redrive(&store, "g", Chosen::All).await, 5);
    shop.publish(orders("a", 6..=8)).await;
    let running = Running::of(&service);
    seen.wait(8).await;
    dead_letters_of(&store, "g", 0).await;
    running.stop().await;
    assert!(seen.of("a").into_iter().eq(1..=8));
}

/// A redrive that fails again leaves the whole key parked, with its attempts counted on; those of
/// the key that were behind it are not tried.
pub async fn a_redrive_that_fails_again_parks_the_key_again<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let handler = broken("broken", &seen, &mended, |event| event.number == 1);
    let running = Running::start(service(&store, "g").handler(handler));
    let shop = Shop::on(&store);
    shop.publish(orders("a", 1..=5)).await;
    let first = dead_letters_of(&store, "g", 5).await;
    assert_eq!(redrive(&store, "g", Chosen::All).await, 5);
    let again = dead_letters_once(&store, "g", "the redrive has failed", |letters| {
        letters[0].attempts > first[0].attempts && letters.iter().all(|letter| !letter.redrive)
    })
    .await;
    assert_eq!(numbers(&again), numbers(&first));
    assert_eq!(again[0].attempts, 4);
    assert_eq!(again[0].first_failed_at, first[0].first_failed_at);
    assert!(again[0].last_failed_at > first[0].last_failed_at);
    assert_eq!(
        seen.count(),
        0,
        "nothing overtakes the first: {:?}",
        seen.all()
    );
    shop.publish(placed("a", 6)).await;
    dead_letters_of(&store, "g", 6).await;
    mended.send_replace(true);
    assert_eq!(redrive(&store, "g", Chosen::All).await, 6);
    seen.wait(6).await;
    dead_letters_of(&store, "g", 0).await;
    running.stop().await;
    assert!(seen.of("a").into_iter().eq(1..=6));
}

/// However redrives and arrivals of one key meet, every event of it is handled once and in order.
pub async fn redrives_beside_arrivals_keep_the_order<H: StoreHarness>(harness: &H) {
    let rounds = 100 / H::LOAD_DIVISOR as u64;
    let store = fresh(harness).await;
    let seen = Seen::new();
    // Fails at the first attempt of the first event of each round.
    let handler = {
        let (seen, by) = (seen.clone(), Arc::from("flaky"));
        let failed = Arc::new(AtomicU32::new(0));
        HandlerDefinition::function("flaky", move |event: Placed, _: Context| {
            let (seen, by, failed) = (seen.clone(), Arc::clone(&by), Arc::clone(&failed));
            async move {
                Chance::new(event.number).pause().await;
                let round = (event.number / 10) as u32 + 1;
                if event.number % 10 == 1 && failed.fetch_max(round, Ordering::SeqCst) < round {
                    return Err("the first of a round fails once");
                }
                seen.note(&by, event.order, event.number);
                Ok(())
            }
        })
        .on("shop.order.placed")
        .retry(quick(1))
    };
    let running = Running::start(service(&store, "g").handler(handler));
    let mut chance = Chance::new(6);
    for round in 0..rounds {
        let first = round * 10;
        let shop = Shop::on(&store);
        shop.publish(orders("a", first..first + 2)).await;
        dead_letters_once(&store, "g", "the event is parked", |letters| {
            !letters.is_empty()
        })
        .await;
        let mut pause = Chance::new(round);
        let arrivals = tokio::spawn(async move {
            for number in first + 2..first + 10 {
                shop.publish(placed("a", number)).await;
                pause.pause().await;
            }
        });
        chance.pause().await;
        // Once: what arrives before the owner has heard of it is handled behind it.
        redrive(&store, "g", Chosen::Key("a".into())).await;
        seen.wait(first as usize + 10).await;
        arrivals.await.unwrap();
        dead_letters_of(&store, "g", 0).await;
    }
    running.stop().await;
    assert!(
        seen.of("a").into_iter().eq(0..rounds * 10),
        "in order, and each once: {:?}",
        seen.of("a")
    );
}

/// What a handler emits for a redriven event is stored once, with the event no dead letter any
/// more.
pub async fn a_redriven_event_emits_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (mended, broken) = watch::channel(false);
    let handler = HandlerDefinition::function("emits", move |event: Placed, _: Context| {
        let fails = !*broken.borrow();
        async move {
            if fails {
                return Err("not yet");
            }
            Ok(Invoiced {
                order: event.order,
                number: event.number,
            })
        }
    })
    .on("shop.order.placed")
    .emits("billing.invoiced")
    .retry(quick(1));
    let service = build(service(&store, "g").instance("one").handler(handler));
    let running = Running::of(&service);
    Shop::on(&store).publish(orders("a", 1..=20)).await;
    dead_letters_of(&store, "g", 20).await;
    mended.send_replace(true);
    redrive(&store, "g", Chosen::All).await;
    dead_letters_once(&store, "g", "some are handled", |letters| {
        letters.len() < 20
    })
    .await;
    running.vanish().await;
    let running = Running::of(&service);
    dead_letters_of(&store, "g", 0).await;
    running.stop().await;
    let invoiced: Vec<_> = all_events(&store, &billing())
        .await
        .iter()
        .map(|event| event.decode::<Invoiced>().unwrap().number)
        .collect();
    assert!(invoiced.into_iter().eq(1..=20));
}

/// A redriven event whose emits the store refuses stays a dead letter, until they are accepted.
pub async fn a_redriven_event_whose_emits_are_refused_stays<H: StoreHarness>(harness: &H) {
    let store = harness
        .store(Limits {
            payload_bytes: 200,
            ..Limits::default()
        })
        .await;
    // How many bytes are emitted: none at all is a failure.
    let (bytes, emitted) = watch::channel(0);
    let handler = HandlerDefinition::function("emits", move |event: Placed, _: Context| {
        let bytes = *emitted.borrow();
        async move {
            match bytes {
                0 => Err("not yet"),
                _ => Ok(Invoiced {
                    order: "x".repeat(bytes),
                    number: event.number,
                }),
            }
        }
    })
    .on("shop.order.placed")
    .emits("billing.invoiced")
    .retry(quick(2));
    let running = Running::start(service(&store, "g").handler(handler));
    let shop = Shop::on(&store);
    shop.publish(orders("a", 1..=3)).await;
    let first = dead_letters_of(&store, "g", 3).await;
    bytes.send_replace(200);
    redrive(&store, "g", Chosen::All).await;
    let again = dead_letters_once(&store, "g", "the redrive has failed", |letters| {
        letters.is_empty() || letters.iter().all(|letter| !letter.redrive)
    })
    .await;
    assert_eq!(numbers(&again), numbers(&first));
    assert_eq!(again[0].attempts, 4);
    let last = shop.publish(placed("b", 1)).await;
    dead_letters_of(&store, "g", 4).await;
    committed(&store, "g", last[0].position()).await;
    bytes.send_replace(1);
    redrive(&store, "g", Chosen::All).await;
    dead_letters_of(&store, "g", 0).await;
    running.stop().await;
    let invoiced: Vec<_> = all_events(&store, &billing())
        .await
        .iter()
        .map(|event| event.decode::<Invoiced>().unwrap())
        .collect();
    assert!(invoiced.iter().all(|invoiced| invoiced.order == "x"));
    let mut of: Vec<_> = invoiced.iter().map(|invoiced| invoiced.number).collect();
    of.sort_unstable();
    assert_eq!(of, [1, 1, 2, 3]);
}

/// When the dead letters of a key are discarded, the key flows again, without them.
pub async fn a_discard_lets_the_key_flow<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let handler = broken("broken", &seen, &mended, |event| event.number == 1);
    let running = Running::start(service(&store, "g").handler(handler));
    let shop = Shop::on(&store);
    shop.publish(orders("a", 1..=3)).await;
    shop.publish(orders("b", 1..=3)).await;
    let letters = dead_letters_of(&store, "g", 6).await;
    // One alone leaves those behind it, which can be redriven now.
    assert_eq!(discard(&store, "g", Chosen::One(letters[0].id())).await, 1);
    assert_eq!(redrive(&store, "g", Chosen::Key("a".into())).await, 2);
    seen.wait(2).await;
    assert_eq!(discard(&store, "g", Chosen::Key("b".into())).await, 3);
    dead_letters_of(&store, "g", 0).await;
    shop.publish(placed("b", 4)).await;
    seen.wait(3).await;
    dead_letters_of(&store, "g", 0).await;
    running.stop().await;
    assert_eq!(seen.of("a"), [2, 3]);
    assert_eq!(seen.of("b"), [4]);
}

/// When the first dead letter of a key is discarded, those behind it stay, whether their owner has parked
/// them itself, has read them again since, or is the next one; redriven, they are handled in order.
pub async fn a_discard_of_one_leaves_those_behind_it<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop = Shop::on(&store);
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let handler = || {
        let is_bad = |event: &Placed| event.number == 1 || event.order == "other";
        broken("broken", &seen, &mended, is_bad)
    };
    let run = || Running::start(service(&store, "g").handler(handler()));
    for owner in ["itself", "reloaded", "next"] {
        let first = run();
        shop.publish(orders(owner, 1..=3)).await;
        let letters = dead_letters_of(&store, "g", 3).await;
        if owner == "reloaded" {
            // What was handled in vain once more has been read again before.
            shop.publish(placed("other", 1)).await;
            let other = dead_letters_of(&store, "g", 4).await.pop().unwrap();
            redrive(&store, "g", Chosen::One(other.id())).await;
            let is_tried = |letter: &DeadLetter| letter.id() == other.id() && letter.attempts > 2;
            dead_letters_once(&store, "g", "it is tried again", |letters| {
                letters.iter().any(is_tried)
            })
            .await;
            assert_eq!(discard(&store, "g", Chosen::One(other.id())).await, 1);
        }
        let one = Chosen::One(letters[0].id());
        let running = match owner {
            "next" => {
                first.stop().await;
                assert_eq!(discard(&store, "g", one).await, 1);
                run()
            }
            _ => {
                assert_eq!(discard(&store, "g", one).await, 1);
                first
            }
        };
        shop.publish(placed(owner, 4)).await;
        dead_letters_of(&store, "g", 3).await;
        assert!(seen.of(owner).is_empty(), "the owner: {owner}");
        assert_eq!(redrive(&store, "g", Chosen::Key(owner.into())).await, 3);
        dead_letters_of(&store, "g", 0).await;
        running.stop().await;
        assert_eq!(seen.of(owner), [2, 3, 4], "the owner: {owner}");
    }
}

/// While dead letters of a key are discarded, events of that key arrive: what was no dead letter at that
/// moment is handled, in order, though the owner may have parked some of it before it heard.
pub async fn discards_beside_arrivals_leave_nothing_parked<H: StoreHarness>(harness: &H) {
    const OF_ROUND: u64 = 12;
    let rounds = 60 / H::LOAD_DIVISOR as u64;
    let store = fresh(harness).await;
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let handler = broken("broken", &seen, &mended, |event| event.number == 1);
    let running = Running::start(service(&store, "g").handler(handler));
    let mut chance = Chance::new(7);
    for round in 0..rounds {
        let order = format!("o{round}");
        let shop = Shop::on(&store);
        shop.publish(orders(&order, 1..=2)).await;
        dead_letters_once(&store, "g", "the event is parked", |letters| {
            !letters.is_empty()
        })
        .await;
        let mut pause = Chance::new(round);
        let arriving = order.clone();
        let arrivals = tokio::spawn(async move {
            for number in 3..=OF_ROUND {
                shop.publish(placed(&arriving, number)).await;
                pause.pause().await;
            }
        });
        chance.pause().await;
        let discarded = discard(&store, "g", Chosen::Key(order.clone())).await as u64;
        arrivals.await.unwrap();
        seen.wait_until("the rest is handled", |calls| {
            let of_round = calls.iter().filter(|call| call.order == order);
            of_round.count() as u64 == OF_ROUND - discarded
        })
        .await;
        let rest = discarded + 1..=OF_ROUND;
        assert!(
            seen.of(&order).into_iter().eq(rest),
            "{:?}",
            seen.of(&order)
        );
        dead_letters_of(&store, "g", 0).await;
    }
    running.stop().await;
}

/// An entry that is no event is a dead letter of no handler, with its raw bytes; what lies around
/// it flows, and redriving it leaves it a dead letter.
pub async fn an_undecodable_entry_is_a_dead_letter<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let running = Running::start(service(&store, "g").handler(notes("note", &seen)));
    let shop_itself = Shop::on(&store);
    shop_itself.publish(placed("a", 1)).await;
    let fields = [("type", "order.placed"), ("payload", "{no \u{0}JSON ü")];
    let position = harness.append_foreign(&store, &shop(), &fields).await;
    shop_itself.publish(placed("a", 2)).await;
    let letters = dead_letters_of(&store, "g", 1).await;
    seen.wait(2).await;
    let letter = &letters[0];
    assert_eq!(letter.position, position);
    assert_eq!(letter.reason, DeadLetterReason::Undecodable);
    assert_eq!(
        (
            letter.handler.as_str(),
            &letter.key,
            &letter.event_type,
            letter.event_id
        ),
        ("", &None, &None, None)
    );
    assert!(!letter.errors.is_empty(), "it must tell what is wrong");
    let inspected = inspect(&store, "g", &letter.id()).await;
    let expected = fields.map(|(name, value)| (name.into(), value.into()));
    assert_eq!(inspected.raw, expected);

    assert_eq!(redrive(&store, "g", Chosen::One(letter.id())).await, 1);
    let again = dead_letters_once(&store, "g", "the redrive has failed", |letters| {
        letters.first().is_none_or(|letter| !letter.redrive)
    })
    .await;
    assert_eq!(numbers(&again), numbers(&letters));
    shop_itself.publish(placed("a", 3)).await;
    seen.wait(3).await;
    assert_eq!(discard(&store, "g", Chosen::One(letter.id())).await, 1);
    running.stop().await;
    assert_eq!(dead_letters(&store, "g").await, []);
    assert_eq!(seen.of("a"), [1, 2, 3]);
}

/// An event whose payload does not fit what the handler takes is a dead letter at once.
pub async fn an_unreadable_payload_is_a_dead_letter<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let running = Running::start(service(&store, "g").handler(notes("note", &seen)));
    let fields = [("type", "order.placed"), ("payload", r#"{"order": 7}"#)];
    let position = harness.append_foreign(&store, &shop(), &fields).await;
    Shop::on(&store).publish(placed("a", 1)).await;
    let letters = dead_letters_of(&store, "g", 1).await;
    seen.wait(1).await;
    running.stop().await;
    assert_eq!(
        numbers(&letters),
        [(DeadLetterReason::Unreadable, position)]
    );
    assert_eq!(
        (letters[0].handler.as_str(), letters[0].attempts),
        ("note", 1)
    );
}

/// When there are as many dead letters as there may be, nothing more is read, until some are
/// discarded: then it goes on, and nothing is lost.
pub async fn a_full_store_of_dead_letters_stops_reading<H: StoreHarness>(harness: &H) {
    const LIMIT: u64 = 10;
    const MORE: u64 = 100;
    let store = fresh(harness).await;
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let witnessed = Seen::new();
    let handler = broken("broken", &seen, &mended, |event| event.order == "bad");
    let running = Running::start(
        service(&store, "g")
            .dead_letter_limit(LIMIT as usize)
            .handler(handler),
    );
    let witness = Running::start(service(&store, "witness").handler(notes("note", &witnessed)));
    let shop = Shop::on(&store);
    shop.publish(orders("bad", 1..=LIMIT)).await;
    dead_letters_of(&store, "g", LIMIT as usize).await;
    // What was on its way may still come; but not all that another group gets one after the other.
    for number in 1..=MORE {
        let published = shop.publish(placed("good", number)).await;
        committed(&store, "witness", published[0].position()).await;
    }
    let meanwhile = seen.count() as u64;
    assert!(
        meanwhile < MORE / 2,
        "a group whose dead letters are as many as they may be must read no more, and has read {meanwhile} of {MORE}"
    );
    assert_eq!(dead_letters(&store, "g").await.len() as u64, LIMIT);
    assert_eq!(discard(&store, "g", Chosen::All).await as u64, LIMIT);
    seen.wait(MORE as usize).await;
    for running in [running, witness] {
        running.stop().await;
    }
    assert!(seen.of("good").into_iter().eq(1..=MORE));
}

/// Handlers of one event that fail are dead letters each, and are redriven apart from each other.
pub async fn each_handler_has_its_own_dead_letters<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (seen, mended) = (Seen::new(), watch::Sender::new(false));
    let builder = service(&store, "g")
        .handler(broken("one", &seen, &mended, |_| true))
        .handler(broken("two", &seen, &mended, |event| event.number == 2));
    let running = Running::start(builder);
    let published = Shop::on(&store).publish(orders("a", 1..=3)).await;
    let letters = dead_letters_of(&store, "g", 5).await;
    let ids: Vec<_> = letters
        .iter()
        .map(|letter| (letter.position, letter.handler.as_str()))
        .collect();
    let [first, second, third] = [0, 1, 2].map(|index: usize| published[index].position());
    assert_eq!(
        ids,
        [
            (first, "one"),
            (second, "one"),
            (second, "two"),
            (third, "one"),
            (third, "two")
        ]
    );
    // It is finished all the same: the dead letters have it.
    committed(&store, "g", third).await;
    assert_eq!(progress(&store, "g").await.open, []);
    mended.send_replace(true);
    assert_eq!(redrive(&store, "g", Chosen::Handler("two".into())).await, 2);
    seen.wait(3).await;
    dead_letters_of(&store, "g", 3).await;
    assert_eq!(redrive(&store, "g", Chosen::Key("a".into())).await, 3);
    seen.wait(6).await;
    dead_letters_of(&store, "g", 0).await;
    running.stop().await;
    assert!(seen.by("one").into_iter().eq(1..=3));
    assert!(seen.by("two").into_iter().eq(1..=3));
}

/// A dead letter that is discarded while it is handled again is gone, however that ends.
pub async fn what_is_discarded_while_it_is_redriven_is_gone<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Seen::new();
    let (begun, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (seen, by) = (seen.clone(), Arc::from("waits"));
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        let calls = Arc::new(AtomicU32::new(0));
        HandlerDefinition::function("waits", move |event: Placed, _: Context| {
            let (seen, by, calls) = (seen.clone(), Arc::clone(&by), Arc::clone(&calls));
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            async move {
                if event.order == "bad" {
                    if calls.fetch_add(1, Ordering::SeqCst) > 0 {
                        begun.add_permits(1);
                        let _permit = go_on.acquire().await;
                    }
                    return Err("it fails each time");
                }
                seen.note(&by, event.order, event.number);
                Ok(())
            }
        })
        .on("shop.order.placed")
        .retry(quick(1))
    };
    let running = Running::start(service(&store, "g").handler(handler));
    let shop = Shop::on(&store);
    shop.publish(placed("bad", 1)).await;
    dead_letters_of(&store, "g", 1).await;
    redrive(&store, "g", Chosen::All).await;
    let permit = begun.acquire().await;
    assert!(permit.is_ok(), "the redrive has begun");
    assert_eq!(discard(&store, "g", Chosen::All).await, 1);
    go_on.add_permits(1);
    let last = shop.publish(placed("a", 1)).await;
    seen.wait(1).await;
    committed(&store, "g", last[0].position()).await;
    running.stop().await;
    assert_eq!(dead_letters(&store, "g").await, []);
}
