//! Repetition: an append that is sent again stores nothing twice.

use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::StoreHarness;
use super::bank::{account, bank, category, deposit, deposits, event_of, event_with};
use super::steps::{
    append, append_to_feed, expect_conflict, feed, fresh, history, new_ids, recorded_ids, send,
    with_events,
};
use crate::codec::NewEvent;
use crate::metadata::Metadata;
use crate::recorded::Version;
use crate::store::{Append, AppendError, Appended, EventStore, Expected, Limits};

/// Sends an append twice more, and makes sure that it is found to be stored already.
async fn expect_found(store: &impl EventStore, append: &Append, first: &Appended) {
    for _ in 0..2 {
        let before = feed(store, append.target().category()).await;
        let again = send(store, append).await;
        for (again, first) in again.events.iter().zip(&first.events) {
            assert!(
                again.repeated,
                "an event that is sent again must be called repeated ({} expected)",
                append.expected()
            );
            assert_eq!(
                (again.version, again.position),
                (first.version, first.position),
                "an event that is sent again must lie where it lay"
            );
        }
        assert_eq!(
            feed(store, append.target().category()).await,
            before,
            "an append that is sent again must store nothing ({} expected)",
            append.expected()
        );
    }
}

/// Appends, and sends the same again: at once, and when more events have come.
async fn expect_stored_once<H: StoreHarness>(harness: &H, before: u64, expected: Expected) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), before).await;
    for events in [deposits(1), deposits(3)] {
        let at = history(&store, &account).await.len() as Version;
        let expected = match expected {
            Expected::Exact(_) => Expected::Exact(at),
            other => other,
        };
        let append = Append::to(account.clone(), expected, events);
        let first = send(&store, &append).await;
        assert!(
            first.events.iter().all(|event| !event.repeated),
            "what is sent for the first time must not be called repeated"
        );
        expect_found(&store, &append, &first).await;
        self::append(&store, &account, Expected::Any, deposits(2)).await;
        expect_found(&store, &append, &first).await;
        let stored = history(&store, &account).await;
        assert_eq!(
            stored.len() as Version,
            at + append.events().len() as Version + 2
        );
        if expected == Expected::NoStream {
            break;
        }
    }
}

/// An append with `Exact` that is sent again is accepted and stored once.
pub async fn an_exact_append_sent_again_is_stored_once<H: StoreHarness>(harness: &H) {
    expect_stored_once(harness, 0, Expected::Exact(0)).await;
    expect_stored_once(harness, 3, Expected::Exact(3)).await;
}

/// An append with `Exact` that is sent again is found at its version, however many others have been
/// appended since, and needs no memory of ids for it.
pub async fn an_exact_append_is_found_behind_newer_events<H: StoreHarness>(harness: &H) {
    let store = harness
        .store(Limits {
            remembered_ids: 1,
            ..Limits::default()
        })
        .await;
    let account = account("a");
    let mut sent = Vec::new();
    for version in [0, 2, 4, 6, 8] {
        let append = Append::to(account.clone(), Expected::Exact(version), deposits(2));
        sent.push((send(&store, &append).await, append));
    }
    append_to_feed(&store, &bank(), deposits(10)).await;
    for (first, append) in &sent {
        expect_found(&store, append, first).await;
    }
    assert_eq!(history(&store, &account).await.len(), 10);
}

/// An append with `NoStream` that is sent again is accepted and stored once.
pub async fn a_no_stream_append_sent_again_is_stored_once<H: StoreHarness>(harness: &H) {
    expect_stored_once(harness, 0, Expected::NoStream).await;
}

/// An append with `Any` that is sent again is accepted and stored once.
pub async fn an_append_to_any_version_sent_again_is_stored_once<H: StoreHarness>(harness: &H) {
    expect_stored_once(harness, 0, Expected::Any).await;
    expect_stored_once(harness, 3, Expected::Any).await;
}

/// An append with `Exists` that is sent again is accepted and stored once.
pub async fn an_append_to_an_existing_aggregate_sent_again_is_stored_once<H: StoreHarness>(
    harness: &H,
) {
    expect_stored_once(harness, 1, Expected::Exists).await;
}

/// An append without aggregate that is sent again is accepted and stored once.
pub async fn an_append_to_a_feed_sent_again_is_stored_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for events in [deposits(1), deposits(3)] {
        let append = Append::to_feed(bank(), events);
        let first = send(&store, &append).await;
        expect_found(&store, &append, &first).await;
        append_to_feed(&store, &bank(), deposits(2)).await;
        expect_found(&store, &append, &first).await;
    }
    assert_eq!(feed(&store, &bank()).await.len(), 8);
}

/// An append that ten clients send at the same time is accepted ten times and stored once.
pub async fn an_append_sent_ten_times_at_once_is_stored_once<H: StoreHarness>(harness: &H) {
    const SENDERS: usize = 10;
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 1).await;
    for append in [
        Append::to(account.clone(), Expected::Exact(1), deposits(2)),
        Append::to(account.clone(), Expected::Any, deposits(2)),
        Append::to(account.clone(), Expected::Exists, deposits(2)),
        Append::to_feed(bank(), deposits(2)),
    ] {
        let before = feed(&store, &bank()).await.len();
        let append = Arc::new(append);
        let start = Arc::new(Barrier::new(SENDERS));
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let (store, append, start) = (store.clone(), Arc::clone(&append), Arc::clone(&start));
            senders.spawn(async move {
                start.wait().await;
                send(&store, &append).await
            });
        }
        let fresh = senders
            .join_all()
            .await
            .into_iter()
            .filter(|appended| appended.events.iter().all(|event| !event.repeated))
            .count();
        assert_eq!(
            fresh, 1,
            "exactly one sender may be told that it was the first"
        );
        let stored = feed(&store, &bank()).await.split_off(before);
        assert_eq!(
            recorded_ids(&stored),
            new_ids(append.events()),
            "what is sent ten times at once must be stored once"
        );
    }
}

/// An append that one client has sent is recognised when another sends it again.
pub async fn an_append_is_recognised_by_another_client<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    for append in [
        Append::to(account("a"), Expected::NoStream, deposits(2)),
        Append::to(account("a"), Expected::Any, deposits(2)),
        Append::to_feed(bank(), deposits(2)),
    ] {
        let first = send(&store, &append).await;
        expect_found(&other, &append, &first).await;
    }
}

/// The id decides whether an event is a repetition: what was stored first stays as it is.
pub async fn what_was_stored_first_stays<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for (id, expected) in [("a", Expected::Exact(0)), ("b", Expected::Any)] {
        let first = event_with("bank.deposited", r#"{"amount":1}"#);
        let second = NewEvent::from_parts(
            "bank.deposited",
            r#"{"amount":2}"#,
            Metadata::clone(first.metadata()),
        )
        .unwrap();
        append(&store, &account(id), expected, vec![first.clone()]).await;
        append(&store, &account(id), expected, vec![second]).await;
        let stored = history(&store, &account(id)).await;
        assert_eq!(stored.len(), 1, "one id must be stored once");
        assert_eq!(stored[0].payload(), first.payload());
    }
}

/// Where some events of an append with `Any` are stored already, the others are stored now.
pub async fn a_partly_repeated_append_to_any_version_stores_the_rest<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = account("a");
    let all = deposits(4);
    let some = vec![all[1].clone(), all[2].clone()];
    let before = append(&store, &account, Expected::Any, some).await;
    let appended = append(&store, &account, Expected::Any, all.clone()).await;
    let places: Vec<_> = appended
        .events
        .iter()
        .map(|event| (event.version, event.repeated))
        .collect();
    assert_eq!(
        places,
        [(3, false), (1, true), (2, true), (4, false)],
        "what is stored already must keep its place, and the rest must follow"
    );
    assert_eq!(appended.events[1].position, before.events[0].position);
    let stored = history(&store, &account).await;
    let expected = [1, 2, 0, 3].map(|index: usize| all[index].clone());
    assert_eq!(recorded_ids(&stored), new_ids(&expected));
}

/// Where some events of an append without aggregate are stored already, the others are stored now.
pub async fn a_partly_repeated_append_to_a_feed_stores_the_rest<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let all = deposits(3);
    append_to_feed(&store, &bank(), all[..2].to_vec()).await;
    let appended = append_to_feed(&store, &bank(), all.clone()).await;
    let repeated: Vec<_> = appended.events.iter().map(|event| event.repeated).collect();
    assert_eq!(repeated, [true, true, false]);
    assert_eq!(recorded_ids(&feed(&store, &bank()).await), new_ids(&all));
}

/// Where some events of an append with `Exact` are stored at its version, and others lie behind
/// them or none, it is another append: a conflict.
pub async fn a_partly_repeated_exact_append_is_a_conflict<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = account("a");
    let stored = deposits(3);
    append(&store, &account, Expected::Exact(0), stored.clone()).await;

    let longer = [stored.clone(), deposits(1)].concat();
    let other_end = vec![stored[0].clone(), stored[1].clone(), deposit()];
    let other_order = vec![stored[1].clone(), stored[0].clone(), stored[2].clone()];
    for events in [longer, other_end, other_order] {
        let refused = Append::to(account.clone(), Expected::Exact(0), events);
        expect_conflict(&store, &refused, 3).await;
    }
}

/// An event with an id of its own at a version that is taken is a conflict, not a repetition.
pub async fn another_id_at_an_old_version_is_a_conflict<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = account("a");
    let first = deposits(2);
    append(&store, &account, Expected::NoStream, first.clone()).await;
    append(&store, &account, Expected::Exact(2), deposits(1)).await;
    for refused in [
        Append::to(account.clone(), Expected::NoStream, deposits(2)),
        Append::to(account.clone(), Expected::Exact(2), deposits(1)),
        // The right id, but at another version than its own.
        Append::to(account.clone(), Expected::Exact(2), first[1..].to_vec()),
        Append::to(account.clone(), Expected::Exact(1), first[..1].to_vec()),
    ] {
        expect_conflict(&store, &refused, 3).await;
    }
}

/// One id names one event in each category, and is stored in each.
pub async fn an_id_is_one_event_in_each_category<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let first = event_of(&category("bank"));
    let second =
        NewEvent::from_parts("shop.happened", "{}", Metadata::clone(first.metadata())).unwrap();
    append_to_feed(&store, &category("bank"), vec![first]).await;
    let appended = append_to_feed(&store, &category("shop"), vec![second]).await;
    assert!(!appended.events[0].repeated);
    assert_eq!(feed(&store, &category("shop")).await.len(), 1);
}

/// An id that another aggregate has, or an event of no aggregate, is refused: calling it stored
/// would lose the event.
pub async fn an_id_of_another_place_is_refused<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let event = deposits(1);
    let (a, b) = (account("a"), account("b"));
    append(&store, &a, Expected::Any, event.clone()).await;
    for elsewhere in [
        Append::to(b.clone(), Expected::Any, event.clone()),
        Append::to_feed(bank(), event.clone()),
        Append::to(
            b.clone(),
            Expected::Any,
            [deposits(1), event.clone()].concat(),
        ),
    ] {
        let refused = store.append(&elsewhere).await;
        assert!(
            matches!(refused, Err(AppendError::IdTaken { event_id, .. })
                if event_id == event[0].metadata().event_id),
            "{refused:?}"
        );
    }
    assert_eq!(feed(&store, &bank()).await.len(), 1);
    let alone = deposits(1);
    append_to_feed(&store, &bank(), alone.clone()).await;
    let refused = store.append(&Append::to(a, Expected::Any, alone)).await;
    assert!(
        matches!(refused, Err(AppendError::IdTaken { .. })),
        "{refused:?}"
    );
    assert_eq!(feed(&store, &bank()).await.len(), 2);
}

/// The newest ids are remembered, as many as `Limits::remembered_ids` says.
pub async fn as_many_ids_are_remembered_as_the_limit_says<H: StoreHarness>(harness: &H) {
    const REMEMBERED: usize = 10;
    let store = harness
        .store(Limits {
            remembered_ids: REMEMBERED,
            ..Limits::default()
        })
        .await;
    let mut sent = Vec::new();
    for _ in 0..3 * REMEMBERED {
        let append = Append::to_feed(bank(), deposits(1));
        sent.push((send(&store, &append).await, append));
    }
    for (first, append) in &sent[2 * REMEMBERED..] {
        expect_found(&store, append, first).await;
    }
}

/// An append that was refused has left no trace: the same events are new when they are appended as
/// they should be.
pub async fn a_refused_append_leaves_no_trace_of_its_ids<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = account("a");
    let events = deposits(2);
    for expected in [Expected::Exists, Expected::Exact(1)] {
        let refused = Append::to(account.clone(), expected, events.clone());
        expect_conflict(&store, &refused, 0).await;
    }
    let with_foreign = [events.clone(), vec![event_of(&category("shop"))]].concat();
    let refused = Append::to(account.clone(), Expected::Any, with_foreign);
    assert!(store.append(&refused).await.is_err());

    let appended = append(&store, &account, Expected::Any, events.clone()).await;
    assert!(
        appended.events.iter().all(|event| !event.repeated),
        "what was refused must not be called repeated"
    );
    assert_eq!(
        recorded_ids(&history(&store, &account).await),
        new_ids(&events)
    );
}
