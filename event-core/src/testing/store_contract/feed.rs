//! Feeds: order, positions, bounds.

use tokio::task::JoinSet;

use super::StoreHarness;
use super::bank::{account, bank, category, deposit, deposits, event_of};
use super::steps::{
    Chance, append, append_to_feed, assert_ordered, events, feed, fresh, head, history, new_ids,
    read_feed, recorded_ids, version_of, with_events,
};
use crate::event::Category;
use crate::recorded::Position;
use crate::store::{EventStore, Expected, FeedEntry};

/// The feed of a category that nothing was appended to is empty, and its head is the start.
pub async fn an_unknown_feed_is_empty<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    with_events(&store, account("a"), 2).await;
    let unknown = category("shop");
    assert_eq!(feed(&store, &unknown).await, []);
    assert_eq!(head(&store, &unknown).await, Position::START);
    let after = Position::new(1_763_900_000_000, 3);
    assert_eq!(events(read_feed(&store, &unknown, after, 10).await), []);
}

/// A feed has the order in which appends were accepted, and within one append its own.
pub async fn a_feed_has_the_order_of_appends<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut sent = Vec::new();
    for round in 0..10 {
        let new = deposits(1 + round % 3);
        sent.extend(new_ids(&new));
        if round % 2 == 0 {
            append(
                &store,
                &account(&format!("{}", round % 4)),
                Expected::Any,
                new,
            )
            .await;
        } else {
            append_to_feed(&store, &bank(), new).await;
        }
    }
    assert_eq!(recorded_ids(&feed(&store, &bank()).await), sent);
}

/// Positions grow strictly from event to event, and lie above the start.
pub async fn positions_grow<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut positions = vec![Position::START];
    for round in 0..50 {
        let appended = append_to_feed(&store, &bank(), deposits(1 + round % 4)).await;
        positions.extend(appended.events.iter().map(|event| event.position));
    }
    for pair in positions.windows(2) {
        assert!(pair[0] < pair[1], "{} must lie after {}", pair[1], pair[0]);
    }
    let read: Vec<_> = feed(&store, &bank())
        .await
        .iter()
        .map(|event| event.position())
        .collect();
    assert_eq!(
        read,
        positions[1..],
        "an event must lie where the append said"
    );
}

/// The head is the position of the newest entry.
pub async fn head_is_the_newest_position<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    assert_eq!(head(&store, &bank()).await, Position::START);
    for round in 1..5 {
        let appended = append(&store, &account("a"), Expected::Any, deposits(round)).await;
        assert_eq!(head(&store, &bank()).await, appended.position());
        let last = feed(&store, &bank())
            .await
            .pop()
            .map(|event| event.position());
        assert_eq!(last, Some(appended.position()));
    }
}

/// Reading goes on after a position: not with it, and not elsewhere.
pub async fn reading_goes_on_after_a_position<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    append(&store, &account("a"), Expected::Any, deposits(5)).await;
    append_to_feed(&store, &bank(), deposits(5)).await;
    let all = feed(&store, &bank()).await;
    for (index, event) in all.iter().enumerate() {
        let rest = events(read_feed(&store, &bank(), event.position(), 100).await);
        assert_eq!(rest, all[index + 1..], "after event {}", index + 1);
    }
    // Positions at which nothing lies are as good as any.
    let newest = all[9].position();
    for (after, expected) in [
        (Position::new(0, 1), all.len()),
        (Position::new(1, 0), all.len()),
        (Position::new(1, u64::MAX), all.len()),
        (
            Position::new(newest.milliseconds(), newest.sequence() + 1),
            0,
        ),
        (Position::new(newest.milliseconds() + 1, 0), 0),
        (Position::new(u64::MAX, u64::MAX), 0),
    ] {
        let found = read_feed(&store, &bank(), after, 100).await.len();
        assert_eq!(found, expected, "after {after}");
    }
}

/// A limit bounds the number of entries.
pub async fn a_feed_limit_bounds_the_number<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    append_to_feed(&store, &bank(), deposits(5)).await;
    let all = feed(&store, &bank()).await;
    for limit in [1, 2, 5, 6, usize::MAX] {
        let found = events(read_feed(&store, &bank(), Position::START, limit).await);
        assert_eq!(found, all[..limit.min(5)], "at most {limit}");
    }
}

/// A limit of 0 reads nothing.
pub async fn feed_limit_0_reads_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    append_to_feed(&store, &bank(), deposits(5)).await;
    let found = read_feed(&store, &bank(), Position::START, 0).await;
    assert!(found.is_empty(), "at most 0 entries are none");
}

/// Read back from a position, a feed has what lies before it, the newest first, as much as is
/// wanted.
pub async fn a_feed_is_read_back_from_a_position<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let unknown = category("shop");
    assert_eq!(events(back(&store, &unknown, Position::END, 3).await), []);
    append(&store, &account("a"), Expected::Any, deposits(5)).await;
    append_to_feed(&store, &bank(), deposits(5)).await;
    let mut all = feed(&store, &bank()).await;
    all.reverse();
    for limit in [0, 1, 3, 10, usize::MAX] {
        let found = events(back(&store, &bank(), Position::END, limit).await);
        assert_eq!(found, all[..limit.min(10)], "the newest {limit}");
    }
    for (index, event) in all.iter().enumerate() {
        let rest = events(back(&store, &bank(), event.position(), 100).await);
        assert_eq!(rest, all[index + 1..], "before the newest but {index}");
    }
    let oldest = all[9].position();
    for before in [Position::START, Position::new(0, 1), oldest] {
        let found = back(&store, &bank(), before, 100).await;
        assert!(found.is_empty(), "nothing lies before {before}");
    }
}

async fn back(
    store: &impl EventStore,
    category: &Category,
    before: Position,
    limit: usize,
) -> Vec<FeedEntry> {
    match store.read_feed_back(&category.into(), before, limit).await {
        Ok(entries) => entries,
        Err(error) => panic!("the feed of `{category}` must be readable backwards: {error}"),
    }
}

/// A feed holds the events of all aggregates of its category in the order of appends, each
/// aggregate's versions in order, and each event whole.
pub async fn a_feed_holds_all_aggregates_of_its_category<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut sent = Vec::new();
    let mut chance = Chance::new(3);
    for _ in 0..60 {
        let id = format!("{}", chance.below(5));
        let new = deposits(1 + chance.below(3));
        sent.extend(new_ids(&new));
        append(&store, &account(&id), Expected::Any, new).await;
    }
    let all = feed(&store, &bank()).await;
    assert_eq!(recorded_ids(&all), sent);
    for id in 0..5 {
        let own: Vec<_> = all
            .iter()
            .filter(|event| event.aggregate().unwrap().id == id.to_string())
            .cloned()
            .collect();
        assert_eq!(own, history(&store, &account(&id.to_string())).await);
    }
}

/// A feed holds no event of another category, not even of one whose name begins the same.
pub async fn a_feed_holds_no_other_category<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let names = ["bank", "ban", "bank_", "bank2", "shop"];
    for (name, count) in names.into_iter().zip(1..) {
        let category = category(name);
        let new = (0..count).map(|_| event_of(&category)).collect();
        append_to_feed(&store, &category, new).await;
    }
    for (name, count) in names.into_iter().zip(1..) {
        let found = feed(&store, &category(name)).await;
        assert_eq!(found.len(), count, "the feed of `{name}`");
        for event in found {
            assert_eq!(event.event_type(), format!("{name}.happened"));
        }
    }
}

/// While many append at the same time, each aggregate's versions lie in order in the feed, and every
/// event lies there once.
pub async fn concurrent_appends_keep_each_aggregate_in_order<H: StoreHarness>(harness: &H) {
    const WRITERS: usize = 8;
    const APPENDS: usize = 50;
    let store = fresh(harness).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            // Two writers for each aggregate.
            let account = account(&format!("{}", writer / 2));
            for _ in 0..APPENDS {
                append(&store, &account, Expected::Any, deposits(2)).await;
            }
        });
    }
    writers.join_all().await;
    let all = feed(&store, &bank()).await;
    assert_eq!(all.len(), WRITERS * APPENDS * 2);
    for id in 0..WRITERS / 2 {
        let versions: Vec<_> = all
            .iter()
            .filter(|event| event.aggregate().unwrap().id == id.to_string())
            .map(version_of)
            .collect();
        let expected: Vec<_> = (1..=APPENDS as u64 * 4).collect();
        assert_eq!(versions, expected, "versions of account {id} in the feed");
    }
}

/// A read of a feed while others append sees a prefix of what is there in the end: nothing appears
/// before what was read already.
pub async fn a_feed_read_beside_writers_sees_a_prefix<H: StoreHarness>(harness: &H) {
    const WRITERS: u64 = 4;
    const APPENDS: usize = 100;
    let store = fresh(harness).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut chance = Chance::new(10 + writer);
            let account = account(&format!("{writer}"));
            for _ in 0..APPENDS {
                if chance.below(2) == 0 {
                    append(&store, &account, Expected::Any, vec![deposit()]).await;
                } else {
                    append_to_feed(&store, &bank(), deposits(2)).await;
                }
                chance.pause().await;
            }
        });
    }
    let mut seen = Vec::new();
    loop {
        while writers.try_join_next().is_some() {}
        let finished = writers.is_empty();
        let after = seen
            .last()
            .map_or(Position::START, |(position, _)| *position);
        let entries = read_feed(&store, &bank(), after, usize::MAX).await;
        assert_ordered(&entries, after);
        seen.extend(
            events(entries)
                .iter()
                .map(|event| (event.position(), event.metadata().event_id)),
        );
        if finished {
            break;
        }
        tokio::task::yield_now().await;
    }
    let all: Vec<_> = feed(&store, &bank())
        .await
        .iter()
        .map(|event| (event.position(), event.metadata().event_id))
        .collect();
    assert!(
        seen == all,
        "who reads on from where it stopped must have seen everything, once and in order"
    );
}
