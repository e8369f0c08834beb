//! Followers: old, then new, nothing twice and nothing left out.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::StoreHarness;
use super::bank::{account, bank, category, deposit, deposits, event_of};
use super::foreign::NO_EVENTS;
use super::steps::{
    Chance, append, append_to_feed, assert_ordered, check_batch, events, feed, follow, fresh, head,
    new_ids, next_batch, next_entries, next_events, poll_and_drop, recorded_ids, within,
};
use crate::event::Category;
use crate::recorded::Position;
use crate::store::{EventStore, Expected, FeedEntry};

/// A follower of a feed in which nothing lies waits, and gets the first entry when it comes.
pub async fn a_follower_waits_for_the_first_entry<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut follower = follow(&store, &bank(), Position::START).await;
    let (waiting, is_waiting) = tokio::sync::oneshot::channel();
    let follower = tokio::spawn(async move {
        let _ = waiting.send(());
        next_batch(&mut *follower, 10).await
    });
    is_waiting.await.unwrap();
    let new = deposits(3);
    append(&store, &account("a"), Expected::Any, new.clone()).await;
    let found = events(follower.await.unwrap());
    assert!(
        new_ids(&new).starts_with(&recorded_ids(&found)),
        "the first batch must begin with the first event"
    );
}

/// A follower gets first what lies in the feed, and then what is appended, in one order.
pub async fn a_follower_gets_old_then_new<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    append(&store, &account("a"), Expected::Any, deposits(5)).await;
    let mut follower = follow(&store, &bank(), Position::START).await;
    let mut found = next_events(&mut *follower, 5, 2).await;
    for round in 0..10 {
        append_to_feed(&store, &bank(), deposits(1 + round % 3)).await;
        found.extend(next_events(&mut *follower, 1 + round % 3, 10).await);
    }
    assert_eq!(found, feed(&store, &bank()).await);
}

/// A follower begins after the position that it is given: at the start, in the middle, at the head
/// or where nothing lies.
pub async fn a_follower_begins_after_its_position<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    append_to_feed(&store, &bank(), deposits(5)).await;
    let old = feed(&store, &bank()).await;
    let head = head(&store, &bank()).await;
    let mut followers = vec![(Position::new(1, 1), 0, None)];
    for (index, event) in old.iter().enumerate() {
        followers.push((event.position(), index + 1, None));
    }
    assert_eq!(followers.last().map(|(after, ..)| *after), Some(head));
    for (after, _, follower) in &mut followers {
        *follower = Some(follow(&store, &bank(), *after).await);
    }
    append_to_feed(&store, &bank(), deposits(2)).await;
    let all = feed(&store, &bank()).await;
    for (after, index, follower) in followers {
        let mut follower = follower.unwrap();
        let found = next_events(&mut *follower, all.len() - index, 10).await;
        assert_eq!(found, all[index..], "followed from after {after}");
    }
}

/// A batch has at least one entry and at most as many as were asked for; asked for none, it has one.
pub async fn a_batch_has_at_least_one_and_at_most_limit_entries<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    append_to_feed(&store, &bank(), deposits(20)).await;
    let all = recorded_ids(&feed(&store, &bank()).await);
    let mut follower = follow(&store, &bank(), Position::START).await;
    let mut found = Vec::new();
    for limit in [1, 2, 3, usize::MAX] {
        // What `next_batch` makes sure of is the rule.
        found.extend(events(next_batch(&mut *follower, limit).await));
    }
    assert!(all.starts_with(&recorded_ids(&found)));

    let mut follower = follow(&store, &bank(), Position::START).await;
    let batch = within("a batch of at most 0 entries comes", follower.next_batch(0)).await;
    assert_eq!(recorded_ids(&events(check_batch(batch, 1))), all[..1]);
}

/// Whenever a follower begins while others append, it gets every event once and in order: there is no
/// gap and no repetition where old events meet new ones (1000 timings).
pub async fn there_is_no_gap_and_nothing_twice_at_the_seam<H: StoreHarness>(harness: &H) {
    const ROUNDS: u64 = 1_000;
    let store = fresh(harness).await;
    let at_once = Arc::new(Semaphore::new(8));
    let mut rounds = JoinSet::new();
    for round in 0..ROUNDS {
        let (store, at_once) = (store.clone(), Arc::clone(&at_once));
        rounds.spawn(async move {
            let _permit = at_once.acquire_owned().await.unwrap();
            follow_across_the_seam(store, round).await;
        });
    }
    rounds.join_all().await;
}

async fn follow_across_the_seam<S: EventStore + Clone>(store: S, round: u64) {
    const APPENDS: usize = 6;
    let category = category(&format!("seam{round}"));
    let mut chance = Chance::new(round);
    let (appended, mut positions) = watch::channel(Vec::new());
    let writer = {
        let (store, category) = (store.clone(), category.clone());
        let mut chance = Chance::new(round + 1_000_000);
        tokio::spawn(async move {
            for _ in 0..APPENDS {
                let new = (0..1 + chance.below(3))
                    .map(|_| event_of(&category))
                    .collect();
                let place = append_to_feed(&store, &category, new).await.position();
                appended.send_modify(|positions| positions.push(place));
                chance.pause().await;
            }
        })
    };

    // Begin when so many appends are done, after one of them.
    let done = chance.below(APPENDS + 1);
    let after = {
        let known = within(
            "the writer goes on",
            positions.wait_for(|p| p.len() >= done),
        )
        .await;
        match chance.below(done + 1) {
            0 => Position::START,
            index => known.unwrap()[index - 1],
        }
    };
    chance.pause().await;
    let mut follower = follow(&store, &category, after).await;
    chance.pause().await;
    let mut found = Vec::new();
    while !writer.is_finished() {
        let limit = 1 + chance.below(5);
        let last = found.last().map_or(after, FeedEntry::position);
        if head(&store, &category).await > last {
            found.extend(next_batch(&mut *follower, limit).await);
        } else {
            tokio::task::yield_now().await;
        }
    }
    writer.await.unwrap();
    let head = head(&store, &category).await;
    while found.last().map_or(after, FeedEntry::position) < head {
        found.extend(next_batch(&mut *follower, 3).await);
    }
    let expected: Vec<_> = feed(&store, &category)
        .await
        .into_iter()
        .filter(|event| event.position() > after)
        .collect();
    assert_eq!(
        recorded_ids(&events(found)),
        recorded_ids(&expected),
        "followed from after {after} in round {round}: nothing left out, nothing twice, in order"
    );
}

/// A follower beside many concurrent writers gets each event once, in the order of the feed.
pub async fn a_follower_beside_concurrent_appends_gets_each_once<H: StoreHarness>(harness: &H) {
    const WRITERS: u64 = 6;
    const EVENTS: usize = 150;
    let store = fresh(harness).await;
    let mut follower = follow(&store, &bank(), Position::START).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move { write(&store, &bank(), EVENTS, writer).await });
    }
    let total = EVENTS * WRITERS as usize;
    let found = next_entries(&mut *follower, total, 64).await;
    assert_ordered(&found, Position::START);
    let mut sent = writers.join_all().await.concat();
    let found = recorded_ids(&events(found));
    assert!(
        found == recorded_ids(&feed(&store, &bank()).await),
        "a follower must get the order of the feed"
    );
    let mut found_sorted = found;
    found_sorted.sort_unstable();
    sent.sort_unstable();
    assert!(found_sorted == sent, "a follower must get each event once");
}

/// Appends so many events, in small appends with pauses; returns their ids.
async fn write(store: &impl EventStore, category: &Category, count: usize, seed: u64) -> Vec<Uuid> {
    let mut chance = Chance::new(seed);
    let mut sent = Vec::new();
    while sent.len() < count {
        let new: Vec<_> = (0..(1 + chance.below(4)).min(count - sent.len()))
            .map(|_| event_of(category))
            .collect();
        sent.extend(new_ids(&new));
        append_to_feed(store, category, new).await;
        chance.pause().await;
    }
    sent
}

/// Waiting for a batch may be given up at any moment: nothing is lost, the next call begins where
/// this one did.
pub async fn a_wait_may_be_dropped<H: StoreHarness>(harness: &H) {
    const EVENTS: usize = 300;
    let store = fresh(harness).await;
    let mut follower = follow(&store, &bank(), Position::START).await;

    // Given up while there is nothing.
    for _ in 0..3 {
        let early = poll_and_drop(follower.next_batch(10));
        assert!(early.is_none(), "an empty feed has no batch");
    }
    let first = deposit();
    append_to_feed(&store, &bank(), vec![first.clone()]).await;
    let found = next_events(&mut *follower, 1, 10).await;
    assert_eq!(recorded_ids(&found), new_ids(&[first]));

    // Given up again and again while others append: after one step, or a few.
    let writer = {
        let store = store.clone();
        tokio::spawn(async move { write(&store, &bank(), EVENTS, 7).await })
    };
    let mut found = Vec::new();
    let mut chance = Chance::new(8);
    within(
        "a follower that gives up its waits gets everything",
        async {
            while found.len() < EVENTS {
                let limit = 1 + chance.below(5);
                let mut steps = Chance::new(found.len() as u64);
                tokio::select! {
                    biased;
                    () = steps.pause() => {}
                    batch = follower.next_batch(limit) => found.extend(check_batch(batch, limit)),
                }
                if chance.below(3) == 0 {
                    let batch = poll_and_drop(follower.next_batch(limit));
                    found.extend(
                        batch
                            .into_iter()
                            .flat_map(|batch| check_batch(batch, limit)),
                    );
                }
                // A wait that is always given up at once would never get anything from a store
                // behind a network.
                if chance.below(3) == 0 && found.len() < EVENTS {
                    found.extend(next_batch(&mut *follower, limit).await);
                }
            }
        },
    )
    .await;
    let sent = writer.await.unwrap();
    assert_eq!(recorded_ids(&events(found)), sent);
}

/// A follower that is dropped and opened again after its last position goes on without gap or
/// repetition.
pub async fn a_follower_may_be_dropped_and_reopened<H: StoreHarness>(harness: &H) {
    const EVENTS: usize = 300;
    let store = fresh(harness).await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move { write(&store, &bank(), EVENTS, 9).await })
    };
    let mut chance = Chance::new(10);
    let mut after = Position::START;
    let mut found = Vec::new();
    while found.len() < EVENTS {
        let mut follower = follow(&store, &bank(), after).await;
        for _ in 0..chance.below(4) {
            if found.len() < EVENTS {
                let batch = next_batch(&mut *follower, 1 + chance.below(4)).await;
                assert_ordered(&batch, after);
                after = batch.last().map_or(after, FeedEntry::position);
                found.extend(events(batch));
            }
        }
        if chance.below(2) == 0 {
            // Dropped in the middle of a wait, whose entries it has not handed out.
            let waited = poll_and_drop(follower.next_batch(1));
            let handed_out = waited.into_iter().flat_map(|batch| check_batch(batch, 1));
            let handed_out = events(handed_out.collect());
            after = handed_out.last().map_or(after, |event| event.position());
            found.extend(handed_out);
        }
    }
    assert_eq!(recorded_ids(&found), writer.await.unwrap());
}

/// Two followers of one feed each get everything, however fast they are.
pub async fn two_followers_each_get_everything<H: StoreHarness>(harness: &H) {
    const EVENTS: usize = 200;
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let mut followers = JoinSet::new();
    for (store, limit) in [(store.clone(), 1), (store.clone(), 50), (other, 7)] {
        followers.spawn(async move {
            let mut follower = follow(&store, &bank(), Position::START).await;
            recorded_ids(&next_events(&mut *follower, EVENTS, limit).await)
        });
    }
    let sent = write(&store, &bank(), EVENTS, 11).await;
    for found in followers.join_all().await {
        assert!(found == sent, "each follower must get everything, in order");
    }
}

/// A follower sees what another client of the same store appends.
pub async fn a_follower_sees_what_another_client_appends<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let mut follower = follow(&store, &bank(), Position::START).await;
    for client in [&other, &store, &other] {
        let new = deposits(2);
        append(client, &account("a"), Expected::Any, new.clone()).await;
        let found = next_events(&mut *follower, 2, 10).await;
        assert_eq!(recorded_ids(&found), new_ids(&new));
    }
}

/// An append to another category neither wakes a follower with nothing nor gets into its feed.
pub async fn another_category_wakes_nobody<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let categories = ["bank", "bank2", "ban", "shop"].map(category);
    let mut followers = Vec::new();
    for category in &categories {
        let mut follower = follow(&store, category, Position::START).await;
        followers.push(tokio::spawn(async move {
            let mut found = Vec::new();
            while found.len() < 20 {
                found.extend(next_events(&mut *follower, 1, 1).await);
            }
            found
        }));
    }
    let mut sent = vec![Vec::new(); categories.len()];
    for round in 0..20 {
        // Each round in another order, so that every follower waits while others are served.
        for step in 0..categories.len() {
            let index = (round + step) % categories.len();
            let new = event_of(&categories[index]);
            sent[index].extend(new_ids(std::slice::from_ref(&new)));
            append_to_feed(&store, &categories[index], vec![new]).await;
            tokio::task::yield_now().await;
        }
    }
    for (follower, sent) in followers.into_iter().zip(sent) {
        assert_eq!(recorded_ids(&follower.await.unwrap()), sent);
    }
}

/// A follower goes past entries that are no events: it reports each where it lies, and gets what
/// comes behind it.
pub async fn a_follower_goes_past_what_is_no_event<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (old, new) = NO_EVENTS.split_at(NO_EVENTS.len() / 2);
    let mut expected = Vec::new();
    for fields in old {
        expected.push((harness.append_foreign(&store, &bank(), fields).await, false));
    }
    let mut follower = follow(&store, &bank(), Position::START).await;
    let mut found = next_entries(&mut *follower, old.len(), 3).await;
    for fields in new {
        expected.push((harness.append_foreign(&store, &bank(), fields).await, false));
        found.extend(next_batch(&mut *follower, 1).await);
        let appended = append_to_feed(&store, &bank(), vec![deposit()]).await;
        expected.push((appended.position(), true));
        found.extend(next_batch(&mut *follower, 1).await);
    }
    assert_ordered(&found, Position::START);
    let found: Vec<_> = found
        .iter()
        .map(|entry| (entry.position(), matches!(entry, FeedEntry::Event(_))))
        .collect();
    assert_eq!(found, expected);
}
