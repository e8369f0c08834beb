//! Appends: expected versions, aggregates apart, all or nothing, writers that race.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::StoreHarness;
use super::bank::{account, bank, category, deposit, deposits, event_of};
use super::steps::{
    append, append_to_feed, expect_conflict, feed, fresh, head, history, new_ids, read, read_feed,
    recorded_ids, version_of, with_events,
};
use crate::recorded::{AggregateId, Position, Version};
use crate::store::{Append, AppendError, EventStore, Expected, Versions};

/// `Any` is accepted, whether the aggregate has 0, 1 or 3 events.
pub async fn any_is_accepted_at_0_1_and_3_events<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for count in [0, 1, 3] {
        let account = with_events(&store, account(&format!("with-{count}")), count).await;
        let appended = append(&store, &account, Expected::Any, vec![deposit()]).await;
        assert_eq!(
            appended.version(),
            count + 1,
            "an append to {count} events must make one more"
        );
    }
}

/// `Any` is accepted as often as it is sent, each time with other events.
pub async fn any_is_accepted_three_times<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = account("a");
    for version in 1..=3 {
        let appended = append(&store, &account, Expected::Any, vec![deposit()]).await;
        assert_eq!(
            appended.version(),
            version,
            "each append must make one more"
        );
    }
    assert_eq!(history(&store, &account).await.len(), 3);
}

/// `NoStream` is accepted on a missing aggregate, and a conflict on an existing one.
pub async fn no_stream_is_accepted_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = account("a");
    append(&store, &account, Expected::NoStream, vec![deposit()]).await;
    let again = Append::to(account.clone(), Expected::NoStream, vec![deposit()]);
    expect_conflict(&store, &again, 1).await;
    with_events(&store, super::bank::account("b"), 3).await;
    let third = Append::to(
        super::bank::account("b"),
        Expected::NoStream,
        vec![deposit()],
    );
    expect_conflict(&store, &third, 3).await;
}

/// `Exists` is a conflict on a missing aggregate, and accepted on an existing one.
pub async fn exists_is_refused_on_a_missing_aggregate<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = account("a");
    let append_existing = Append::to(account.clone(), Expected::Exists, vec![deposit()]);
    expect_conflict(&store, &append_existing, 0).await;
    for count in [1, 3] {
        let account = with_events(
            &store,
            super::bank::account(&format!("with-{count}")),
            count,
        )
        .await;
        let appended = append(&store, &account, Expected::Exists, vec![deposit()]).await;
        assert_eq!(appended.version(), count + 1);
    }
}

/// `Exact` with a version above 0 is a conflict on a missing aggregate.
pub async fn exact_is_refused_on_a_missing_aggregate<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for version in [1, 2, Version::MAX] {
        let refused = Append::to(account("a"), Expected::Exact(version), vec![deposit()]);
        expect_conflict(&store, &refused, 0).await;
    }
}

/// `Exact(0)` is accepted on a missing aggregate, as `NoStream` is.
pub async fn exact_0_is_accepted_on_a_missing_aggregate<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let appended = append(&store, &account("a"), Expected::Exact(0), vec![deposit()]).await;
    assert_eq!(appended.version(), 1);
}

/// After 3 events `Exact(0)`, `Exact(1)`, `Exact(2)` and `Exact(4)` are conflicts, and `Exact(3)` is
/// accepted.
pub async fn after_3_events_only_exact_3_is_accepted<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 3).await;
    for version in [0, 1, 2, 4] {
        let refused = Append::to(account.clone(), Expected::Exact(version), vec![deposit()]);
        expect_conflict(&store, &refused, 3).await;
    }
    let appended = append(&store, &account, Expected::Exact(3), vec![deposit()]).await;
    assert_eq!(appended.version(), 4);
}

/// An append says of each event the version and the position at which it is read afterwards.
pub async fn an_append_says_where_its_events_lie<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = account("a");
    for expected in [
        Expected::NoStream,
        Expected::Exact(3),
        Expected::Exists,
        Expected::Any,
    ] {
        let before = history(&store, &account).await.len();
        let appended = append(&store, &account, expected, deposits(3)).await;
        let stored = read(&store, &account, &Versions::from(before as Version + 1)).await;
        assert_eq!(stored.len(), 3);
        for (place, event) in appended.events.iter().zip(&stored) {
            assert_eq!(place.version, version_of(event), "with {expected} expected");
            assert_eq!(place.position, event.position(), "with {expected} expected");
            assert!(
                !place.repeated,
                "an event that is new must not be called repeated"
            );
        }
    }
    let in_feed = feed(&store, &bank()).await;
    assert_eq!(in_feed, history(&store, &account).await);
}

/// Two aggregates of two types do not see each other, though they have the same id.
pub async fn one_id_under_two_types_is_two_aggregates<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let of_type =
        |aggregate_type: &'static str| AggregateId::new(bank(), aggregate_type, "same").unwrap();
    let types = ["account", "account_", "accounts", "loan"];
    for (aggregate_type, count) in types.into_iter().zip(1..) {
        with_events(&store, of_type(aggregate_type), count).await;
    }
    for (aggregate_type, count) in types.into_iter().zip(1..) {
        let events = history(&store, &of_type(aggregate_type)).await;
        assert_eq!(events.len(), count, "events of `{aggregate_type}` alone");
        for event in &events {
            let aggregate = event.aggregate().unwrap();
            assert_eq!(aggregate.aggregate_type, aggregate_type);
            assert_eq!(aggregate.id, "same");
        }
    }
}

/// Two aggregates of two categories do not see each other, though they have the same type and id.
pub async fn one_id_in_two_categories_is_two_aggregates<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let names = ["bank", "bank2", "shop"];
    for name in names {
        let aggregate = AggregateId::new(category(name), "account", "same").unwrap();
        let event = event_of(&category(name));
        append(&store, &aggregate, Expected::NoStream, vec![event.clone()]).await;
        let events = history(&store, &aggregate).await;
        assert_eq!(
            recorded_ids(&events),
            new_ids(&[event]),
            "events of `{name}` alone"
        );
    }
    for name in names {
        assert_eq!(feed(&store, &category(name)).await.len(), 1);
    }
}

/// An id is any text, and ids that differ in anything are of two aggregates.
pub async fn an_id_may_be_any_text<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let longest = "x".repeat(512);
    let ids = [
        "a",
        "A",
        "b",
        "ab",
        "a:b",
        "a:b:",
        ":a:b",
        "account:a",
        "{a}",
        "{a",
        "a}",
        "{}",
        "*",
        "a*",
        "?",
        "[a]",
        "[ab]",
        "\\a",
        "\\",
        "\"",
        "'",
        "a b",
        " a",
        "a ",
        "a\nb",
        "a\r\nb",
        "a\tb",
        "\u{0}",
        "a\u{0}b",
        "%s",
        "0",
        "1",
        "-1",
        "null",
        "ä",
        "a\u{308}",
        "日本語",
        "🦀",
        "\u{2028}",
        "\u{feff}a",
        "octo/hello",
        "..",
        &longest,
    ];
    for (id, count) in ids.iter().zip(0..) {
        // Different numbers of events, so that histories that run together show.
        with_events(&store, account(id), 1 + count % 3).await;
    }
    let mut in_feed = feed(&store, &bank()).await;
    for (id, count) in ids.iter().zip(0..) {
        let events = history(&store, &account(id)).await;
        assert_eq!(
            events.len(),
            1 + count % 3,
            "the id {id:?} must have its own events"
        );
        let (own, others) = in_feed
            .into_iter()
            .partition(|event| event.aggregate().is_some_and(|found| found.id == **id));
        in_feed = others;
        assert_eq!(events, own, "history and feed must agree on the id {id:?}");
    }
    assert_eq!(
        in_feed,
        [],
        "every entry of the feed must be of one of the ids"
    );
}

/// Events that are appended to a feed lie there without aggregate, and in no history.
pub async fn events_of_a_feed_belong_to_no_aggregate<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 1).await;
    let appended = append_to_feed(&store, &bank(), deposits(2)).await;
    assert_eq!(
        appended.version(),
        0,
        "without aggregate there is no version"
    );
    let in_feed = feed(&store, &bank()).await;
    assert_eq!(in_feed.len(), 3);
    for event in &in_feed[1..] {
        assert_eq!(event.aggregate(), None);
    }
    assert_eq!(history(&store, &account).await, in_feed[..1]);
}

/// Ten events of one append are read back in batches of two, by version and by position.
pub async fn ten_events_of_one_append_are_read_two_by_two<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = account("a");
    let new = deposits(10);
    append(&store, &account, Expected::NoStream, new.clone()).await;

    let mut by_version = Vec::new();
    let mut by_position = Vec::new();
    let mut after = Position::START;
    for batch in 0..5 {
        let versions = Versions::from(2 * batch + 1).limit(2);
        by_version.extend(read(&store, &account, &versions).await);
        let entries = read_feed(&store, &bank(), after, 2).await;
        assert_eq!(entries.len(), 2, "a batch in the middle must be full");
        after = entries[1].position();
        by_position.extend(super::steps::events(entries));
    }
    assert_eq!(recorded_ids(&by_version), new_ids(&new));
    assert_eq!(recorded_ids(&by_position), new_ids(&new));
}

/// The events of one append are stored all together or not at all, and nobody sees a part of them.
pub async fn an_append_of_several_is_all_or_nothing<H: StoreHarness>(harness: &H) {
    const APPENDS: usize = 100;
    const EVENTS: usize = 5;

    let store = fresh(harness).await;
    let account = account("a");
    append(&store, &account, Expected::NoStream, deposits(EVENTS)).await;
    let refused = Append::to(account.clone(), Expected::Exact(1), deposits(EVENTS));
    expect_conflict(&store, &refused, EVENTS as Version).await;

    let writer = {
        let (store, account) = (store.clone(), account.clone());
        tokio::spawn(async move {
            for _ in 1..APPENDS {
                append(&store, &account, Expected::Any, deposits(EVENTS)).await;
                tokio::task::yield_now().await;
            }
        })
    };
    loop {
        let finished = writer.is_finished();
        let in_history = history(&store, &account).await.len();
        let in_feed = feed(&store, &bank()).await.len();
        assert_eq!(
            in_history % EVENTS,
            0,
            "a history must show all of an append or nothing"
        );
        assert_eq!(
            in_feed % EVENTS,
            0,
            "a feed must show all of an append or nothing"
        );
        if finished {
            assert_eq!((in_history, in_feed), (APPENDS * EVENTS, APPENDS * EVENTS));
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

/// Of ten writers that expect the same version at the same time, exactly one is accepted, and the
/// others are told of the conflict.
pub async fn of_ten_writers_at_one_version_one_wins<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 1).await;
    for version in (1..=20).step_by(2) {
        race(harness, &store, &account, Expected::Exact(version)).await;
    }
}

/// Of ten writers that each want to make the same new aggregate, exactly one is accepted.
pub async fn of_ten_writers_of_a_new_aggregate_one_wins<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for id in ["a", "b", "c", "d", "e"] {
        race(harness, &store, &account(id), Expected::NoStream).await;
    }
}

/// Ten writers, each with an append of two events.
async fn race<H: StoreHarness>(
    harness: &H,
    store: &H::Store,
    account: &AggregateId,
    expected: Expected,
) {
    const WRITERS: usize = 10;
    let other = harness.other_client(store).await;
    let before = history(store, account).await.len();
    let start = Arc::new(Barrier::new(WRITERS));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = if writer % 2 == 0 { store } else { &other }.clone();
        let append = Append::to(account.clone(), expected, deposits(2));
        let start = Arc::clone(&start);
        writers.spawn(async move {
            start.wait().await;
            (store.append(&append).await, append)
        });
    }
    let mut winners = Vec::new();
    for (outcome, append) in writers.join_all().await {
        match outcome {
            Ok(_) => winners.push(append),
            Err(AppendError::Conflict { actual, .. }) => assert_eq!(
                actual,
                before as Version + 2,
                "a loser must be told the version after the winner"
            ),
            Err(error) => panic!("a writer must win or be in conflict: {error}"),
        }
    }
    assert_eq!(winners.len(), 1, "exactly one writer must win");
    let stored = history(store, account).await.split_off(before);
    assert_eq!(
        recorded_ids(&stored),
        new_ids(winners[0].events()),
        "what is stored must be what the winner sent"
    );
}

/// Writers that expect no version at all are all accepted, and every event is stored once.
pub async fn writers_at_any_version_lose_nothing<H: StoreHarness>(harness: &H) {
    const WRITERS: usize = 10;
    const APPENDS: usize = 20;
    let store = fresh(harness).await;
    let account = account("a");
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (store, account) = (store.clone(), account.clone());
        writers.spawn(async move {
            let mut places = Vec::new();
            for _ in 0..APPENDS {
                places.extend(
                    append(&store, &account, Expected::Any, vec![deposit()])
                        .await
                        .events,
                );
            }
            places
        });
    }
    let places = writers.join_all().await.concat();
    let versions: HashSet<_> = places.iter().map(|place| place.version).collect();
    assert_eq!(
        versions.len(),
        WRITERS * APPENDS,
        "no two events may get one version"
    );
    let stored = history(&store, &account).await;
    assert_eq!(stored.len(), WRITERS * APPENDS);
    for place in places {
        let event = stored
            .iter()
            .find(|event| event.position() == place.position)
            .expect("every event must lie where the append said");
        assert_eq!(version_of(event), place.version);
    }
}

/// Appends of 1000 events each, sent at the same time to one aggregate, lie one after the other in
/// its history.
pub async fn appends_of_1000_events_do_not_interleave<H: StoreHarness>(harness: &H) {
    const EVENTS: usize = 1_000;
    let store = fresh(harness).await;
    let account = account("a");
    let start = Arc::new(Barrier::new(4));
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let (store, account, start) = (store.clone(), account.clone(), Arc::clone(&start));
        writers.spawn(async move {
            let events = deposits(EVENTS);
            let ids = new_ids(&events);
            start.wait().await;
            let appended = append(&store, &account, Expected::Any, events).await;
            (appended.version(), ids)
        });
    }
    let mut batches = writers.join_all().await;
    batches.sort_unstable();
    let expected: Vec<_> = batches.into_iter().flat_map(|(_, ids)| ids).collect();
    let stored = history(&store, &account).await;
    assert!(
        recorded_ids(&stored) == expected,
        "the events of one append must lie together, in their order"
    );
    assert!(
        feed(&store, &bank()).await == stored,
        "the feed must have the order of the history"
    );
}

/// Another client of the same store reads what one has appended, and goes on where it stopped.
pub async fn another_client_goes_on_where_one_stopped<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 2).await;
    let other = harness.other_client(&store).await;
    assert_eq!(
        history(&other, &account).await,
        history(&store, &account).await
    );
    let appended = append(&other, &account, Expected::Exact(2), vec![deposit()]).await;
    assert_eq!(history(&store, &account).await.len(), 3);
    assert_eq!(head(&store, &bank()).await, appended.position());
}
