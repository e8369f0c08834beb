//! Snapshots and caches: states that are kept, and histories that have the last word.

use serde_json::json;
use uuid::Uuid;

use super::StoreHarness;
use super::bank::{Account, AccountCommand, AccountEvent, account};
use super::steps::{fresh, history};
use crate::recorded::Version;
use crate::repository::{At, Loaded, Repository, RepositoryError};
use crate::snapshot::{Snapshot, SnapshotPolicy};
use crate::store::{AppendError, EventStore, Expected, Versions};

fn snapshot(version: Version, event_id: u128, state: impl ToString) -> Snapshot {
    Snapshot {
        version,
        event_id: Uuid::from_u128(event_id),
        state_version: 1,
        state: state.to_string(),
    }
}

/// Accounts with snapshots that are never due: what the rules save is all there is.
fn accounts<S: EventStore>(store: S) -> Repository<Account> {
    Repository::new(store).with_snapshots(SnapshotPolicy::every(u64::MAX))
}

async fn deposit(accounts: &Repository<Account>, id: &str, amounts: &[u64]) {
    for amount in amounts {
        let command = AccountCommand::Deposit(*amount);
        accounts.execute(id, command).await.unwrap();
    }
}

/// The id of an event of an account.
async fn event_id(store: &impl EventStore, id: &str, version: Version) -> Uuid {
    let events = history(store, &account(id)).await;
    let index = usize::try_from(version - 1).unwrap();
    events[index].metadata().event_id
}

/// Of three snapshots the newest is kept, in whatever order they are saved.
pub async fn of_three_snapshots_the_newest_is_kept<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let [one, two, three] = [1, 2, 3].map(|n| snapshot(n, n.into(), json!({ "n": n })));
    for (id, order, saved) in [
        ("up", [&one, &two, &three], [true, true, true]),
        ("down", [&three, &two, &one], [true, false, false]),
        ("mixed", [&two, &three, &one], [true, true, false]),
        ("again", [&three, &three, &three], [true, false, false]),
    ] {
        assert_eq!(store.load_snapshot(&account(id)).await.unwrap(), None);
        for (snapshot, is_saved) in order.into_iter().zip(saved) {
            let saved = store.save_snapshot(&account(id), snapshot).await.unwrap();
            assert_eq!(saved, is_saved, "{id}: {snapshot:?}");
        }
        let kept = store.load_snapshot(&account(id)).await.unwrap();
        assert_eq!(kept.as_ref(), Some(&three), "{id}");
    }
}

/// A snapshot is read as it was written, by another client, too.
pub async fn a_snapshot_survives<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let state = json!({"text": "ünïcode \u{0} \"\r\n", "list": vec![1; 10_000]});
    let kept = Snapshot {
        state_version: 7,
        ..snapshot(u64::from(u32::MAX) * 4, 9, state)
    };
    store.save_snapshot(&account("a"), &kept).await.unwrap();
    let other = harness.other_client(&store).await;
    let found = other.load_snapshot(&account("a")).await.unwrap();
    assert_eq!(found, Some(kept));
    assert_eq!(other.load_snapshot(&account("b")).await.unwrap(), None);
}

/// A snapshot that is deleted is gone, and an older one may be saved then.
pub async fn a_deleted_snapshot_is_gone<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (old, new) = (snapshot(1, 1, 1), snapshot(9, 9, 9));
    store.save_snapshot(&account("a"), &new).await.unwrap();
    store.save_snapshot(&account("b"), &new).await.unwrap();
    assert!(store.delete_snapshot(&account("a")).await.unwrap());
    assert!(!store.delete_snapshot(&account("a")).await.unwrap());
    assert_eq!(store.load_snapshot(&account("a")).await.unwrap(), None);
    assert!(store.save_snapshot(&account("a"), &old).await.unwrap());
    assert_eq!(store.load_snapshot(&account("b")).await.unwrap(), Some(new));
}

/// A load goes on from a snapshot, and reads nothing of what lies before it.
pub async fn a_load_goes_on_from_a_snapshot<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = accounts(store.clone());
    deposit(&accounts, "a", &[1, 2, 3, 4, 5]).await;
    // No history leads to this state, so that it shows where it is used.
    let state = json!({"balance": 1_000, "entries": 0, "closed": false});
    let event_id = event_id(&store, "a", 3).await;
    let kept = snapshot(3, event_id.as_u128(), state);
    store.save_snapshot(&account("a"), &kept).await.unwrap();

    let loaded = accounts.load("a").await.unwrap();
    assert_eq!((loaded.state.balance, loaded.version), (1_009, 5));
    let executed = accounts.execute("a", AccountCommand::Withdraw(10)).await;
    assert_eq!(executed.unwrap().state.balance, 999);

    // It is used for versions from its own on.
    for (version, balance) in [(1, 1), (2, 3), (3, 1_000), (4, 1_004)] {
        let loaded = accounts.load_at("a", At::Version(version)).await.unwrap();
        assert_eq!((loaded.state.balance, loaded.version), (balance, version));
    }
    // Without a policy nobody looks for one.
    let others = Repository::<Account>::new(store);
    assert_eq!(others.load("a").await.unwrap().state.entries, 6);
}

/// A snapshot that cannot be read, that is of another version of the state or of another history is
/// passed over, and the whole history is read.
pub async fn an_unusable_snapshot_is_passed_over<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = accounts(store.clone());
    let state = json!({"balance": 1_000, "entries": 0, "closed": false});
    let cases = ["garbage", "shape", "older", "newer", "other", "ahead"];
    for id in cases {
        deposit(&accounts, id, &[1, 2, 3]).await;
        let right = event_id(&store, id, 2).await.as_u128();
        let unusable = match id {
            "garbage" => snapshot(2, right, "{"),
            "shape" => snapshot(2, right, json!({"balance": "much"})),
            "older" => Snapshot {
                state_version: 0,
                ..snapshot(2, right, &state)
            },
            "newer" => Snapshot {
                state_version: 2,
                ..snapshot(2, right, &state)
            },
            "other" => snapshot(2, 4_711, &state),
            _ => snapshot(9, right, &state),
        };
        store.save_snapshot(&account(id), &unusable).await.unwrap();

        let loaded = accounts.load(id).await.unwrap();
        assert_eq!((loaded.state.balance, loaded.version), (6, 3), "{id}");
        let past = accounts.load_at(id, At::Version(2)).await.unwrap();
        assert_eq!((past.state.balance, past.version), (3, 2), "{id}");
        let executed = accounts.execute(id, AccountCommand::Withdraw(6)).await;
        assert_eq!(executed.unwrap().version, 4, "{id}");
    }
    // Nor is there an aggregate because there is a snapshot of it.
    let kept = snapshot(2, 1, &state);
    store.save_snapshot(&account("none"), &kept).await.unwrap();
    let loaded = accounts.load("none").await;
    assert!(
        matches!(loaded, Err(RepositoryError::NotFound { .. })),
        "{loaded:?}"
    );
}

/// A snapshot is written when so many events have come, and not before.
pub async fn a_snapshot_is_written_when_it_is_due<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let policy = SnapshotPolicy::every(3).state_version(5);
    let accounts = Repository::<Account>::new(store.clone()).with_snapshots(policy);
    for version in 1..=7 {
        deposit(&accounts, "a", &[version]).await;
        accounts.finish_snapshots().await;
        let kept = store.load_snapshot(&account("a")).await.unwrap();
        assert_eq!(kept.map_or(0, |kept| kept.version), version / 3 * 3);
    }
    let kept = store.load_snapshot(&account("a")).await.unwrap().unwrap();
    assert_eq!(kept.state_version, 5);
    assert_eq!(kept.event_id, event_id(&store, "a", 6).await);

    // A load finds one due as a command does.
    let events = vec![AccountEvent::Deposited { amount: 1 }; 3];
    accounts
        .append("b", Expected::NoStream, &events)
        .await
        .unwrap();
    assert_eq!(store.load_snapshot(&account("b")).await.unwrap(), None);
    accounts.load("b").await.unwrap();
    accounts.finish_snapshots().await;
    let kept = store.load_snapshot(&account("b")).await.unwrap();
    assert_eq!(kept.map(|kept| kept.version), Some(3));
}

/// A snapshot and what came after it make the same state as the whole history, for many histories and
/// all points in them.
pub async fn a_snapshot_and_its_tail_equal_the_history<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let whole = Repository::<Account>::new(store.clone());
    let mut random = 42_u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    for number in 0..(12 / H::LOAD_DIVISOR).max(3) {
        let id = format!("a{number}");
        let kept = Repository::<Account>::new(store.clone())
            .with_snapshots(SnapshotPolicy::every(1 + next(5)))
            .with_cache([0, 1 << 20][usize::try_from(next(2)).unwrap()]);
        for _ in 0..20 + next(20) {
            let command = match next(4) {
                0 => AccountCommand::DepositCoins(1 + next(4)),
                1 => AccountCommand::Withdraw(next(6)),
                2 => AccountCommand::Close,
                _ => AccountCommand::Deposit(next(9)),
            };
            // Which of the two is not told by anything else.
            let by_whole = next(3) == 0;
            let executed = match by_whole {
                true => whole.execute(&id, command).await,
                false => kept.execute(&id, command).await,
            };
            match executed {
                Ok(_) | Err(RepositoryError::Rejected { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            kept.finish_snapshots().await;
            if let Ok(expected) = whole.load(&id).await {
                assert_eq!(kept.load(&id).await.unwrap(), expected);
            }
        }
        let newest = whole.load(&id).await.unwrap().version;
        for version in 1..=newest {
            let at = At::Version(version);
            let expected = whole.load_at(&id, at).await.unwrap();
            assert_eq!(kept.load_at(&id, at).await.unwrap(), expected);
        }
    }
}

/// A cached state takes in what others have appended, also through another client.
pub async fn a_cached_state_takes_in_what_others_append<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let cached = Repository::<Account>::new(store.clone()).with_cache(1 << 20);
    let other = Repository::<Account>::new(harness.other_client(&store).await);
    deposit(&cached, "a", &[1]).await;
    for round in 1..=5 {
        deposit(&other, "a", &[10]).await;
        let Loaded { state, version } = cached.load("a").await.unwrap();
        assert_eq!((state.balance, version), (1 + 10 * round, 1 + round));
    }
}

/// A cached state refuses nothing, and finds nothing done, that the newest would not.
pub async fn a_cached_state_does_not_decide_alone<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let cached = Repository::<Account>::new(store.clone()).with_cache(1 << 20);
    let other = Repository::<Account>::new(harness.other_client(&store).await);
    deposit(&cached, "a", &[1]).await;
    deposit(&other, "a", &[10]).await;
    // By what is cached there is too little.
    let executed = cached.execute("a", AccountCommand::Withdraw(11)).await;
    let executed = executed.unwrap();
    assert_eq!((executed.state.balance, executed.version), (0, 3));

    // By what is cached there is enough, but somebody was faster.
    deposit(&cached, "a", &[5]).await;
    let withdrawn = other.execute("a", AccountCommand::Withdraw(5)).await;
    withdrawn.unwrap();
    let refused = cached.execute("a", AccountCommand::Withdraw(5)).await;
    assert!(
        matches!(refused, Err(RepositoryError::Rejected { .. })),
        "{refused:?}"
    );
    other.execute("a", AccountCommand::Close).await.unwrap();
    let closed = cached.execute("a", AccountCommand::Close).await.unwrap();
    assert!(closed.events.is_empty(), "it is closed already");
    assert_eq!(closed.version, 6);
}

/// Commands on one cached aggregate at once each count, though each begins with an old state.
pub async fn commands_on_cached_states_each_count<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let clients = [
        Repository::<Account>::new(store.clone()).with_cache(1 << 20),
        Repository::<Account>::new(harness.other_client(&store).await).with_cache(1 << 20),
    ];
    let each = u64::try_from(100 / H::LOAD_DIVISOR).unwrap().max(10);
    let deposits = clients.iter().map(|client| async move {
        for _ in 0..each {
            let command = AccountCommand::Deposit(1);
            match client.execute("a", command).await {
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    futures::future::join_all(deposits).await;
    for client in &clients {
        let loaded = client.load("a").await.unwrap();
        assert_eq!((loaded.state.balance, loaded.version), (2 * each, 2 * each));
    }
}

/// A history is read in pages, with each event as it was recorded and as it is read.
pub async fn a_history_is_read_in_pages<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = accounts(store.clone());
    deposit(&accounts, "a", &[1, 2, 3, 4, 5]).await;
    let (mut next, mut amounts) = (1, Vec::new());
    loop {
        let page = Versions::from(next).limit(2);
        let page = accounts.history("a", &page).await.unwrap();
        let Some(last) = page.last() else { break };
        next = last.version + 1;
        for past in &page {
            assert_eq!(past.recorded.aggregate().unwrap().version, past.version);
            match past.event {
                AccountEvent::Deposited { amount } => amounts.push(amount),
                _ => panic!("{past:?}"),
            }
        }
    }
    assert_eq!(amounts, [1, 2, 3, 4, 5]);
    let unknown = accounts.history("unknown", &Versions::all()).await;
    assert!(
        matches!(unknown, Err(RepositoryError::NotFound { .. })),
        "{unknown:?}"
    );
}

/// What has come of an aggregate between two versions is told by both states and the events.
pub async fn changes_are_told_by_states_and_events<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = accounts(store.clone());
    deposit(&accounts, "a", &[1, 2, 3, 4, 5]).await;
    let changes = accounts.changes("a", 2, 4).await.unwrap();
    assert_eq!((changes.before.balance, changes.after.balance), (3, 10));
    let versions: Vec<_> = changes.events.iter().map(|past| past.version).collect();
    assert_eq!(versions, [3, 4]);
    let all = accounts.changes("a", 0, 5).await.unwrap();
    assert_eq!((all.before.balance, all.after.balance), (0, 15));
    assert_eq!(all.events.len(), 5);
    let ahead = accounts.changes("a", 2, 6).await;
    assert!(
        matches!(
            ahead,
            Err(RepositoryError::NoSuchVersion {
                wanted: 6,
                highest: 5,
                ..
            })
        ),
        "{ahead:?}"
    );
}

/// A command that conflicts again and again is an error in the end, with a cache, too.
pub async fn a_conflict_that_does_not_end_is_an_error<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let cached = Repository::<Account>::new(store.clone())
        .with_cache(1 << 20)
        .with_conflict_retries(0);
    deposit(&cached, "a", &[1]).await;
    let stale = Expected::Exact(0);
    let event = AccountEvent::Deposited { amount: 1 };
    let refused = cached.append("a", stale, &[event]).await;
    assert!(
        matches!(
            refused,
            Err(RepositoryError::Append(AppendError::Conflict {
                actual: 1,
                ..
            }))
        ),
        "{refused:?}"
    );
    // What is cached is behind, which is no conflict of the caller's.
    let other = Repository::<Account>::new(harness.other_client(&store).await);
    deposit(&other, "a", &[1]).await;
    deposit(&cached, "a", &[1]).await;
    assert_eq!(cached.load("a").await.unwrap().version, 3);
}
