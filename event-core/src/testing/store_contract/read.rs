//! Histories: bounds, order, reads beside writers.

use std::ops::ControlFlow;

use super::StoreHarness;
use super::bank::{AccountEvent, account, bank, category, deposits, event_of};
use super::steps::{
    Chance, append, append_to_feed, feed, fresh, head, history, read, read_feed, read_versions,
    version_of, with_events,
};
use crate::codec::Decoded;
use crate::recorded::{AggregateId, Position, Version};
use crate::store::{EventStore, Expected, ReadError, Versions};

async fn expect_not_found(store: &impl EventStore, aggregate: &AggregateId) {
    for versions in [
        Versions::all(),
        Versions::from(2),
        Versions::all().to(0),
        Versions::all().limit(0),
        Versions::last(1),
    ] {
        match store.read_aggregate(aggregate, &versions).await {
            Err(ReadError::NotFound { aggregate: named }) => assert_eq!(&named, aggregate),
            other => panic!(
                "{versions:?} of an unknown aggregate must be not found, and came to {other:?}"
            ),
        }
        let replayed = store
            .replay(aggregate, &versions, &mut |_| {
                panic!("an unknown aggregate has nothing to replay")
            })
            .await;
        assert!(
            matches!(replayed, Err(ReadError::NotFound { .. })),
            "a replay of an unknown aggregate must be not found, and came to {replayed:?}"
        );
    }
}

/// An aggregate that has no events is not found, whatever is asked of it: it is not an empty
/// success.
pub async fn an_unknown_aggregate_is_not_found<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    expect_not_found(&store, &account("a")).await;
}

/// An aggregate stays not found while others of its type, its id or its category have events.
pub async fn an_aggregate_is_unknown_beside_events_of_others<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    with_events(&store, account("b"), 2).await;
    with_events(&store, AggregateId::new(bank(), "loan", "a").unwrap(), 2).await;
    let elsewhere = AggregateId::new(category("shop"), "account", "a").unwrap();
    let event = event_of(&category("shop"));
    append(&store, &elsewhere, Expected::Any, vec![event]).await;
    append_to_feed(&store, &bank(), deposits(2)).await;
    expect_not_found(&store, &account("a")).await;
}

/// Reading from version n on begins with version n.
pub async fn reading_begins_at_a_version<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 5).await;
    for (from, expected) in [
        (0, vec![1, 2, 3, 4, 5]),
        (1, vec![1, 2, 3, 4, 5]),
        (3, vec![3, 4, 5]),
        (5, vec![5]),
    ] {
        let found = read_versions(&store, &account, &Versions::from(from)).await;
        assert_eq!(found, expected, "from version {from} on");
    }
}

/// Reading up to version n ends with version n, or with the newest.
pub async fn reading_ends_at_a_version<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 5).await;
    for (to, expected) in [
        (1, vec![1]),
        (3, vec![1, 2, 3]),
        (5, vec![1, 2, 3, 4, 5]),
        (6, vec![1, 2, 3, 4, 5]),
        (Version::MAX, vec![1, 2, 3, 4, 5]),
    ] {
        let found = read_versions(&store, &account, &Versions::all().to(to)).await;
        assert_eq!(found, expected, "up to version {to}");
    }
    let between = Versions::from(2).to(4);
    assert_eq!(read_versions(&store, &account, &between).await, [2, 3, 4]);
}

/// Where the lower bound is the upper, the one event there is read.
pub async fn equal_bounds_read_one_event<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 3).await;
    for version in 1..=3 {
        let one = Versions::from(version).to(version);
        assert_eq!(read_versions(&store, &account, &one).await, [version]);
        let one = one.backwards();
        assert_eq!(read_versions(&store, &account, &one).await, [version]);
    }
}

/// Where the lower bound is above the upper, nothing is read, and that is a success.
pub async fn crossed_bounds_read_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 5).await;
    for (from, to) in [(4, 3), (5, 1), (1, 0), (Version::MAX, 1)] {
        for versions in [
            Versions::from(from).to(to),
            Versions::from(from).to(to).backwards(),
        ] {
            let found = read_versions(&store, &account, &versions).await;
            assert!(found.is_empty(), "from {from} to {to}");
        }
    }
}

/// Above the newest version there is nothing to read, and that is a success.
pub async fn bounds_beyond_the_history_read_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 3).await;
    for from in [4, 5, Version::MAX] {
        for versions in [
            Versions::from(from),
            Versions::from(from).limit(1),
            Versions::from(from).backwards(),
        ] {
            let found = read_versions(&store, &account, &versions).await;
            assert!(found.is_empty(), "{versions:?} of 3");
        }
    }
}

/// A limit of 0 reads nothing, and that is a success.
pub async fn limit_0_reads_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 3).await;
    for versions in [
        Versions::all().limit(0),
        Versions::from(2).to(3).limit(0),
        Versions::last(0),
    ] {
        let found = read_versions(&store, &account, &versions).await;
        assert!(found.is_empty(), "{versions:?}");
    }
}

/// A limit bounds the number of events, counted from where reading begins.
pub async fn a_limit_bounds_the_number<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 5).await;
    for (versions, expected) in [
        (Versions::all().limit(1), vec![1]),
        (Versions::all().limit(5), vec![1, 2, 3, 4, 5]),
        (Versions::all().limit(9), vec![1, 2, 3, 4, 5]),
        (Versions::from(3).limit(2), vec![3, 4]),
        (Versions::from(3).to(3).limit(2), vec![3]),
        (Versions::from(5).limit(usize::MAX), vec![5]),
    ] {
        let found = read_versions(&store, &account, &versions).await;
        assert_eq!(found, expected, "{versions:?}");
    }
}

/// Backwards, the newest event comes first.
pub async fn backwards_is_the_newest_first<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 5).await;
    let found = read(&store, &account, &Versions::all().backwards()).await;
    let mut forwards = history(&store, &account).await;
    forwards.reverse();
    assert_eq!(found, forwards);
}

/// Backwards, bounds are the same versions, and a limit is counted from the newest of them.
pub async fn backwards_keeps_to_bounds_and_limit<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 5).await;
    for (versions, expected) in [
        (Versions::from(2).to(4).backwards(), vec![4, 3, 2]),
        (Versions::from(2).to(4).backwards().limit(2), vec![4, 3]),
        (Versions::all().to(3).backwards().limit(9), vec![3, 2, 1]),
        (Versions::from(4).backwards().limit(1), vec![5]),
        (Versions::all().to(9).backwards().limit(2), vec![5, 4]),
    ] {
        let found = read_versions(&store, &account, &versions).await;
        assert_eq!(found, expected, "{versions:?}");
    }
}

/// The last event is read alone, and so are the last few.
pub async fn last_is_the_newest_alone<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 5).await;
    for (count, expected) in [(1, vec![5]), (2, vec![5, 4]), (9, vec![5, 4, 3, 2, 1])] {
        let found = read_versions(&store, &account, &Versions::last(count)).await;
        assert_eq!(found, expected, "the last {count}");
    }
}

/// A replay hands out one event after the other, until the visitor breaks it off: then nothing more
/// comes, and that is a success.
pub async fn a_replay_ends_where_it_is_broken_off<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 5).await;
    for (versions, stop, expected) in [
        (Versions::all(), 9, vec![1, 2, 3, 4, 5]),
        (Versions::all(), 3, vec![1, 2, 3]),
        (Versions::all(), 1, vec![1]),
        (Versions::from(2), 2, vec![2, 3]),
        (Versions::all().backwards(), 2, vec![5, 4]),
    ] {
        let mut visited = Vec::new();
        store
            .replay(&account, &versions, &mut |entry| {
                let (version, event) = entry.decode::<AccountEvent>().unwrap();
                assert_eq!(entry.version().unwrap(), version);
                assert_eq!(event, Decoded::One(AccountEvent::Deposited { amount: 1 }));
                visited.push(version);
                if visited.len() == stop {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .await
            .unwrap();
        assert_eq!(visited, expected, "{versions:?}, broken off after {stop}");
    }
}

/// A read while others append sees a prefix of what is there in the end: never a hole, never less
/// than an earlier read.
pub async fn a_read_beside_writers_sees_a_prefix<H: StoreHarness>(harness: &H) {
    const APPENDS: usize = 300;
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 1).await;
    let writer = {
        let (store, account) = (store.clone(), account.clone());
        tokio::spawn(async move {
            let mut chance = Chance::new(1);
            for _ in 0..APPENDS {
                let events = deposits(1 + chance.below(5));
                append(&store, &account, Expected::Any, events).await;
                chance.pause().await;
            }
        })
    };
    let mut longest = Vec::new();
    loop {
        let finished = writer.is_finished();
        // Reading the whole makes sure of versions without holes.
        let found = history(&store, &account).await;
        assert!(
            found.starts_with(&longest),
            "a later read must see all that an earlier one has seen, unchanged"
        );
        let backwards = read(&store, &account, &Versions::all().backwards()).await;
        let versions: Vec<_> = backwards.iter().rev().map(version_of).collect();
        let without_holes: Vec<_> = (1..=versions.len() as Version).collect();
        assert_eq!(
            versions, without_holes,
            "a read backwards must have no hole"
        );
        assert!(versions.len() >= found.len());
        longest = found;
        if finished {
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert_eq!(history(&store, &account).await, longest);
}

/// Who has seen an event in the feed finds it in the history of its aggregate, and the other way
/// round.
pub async fn what_the_feed_shows_the_history_has<H: StoreHarness>(harness: &H) {
    const APPENDS: usize = 200;
    let store = fresh(harness).await;
    let account = with_events(&store, account("a"), 1).await;
    let writer = {
        let (store, account) = (store.clone(), account.clone());
        tokio::spawn(async move {
            let mut chance = Chance::new(2);
            for _ in 0..APPENDS {
                append(&store, &account, Expected::Any, deposits(2)).await;
                chance.pause().await;
            }
        })
    };
    let mut after = Position::START;
    loop {
        let finished = writer.is_finished();
        let entries = read_feed(&store, &bank(), after, usize::MAX).await;
        if let Some(last) = super::steps::events(entries).pop() {
            after = last.position();
            let found = read(
                &store,
                &account,
                &Versions::from(version_of(&last)).limit(1),
            )
            .await;
            assert_eq!(found, [last], "what the feed shows must be in the history");
        }
        let newest = read(&store, &account, &Versions::last(1)).await.remove(0);
        assert!(
            head(&store, &bank()).await >= newest.position(),
            "what the history shows must be in the feed"
        );
        if finished {
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert_eq!(feed(&store, &bank()).await, history(&store, &account).await);
}
