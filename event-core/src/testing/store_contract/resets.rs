//! Resets: a group that begins anew, or goes on from another place.

use super::StoreHarness;
use super::bank::{account, bank, category, deposit, deposits};
use super::commits::letter;
use super::steps::{
    LONG, SHORT, acquire, append_to_feed, commit, fresh, head, history, open, within,
};
use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{
    Append, Commit, CommitError, DeadLetters, Expected, Groups, Lease, Open, Progress, Reset,
    ResetError, reset_group,
};

/// What an owner has done with five events: all but the second, which is open; the first and the fourth
/// are dead letters.
fn work(positions: &[Position]) -> Commit {
    Commit {
        number: 1,
        progress: Progress {
            checkpoint: positions[0],
            event_id: None,
            reached: positions[4],
            open: vec![Open {
                position: positions[1],
                done: vec!["h".into()],
            }],
        },
        finished: 4,
        parked: vec![
            letter(positions[0], "h", Some("k")),
            letter(positions[3], "h", None),
        ],
        ..Commit::default()
    }
}

/// Five events that a group has worked on, in the only partition of the bank; gives where they lie.
async fn worked_on(store: &impl crate::store::Backend, group: &str) -> Vec<Position> {
    let positions: Vec<_> = match store.head(&bank().into()).await.unwrap() {
        Position::START => {
            let appended = append_to_feed(store, &bank(), deposits(5)).await;
            appended.events.iter().map(|event| event.position).collect()
        }
        _ => {
            let entries = store.read_feed(&bank().into(), Position::START, 5).await;
            entries.unwrap().iter().map(|e| e.position()).collect()
        }
    };
    let partition = Partition::from(bank());
    open(store, group, &partition, Start::Beginning).await;
    let (lease, _) = acquire(store, group, &partition, "a", LONG).await;
    commit(store, &lease, &work(&positions)).await;
    store.release(&lease).await.unwrap();
    positions
}

async fn reset(store: &impl Groups, group: &str, to: Reset) {
    if let Err(error) = store.reset(group, &bank().into(), to).await {
        panic!("`{group}` must be reset: {error}");
    }
}

async fn letters(store: &impl DeadLetters, group: &str) -> Vec<Position> {
    let letters = store
        .list_dead_letters(group, &bank().into(), None, usize::MAX)
        .await;
    letters.unwrap().iter().map(|l| l.position).collect()
}

/// A group that is forgotten is new: it begins where it is told to, without dead letters, and has to do
/// what lies from there on. Other groups and other partitions are as they were.
pub async fn a_forgotten_group_is_new<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    for start in [Start::Beginning, Start::Now] {
        let positions = worked_on(&store, "g").await;
        worked_on(&store, "other").await;
        let elsewhere = Partition::from(category("elsewhere"));
        let (lease, before) = acquire(&store, "g", &elsewhere, "a", LONG).await;
        reset(&store, "g", Reset::Forget).await;
        assert_eq!(letters(&store, "g").await, []);
        let progress = open(&store, "g", &partition, start).await;
        let (expected, lag) = match start {
            Start::Beginning => (Position::START, 5),
            _ => (positions[4], 0),
        };
        let expected = Progress {
            checkpoint: expected,
            reached: expected,
            ..Progress::default()
        };
        assert_eq!(progress, expected);
        assert_eq!(store.lag("g", &partition).await.unwrap(), lag);
        assert_eq!(store.owner("g", &partition).await.unwrap(), None);
        let (owned, progress) = acquire(&store, "g", &partition, "a", LONG).await;
        assert_eq!(progress, expected);
        store.release(&owned).await.unwrap();

        let progress = open(&store, "other", &partition, Start::Beginning).await;
        assert_eq!(progress, work(&positions).progress);
        assert_eq!(letters(&store, "other").await, [positions[0], positions[3]]);
        assert!(store.renew(&lease, LONG).await.unwrap());
        assert_eq!(before, Progress::default());
        reset(&store, "g", Reset::Forget).await;
        reset(&store, "other", Reset::Forget).await;
    }
}

/// A group that is moved goes on from there, be it forward or back, and has to do what lies behind. Dead
/// letters behind are gone, since their events come again; those before stay.
pub async fn a_group_that_is_moved_goes_on_from_there<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    let positions = worked_on(&store, "g").await;
    let (first, last) = (positions[0], positions[4]);
    for (start, expected, lag, parked) in [
        (Start::After(last), last, 0, &[first, positions[3]][..]),
        (
            Start::After(positions[3]),
            positions[3],
            1,
            &[first, positions[3]],
        ),
        (Start::After(positions[2]), positions[2], 2, &[first]),
        (Start::Now, last, 0, &[first]),
        (Start::After(first), first, 4, &[first]),
        (Start::Beginning, Position::START, 5, &[]),
    ] {
        reset(&store, "g", Reset::MoveTo(start)).await;
        let progress = open(&store, "g", &partition, Start::Now).await;
        let expected = Progress {
            checkpoint: expected,
            reached: expected,
            ..Progress::default()
        };
        assert_eq!(progress, expected, "{start}");
        assert_eq!(store.lag("g", &partition).await.unwrap(), lag, "{start}");
        assert_eq!(letters(&store, "g").await, parked, "{start}");
        let (lease, progress) = acquire(&store, "g", &partition, "b", LONG).await;
        assert_eq!(progress, expected, "{start}");
        store.release(&lease).await.unwrap();
    }
}

/// A group that nobody knows may be forgotten, which changes nothing, and moved, by which it is known.
pub async fn a_group_that_is_unknown_may_be_reset<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    for to in [Reset::Forget, Reset::MoveTo(Start::Now)] {
        reset(&store, "early", to).await;
    }
    append_to_feed(&store, &bank(), deposits(3)).await;
    let progress = open(&store, "early", &partition, Start::Now).await;
    assert_eq!(
        progress,
        Progress::default(),
        "it was moved to before these"
    );
    reset(&store, "unknown", Reset::Forget).await;
    let there = head(&store, &bank()).await;
    let progress = open(&store, "unknown", &partition, Start::Now).await;
    assert_eq!(progress.checkpoint, there);
    reset(&store, "moved", Reset::MoveTo(Start::Now)).await;
    let progress = open(&store, "moved", &partition, Start::Beginning).await;
    assert_eq!(progress.checkpoint, there);
}

/// A partition that an instance owns is not reset, and nothing of it is changed.
pub async fn an_owned_partition_is_not_reset<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    let positions = worked_on(&store, "g").await;
    let (lease, _) = acquire(&store, "g", &partition, "b", LONG).await;
    for to in [Reset::Forget, Reset::MoveTo(Start::Beginning)] {
        match store.reset("g", &partition, to).await {
            Err(ResetError::Owned {
                group,
                partition: named,
                owner,
                remaining,
            }) => {
                assert_eq!((&*group, &named, &*owner), ("g", &partition, "b"));
                assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
            }
            other => panic!("an owned partition must not be reset, and came to {other:?}"),
        }
    }
    assert_eq!(letters(&store, "g").await, [positions[0], positions[3]]);
    let progress = work(&positions).progress;
    let next = Commit {
        progress: progress.clone(),
        ..Commit::default()
    };
    commit(&store, &lease, &Commit { number: 1, ..next }).await;
    let opened = open(&store, "g", &partition, Start::Beginning).await;
    assert_eq!(opened, progress);
    store.release(&lease).await.unwrap();
    reset(&store, "g", Reset::Forget).await;
}

/// Who has owned a partition before it was reset can write nothing more, neither before another owns it
/// nor afterwards; epochs go on.
pub async fn an_owner_from_before_a_reset_can_write_nothing<H: StoreHarness>(harness: &H) {
    for to in [Reset::Forget, Reset::MoveTo(Start::Beginning)] {
        let store = fresh(harness).await;
        let partition = Partition::from(bank());
        let appended = append_to_feed(&store, &bank(), deposits(5)).await;
        let positions: Vec<_> = appended.events.iter().map(|e| e.position).collect();
        open(&store, "g", &partition, Start::Beginning).await;
        // It freezes, and nobody hears of it any more.
        let (old, _) = acquire(&store, "g", &partition, "a", SHORT).await;
        within("its lease ends", async {
            while let Err(error) = store.reset("g", &partition, to).await {
                let is_owned = matches!(&error, ResetError::Owned { owner, .. } if owner == "a");
                assert!(is_owned, "{error}");
            }
        })
        .await;
        can_write_nothing(&store, &old, &positions).await;
        open(&store, "g", &partition, Start::Beginning).await;
        can_write_nothing(&store, &old, &positions).await;
        let (new, progress) = acquire(&store, "g", &partition, "a", LONG).await;
        assert!(new.epoch > old.epoch, "{new:?} after {old:?}");
        assert_eq!(progress, Progress::default());
        can_write_nothing(&store, &old, &positions).await;
        commit(&store, &new, &work(&positions)).await;
    }
}

async fn can_write_nothing(
    store: &impl crate::store::Backend,
    old: &Lease,
    positions: &[Position],
) {
    let emitted = Append::to(account("a"), Expected::Any, vec![deposit()]);
    let late = Commit {
        emitted: vec![vec![emitted]],
        ..work(positions)
    };
    let late = store.commit(old, &late).await;
    assert!(
        matches!(late, Err(CommitError::LeaseLost { .. })),
        "{late:?}"
    );
    assert!(!store.renew(old, LONG).await.unwrap());
    assert_eq!(
        history(store, &account("a")).await,
        [],
        "it emitted nothing"
    );
    assert_eq!(letters(store, "g").await, []);
}

/// A group is not reset while one of its instances is there, whatever it owns; and is, as soon as that
/// has left.
pub async fn a_group_with_instances_is_not_reset<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), 4).await;
    let categories = [bank(), category("shop")];
    store.join("g", "a", LONG).await.unwrap();
    store.join("other", "b", LONG).await.unwrap();
    let members = store.members("g").await.unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    match reset_group(&store, "g", &categories, Reset::Forget).await {
        Err(ResetError::Alive {
            group,
            instance,
            remaining,
        }) => {
            assert_eq!((&*group, &*instance), ("g", "a"));
            assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
        }
        other => panic!("a group must not be reset while it runs, and came to {other:?}"),
    }
    store.leave("g", "a").await.unwrap();
    assert_eq!(store.members("g").await.unwrap(), []);
    let third = Partition::new(bank(), 3);
    let (lease, _) = acquire(&store, "g", &third, "a", LONG).await;
    let owned = reset_group(&store, "g", &categories, Reset::Forget).await;
    let is_third = |partition: &Partition| *partition == third;
    assert!(
        matches!(&owned, Err(ResetError::Owned { partition, .. }) if is_third(partition)),
        "{owned:?}"
    );
    store.release(&lease).await.unwrap();
    reset_group(&store, "g", &categories, Reset::Forget)
        .await
        .unwrap();
    store.join("g", "silent", SHORT).await.unwrap();
    within("the silent one is dead", async {
        while let Err(error) = reset_group(&store, "g", &categories, Reset::Forget).await {
            assert!(matches!(error, ResetError::Alive { .. }), "{error}");
        }
    })
    .await;
}

/// To own a partition of a group that is forgotten, or was never opened there, does not open it: all of it
/// is still to be done, and whoever opens it says where it begins.
pub async fn owning_does_not_open_a_group<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    let positions = worked_on(&store, "g").await;
    reset(&store, "g", Reset::Forget).await;
    for group in ["g", "never opened"] {
        let (lease, progress) = acquire(&store, group, &partition, "a", LONG).await;
        assert_eq!(progress, Progress::default());
        // As one that only redrives dead letters.
        let redrives = Commit {
            number: 1,
            parked: vec![letter(positions[0], "h", Some("k"))],
            ..Commit::default()
        };
        commit(&store, &lease, &redrives).await;
        assert_eq!(store.lag(group, &partition).await.unwrap(), 5);
        store.release(&lease).await.unwrap();
        let (lease, progress) = acquire(&store, group, &partition, "b", LONG).await;
        assert_eq!(progress, Progress::default());
        let progress = open(&store, group, &partition, Start::Now).await;
        assert_eq!(progress.checkpoint, positions[4]);
        assert_eq!(store.lag(group, &partition).await.unwrap(), 0);
        store.release(&lease).await.unwrap();
    }
}
