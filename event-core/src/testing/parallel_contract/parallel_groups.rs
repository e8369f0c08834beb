//! What a store keeps for handlers with parallel delivery.

use std::time::{Duration, Instant};

use futures::FutureExt;

use super::steps::{
    GROUP, LONG, Packed, consumer, eventually, fresh, group, only, packed, packing, place,
    positions, reader, take,
};
use crate::codec::{Codec, NewEvent};
use crate::handler::Start;
use crate::recorded::Position;
use crate::store::{
    Append, Consumer, DeadLetter, DeadLetterReason, DeadLetters, EntryEmits, EventStore, Finish,
    FinishError, Finished, Groups, ParallelGroup, ParallelGroups, Reset,
};
use crate::testing::store_contract::StoreHarness;

fn done(positions: &[Position]) -> Finish {
    Finish {
        done: positions.to_vec(),
        ..Finish::default()
    }
}

fn packs(position: Position, number: u64) -> EntryEmits {
    let event: NewEvent = Codec::default().encode(&Packed { number }).unwrap();
    EntryEmits {
        position,
        appends: vec![Append::to_feed(packing(), vec![event])],
    }
}

fn letter(position: Position) -> DeadLetter {
    let now = crate::clock::Clock::system().now();
    DeadLetter {
        position,
        handler: "pack".into(),
        key: None,
        event_type: None,
        event_id: None,
        reason: DeadLetterReason::Rejected,
        errors: vec!["no".into()],
        attempts: 1,
        first_failed_at: now,
        last_failed_at: now,
        redrive: false,
    }
}

async fn open(store: &impl ParallelGroups) {
    let opened = store
        .open_parallel(&group("pack"), &only(), Start::Beginning)
        .await;
    opened.expect("a group must be opened");
}

async fn finish(store: &impl ParallelGroups, consumer: &Consumer, finish: &Finish) -> Finished {
    let finished = store.finish(consumer, &only(), finish).await;
    finished.expect("entries must be finished")
}

async fn claim(store: &impl ParallelGroups, consumer: &Consumer, idle: Duration) -> Vec<Position> {
    let claimed = store.claim(consumer, &only(), idle, 100).await;
    positions(claimed.expect("entries must be claimed"))
}

async fn take_back(store: &impl ParallelGroups, consumer: &Consumer) -> Vec<Position> {
    let back = store
        .take_back(consumer, &only(), Position::START, 100)
        .await;
    positions(back.expect("entries must be taken back"))
}

async fn reset(store: &impl Groups, reset: Reset) {
    if let Err(error) = store.reset(GROUP, &only(), reset).await {
        panic!("a group must be reset: {error}");
    }
}

async fn is_finished(store: &impl ParallelGroups) -> bool {
    let range = Position::START..=Position::END;
    let finished = store.is_finished(&group("pack"), &only(), range).await;
    finished.expect("a group must be looked at")
}

/// Each entry is given to one consumer.
pub async fn each_entry_is_given_to_one_consumer<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store).await;
    assert!(is_finished(&store).await, "there is nothing to do");
    let all = place(&store, 1..=9).await;
    assert!(!is_finished(&store).await, "nothing is delivered yet");
    let mut given = Vec::new();
    for instance in ["a", "b", "c"] {
        let mut reader = reader(&store, &consumer("pack", instance)).await;
        let taken = take(&mut *reader, 3).await;
        assert_eq!(taken.len(), 3, "a consumer must get as many as it wants");
        given.extend(taken);
    }
    assert_eq!(given, all);
    assert!(!is_finished(&store).await, "all are pending");
    let a = consumer("pack", "a");
    finish(&store, &a, &done(&all[..3])).await;
    finish(&store, &consumer("pack", "b"), &done(&all[3..6])).await;
    let one = store
        .is_finished(&group("pack"), &only(), all[0]..=all[0])
        .await;
    assert!(one.unwrap(), "this one is finished");
    let other = store
        .is_finished(&group("pack"), &only(), all[8]..=all[8])
        .await;
    assert!(!other.unwrap(), "this one is pending");
    finish(&store, &consumer("pack", "c"), &done(&all[6..])).await;
    assert!(is_finished(&store).await, "all are finished");
    assert!(take(&mut *reader(&store, &a).await, 10).await.is_empty());
}

/// A group begins at the beginning of a feed, or now; and that is decided once.
pub async fn a_group_begins_at_the_beginning_or_now<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let before = place(&store, 1..=2).await;
    for start in [Start::Now, Start::Beginning] {
        store
            .open_parallel(&group("late"), &only(), start)
            .await
            .unwrap();
        open(&store).await;
    }
    let after = place(&store, 3..=4).await;
    let mut late = reader(&store, &consumer("late", "a")).await;
    assert_eq!(take(&mut *late, 10).await, after);
    let mut pack = reader(&store, &consumer("pack", "a")).await;
    assert_eq!(take(&mut *pack, 10).await, [before, after].concat());
}

/// A group that begins after a position gets what lies behind it; where the feed has not come so far,
/// what comes.
pub async fn a_group_begins_after_a_position<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let placed = place(&store, 1..=5).await;
    let starts = [
        ("behind", Start::After(placed[1])),
        ("soon", Start::After(Position::END)),
    ];
    for (handler, start) in starts {
        let opened = store.open_parallel(&group(handler), &only(), start).await;
        opened.expect("a group must be opened");
    }
    let more = place(&store, 6..=6).await;
    let mut behind = reader(&store, &consumer("behind", "a")).await;
    assert_eq!(take(&mut *behind, 10).await, [&placed[2..], &more].concat());
    let mut soon = reader(&store, &consumer("soon", "a")).await;
    assert_eq!(take(&mut *soon, 10).await, more);
}

/// Each handler gets everything, whatever the others do.
pub async fn each_handler_gets_everything<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for handler in ["pack", "bill"] {
        let opened = store
            .open_parallel(&group(handler), &only(), Start::Beginning)
            .await;
        opened.unwrap();
    }
    let all = place(&store, 1..=3).await;
    for handler in ["pack", "bill"] {
        let mut reader = reader(&store, &consumer(handler, "a")).await;
        assert_eq!(take(&mut *reader, 10).await, all);
    }
    finish(&store, &consumer("pack", "a"), &done(&all)).await;
    assert!(is_finished(&store).await);
    assert_eq!(take_back(&store, &consumer("bill", "a")).await, all);
}

/// A take may be dropped while it waits: nothing is lost, and closing gives what came meanwhile.
pub async fn a_take_may_be_dropped<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store).await;
    let a = consumer("pack", "a");
    let mut given = Vec::new();
    let mut reader = reader(&store, &a).await;
    let mut placed = Vec::new();
    for number in 1..=5 {
        for _ in 0..3 {
            if let Some(taken) = reader.take(10, LONG).now_or_never() {
                given.extend(taken.unwrap().entries);
            }
            tokio::task::yield_now().await;
        }
        placed.extend(place(&store, [number]).await);
    }
    eventually("everything is taken", async || {
        let waited = tokio::time::timeout(Duration::from_millis(20), reader.take(10, LONG));
        if let Ok(taken) = waited.await {
            given.extend(taken.unwrap().entries);
        }
        given
            .iter()
            .map(|(_, entries)| entries.len())
            .sum::<usize>()
            >= 5
    })
    .await;
    let _ = reader.take(10, LONG).now_or_never();
    let last = reader.close().await.unwrap();
    assert!(last.entries.is_empty(), "there is nothing more");
    let given = given.into_iter().flat_map(|(_, entries)| entries);
    assert_eq!(positions(given), placed);
    assert_eq!(take_back(&store, &a).await, placed);
}

/// What is pending for a consumer it can take back, page by page.
pub async fn what_is_pending_is_taken_back<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store).await;
    let all = place(&store, 1..=5).await;
    let (a, b) = (consumer("pack", "a"), consumer("pack", "b"));
    take(&mut *reader(&store, &a).await, 4).await;
    take(&mut *reader(&store, &b).await, 4).await;
    finish(&store, &a, &done(&all[1..2])).await;

    let back = store.take_back(&a, &only(), Position::START, 2).await;
    assert_eq!(positions(back.unwrap()), [all[0], all[2]]);
    let back = store.take_back(&a, &only(), all[2], 2).await;
    assert_eq!(positions(back.unwrap()), [all[3]]);
    let back = store.take_back(&a, &only(), all[3], 2).await;
    assert!(back.unwrap().is_empty());
    assert_eq!(take_back(&store, &b).await, all[4..]);
}

/// What nobody has kept alive for long enough is claimed by whoever asks.
pub async fn what_is_idle_is_claimed<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store).await;
    let all = place(&store, 1..=3).await;
    let (a, b) = (consumer("pack", "a"), consumer("pack", "b"));
    take(&mut *reader(&store, &a).await, 10).await;
    assert!(claim(&store, &b, LONG).await.is_empty(), "all are fresh");
    let few = store.claim(&b, &only(), Duration::ZERO, 1).await.unwrap();
    assert_eq!(positions(few), all[..1], "no more than was asked for");
    let mut claimed = Vec::new();
    eventually("the others are idle", async || {
        claimed.extend(claim(&store, &b, Duration::from_millis(20)).await);
        claimed.contains(&all[1]) && claimed.contains(&all[2])
    })
    .await;
    assert!(
        take_back(&store, &a).await.is_empty(),
        "it has none any more"
    );
    assert_eq!(take_back(&store, &b).await, all);
}

/// What its consumer keeps alive is not claimed; and it can keep alive only what is its own.
pub async fn what_is_kept_alive_is_not_claimed<H: StoreHarness>(harness: &H) {
    const IDLE: Duration = Duration::from_millis(500);
    let store = fresh(harness).await;
    open(&store).await;
    let all = place(&store, 1..=2).await;
    let (a, b) = (consumer("pack", "a"), consumer("pack", "b"));
    take(&mut *reader(&store, &a).await, 10).await;
    eventually("what is not kept alive is claimed", async || {
        let before = Instant::now();
        store.keep_alive(&a, &only(), &all[..1]).await.unwrap();
        // Somebody else's attempt changes nothing.
        store.keep_alive(&b, &only(), &all).await.unwrap();
        let claimed = claim(&store, &b, IDLE).await;
        assert!(
            !claimed.contains(&all[0]) || before.elapsed() >= IDLE,
            "this one was kept alive"
        );
        claimed.contains(&all[1])
    })
    .await;
}

/// What is let go is claimed at once.
pub async fn what_is_let_go_is_claimed_at_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store).await;
    let all = place(&store, 1..=3).await;
    let (a, b) = (consumer("pack", "a"), consumer("pack", "b"));
    take(&mut *reader(&store, &a).await, 10).await;
    store.let_go(&b, &only(), &all).await.unwrap();
    assert!(claim(&store, &b, LONG).await.is_empty(), "not its own");
    store.let_go(&a, &only(), &all[1..]).await.unwrap();
    assert_eq!(claim(&store, &b, LONG).await, all[1..]);
    assert!(
        claim(&store, &a, LONG).await.is_empty(),
        "they are fresh again"
    );
}

/// A finish stores everything, and stored again nothing.
pub async fn a_finish_stores_everything_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store).await;
    let all = place(&store, 1..=4).await;
    let a = consumer("pack", "a");
    take(&mut *reader(&store, &a).await, 10).await;
    let what = Finish {
        done: vec![all[0]],
        emitted: vec![packs(all[1], 2), packs(all[2], 3)],
        parked: vec![letter(all[3])],
        wants_places: true,
    };
    let finished = finish(&store, &a, &what).await;
    assert_eq!(finished.dead_letters, 1);
    let places: Vec<_> = finished
        .emitted
        .iter()
        .map(|stored| stored.as_ref().expect("it was pending")[0].position())
        .collect();
    let feed = store
        .read_feed(&packing().into(), Position::START, 10)
        .await;
    assert_eq!(positions(feed.unwrap()), places);
    assert_eq!(packed(&store).await, [2, 3]);
    let letters = store.list_dead_letters(GROUP, &only(), None, 10).await;
    assert_eq!(letters.unwrap(), what.parked);
    let inspected = store
        .inspect_dead_letter(GROUP, &only(), &letter(all[3]).id())
        .await;
    let raw = inspected.unwrap().expect("it is there").raw;
    assert!(raw.iter().any(|(name, _)| name == b"payload"), "{raw:?}");
    assert!(is_finished(&store).await);

    let repeated = finish(&store, &a, &what).await;
    assert_eq!(repeated.emitted, [None, None]);
    assert_eq!(repeated.dead_letters, 1);
    assert_eq!(packed(&store).await, [2, 3]);
}

/// A consumer that was frozen until another has claimed its entries stores nothing of what it has
/// emitted.
pub async fn a_consumer_that_comes_back_late_stores_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store).await;
    let all = place(&store, 1..=3).await;
    let (a, b) = (consumer("pack", "a"), consumer("pack", "b"));
    take(&mut *reader(&store, &a).await, 10).await;
    store.let_go(&a, &only(), &all).await.unwrap();
    assert_eq!(claim(&store, &b, LONG).await, all);
    let what = |first: u64| Finish {
        done: Vec::new(),
        emitted: vec![packs(all[0], first), packs(all[1], first + 1)],
        parked: vec![letter(all[2])],
        wants_places: true,
    };
    // The other still works on them.
    let late = finish(&store, &a, &what(10)).await;
    assert_eq!(late.emitted, [None, None]);
    assert_eq!(late.dead_letters, 0);
    assert_eq!(take_back(&store, &b).await, all, "they stay pending");
    let finished = finish(&store, &b, &what(20)).await;
    assert!(finished.emitted.iter().all(Option::is_some));
    // And now it is through.
    let late = finish(&store, &a, &what(10)).await;
    assert_eq!(late.emitted, [None, None]);
    assert_eq!(packed(&store).await, [20, 21]);
}

/// What a consumer is through with is done, though another has claimed it meanwhile.
pub async fn what_is_done_is_so_whoever_has_claimed_it<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store).await;
    let all = place(&store, 1..=3).await;
    let (a, b) = (consumer("pack", "a"), consumer("pack", "b"));
    assert_eq!(take(&mut *reader(&store, &a).await, 10).await, all);
    assert_eq!(claim(&store, &b, Duration::ZERO).await, all);
    finish(&store, &a, &done(&all[..2])).await;
    assert_eq!(take_back(&store, &b).await, all[2..]);
    // What it has emitted for one of them comes too late.
    let late = Finish {
        emitted: vec![packs(all[0], 1)],
        ..Finish::default()
    };
    assert_eq!(finish(&store, &b, &late).await.emitted, [None]);
    finish(&store, &a, &done(&all[2..])).await;
    assert!(is_finished(&store).await);
}

/// Where an emit cannot be stored, nothing is finished.
pub async fn a_refused_emit_finishes_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store).await;
    let all = place(&store, 1..=3).await;
    let a = consumer("pack", "a");
    take(&mut *reader(&store, &a).await, 10).await;
    let mut wrong = packs(all[1], 2);
    wrong.appends = vec![Append::to_feed(packing(), Vec::new())];
    let what = Finish {
        done: vec![all[2]],
        emitted: vec![packs(all[0], 1), wrong],
        parked: Vec::new(),
        wants_places: false,
    };
    let error = store.finish(&a, &only(), &what).await.unwrap_err();
    let FinishError::Refused { refused } = error else {
        panic!("a finish with an append of nothing must be refused: {error:?}");
    };
    let runs: Vec<_> = refused.iter().map(|(run, _)| *run).collect();
    assert_eq!(runs, [1]);
    assert!(packed(&store).await.is_empty());
    assert_eq!(take_back(&store, &a).await, all);
}

/// A consumer for which something is pending is not forgotten, however idle it is.
pub async fn a_consumer_with_pending_entries_stays<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store).await;
    let all = place(&store, 1..=2).await;
    let (a, b) = (consumer("pack", "a"), consumer("pack", "b"));
    take(&mut *reader(&store, &a).await, 1).await;
    take(&mut *reader(&store, &b).await, 1).await;
    finish(&store, &b, &done(&all[1..])).await;
    let remove = async |idle| {
        let removed = store.remove_consumers(&group("pack"), &only(), idle).await;
        removed.expect("consumers must be removed")
    };
    assert_eq!(remove(LONG).await, 0, "none is idle for so long");
    assert_eq!(
        remove(Duration::ZERO).await,
        1,
        "nothing is pending for one"
    );
    store.leave_parallel(&a, &only()).await.unwrap();
    assert_eq!(take_back(&store, &a).await, all[..1], "it has not left");
    finish(&store, &a, &done(&all[..1])).await;
    store.leave_parallel(&a, &only()).await.unwrap();
    assert_eq!(remove(Duration::ZERO).await, 0, "it has left");
}

/// The lag of a handler is what it has yet to finish: what was not delivered, wherever the group began,
/// and what is pending.
pub async fn a_handler_tells_how_far_it_is_behind<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let lag = async |handler| {
        let lag = store.parallel_lag(&group(handler), &only()).await.unwrap();
        (lag.lag, lag.pending)
    };
    assert_eq!(lag("pack").await, (0, 0), "there is no feed");
    let placed = place(&store, 1..=6).await;
    assert_eq!(lag("pack").await, (6, 0), "all of them are before it");
    for (handler, start, expected) in [
        ("pack", Start::Beginning, 6),
        ("now", Start::Now, 0),
        ("late", Start::After(placed[3]), 2),
    ] {
        let opened = store.open_parallel(&group(handler), &only(), start).await;
        opened.expect("a group must be opened");
        assert_eq!(lag(handler).await, (expected, 0), "{handler}");
    }
    let a = consumer("pack", "a");
    assert_eq!(take(&mut *reader(&store, &a).await, 4).await, placed[..4]);
    assert_eq!(lag("pack").await, (6, 4));
    finish(&store, &a, &done(&placed[1..3])).await;
    assert_eq!(lag("pack").await, (4, 2));
    assert_eq!(lag("late").await, (2, 0), "each tells its own");
    place(&store, 7..=7).await;
    assert_eq!((lag("pack").await, lag("now").await), ((5, 2), (1, 0)));
}

/// A group that is forgotten begins anew, where it is told to; and who has taken something before can
/// finish nothing more.
pub async fn a_forgotten_group_gets_everything_anew<H: StoreHarness>(harness: &H) {
    for (start, count) in [(Start::Beginning, 5), (Start::Now, 0)] {
        let store = fresh(harness).await;
        let frozen = harness.other_client(&store).await;
        open(&store).await;
        open(&frozen).await;
        let placed = place(&store, 1..=5).await;
        let (a, b) = (consumer("pack", "a"), consumer("pack", "b"));
        assert_eq!(take(&mut *reader(&frozen, &a).await, 5).await, placed);
        let park = Finish {
            done: vec![placed[0]],
            parked: vec![letter(placed[1])],
            ..Finish::default()
        };
        assert_eq!(finish(&frozen, &a, &park).await.dead_letters, 1);

        reset(&store, Reset::Forget).await;
        let letters = store.list_dead_letters(GROUP, &only(), None, 10).await;
        assert_eq!(letters.unwrap(), []);
        let opened = store.open_parallel(&group("pack"), &only(), start).await;
        opened.expect("a group must be opened");
        let mut second = reader(&store, &b).await;
        let taken = take(&mut *second, 10).await;
        assert_eq!(taken, placed[..count], "{start}");

        let mut late = done(&placed[2..3]);
        late.emitted.push(packs(placed[3], 4));
        late.parked.push(letter(placed[4]));
        let finished = finish(&frozen, &a, &late).await;
        assert_eq!((finished.emitted, finished.dead_letters), (vec![None], 0));
        assert!(packed(&store).await.is_empty(), "it emitted nothing");
        assert_eq!(take_back(&store, &b).await, taken, "it finished nothing");
        finish(&store, &b, &done(&taken)).await;
        assert!(is_finished(&store).await);
        let more = place(&store, 6..=6).await;
        assert_eq!(take(&mut *second, 10).await, more);
    }
}

/// A group that is moved goes on from there, also with what was taken before; and so do all handlers of
/// the service, and no other service.
pub async fn a_group_that_is_moved_goes_on_from_there<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let handlers = ["pack", "bill"];
    let elsewhere = Consumer {
        group: ParallelGroup {
            group: "elsewhere".into(),
            handler: "pack".into(),
        },
        instance: "a".into(),
    };
    let groups = handlers.map(group).into_iter();
    for group in groups.chain([elsewhere.group.clone()]) {
        let opened = store.open_parallel(&group, &only(), Start::Beginning).await;
        opened.expect("a group must be opened");
    }
    let placed = place(&store, 1..=5).await;
    assert_eq!(
        take(&mut *reader(&store, &elsewhere).await, 5).await,
        placed
    );
    for handler in handlers {
        let a = consumer(handler, "a");
        assert_eq!(take(&mut *reader(&store, &a).await, 4).await, placed[..4]);
        finish(&store, &a, &done(&placed[..2])).await;
    }
    for (start, from) in [
        (Start::After(placed[0]), 1),
        (Start::Now, 5),
        (Start::Beginning, 0),
    ] {
        reset(&store, Reset::MoveTo(start)).await;
        for handler in handlers {
            let b = consumer(handler, "b");
            assert_eq!(take_back(&store, &b).await, []);
            let taken = take(&mut *reader(&store, &b).await, 10).await;
            assert_eq!(taken, placed[from..], "{start}");
        }
    }
    assert_eq!(take_back(&store, &elsewhere).await, placed);
}
