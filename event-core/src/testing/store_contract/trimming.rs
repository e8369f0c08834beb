//! Trimming: what may go, what somebody needs, and who is told.

use std::sync::Arc;
use std::time::Duration;

use super::StoreHarness;
use super::bank::{account, bank, category, deposit, deposits, event_of, event_with};
use super::commits::letter;
use super::steps::{
    LONG, acquire, append, append_to_feed, commit, feed, follow, fresh, head, history, next_batch,
    open, read_feed, up_to, within,
};
use crate::handler::Start;
use crate::partition::Partition;
use crate::projection::{
    Projection, ProjectionError, ProjectionFailure, ProjectionMethod, ProjectionWrites, Writes,
};
use crate::recorded::{Position, RecordedEvent};
use crate::service::ServiceError;
use crate::store::{
    Append, Commit, Consumer, DeadLetters, EventStore, Expected, Finish, Groups, Maintenance, Open,
    ParallelGroup, ParallelGroups, Progress, ProjectionId, ProjectionStep, Projections, ReadError,
    Reset, ResetError, StoreError, TrimPolicy, Trimmed, Wanted,
};

use crate::testing::running::{build, service};

/// The only partition of the bank.
fn only() -> Partition {
    bank().into()
}

/// Nothing is to stay.
fn all() -> TrimPolicy {
    TrimPolicy::new().max_entries(0)
}

async fn trim(store: &impl Maintenance, policy: &TrimPolicy) -> Trimmed {
    match store.trim_partition(&only(), policy).await {
        Ok(trimmed) => trimmed,
        Err(error) => panic!("the bank must be trimmed: {error}"),
    }
}

/// So many events of the bank, and where they lie.
async fn events(store: &impl EventStore, count: usize) -> Vec<Position> {
    let appended = append_to_feed(store, &bank(), deposits(count)).await;
    appended.events.iter().map(|event| event.position).collect()
}

/// The position from which on the feed is whole, as whoever needs what lies before is told.
fn told(error: &StoreError) -> Position {
    match error {
        StoreError::FeedTrimmed {
            partition,
            first_available,
        } => {
            assert_eq!(*partition, only());
            *first_available
        }
        other => panic!("what is trimmed away must be told, and not: {other}"),
    }
}

fn told_of_read<T>(read: Result<T, ReadError>) -> Position {
    match read {
        Err(ReadError::Store(error)) => told(&error),
        Err(error) => panic!("what is trimmed away must be told, and not: {error}"),
        Ok(_) => panic!("what is trimmed away must be told"),
    }
}

/// Without a limit nothing goes, and an unknown feed may be trimmed.
pub async fn without_a_limit_nothing_goes<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    assert_eq!(trim(&store, &all()).await.removed, 0);
    events(&store, 5).await;
    let trimmed = trim(&store, &TrimPolicy::new()).await;
    assert_eq!((trimmed.removed, &trimmed.held_back_by), (0, &None));
    assert_eq!(trimmed.first_available, Position::START.next());
    let policies = [
        TrimPolicy::new().max_entries(5),
        TrimPolicy::new().max_age(LONG),
        TrimPolicy::new().max_bytes(1 << 30),
    ];
    for policy in policies {
        assert_eq!(trim(&store, &policy).await.removed, 0, "{policy:?}");
    }
    assert_eq!(feed(&store, &bank()).await.len(), 5);
}

/// The newest entries stay, the head stays what it is, and so do histories.
pub async fn the_newest_entries_stay<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut at = Vec::new();
    for _ in 0..10 {
        let appended = append(&store, &account("a"), Expected::Any, vec![deposit()]).await;
        at.push(appended.position());
    }
    let before = history(&store, &account("a")).await;
    let trimmed = trim(&store, &TrimPolicy::new().max_entries(3)).await;
    assert_eq!(trimmed.removed, 7);
    assert!(trimmed.first_available > at[6] && trimmed.first_available <= at[7]);
    let left = read_feed(&store, &bank(), trimmed.first_available.before(), 100).await;
    let left: Vec<_> = left.iter().map(|entry| entry.position()).collect();
    assert_eq!(left, at[7..]);
    assert_eq!(history(&store, &account("a")).await, before);

    let again = trim(&store, &TrimPolicy::new().max_entries(3)).await;
    assert_eq!(
        (again.removed, again.first_available),
        (0, trimmed.first_available)
    );
    assert_eq!(trim(&store, &all()).await.removed, 3);
    assert_eq!(head(&store, &bank()).await, at[9]);
    let next = append(&store, &account("a"), Expected::Exact(10), vec![deposit()]).await;
    assert!(next.position() > at[9]);
    let other = harness.other_client(&store).await;
    assert_eq!(history(&other, &account("a")).await.len(), 11);
}

/// What is older than the limit goes.
pub async fn what_is_too_old_goes<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    events(&store, 5).await;
    let mut removed = 0;
    let at_once = TrimPolicy::new().max_age(Duration::ZERO);
    within("entries become old", async {
        // Those of this very millisecond are not.
        while removed < 5 {
            removed += trim(&store, &at_once).await.removed;
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(removed, 5);
}

/// What takes more than the limit goes, the oldest first.
pub async fn what_takes_too_much_goes<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let payload = format!("\"{}\"", "x".repeat(1_000));
    let large = (0..300)
        .map(|_| event_with("bank.deposited", &payload))
        .collect();
    append_to_feed(&store, &bank(), large).await;
    let trimmed = trim(&store, &TrimPolicy::new().max_bytes(100_000)).await;
    assert!(
        (150..300).contains(&trimmed.removed),
        "a third of them fits, about, and {} of 300 went",
        trimmed.removed
    );
    assert_eq!(trimmed.held_back_by, None);
}

/// Of several limits each counts.
pub async fn each_limit_counts<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    events(&store, 10).await;
    let policy = TrimPolicy::new()
        .max_age(LONG)
        .max_entries(4)
        .max_bytes(1 << 30);
    assert_eq!(trim(&store, &policy).await.removed, 6);
    assert_eq!(trim(&store, &policy.max_entries(1)).await.removed, 3);
}

/// Each partition is trimmed by itself.
pub async fn all_partitions_are_trimmed<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), 3).await;
    for n in 0..30 {
        append(
            &store,
            &account(&format!("{n}")),
            Expected::Any,
            vec![deposit()],
        )
        .await;
    }
    let policy = TrimPolicy::new().max_entries(1);
    let trimmed = store.trim(&bank(), &policy).await.unwrap();
    let numbers: Vec<_> = trimmed
        .iter()
        .map(|trimmed| trimmed.partition.number())
        .collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(
        trimmed.iter().map(|trimmed| trimmed.removed).sum::<u64>(),
        27
    );
}

/// What a group has not finished stays: what lies behind its checkpoint, and what is open.
pub async fn what_a_group_has_not_finished_stays<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    // Two that are known before there is anything.
    open(&store, "late", &only(), Start::Beginning).await;
    open(&store, "early", &only(), Start::Beginning).await;
    let at = events(&store, 6).await;
    let trimmed = trim(&store, &all()).await;
    assert_eq!(trimmed.removed, 0);
    let held_back = trimmed.held_back_by.expect("they have finished nothing");
    assert_eq!(held_back.needs_after, Position::START);

    let (late, _) = acquire(&store, "late", &only(), "a", LONG).await;
    let (early, _) = acquire(&store, "early", &only(), "a", LONG).await;
    let progress = Progress {
        checkpoint: at[1],
        reached: at[4],
        open: vec![Open {
            position: at[2],
            done: Vec::new(),
        }],
        ..Progress::default()
    };
    let open_at_two = Commit {
        number: 1,
        finished: 4,
        progress,
        ..Commit::default()
    };
    commit(&store, &late, &open_at_two).await;
    let through = |number, n: usize| Commit {
        number,
        finished: 5,
        progress: up_to(at[n]),
        ..Commit::default()
    };
    commit(&store, &early, &through(1, 4)).await;
    let trimmed = trim(&store, &all()).await;
    assert_eq!(trimmed.removed, 2);
    let held_back = trimmed.held_back_by.expect("one is open");
    assert_eq!((&*held_back.by, held_back.needs_after), ("late", at[1]));
    // Nobody keeps back what is to stay anyway.
    let policy = TrimPolicy::new().max_entries(4);
    assert_eq!(trim(&store, &policy).await.held_back_by, None);

    commit(&store, &late, &through(2, 5)).await;
    let trimmed = trim(&store, &all()).await;
    assert_eq!(trimmed.removed, 3);
    assert_eq!(
        trimmed.held_back_by.map(|held| held.by).as_deref(),
        Some("early")
    );
    assert_eq!(store.lag("early", &only()).await.unwrap(), 1);
    assert_eq!(store.lag("late", &only()).await.unwrap(), 0);
    let (_, progress) = acquire(&store, "late", &only(), "a", LONG).await;
    assert_eq!(progress.checkpoint, at[5]);
}

/// What a version of a projection has not taken in stays, whichever version is read; one that begins behind
/// a trim is told.
pub async fn what_a_projection_has_not_taken_in_stays<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let version = |number| ProjectionId::new("balances", number).expect("it is a name");
    for number in [1, 2] {
        store
            .open_projection(&version(number), &[bank()])
            .await
            .expect("it must be opened");
    }
    let at = events(&store, 6).await;
    let step = |from, to| ProjectionStep {
        from,
        to,
        writes: ProjectionWrites::default(),
    };
    for (number, to) in [(1, at[5]), (2, at[2])] {
        let step = step(Position::START, to);
        let applied = store
            .apply_projection(&version(number), &only(), &step)
            .await;
        applied.expect("nobody else writes");
    }
    let trimmed = trim(&store, &all()).await;
    assert_eq!(
        (trimmed.removed, trimmed.first_available),
        (3, at[2].next())
    );
    let held_back = trimmed.held_back_by.expect("version 2 is behind");
    assert_eq!(
        (&*held_back.by, held_back.needs_after),
        ("projection balances v2", at[2])
    );

    store
        .drop_projection(&version(2))
        .await
        .expect("it is not served");
    assert_eq!(trim(&store, &all()).await.removed, 3);
    assert_eq!(trim(&store, &all()).await.held_back_by, None);

    struct Late;
    impl Projection for Late {
        const NAME: &'static str = "late";
        const VERSION: u32 = 1;
        fn methods() -> Vec<ProjectionMethod<Self>> {
            let ignore = |_: &Self, _: RecordedEvent, _: &mut Writes| {};
            vec![ProjectionMethod::new("ignore", ignore).on("bank.*")]
        }
    }
    let late = build(service(&store, "late").projection(Late));
    match late.run_until_idle().await {
        Err(ServiceError::Projection(ProjectionError::Stopped(stopped))) => {
            assert_eq!(stopped.position, at[5].next());
            assert!(
                matches!(&*stopped.failure, ProjectionFailure::Trimmed),
                "{stopped}"
            );
        }
        other => panic!("it must be told, and came to {other:?}"),
    }
}

/// What is pending for a handler with parallel delivery stays, and what it has still to take.
pub async fn what_is_pending_in_parallel_stays<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let group = ParallelGroup {
        group: "g".into(),
        handler: "h".into(),
    };
    let consumer = Consumer {
        group: group.clone(),
        instance: "a".into(),
    };
    store
        .open_parallel(&group, &only(), Start::Beginning)
        .await
        .unwrap();
    let at = events(&store, 6).await;
    assert_eq!(trim(&store, &all()).await.removed, 0);
    let mut reader = store.parallel_reader(&consumer, &[only()]).await.unwrap();
    let mut taken = 0;
    while taken < 4 {
        let now = reader.take(4 - taken, LONG).await.unwrap();
        taken += now
            .entries
            .iter()
            .map(|(_, entries)| entries.len())
            .sum::<usize>();
    }
    let finish = async |done: &[Position]| {
        let finish = Finish {
            done: done.to_vec(),
            ..Finish::default()
        };
        store.finish(&consumer, &only(), &finish).await.unwrap();
    };
    finish(&[at[0], at[2], at[3]]).await;
    let trimmed = trim(&store, &all()).await;
    assert_eq!(trimmed.removed, 1);
    assert_eq!(
        trimmed.held_back_by.map(|held| held.by).as_deref(),
        Some("g/h")
    );
    finish(&[at[1]]).await;
    assert_eq!(trim(&store, &all()).await.removed, 3);
    let left = reader.take(10, LONG).await.unwrap();
    let left: Vec<_> = left.entries[0]
        .1
        .iter()
        .map(|entry| entry.position())
        .collect();
    assert_eq!(left, at[4..]);
    assert_eq!(trim(&store, &all()).await.removed, 0);
    finish(&left).await;
    assert_eq!(trim(&store, &all()).await.removed, 2);
}

/// A group that is forgotten keeps nothing back.
pub async fn a_forgotten_group_keeps_nothing_back<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let group = ParallelGroup {
        group: "g".into(),
        handler: "h".into(),
    };
    open(&store, "g", &only(), Start::Beginning).await;
    let opened = store.open_parallel(&group, &only(), Start::Beginning).await;
    opened.unwrap();
    events(&store, 3).await;
    assert_eq!(trim(&store, &all()).await.removed, 0);
    store.reset("g", &only(), Reset::Forget).await.unwrap();
    assert_eq!(trim(&store, &all()).await.removed, 3);
}

/// A dead letter keeps its entry, whatever is trimmed.
pub async fn a_dead_letter_outlives_its_entry<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    open(&store, "g", &only(), Start::Beginning).await;
    let at = events(&store, 2).await;
    let (lease, _) = acquire(&store, "g", &only(), "a", LONG).await;
    let letter = letter(at[0], "h", None);
    let parked = Commit {
        number: 1,
        finished: 2,
        progress: up_to(at[1]),
        parked: vec![letter.clone()],
        ..Commit::default()
    };
    commit(&store, &lease, &parked).await;
    assert_eq!(trim(&store, &all()).await.removed, 2);
    let found = store.inspect_dead_letter("g", &only(), &letter.id()).await;
    let found = found.unwrap().expect("it is a dead letter still");
    let payload = found.raw.iter().find(|(name, _)| name == b"payload");
    assert!(payload.is_some_and(|(_, payload)| payload == br#"{"amount":1}"#));
}

/// What a handler has emitted arrives, though the entry that it came from is trimmed away.
pub async fn what_was_emitted_outlives_what_it_came_from<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let post = category("post");
    open(&store, "g", &only(), Start::Beginning).await;
    let at = events(&store, 50).await;
    let (lease, _) = acquire(&store, "g", &only(), "a", LONG).await;
    let letters = at.iter().map(|_| event_of(&post));
    let emitted = letters.map(|event| vec![Append::to_feed(post.clone(), vec![event])]);
    let through = Commit {
        number: 1,
        finished: 50,
        progress: up_to(at[49]),
        emitted: emitted.collect(),
        ..Commit::default()
    };
    commit(&store, &lease, &through).await;
    assert_eq!(trim(&store, &all()).await.removed, 50);
    let mut reader = follow(&store, &post, Position::START).await;
    let mut arrived = 0;
    while arrived < 50 {
        arrived += next_batch(&mut *reader, 50).await.len();
    }
    assert_eq!(feed(&store, &post).await.len(), 50);
}

/// Who reads from before what is there, is told from where on it is; also who follows.
pub async fn whoever_reads_too_early_is_told<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let at = events(&store, 5).await;
    let mut behind = follow(&store, &bank(), Position::START).await;
    let mut ahead = follow(&store, &bank(), at[4]).await;
    let first = trim(&store, &TrimPolicy::new().max_entries(2))
        .await
        .first_available;
    let other = harness.other_client(&store).await;
    for client in [&store, &other] {
        assert_eq!(client.first_available(&only()).await.unwrap(), first);
        for after in [Position::START, at[0], at[1]] {
            assert_eq!(
                told_of_read(client.read_feed(&only(), after, 10).await),
                first
            );
            assert_eq!(told_of_read(client.follow(&only(), after).await), first);
        }
        for (after, count) in [(at[2], 2), (first.before(), 2), (at[3], 1), (at[4], 0)] {
            assert_eq!(read_feed(client, &bank(), after, 10).await.len(), count);
        }
    }
    let next = within("a follower is told", behind.next_batch(10)).await;
    assert_eq!(told_of_read(next), first);

    // Who is far enough notices nothing.
    let more = events(&store, 1).await;
    assert_eq!(next_batch(&mut *ahead, 10).await[0].position(), more[0]);
    trim(&store, &all()).await;
    let more = events(&store, 1).await;
    assert_eq!(next_batch(&mut *ahead, 10).await[0].position(), more[0]);
    // Of a feed in which nothing is left, too.
    trim(&store, &all()).await;
    let first = store.first_available(&only()).await.unwrap();
    assert_eq!(
        told_of_read(store.read_feed(&only(), at[0], 1).await),
        first
    );
}

/// A new group does not begin where nothing is any more, and says so; one that is known goes on.
pub async fn a_new_group_is_told<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let parallel = |handler: &str| ParallelGroup {
        group: "g".into(),
        handler: handler.into(),
    };
    open(&store, "old", &only(), Start::Beginning).await;
    let at = events(&store, 5).await;
    let (lease, _) = acquire(&store, "old", &only(), "a", LONG).await;
    let through = Commit {
        number: 1,
        finished: 4,
        progress: up_to(at[3]),
        ..Commit::default()
    };
    commit(&store, &lease, &through).await;
    store.release(&lease).await.unwrap();
    let first = trim(&store, &TrimPolicy::new().max_entries(2))
        .await
        .first_available;

    for start in [Start::Beginning, Start::After(at[0]), Start::at(at[1])] {
        let opened = store.open("new", &only(), start).await;
        assert_eq!(told(&opened.expect_err("it begins before")), first);
        let opened = store.open_parallel(&parallel("new"), &only(), start).await;
        assert_eq!(told(&opened.expect_err("it begins before")), first);
        match store.reset("old", &only(), Reset::MoveTo(start)).await {
            Err(ResetError::Store(error)) => assert_eq!(told(&error), first),
            other => panic!("the group would go on where nothing is, and got {other:?}"),
        }
    }
    let known = open(&store, "old", &only(), Start::Beginning).await;
    assert_eq!(known.checkpoint, at[3], "nothing has changed");

    for (name, start) in [
        ("at", Start::at(first)),
        ("after", Start::After(at[2])),
        ("now", Start::Now),
    ] {
        let progress = open(&store, name, &only(), start).await;
        let count = if name == "now" { 0 } else { 2 };
        let entries = read_feed(&store, &bank(), progress.checkpoint, 10).await;
        assert_eq!(entries.len(), count, "{name}");
        assert_eq!(
            store.lag(name, &only()).await.unwrap(),
            count as u64,
            "{name}"
        );
        let opened = store.open_parallel(&parallel(name), &only(), start).await;
        opened.unwrap();
        let lag = store.parallel_lag(&parallel(name), &only()).await.unwrap();
        assert_eq!(lag.lag, count as u64, "{name}");
    }
    let moved = store
        .reset("old", &only(), Reset::MoveTo(Start::at(first)))
        .await;
    moved.unwrap();
    assert_eq!(store.lag("old", &only()).await.unwrap(), 2);
}

/// Where nothing is left, a new group is told all the same, unless it begins behind all of it.
pub async fn a_new_group_is_told_where_nothing_is_left<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let at = events(&store, 3).await;
    assert_eq!(trim(&store, &all()).await.removed, 3);
    for start in [Start::Beginning, Start::After(at[1]), Start::at(at[2])] {
        let opened = store.open("new", &only(), start).await;
        assert_eq!(told(&opened.expect_err("it begins before")), at[2].next());
    }
    let progress = open(&store, "new", &only(), Start::After(at[2])).await;
    assert_eq!(progress.checkpoint, at[2]);
    assert_eq!(store.lag("new", &only()).await.unwrap(), 0);
}

/// A group that is opened beside a trim has everything before it, or is told.
pub async fn a_group_opened_beside_a_trim_has_everything_or_is_told<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let (mut has_everything, mut is_told) = (0, 0);
    for round in 0..100 / H::LOAD_DIVISOR {
        let first = events(&store, 3).await[0];
        let name = format!("g{round}");
        let partition = only();
        let opening = async {
            if round % 2 == 1 {
                tokio::task::yield_now().await;
            }
            store.open(&name, &partition, Start::at(first)).await
        };
        let policy = all();
        let trimming = trim(&other, &policy);
        let (opened, trimmed) = tokio::join!(opening, trimming);
        match opened {
            Ok(progress) => {
                has_everything += 1;
                assert_eq!(trimmed.removed, 0, "it needs all of them");
                let left = read_feed(&store, &bank(), progress.checkpoint, 10).await;
                assert_eq!(left.len(), 3);
            }
            Err(error) => {
                is_told += 1;
                assert!(told(&error) > first);
            }
        }
        let forgotten = store.reset(&name, &partition, Reset::Forget).await;
        forgotten.unwrap();
        trim(&store, &all()).await;
    }
    assert_eq!(has_everything + is_told, 100 / H::LOAD_DIVISOR);
}

/// An append that is sent again is recognised, though its entries are trimmed away.
pub async fn a_repetition_is_recognised_behind_a_trim<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let appends = [
        Append::to(account("a"), Expected::NoStream, deposits(2)),
        Append::to(account("a"), Expected::Any, deposits(2)),
        Append::to_feed(bank(), deposits(2)),
    ];
    let mut stored = Vec::new();
    for append in &appends {
        stored.push(store.append(append).await.unwrap());
    }
    assert_eq!(trim(&store, &all()).await.removed, 6);
    for (append, stored) in appends.iter().zip(&stored) {
        let again = store.append(append).await.unwrap();
        assert!(again.events.iter().all(|event| event.repeated));
        assert_eq!(again.position(), stored.position());
    }
    assert_eq!(trim(&store, &all()).await.removed, 0);
}

/// While others append, and a group handles what comes, nothing goes that the group has not finished.
pub async fn a_group_loses_nothing_to_a_trim_beside_it<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let letters = category("post");
    let partition = Partition::from(&letters);
    let count = 2_000 / H::LOAD_DIVISOR;
    open(&store, "g", &partition, Start::Beginning).await;
    let writer = {
        let (store, letters) = (harness.other_client(&store).await, letters.clone());
        tokio::spawn(async move {
            for _ in 0..count / 4 {
                let events = (0..4).map(|_| event_of(&letters)).collect();
                append_to_feed(&store, &letters, events).await;
            }
        })
    };
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let trimmer = {
        let (store, partition) = (harness.other_client(&store).await, partition.clone());
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            let mut removed = 0;
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                removed += store
                    .trim_partition(&partition, &all())
                    .await
                    .unwrap()
                    .removed;
                tokio::task::yield_now().await;
            }
            removed
                + store
                    .trim_partition(&partition, &all())
                    .await
                    .unwrap()
                    .removed
        })
    };
    let (lease, _) = acquire(&store, "g", &partition, "a", LONG).await;
    let mut reader = store.group_reader("g").await.unwrap();
    let (mut handled, mut number, mut after) = (0, 0, Position::START);
    while handled < count {
        let wanted = [Wanted {
            partition: partition.clone(),
            after,
            limit: 7,
        }];
        let batch = within("entries come", reader.next(&wanted)).await.unwrap();
        for (_, entries) in batch.entries {
            handled += entries.len();
            number += 1;
            after = entries.last().map_or(after, |entry| entry.position());
            let through = Commit {
                number,
                finished: entries.len() as u64,
                progress: up_to(after),
                ..Commit::default()
            };
            commit(&store, &lease, &through).await;
        }
    }
    within("the writer ends", writer).await.unwrap();
    is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    let removed = within("the trimmer ends", trimmer).await.unwrap();
    assert_eq!(handled, count, "each entry is handled once");
    assert_eq!(removed, count as u64, "and goes then");
}
