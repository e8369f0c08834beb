//! Compaction: the beginning of a history is dropped behind a snapshot, and nobody takes what is left for
//! the whole.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::StoreHarness;
use super::bank::{Account, AccountCommand, account, deposit, deposits};
use super::steps::{
    Chance, append, expect_conflict, fresh, read_versions, version_of, with_events, within,
};
use crate::recorded::Version;
use crate::repository::{At, Repository, RepositoryError};
use crate::snapshot::{Snapshot, SnapshotPolicy};
use crate::store::{Append, CompactError, Compacted, EventStore, Expected, ReadError, Versions};

/// A snapshot of an account, of the event that it has at a version.
async fn snapshot(store: &impl EventStore, id: &str, version: Version) -> Snapshot {
    let versions = Versions::from(version).to(version);
    let events = store.read_aggregate(&account(id), &versions).await.unwrap();
    Snapshot {
        version,
        event_id: events[0].metadata().event_id,
        state_version: 1,
        state: json!({"balance": version, "entries": version, "closed": false}).to_string(),
    }
}

fn trimmed_at<T>(read: Result<T, ReadError>) -> Version {
    match read {
        Err(ReadError::HistoryTrimmed {
            first_available, ..
        }) => first_available,
        Err(error) => panic!("what was dropped must be told, and not: {error}"),
        Ok(_) => panic!("what was dropped must be told"),
    }
}

fn load_trimmed_at<T>(load: Result<T, RepositoryError>) -> Version {
    match load {
        Err(RepositoryError::Read(error)) => trimmed_at::<T>(Err(error)),
        Err(error) => panic!("what was dropped must be told, and not: {error}"),
        Ok(_) => panic!("what was dropped must be told"),
    }
}

/// Accounts with snapshots that are never due by themselves, and histories that may be compacted at once.
fn accounts<S: EventStore>(store: S) -> Repository<Account> {
    Repository::new(store)
        .with_snapshots(SnapshotPolicy::every(u64::MAX))
        .with_events_kept_for(Duration::ZERO)
}

/// The beginning of a history goes, and its versions are counted on.
pub async fn the_version_stays_what_it_is<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let a = with_events(&store, account("a"), 6).await;
    with_events(&store, account("b"), 2).await;
    let kept = snapshot(&store, "a", 5).await;
    let compacted = store.compact(&a, &kept, 4).await.unwrap();
    let expected = Compacted {
        removed: 3,
        first_available: 4,
    };
    assert_eq!(compacted, expected);
    let found = store.load_snapshot(&a).await.unwrap();
    assert_eq!(found, Some(kept.clone()));
    // Never more than what lies before the snapshot's own event.
    let compacted = store.compact(&a, &kept, 100).await.unwrap();
    assert_eq!((compacted.removed, compacted.first_available), (1, 5));
    let compacted = store.compact(&a, &kept, 2).await.unwrap();
    assert_eq!((compacted.removed, compacted.first_available), (0, 5));

    expect_trimmed_conflict(&store).await;
    let appended = append(&store, &a, Expected::Exact(6), deposits(2)).await;
    assert_eq!(appended.version(), 8);
    append(&store, &a, Expected::Exists, vec![deposit()]).await;
    let other = harness.other_client(&store).await;
    assert_eq!(
        read_versions(&other, &a, &Versions::from(5)).await,
        [5, 6, 7, 8, 9]
    );
    assert_eq!(
        read_versions(&other, &account("b"), &Versions::all()).await,
        [1, 2]
    );
}

async fn expect_trimmed_conflict(store: &impl EventStore) {
    for expected in [
        Expected::NoStream,
        Expected::Exact(1),
        Expected::Exact(5),
        Expected::Exact(7),
    ] {
        let append = Append::to(account("a"), expected, vec![deposit()]);
        match store.append(&append).await {
            Err(crate::store::AppendError::Conflict { actual: 6, .. }) => {}
            other => panic!("{expected} must be a conflict with version 6, and came to {other:?}"),
        }
    }
    let before = Append::to(account("b"), Expected::Exact(1), vec![deposit()]);
    expect_conflict(store, &before, 2).await;
}

/// Whoever reads what was dropped is told from which version on there is something.
pub async fn whoever_reads_what_was_dropped_is_told<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let a = with_events(&store, account("a"), 6).await;
    let kept = snapshot(&store, "a", 6).await;
    store.compact(&a, &kept, 4).await.unwrap();
    let other = harness.other_client(&store).await;
    for client in [&store, &other] {
        for versions in [
            Versions::all(),
            Versions::from(3),
            Versions::from(1).to(2),
            Versions::from(3).limit(1),
            Versions::last(4),
            Versions::all().backwards(),
            Versions::from(2).to(3).backwards(),
        ] {
            let read = client.read_aggregate(&a, &versions).await;
            assert_eq!(trimmed_at(read), 4, "{versions:?}");
        }
        let read = read_versions(client, &a, &Versions::from(4)).await;
        assert_eq!(read, [4, 5, 6]);
        let read = read_versions(client, &a, &Versions::from(5).to(5)).await;
        assert_eq!(read, [5]);
        let read = read_versions(client, &a, &Versions::last(3)).await;
        assert_eq!(read, [6, 5, 4]);
        let read = read_versions(client, &a, &Versions::from(7)).await;
        assert_eq!(read, [0; 0]);
        // Backwards, what is there comes first.
        let mut seen = Vec::new();
        let backwards = Versions::all().backwards();
        let read = client
            .replay(&a, &backwards, &mut |entry| {
                seen.push(entry.version().unwrap());
                ControlFlow::Continue(())
            })
            .await;
        assert_eq!(trimmed_at(read), 4);
        assert_eq!(seen, [6, 5, 4]);
    }
    let unknown = store
        .read_aggregate(&account("b"), &Versions::from(9))
        .await;
    assert!(
        matches!(unknown, Err(ReadError::NotFound { .. })),
        "{unknown:?}"
    );
}

/// A history of many pages that was compacted is read as any other.
pub async fn a_long_compacted_history_is_read_whole<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for _ in 0..5 {
        append(&store, &account("a"), Expected::Any, deposits(1_000)).await;
    }
    let kept = snapshot(&store, "a", 4_000).await;
    let compacted = store.compact(&account("a"), &kept, 1_234).await.unwrap();
    assert_eq!(compacted.first_available, 1_234);
    let forwards: Vec<_> = (1_234..=5_000).collect();
    let read = read_versions(&store, &account("a"), &Versions::from(1_234)).await;
    assert_eq!(read, forwards);
    let mut read = read_versions(&store, &account("a"), &Versions::from(1_234).backwards()).await;
    read.reverse();
    assert_eq!(read, forwards);
}

/// Nothing is dropped behind a snapshot of another history, of none, or of a program that is older than
/// the one that has written what is kept.
pub async fn what_is_no_snapshot_drops_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let a = with_events(&store, account("a"), 4).await;
    let kept = snapshot(&store, "a", 4).await;
    let unknown = store.compact(&account("b"), &kept, 4).await;
    assert!(
        matches!(unknown, Err(CompactError::NotFound { .. })),
        "{unknown:?}"
    );
    for wrong in [
        Snapshot {
            event_id: Uuid::from_u128(7),
            ..kept.clone()
        },
        Snapshot {
            version: 3,
            ..kept.clone()
        },
        Snapshot {
            version: 5,
            ..kept.clone()
        },
    ] {
        let refused = store.compact(&a, &wrong, 4).await;
        assert!(
            matches!(refused, Err(CompactError::OtherHistory { .. })),
            "{refused:?}"
        );
    }
    let newer = Snapshot {
        state_version: 2,
        ..kept.clone()
    };
    store.save_snapshot(&a, &newer).await.unwrap();
    match store.compact(&a, &kept, 4).await {
        Err(CompactError::NewerState {
            kept: 2, known: 1, ..
        }) => {}
        other => panic!("a newer program's state is kept, and it came to {other:?}"),
    }
    assert_eq!(
        read_versions(&store, &a, &Versions::all()).await,
        [1, 2, 3, 4]
    );
    // A newer program replaces what an older one has kept.
    let newest = Snapshot {
        state_version: 3,
        ..kept
    };
    assert_eq!(store.compact(&a, &newest, 4).await.unwrap().removed, 3);
    assert_eq!(store.load_snapshot(&a).await.unwrap(), Some(newest));
}

/// A compacted aggregate is loaded by its snapshot, and by nothing else.
pub async fn a_compacted_aggregate_is_loaded_by_its_snapshot<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = accounts(store.clone());
    let cached = self::accounts(harness.other_client(&store).await).with_cache(1 << 20);
    accounts
        .execute("a", AccountCommand::DepositCoins(150))
        .await
        .unwrap();
    assert_eq!(cached.load("a").await.unwrap().version, 150);
    let without = Repository::<Account>::new(store.clone());
    let refused = without.compact("a").await;
    assert!(
        matches!(refused, Err(RepositoryError::WithoutSnapshots { .. })),
        "{refused:?}"
    );
    let unknown = accounts.compact("b").await;
    assert!(
        matches!(unknown, Err(RepositoryError::NotFound { .. })),
        "{unknown:?}"
    );

    for (amount, first) in [(0, 51), (100, 151)] {
        if amount > 0 {
            accounts
                .execute("a", AccountCommand::DepositCoins(amount))
                .await
                .unwrap();
        }
        let compacted = accounts.compact("a").await.unwrap();
        // The newest hundred stay.
        assert_eq!(compacted.first_available, first);
        let balance = 150 + amount;
        // The cached one is of a version that may be gone.
        for repository in [&accounts, &cached] {
            let loaded = repository.load("a").await.unwrap();
            assert_eq!((loaded.version, loaded.state.balance), (balance, balance));
        }
        assert_eq!(load_trimmed_at(without.load("a").await), first);
        for repository in [&accounts, &without] {
            let early = repository.load_at("a", At::Version(10)).await;
            assert_eq!(load_trimmed_at(early), first);
            let history = repository.history("a", &Versions::all()).await;
            assert_eq!(load_trimmed_at(history), first);
        }
    }
    let executed = cached
        .execute("a", AccountCommand::Withdraw(250))
        .await
        .unwrap();
    assert_eq!((executed.version, executed.state.balance), (251, 0));
    let loaded = accounts.load("a").await.unwrap();
    assert_eq!(loaded.state.balance, 0);

    let changed = SnapshotPolicy::every(u64::MAX).state_version(2);
    let changed = Repository::<Account>::new(store.clone()).with_snapshots(changed);
    assert_eq!(load_trimmed_at(changed.load("a").await), 151);
    store.delete_snapshot(&account("a")).await.unwrap();
    assert_eq!(load_trimmed_at(accounts.load("a").await), 151);
    let decided = accounts.execute("a", AccountCommand::Deposit(1)).await;
    assert_eq!(load_trimmed_at(decided), 151);
}

/// An append that is sent again is recognised, though its history was compacted since.
pub async fn a_repetition_is_recognised_in_a_compacted_history<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = accounts(store.clone());
    let first = Append::to(account("a"), Expected::Any, deposits(3));
    store.append(&first).await.unwrap();
    accounts
        .execute("a", AccountCommand::DepositCoins(150))
        .await
        .unwrap();
    let last = Append::to(account("a"), Expected::Exact(153), deposits(20));
    store.append(&last).await.unwrap();
    assert_eq!(accounts.compact("a").await.unwrap().first_available, 74);
    for append in [&first, &last] {
        let again = store.append(append).await.unwrap();
        assert!(again.events.iter().all(|event| event.repeated), "{again:?}");
    }
    assert_eq!(accounts.load("a").await.unwrap().version, 173);
}

/// While commands are decided, a history may be compacted again and again: each counts.
pub async fn commands_beside_compactions_each_count<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let one = accounts(store.clone());
    one.execute("a", AccountCommand::DepositCoins(120))
        .await
        .unwrap();
    let count = 200 / H::LOAD_DIVISOR as u64;
    let writer = |repository: Repository<Account>| {
        tokio::spawn(async move {
            for _ in 0..count {
                repository
                    .execute("a", AccountCommand::DepositCoins(3))
                    .await
                    .unwrap();
            }
        })
    };
    let plain = writer(accounts(harness.other_client(&store).await));
    let cached = writer(accounts(harness.other_client(&store).await).with_cache(1 << 20));
    while !plain.is_finished() || !cached.is_finished() {
        one.compact("a").await.unwrap();
        let loaded = one.load("a").await.unwrap();
        assert_eq!(loaded.state.balance, loaded.version);
        tokio::task::yield_now().await;
    }
    within("a writer ends", plain).await.unwrap();
    within("a writer ends", cached).await.unwrap();
    let loaded = one.load("a").await.unwrap();
    assert_eq!(
        (loaded.version, loaded.state.balance),
        (120 + 6 * count, 120 + 6 * count)
    );
}

/// Wherever a history is compacted, what is loaded is what the whole history makes.
pub async fn a_compacted_history_leads_to_the_same_state<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = accounts(store.clone());
    let whole = Repository::<Account>::new(store.clone());
    let mut chance = Chance::new(3);
    for round in 0..20 {
        let (compacted, kept) = (format!("c{round}"), format!("k{round}"));
        let mut compactions = 0;
        for _ in 0..1 + chance.below(30) {
            let command = match chance.below(4) {
                0 => AccountCommand::Withdraw(chance.below(3) as u64),
                1 => AccountCommand::DepositCoins(1 + chance.below(40) as u64),
                2 => AccountCommand::Close,
                _ => AccountCommand::Deposit(chance.below(100) as u64),
            };
            let ours = accounts.execute(&compacted, command).await;
            let theirs = whole.execute(&kept, command).await;
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => assert_eq!(ours.state, theirs.state),
                (Err(_), Err(_)) => {}
                other => panic!("{command:?} came to {other:?}"),
            }
            if chance.below(5) == 0 && accounts.compact(&compacted).await.is_ok() {
                compactions += 1;
            }
        }
        let (Ok(ours), Ok(theirs)) = (accounts.load(&compacted).await, whole.load(&kept).await)
        else {
            continue;
        };
        assert_eq!(ours, theirs, "after {compactions} compactions");
        let last = store
            .read_aggregate(&account(&compacted), &Versions::last(1))
            .await
            .unwrap();
        assert_eq!(version_of(&last[0]), theirs.version);
    }
}

/// What was appended a short while ago may be sent again: it is not dropped, however much it is.
pub async fn what_may_be_sent_again_is_not_dropped<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let snapshots = SnapshotPolicy::every(u64::MAX);
    let accounts = Repository::<Account>::new(store.clone()).with_snapshots(snapshots);
    let sent = Append::to(account("a"), Expected::Exact(0), deposits(300));
    store.append(&sent).await.unwrap();
    append(&store, &account("a"), Expected::Exact(300), deposits(120)).await;
    let compacted = accounts.compact("a").await.unwrap();
    assert_eq!((compacted.removed, compacted.first_available), (0, 1));
    let again = store.append(&sent).await.unwrap();
    assert!(again.events.iter().all(|event| event.repeated), "{again:?}");
    // The snapshot is kept all the same.
    let kept = store.load_snapshot(&account("a")).await.unwrap();
    assert_eq!(kept.map(|kept| kept.version), Some(420));
}

/// The state that a newer program has kept stays where nothing else leads to it any more.
pub async fn an_older_program_does_not_replace_the_state_behind_a_compaction<H: StoreHarness>(
    harness: &H,
) {
    let store = fresh(harness).await;
    let a = with_events(&store, account("a"), 6).await;
    let of_version = async |version, state_version| Snapshot {
        state_version,
        ..snapshot(&store, "a", version).await
    };
    let newer = of_version(4, 2).await;
    assert!(store.save_snapshot(&a, &newer).await.unwrap());
    // The whole history is there: the newer program makes its state anew.
    let older = of_version(5, 1).await;
    assert!(store.save_snapshot(&a, &older).await.unwrap());

    let newer = of_version(5, 2).await;
    store.compact(&a, &newer, 5).await.unwrap();
    let other = harness.other_client(&store).await;
    let older = of_version(6, 1).await;
    assert!(!other.save_snapshot(&a, &older).await.unwrap());
    assert_eq!(store.load_snapshot(&a).await.unwrap(), Some(newer));
    for newest in [of_version(6, 2).await, of_version(6, 3).await] {
        store.delete_snapshot(&a).await.unwrap();
        assert!(store.save_snapshot(&a, &newest).await.unwrap());
    }
}
