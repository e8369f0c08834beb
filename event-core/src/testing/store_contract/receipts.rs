//! Receipts: a command that is sent again is done once.

use std::ops::Range;
use std::time::Duration;

use uuid::Uuid;

use super::StoreHarness;
use super::bank::{Account, AccountCommand, account, category, deposit};
use super::steps::{fresh, history, within};
use crate::codec::NewEvent;
use crate::repository::{Executed, Repository, RepositoryError};
use crate::snapshot::SnapshotPolicy;
use crate::store::{Append, AppendError, EventStore, Expected, MAX_COMMAND_ID_BYTES, Receipt};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn receipt(command_id: &str) -> Receipt {
    Receipt {
        command_id: command_id.to_owned(),
        keep: DAY,
    }
}

/// Deposits with these ids.
fn deposits(ids: Range<u128>) -> Vec<NewEvent> {
    let with_id = |id| {
        let mut event = deposit();
        event.metadata_mut().event_id = Uuid::from_u128(id);
        event
    };
    ids.map(with_id).collect()
}

/// A command that is sent again gives its first outcome, whatever has happened since.
pub async fn a_command_sent_again_gives_its_first_outcome<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = Repository::<Account>::new(store.clone());
    let other = Repository::<Account>::new(harness.other_client(&store).await);
    let command = AccountCommand::Deposit(10);
    accounts.execute("a", command).await.unwrap();
    let command = AccountCommand::DepositCoins(3);
    let first = accounts.execute_once("a", "x", DAY, command).await;
    let first = first.unwrap();
    assert_eq!((first.version, first.state.balance), (4, 13));

    let withdraw = AccountCommand::Withdraw(13);
    let withdrawn = other.execute_once("a", "y", DAY, withdraw).await.unwrap();
    // Today the account would refuse the second, and the others would come to something else.
    for (id, command, outcome) in [
        ("x", AccountCommand::DepositCoins(3), &first),
        ("y", withdraw, &withdrawn),
        ("x", AccountCommand::Close, &first),
    ] {
        for client in [&accounts, &other] {
            let again = client.execute_once("a", id, DAY, command).await.unwrap();
            assert_eq!(
                (&again.state, again.version),
                (&outcome.state, outcome.version)
            );
            assert_eq!(again.events, outcome.events);
        }
    }
    assert_eq!(accounts.load("a").await.unwrap().version, 5);
    // Each aggregate has ids of its own, whatever texts these are.
    for (id, command_id) in [("b", "x"), ("b:x", "x"), ("b", "x:x"), ("1:b", "x")] {
        let before = other.load(id).await.map_or(0, |loaded| loaded.version);
        let command = AccountCommand::Deposit(1);
        let done = other.execute_once(id, command_id, DAY, command).await;
        assert_eq!(done.unwrap().version, before + 1, "{id} {command_id}");
    }
}

/// A command that is refused, or leads to nothing, leaves no receipt, and is decided anew.
pub async fn what_leads_to_nothing_leaves_no_receipt<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = Repository::<Account>::new(store.clone());
    let withdraw = AccountCommand::Withdraw(5);
    let refused = accounts.execute_once("a", "x", DAY, withdraw).await;
    assert!(
        matches!(refused, Err(RepositoryError::Rejected { .. })),
        "{:?}",
        refused.map(|done| done.version)
    );
    assert_eq!(store.find_receipt(&account("a"), "x").await.unwrap(), None);
    let deposit = AccountCommand::Deposit(5);
    accounts.execute("a", deposit).await.unwrap();
    let done = accounts.execute_once("a", "x", DAY, withdraw).await;
    assert_eq!(done.unwrap().version, 2);
    let found = store.find_receipt(&account("a"), "x").await.unwrap();
    assert_eq!(found, Some(2..=2));
}

/// Of one command that is sent many times at once, one is done, and all have its outcome.
pub async fn a_command_sent_many_times_at_once_is_done_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let clients = [
        Repository::<Account>::new(store.clone()).with_cache(1 << 20),
        Repository::<Account>::new(harness.other_client(&store).await),
    ];
    let deposit = AccountCommand::Deposit(10);
    clients[0].execute("a", deposit).await.unwrap();
    for round in 0..5 {
        for (what, command, balance) in [
            // For the second time there would be too little.
            ("withdrawal", AccountCommand::Withdraw(10), 0),
            ("deposit", deposit, 10),
        ] {
            let id = format!("{what} {round}");
            let sent = (0..8).map(|n| clients[n % 2].execute_once("a", &id, DAY, command));
            let outcomes = futures::future::join_all(sent).await;
            let first = outcomes[0].as_ref().unwrap();
            for outcome in &outcomes {
                let outcome = outcome.as_ref().unwrap();
                assert_eq!(outcome.state.balance, balance, "{id}");
                assert_eq!(outcome.events, first.events, "{id}");
            }
        }
    }
    let events = history(&store, &account("a")).await;
    assert_eq!(events.len(), 11);
}

/// An append with a receipt that is sent again is a success, and another one under its id is refused.
pub async fn an_append_with_a_receipt_is_stored_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for (aggregate, expected) in [("a", Expected::Any), ("b", Expected::Exact(0))] {
        let append =
            |ids| Append::to(account(aggregate), expected, deposits(ids)).once(receipt("x"));
        let base = u128::from(aggregate.as_bytes()[0]) * 100;
        let first = store.append(&append(base..base + 2)).await.unwrap();
        let again = store.append(&append(base..base + 2)).await.unwrap();
        assert_eq!(again.position(), first.position());
        assert!(again.events.iter().all(|event| event.repeated));
        for other in [base..base + 1, base..base + 3, base + 7..base + 9] {
            let refused = store.append(&append(other)).await;
            assert!(
                matches!(&refused, Err(AppendError::AlreadyDone { done, command_id, .. })
                    if *done == (1..=2) && command_id == "x"),
                "{refused:?}"
            );
        }
        assert_eq!(history(&store, &account(aggregate)).await.len(), 2);
    }
}

/// A receipt is kept for as long as is asked for, and no longer.
pub async fn a_receipt_is_kept_for_some_time<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = Repository::<Account>::new(store.clone());
    let command = AccountCommand::Deposit(1);
    let short = Duration::from_millis(1);
    let first = accounts.execute_once("a", "x", short, command).await;
    first.unwrap();
    let a = account("a");
    within("the receipt is gone", async {
        while store.find_receipt(&a, "x").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let again = accounts
        .execute_once("a", "x", Duration::MAX, command)
        .await;
    assert_eq!(again.unwrap().version, 2);
    let again = accounts.execute_once("a", "x", short, command).await;
    assert_eq!(again.unwrap().version, 2);
}

/// A receipt is of an aggregate, and its id is of some length.
pub async fn a_receipt_that_cannot_be_is_refused<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let feed = Append::to_feed(category("bank"), deposits(1..2)).once(receipt("x"));
    let refused = store.append(&feed).await;
    assert!(
        matches!(refused, Err(AppendError::ReceiptOfFeed { .. })),
        "{refused:?}"
    );
    for (bytes, is_refused) in [
        (0, true),
        (MAX_COMMAND_ID_BYTES, false),
        (MAX_COMMAND_ID_BYTES + 1, true),
    ] {
        let receipt = receipt(&"x".repeat(bytes));
        let append = Append::to(account("a"), Expected::Any, deposits(2..3)).once(receipt);
        let appended = store.append(&append).await;
        let is_invalid = matches!(appended, Err(AppendError::InvalidCommandId { .. }));
        assert_eq!(is_invalid, is_refused, "{appended:?}");
    }
}

/// A command that is sent again has an outcome also where what it led to was dropped since.
pub async fn an_outcome_is_told_behind_a_compaction<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = Repository::<Account>::new(store.clone())
        .with_snapshots(SnapshotPolicy::every(u64::MAX))
        .with_events_kept_for(Duration::ZERO);
    let command = AccountCommand::DepositCoins(3);
    let gone = accounts.execute_once("a", "gone", DAY, command).await;
    let gone = gone.unwrap();
    let in_part = AccountCommand::DepositCoins(70);
    let in_part = accounts.execute_once("a", "in part", DAY, in_part).await;
    let in_part = in_part.unwrap();
    let whole = accounts.execute_once("a", "whole", DAY, command).await;
    let whole = whole.unwrap();
    accounts
        .execute("a", AccountCommand::DepositCoins(54))
        .await
        .unwrap();
    let compacted = accounts.compact("a").await.unwrap();
    assert_eq!(compacted.first_available, 31);

    for (id, outcome, left) in [
        ("gone", &gone, 0),
        ("in part", &in_part, 43),
        ("whole", &whole, 3),
    ] {
        // The account would refuse it today.
        let command = AccountCommand::Withdraw(1_000);
        let again = accounts.execute_once("a", id, DAY, command).await.unwrap();
        assert_eq!((again.version, again.state.balance), (130, 130), "{id}");
        let dropped = outcome.events.len() - left;
        assert_eq!(again.events, outcome.events[dropped..], "{id}");
        let reached = |executed: &Executed<Account>| {
            let token = executed.token();
            let reached = token.iter().map(|(_, position)| position).max();
            reached.expect("an outcome has a token")
        };
        assert!(reached(&again) >= reached(outcome), "{id}");
    }
    // Where the state of then can still be made, it is that.
    accounts
        .execute_once("a", "new", DAY, AccountCommand::Deposit(5))
        .await
        .unwrap();
    accounts
        .execute("a", AccountCommand::Deposit(1))
        .await
        .unwrap();
    let command = AccountCommand::Withdraw(1_000);
    let again = accounts.execute_once("a", "new", DAY, command).await;
    let again = again.unwrap();
    assert_eq!((again.version, again.state.balance), (131, 135));
}
