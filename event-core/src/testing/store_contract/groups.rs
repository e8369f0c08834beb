//! Groups: their instances, who owns a partition, and where a group begins.

use std::time::Duration;

use chrono::DateTime;
use tokio::task::JoinSet;

use super::StoreHarness;
use super::bank::{account, bank, category, deposit, deposits};
use super::steps::{
    LONG, SHORT, acquire, append, append_to_feed, commit, fresh, head, open, refused_acquire,
    within,
};
use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{
    Acquired, Append, Commit, CommitError, EventStore, Expected, Groups, Lease, Member, Progress,
};

async fn join(store: &impl Groups, group: &str, instance: &str, lease: Duration) -> Vec<Member> {
    match store.join(group, instance, lease).await {
        Ok(members) => members,
        Err(error) => panic!("`{instance}` must be able to join `{group}`: {error}"),
    }
}

fn names(members: &[Member]) -> Vec<&str> {
    members
        .iter()
        .map(|member| member.instance.as_str())
        .collect()
}

/// Who joins a group is told who is there, by name and with itself; who has left is not.
pub async fn instances_are_told_of_each_other<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    assert_eq!(names(&join(&store, "g", "b", LONG).await), ["b"]);
    assert_eq!(names(&join(&other, "g", "c", LONG).await), ["b", "c"]);
    let members = join(&store, "g", "a", LONG / 2).await;
    assert_eq!(names(&members), ["a", "b", "c"]);
    for (member, lease) in members.iter().zip([LONG / 2, LONG, LONG]) {
        assert!(
            member.remaining <= lease && member.remaining > lease / 2,
            "it is there for as long as it said: {member:?}"
        );
    }
    other.leave("g", "b").await.unwrap();
    other.leave("g", "never there").await.unwrap();
    assert_eq!(names(&join(&store, "g", "a", LONG).await), ["a", "c"]);
    assert_eq!(names(&join(&store, "g2", "a", LONG).await), ["a"]);
}

/// An instance that does not say again that it is there is forgotten when its time is over, and no
/// other is.
pub async fn an_instance_that_is_silent_is_forgotten<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    join(&store, "g", "silent", SHORT).await;
    join(&store, "g", "prolonged", SHORT).await;
    let members = join(&store, "g", "prolonged", LONG).await;
    assert!(members[0].remaining > SHORT, "{members:?}");
    join(&store, "g", "there", LONG).await;
    within("the silent one is forgotten", async {
        loop {
            let members = join(&store, "g", "there", LONG).await;
            if names(&members) == ["prolonged", "there"] {
                break;
            }
            assert_eq!(names(&members), ["prolonged", "silent", "there"]);
        }
    })
    .await;
}

/// A group that begins at the beginning has everything before it, and one that begins now what
/// comes; the first to open it decides, and opening it again changes nothing.
pub async fn where_a_group_begins_is_decided_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let partition = Partition::from(bank());
    append_to_feed(&store, &bank(), deposits(3)).await;
    let there = head(&store, &bank()).await;
    let at = |position| (position, position, 0);
    let told = |progress: Progress| (progress.checkpoint, progress.reached, progress.open.len());
    for round in 0..2 {
        let starts = match round {
            0 => (Start::Beginning, Start::Now),
            _ => (Start::Now, Start::Beginning),
        };
        let old = open(&store, "old", &partition, starts.0).await;
        assert_eq!(told(old), at(Position::START));
        let new = open(&other, "new", &partition, starts.1).await;
        assert_eq!(told(new), at(there));
        append_to_feed(&store, &bank(), deposits(2)).await;
    }
    let (_, progress) = acquire(&store, "new", &partition, "i", LONG).await;
    assert_eq!(told(progress), at(there));
    let empty = open(&store, "new", &category("empty").into(), Start::Now).await;
    assert_eq!(told(empty), at(Position::START));
}

/// A group that begins after a position, or at a time, has what lies behind it; where the feed has not
/// come so far, what comes.
pub async fn a_group_begins_after_a_position<H: StoreHarness>(harness: &H) {
    const COUNT: usize = 2_500;
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    let mut positions = Vec::new();
    for _ in 0..COUNT / 100 {
        let appended = append_to_feed(&store, &bank(), deposits(100)).await;
        positions.extend(appended.events.iter().map(|event| event.position));
    }
    let (first, last) = (positions[0], positions[COUNT - 1]);
    for index in [0, 1, 999, 1_000, 1_249, 1_250, 1_501, COUNT - 2, COUNT - 1] {
        let (group, position) = (format!("g{index}"), positions[index]);
        for start in [Start::After(position), Start::Now, Start::After(last)] {
            let progress = open(&store, &group, &partition, start).await;
            assert_eq!(
                (progress.checkpoint, progress.reached),
                (position, position)
            );
        }
        let lag = store.lag(&group, &partition).await.unwrap();
        assert_eq!(lag as usize, COUNT - 1 - index, "after {index}");
    }
    // Nothing lies at these.
    let before = Start::After(Position::new(first.milliseconds() - 1, 7));
    open(&store, "before", &partition, before).await;
    assert_eq!(store.lag("before", &partition).await.unwrap(), COUNT as u64);
    let last_millisecond = i64::try_from(last.milliseconds()).unwrap();
    let since = |ms| Start::since(DateTime::from_timestamp_millis(ms).unwrap());
    open(&store, "since", &partition, since(last_millisecond)).await;
    let is_behind = |position: &&Position| position.milliseconds() >= last.milliseconds();
    let behind = positions.iter().filter(is_behind).count();
    assert_eq!(store.lag("since", &partition).await.unwrap(), behind as u64);
    for (group, start) in [
        ("soon", since(last_millisecond + 3_600_000)),
        ("end", Start::After(Position::END)),
    ] {
        let progress = open(&store, group, &partition, start).await;
        assert_eq!(progress.checkpoint, last);
        let (_, progress) = acquire(&store, group, &partition, "i", LONG).await;
        assert_eq!(progress.checkpoint, last, "nothing is lost");
    }
    let empty = category("empty").into();
    let progress = open(&store, "g", &empty, Start::After(last)).await;
    assert_eq!(progress.checkpoint, Position::START);
}

/// While an instance owns a partition it is refused to all others of the group; other groups and
/// other partitions do not matter.
pub async fn an_owned_partition_is_refused_to_others<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let partition = Partition::from(bank());
    let (lease, progress) = acquire(&store, "g", &partition, "a", LONG).await;
    assert_eq!(progress, Progress::default());
    let expected = Lease {
        group: "g".into(),
        partition: partition.clone(),
        instance: "a".into(),
        epoch: 1,
    };
    assert_eq!(lease, expected);
    for client in [&store, &other] {
        let remaining = refused_acquire(client, "g", &partition, "b").await;
        assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
    }
    acquire(&other, "g2", &partition, "b", LONG).await;
    acquire(&other, "g", &category("shop").into(), "b", LONG).await;
}

/// A partition that is given back is taken at once.
pub async fn a_released_partition_is_taken_at_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    for epoch in 1..=5 {
        let instance = format!("i{epoch}");
        let (lease, _) = acquire(&store, "g", &partition, &instance, LONG).await;
        assert_eq!(lease.epoch, epoch, "epochs must grow");
        store.release(&lease).await.unwrap();
        // It is nobody's by now.
        store.release(&lease).await.unwrap();
        assert!(!store.renew(&lease, LONG).await.unwrap());
    }
}

/// A lease that has ended is taken by another; one that is prolonged does not end.
pub async fn an_ended_lease_is_taken<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    let (lease, _) = acquire(&store, "g", &partition, "a", SHORT).await;
    let taken = within("the lease ends", async {
        loop {
            match store.acquire("g", &partition, "b", SHORT).await.unwrap() {
                Acquired::Yes { lease, .. } => break lease,
                Acquired::No { remaining } => assert!(remaining <= SHORT, "{remaining:?}"),
            }
        }
    })
    .await;
    assert_eq!(taken.epoch, lease.epoch + 1);
    assert!(!store.renew(&lease, LONG).await.unwrap());
    // It may have ended meanwhile, but is nobody else's.
    if store.renew(&taken, LONG).await.unwrap() {
        let remaining = refused_acquire(&store, "g", &partition, "a").await;
        assert!(remaining > SHORT, "{remaining:?}");
    }
}

/// Each time a partition is acquired its epoch grows, be it by the same instance.
pub async fn an_epoch_grows_at_each_acquisition<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    let (first, _) = acquire(&store, "g", &partition, "a", LONG).await;
    let (second, _) = acquire(&store, "g", &partition, "a", LONG).await;
    assert!(second.epoch > first.epoch);
    assert!(!store.renew(&first, LONG).await.unwrap());
    assert!(store.renew(&second, LONG).await.unwrap());
    store.release(&first).await.unwrap();
    refused_acquire(&store, "g", &partition, "b").await;
}

/// Of ten instances that acquire a partition at the same time, one gets it.
pub async fn of_ten_that_acquire_at_once_one_wins<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    for round in 0..10 {
        let mut attempts = JoinSet::new();
        for number in 0..10 {
            let store = [&store, &other][number % 2].clone();
            attempts.spawn(async move {
                let partition = category(&format!("round{round}")).into();
                let instance = format!("i{number}");
                let acquired = store.acquire("g", &partition, &instance, LONG).await;
                matches!(acquired.unwrap(), Acquired::Yes { .. })
            });
        }
        let won = attempts.join_all().await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
    }
}

/// Who has lost a partition can write nothing more: no commit, no prolongation, and no release of
/// what is another's.
pub async fn an_old_epoch_can_write_nothing<H: StoreHarness>(harness: &H) {
    // Be the next owner another instance, or the same that has come back.
    for next in ["b", "a"] {
        let store = fresh(harness).await;
        the_old_epoch_can_write_nothing(&store, next).await;
    }
}

async fn the_old_epoch_can_write_nothing(store: &(impl Groups + EventStore), next: &str) {
    let partition = Partition::from(bank());
    append_to_feed(store, &bank(), deposits(2)).await;
    let there = head(store, &bank()).await;
    let (old, _) = acquire(store, "g", &partition, "a", LONG).await;
    commit(
        store,
        &old,
        &Commit {
            number: 1,
            ..Commit::default()
        },
    )
    .await;
    store.release(&old).await.unwrap();
    let (new, _) = acquire(store, "g", &partition, next, LONG).await;

    let late = Commit {
        number: 2,
        progress: Progress {
            checkpoint: there,
            reached: there,
            ..Progress::default()
        },
        finished: 2,
        emitted: vec![vec![Append::to(
            account("a"),
            Expected::Any,
            vec![deposit()],
        )]],
        ..Commit::default()
    };
    match store.commit(&old, &late).await {
        Err(CommitError::LeaseLost { group, partition }) => {
            assert_eq!((&*group, partition), ("g", Partition::from(bank())));
        }
        other => panic!("the commit of an old epoch must be refused, and came to {other:?}"),
    }
    assert!(!store.renew(&old, LONG).await.unwrap());
    store.release(&old).await.unwrap();
    refused_acquire(store, "g", &partition, "c").await;
    assert_eq!(head(store, &bank()).await, there, "it emitted nothing");
    let progress = open(store, "g", &partition, Start::Beginning).await;
    assert_eq!(progress.checkpoint, Position::START);
    // The new one can.
    commit(store, &new, &Commit { number: 1, ..late }).await;
    let progress = open(store, "g", &partition, Start::Beginning).await;
    assert_eq!(progress.checkpoint, there);
    append(store, &account("a"), Expected::Exact(1), vec![deposit()]).await;
}
