//! Restoring: what was recorded is stored where it lay.

use super::StoreHarness;
use super::bank::{Account, AccountCommand, account, bank, deposit, deposits};
use super::partitions::{COUNT, key_of_each, keyed};
use super::steps::{append, append_to_feed, feed, fresh, head, history, send, with_events};
use crate::partition::Partition;
use crate::recorded::{Position, RecordedEvent};
use crate::recording::{Recording, RecordingError};
use crate::repository::Repository;
use crate::store::{Append, EventStore, Expected, Restore, RestoreError};

async fn record(store: &impl EventStore) -> Recording {
    let recording = Recording::of(store).category(bank()).record().await;
    recording.unwrap()
}

fn restore(events: &[RecordedEvent]) -> Restore {
    Restore::new(bank().into(), events.to_vec()).unwrap()
}

/// What is recorded, written, read and restored is recorded the same again, histories and all.
pub async fn a_restored_recording_is_recorded_the_same<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for id in ["a", "b"] {
        let accounts = Repository::<Account>::new(store.clone());
        for amount in 1..4 {
            let command = AccountCommand::Deposit(amount);
            accounts.execute(id, command).await.unwrap();
        }
        append_to_feed(&store, &bank(), vec![keyed("k"), deposit()]).await;
    }
    let payload = "{\"amount\": 1e2,\r\n \"text\": \"ünï\\n\\u0000\"}";
    for fields in [
        vec![("type", "noted"), ("payload", payload)],
        vec![("type", "no event"), ("payload", "{}")],
        vec![
            ("type", "bank.noted"),
            ("payload", "[]"),
            ("aggregate", r#"{"type":"account","id":"a"}"#),
            ("metadata", r#"{"eventId":"order-7","userId":3}"#),
        ],
    ] {
        harness.append_foreign(&store, &bank(), &fields).await;
    }
    let recording = record(&store).await;
    assert_eq!(recording.len(), 12, "what is no event is left out");
    let read: Recording = recording.to_text().unwrap().parse().unwrap();
    assert_eq!(read, recording, "a file must read back the same");

    let other = fresh(harness).await;
    read.restore_into(&other).await.unwrap();
    assert_eq!(record(&other).await, recording);
    for id in ["a", "b"] {
        let restored = history(&other, &account(id)).await;
        assert_eq!(restored, history(&store, &account(id)).await);
        let accounts = Repository::<Account>::new(other.clone());
        let done = accounts.execute(id, AccountCommand::Withdraw(6)).await;
        let done = done.unwrap();
        assert_eq!((done.state.balance, done.version), (0, 4));
    }
}

/// What lay in several partitions lies there again, and nowhere else.
pub async fn restored_events_lie_in_their_partitions<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), COUNT).await;
    for number in 0..8 {
        append(
            &store,
            &account(&format!("a{number}")),
            Expected::NoStream,
            deposits(2),
        )
        .await;
    }
    for key in key_of_each() {
        send(&store, &Append::to_feed(bank(), vec![keyed(&key)])).await;
    }
    let recording = record(&store).await;
    let positions: Vec<Position> = recording
        .lines()
        .iter()
        .map(|line| line.event.position())
        .collect();
    assert!(positions.is_sorted(), "a recording must be in order");

    let other = harness.partitioned(&bank(), COUNT).await;
    recording.restore_into(&other).await.unwrap();
    assert_eq!(record(&other).await, recording);
    for number in 0..8 {
        let id = account(&format!("a{number}"));
        assert_eq!(history(&other, &id).await, history(&store, &id).await);
    }

    // Where the category has one partition, the others are not there.
    let narrow = fresh(harness).await;
    match recording.restore_into(&narrow).await {
        Err(RecordingError::Restore(RestoreError::Partition { count: 1, .. })) => {}
        other => panic!("the other partitions must be refused, and it came to {other:?}"),
    }
}

/// What lies as far as the store's newest event, or before it, is refused, and nothing is stored.
pub async fn later_positions_refuse_a_restore<H: StoreHarness>(harness: &H) {
    let recorded = fresh(harness).await;
    append_to_feed(&recorded, &bank(), vec![deposit(), deposit()]).await;
    let recorded = feed(&recorded, &bank()).await;
    let store = fresh(harness).await;
    let mut newest = append_to_feed(&store, &bank(), vec![deposit()]).await;
    // Two stores may be as fast as their clocks.
    while newest.position() <= recorded[1].position() {
        newest = append_to_feed(&store, &bank(), vec![deposit()]).await;
    }
    let before = feed(&store, &bank()).await;
    for events in [&recorded[..], &recorded[1..]] {
        match store.restore(&restore(events)).await {
            Ok(()) => panic!("it must be refused"),
            Err(RestoreError::NotBehind {
                partition,
                head,
                first,
            }) => {
                assert_eq!(partition, Partition::from(bank()));
                assert_eq!((head, first), (newest.position(), events[0].position()));
            }
            Err(error) => panic!("later positions must be named, instead of: {error}"),
        }
    }
    assert_eq!(feed(&store, &bank()).await, before);
}

/// A restore that is sent again stores nothing twice.
pub async fn a_restore_sent_again_is_stored_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    with_events(&store, account("a"), 3).await;
    let recorded = feed(&store, &bank()).await;
    let other = fresh(harness).await;
    for _ in 0..3 {
        other.restore(&restore(&recorded)).await.unwrap();
    }
    assert_eq!(feed(&other, &bank()).await, recorded);
    assert_eq!(history(&other, &account("a")).await, recorded);
}

/// A history is restored without holes: from its first event on, or behind what is there.
pub async fn a_history_is_restored_without_holes<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    with_events(&store, account("a"), 4).await;
    let recorded = feed(&store, &bank()).await;
    let other = fresh(harness).await;
    let refused = async |events: &[RecordedEvent], at: u64| {
        let head_before = head(&other, &bank()).await;
        match other.restore(&restore(events)).await {
            Err(RestoreError::Version {
                aggregate,
                actual,
                found,
            }) => {
                assert_eq!((aggregate, actual), (account("a"), at));
                assert_eq!(Some(found), events[0].aggregate().map(|own| own.version));
            }
            other => panic!("a hole must be refused, and it came to {other:?}"),
        }
        assert_eq!(head(&other, &bank()).await, head_before);
    };
    refused(&recorded[1..], 0).await;
    other.restore(&restore(&recorded[..2])).await.unwrap();
    refused(&recorded[3..], 2).await;
    other.restore(&restore(&recorded[2..])).await.unwrap();
    assert_eq!(history(&other, &account("a")).await, recorded);

    let mut hole = recorded;
    hole.remove(1);
    assert!(matches!(
        Restore::new(bank().into(), hole.clone()),
        Err(RestoreError::Version {
            actual: 1,
            found: 3,
            ..
        })
    ));
    hole.reverse();
    assert!(matches!(
        Restore::new(bank().into(), hole),
        Err(RestoreError::OutOfOrder { .. } | RestoreError::Version { .. })
    ));
}

/// What is appended lies behind what was restored, in feed and history.
pub async fn appends_go_on_behind_what_was_restored<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    with_events(&store, account("a"), 2).await;
    let recorded = feed(&store, &bank()).await;
    let other = fresh(harness).await;
    other.restore(&restore(&recorded)).await.unwrap();
    let other = harness.other_client(&other).await;
    append(&other, &account("a"), Expected::Exact(2), vec![deposit()]).await;
    append_to_feed(&other, &bank(), vec![deposit()]).await;
    let now = feed(&other, &bank()).await;
    assert_eq!((now.len(), &now[..2]), (4, &recorded[..]));
    assert_eq!(history(&other, &account("a")).await, now[..3]);
}

/// A restore that is asked again goes on where it was broken off, whatever was restored or appended since.
pub async fn a_restore_goes_on_where_it_was_broken_off<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    with_events(&store, account("a"), 4).await;
    append_to_feed(&store, &bank(), vec![keyed("k"), deposit()]).await;
    let recorded = feed(&store, &bank()).await;
    let other = fresh(harness).await;
    other.restore(&restore(&recorded[..2])).await.unwrap();
    for part in [&recorded[..2], &recorded[2..5], &recorded[5..]] {
        other.restore(&restore(part)).await.unwrap();
    }
    append_to_feed(&other, &bank(), vec![deposit()]).await;
    append(&other, &account("a"), Expected::Exact(4), vec![deposit()]).await;
    let before = feed(&other, &bank()).await;
    for part in [&recorded[..2], &recorded[2..5], &recorded[5..]] {
        other.restore(&restore(part)).await.unwrap();
    }
    assert_eq!(feed(&other, &bank()).await, before);
    assert_eq!(history(&other, &account("a")).await.len(), 5);

    // What is there only in part was not stored by this restore.
    let narrow = fresh(harness).await;
    narrow.restore(&restore(&recorded[5..])).await.unwrap();
    let refused = narrow.restore(&restore(&recorded[4..])).await;
    assert!(
        matches!(refused, Err(RestoreError::NotBehind { .. })),
        "{refused:?}"
    );
    assert_eq!(feed(&narrow, &bank()).await, recorded[5..]);
}
