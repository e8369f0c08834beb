//! Repair: histories and feeds compared, histories made anew, and entries of other programs adopted, while
//! others write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::StoreHarness;
use super::bank::{Account, AccountCommand, AccountEvent, account, bank, deposit, deposits};
use super::steps::{
    Chance, append, append_to_feed, fresh, history, read, recorded_ids, version_of, with_events,
    within,
};
use crate::codec::CodecError;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, RecordedEvent};
use crate::repair::{
    Checks, Finding, Findings, RebuildHistoryError, adopt, rebuild_history, verify,
    verify_aggregate,
};
use crate::repository::Repository;
use crate::snapshot::SnapshotPolicy;
use crate::store::{EventStore, Expected, Maintenance, Swapped, TrimPolicy, Versions};

/// Events are read as those of accounts, which no macro has reported.
fn checks() -> Checks {
    Checks::new()
        .examples(2)
        .decoder(|event: &RecordedEvent| match event.event_type() {
            "bank.unknown" => None,
            _ => Some(event.decode::<AccountEvent>().map(drop)),
        })
}

/// Accounts whose histories may be compacted at once.
fn accounts(store: impl EventStore) -> Repository<Account> {
    Repository::new(store)
        .with_snapshots(SnapshotPolicy::every(u64::MAX))
        .with_events_kept_for(Duration::ZERO)
}

async fn findings(store: &impl Maintenance) -> Findings {
    match verify(store, &bank(), &checks()).await {
        Ok(findings) => findings,
        Err(error) => panic!("the bank must be verified: {error}"),
    }
}

async fn assert_sound(store: &impl Maintenance) -> Findings {
    let findings = findings(store).await;
    assert!(findings.is_sound(), "{findings}: {findings:?}");
    findings
}

/// What another program writes of an account.
async fn foreign<H: StoreHarness>(
    harness: &H,
    store: &H::Store,
    id: &str,
    version: Option<u64>,
) -> Position {
    let version = version.map(|version| format!(r#","version":{version}"#));
    let aggregate = format!(
        r#"{{"type":"account","id":"{id}"{}}}"#,
        version.unwrap_or_default()
    );
    let fields = [
        ("type", "deposited"),
        ("payload", "{\"amount\": 5}"),
        ("aggregate", &*aggregate),
        ("metadata", r#"{"source":"shop","key":"ü","own":[1]}"#),
    ];
    harness.append_foreign(store, &bank(), &fields).await
}

/// Whatever is written by appends alone is sound, in all partitions.
pub async fn what_is_appended_is_sound<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), 3).await;
    assert_eq!(assert_sound(&store).await, Findings::default());
    for n in 0..20 {
        with_events(&store, account(&format!("a{n}")), 3).await;
        append_to_feed(&store, &bank(), vec![deposit()]).await;
    }
    append(
        &store,
        &account("long:*[ü]"),
        Expected::Any,
        deposits(1_000),
    )
    .await;
    append(&store, &account("long:*[ü]"), Expected::Any, deposits(203)).await;
    let found = assert_sound(&store).await;
    assert_eq!(
        (found.histories, found.events, found.entries),
        (21, 1_263, 1_283)
    );
    let found = verify_aggregate(&store, &account("a7"), &checks())
        .await
        .unwrap();
    assert!(found.is_sound());
    assert_eq!((found.histories, found.events, found.entries), (1, 3, 3));
}

/// What is written beside a look at it is no mistake.
pub async fn writers_beside_it_are_no_mistake<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for n in 0..3 {
        let accounts = accounts(harness.other_client(&store).await);
        let is_over = Arc::clone(&is_over);
        writers.push(tokio::spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                let id = format!("a{n}");
                let command = AccountCommand::DepositCoins(3);
                accounts.execute(&id, command).await.unwrap();
                if n == 0 {
                    accounts.compact(&id).await.unwrap();
                }
            }
        }));
    }
    let trimmer = {
        let (store, is_over) = (harness.other_client(&store).await, Arc::clone(&is_over));
        tokio::spawn(async move {
            let policy = TrimPolicy::new().max_entries(50);
            while !is_over.load(Ordering::SeqCst) {
                store.trim(&bank(), &policy).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    for _ in 0..20 {
        assert_sound(&store).await;
    }
    is_over.store(true, Ordering::SeqCst);
    for task in writers.into_iter().chain([trimmer]) {
        within("a task ends", task).await.unwrap();
    }
    assert_sound(&store).await;
}

/// What was trimmed away or dropped is told, and is no mistake.
pub async fn what_is_gone_on_purpose_is_told<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    with_events(&store, account("a"), 10).await;
    let accounts = accounts(store.clone());
    accounts
        .execute("b", AccountCommand::DepositCoins(150))
        .await
        .unwrap();
    accounts.compact("b").await.unwrap();
    let trimmed = store
        .trim(&bank(), &TrimPolicy::new().max_entries(100))
        .await;
    assert_eq!(trimmed.unwrap()[0].removed, 60);
    let found = assert_sound(&store).await;
    assert_eq!(
        (found.histories, found.events, found.entries),
        (2, 110, 100)
    );
    assert_eq!((found.trimmed, found.compacted), (10, 1));
}

/// Entries that no history has, that are no events, and that cannot be read, are found where they lie.
pub async fn what_is_wrong_is_found<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), 2).await;
    let place = |id: &str| Partition::of_aggregate(&account(id), 2).number();
    let ids: Vec<_> = (0..20).map(|n| format!("a{n}")).collect();
    let here = ids.iter().find(|id| place(id) == 0).unwrap();
    let elsewhere = ids.iter().find(|id| place(id) == 1).unwrap();
    with_events(&store, account(here), 2).await;
    let mut missing = Vec::new();
    for version in [None, Some(2), Some(3)] {
        missing.push(foreign(harness, &store, here, version).await);
    }
    foreign(harness, &store, elsewhere, None).await;
    let write = async |fields: &[(&str, &str)]| {
        harness.append_foreign(&store, &bank(), fields).await;
    };
    write(&[("type", "deposited")]).await;
    write(&[("type", "deposited"), ("payload", r#"{"amount":"much"}"#)]).await;
    write(&[("type", "unknown"), ("payload", "{}")]).await;
    let no_name = r#"{"type":"No Type","id":"x"}"#;
    write(&[
        ("type", "deposited"),
        ("payload", "{}"),
        ("aggregate", no_name),
    ])
    .await;

    let found = findings(&store).await;
    assert!(!found.is_sound());
    assert_eq!(found.missing_in_history.count, 4);
    let first: Vec<_> = found.missing_in_history.first.iter().collect();
    assert_eq!(first.len(), 2, "as many as are wanted are told");
    let is_first = |finding: &&&Finding| finding.position == Some(missing[0]);
    let finding = first.iter().find(is_first).expect("the first is told");
    assert_eq!(finding.aggregate, Some(account(here)));
    assert_eq!(found.unreadable.count, 3);
    assert_eq!(found.unknown_types.count, 1);
    let counts = found.kinds().map(|(_, found)| found.count);
    assert_eq!(counts.iter().sum::<u64>(), 7, "{found:?}");

    let adoption = adopt(&store, &bank()).await.unwrap();
    assert_eq!(
        (adoption.adopted, adoption.misplaced, adoption.unreadable),
        (3, 1, 2)
    );
    assert_eq!(findings(&store).await.missing_in_history.count, 1);
}

/// What another program wrote is put at the end of its history, in order, once, and is loaded from then on.
pub async fn foreign_events_are_adopted_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let mut at = vec![foreign(harness, &store, "a", None).await];
    let own = with_events(&store, account("a"), 2).await;
    at.push(foreign(harness, &store, "a", Some(1)).await);
    let new = foreign(harness, &store, "new", None).await;
    assert_eq!(findings(&store).await.missing_in_history.count, 3);

    // By two at once, and again.
    let bank = bank();
    let (one, two) = tokio::join!(adopt(&store, &bank), adopt(&other, &bank));
    assert_eq!(one.unwrap().adopted + two.unwrap().adopted, 3);
    assert_eq!(adopt(&other, &bank).await.unwrap().adopted, 0);
    let events = history(&store, &own).await;
    assert_eq!(events.len(), 4);
    let positions: Vec<_> = events[2..].iter().map(RecordedEvent::position).collect();
    assert_eq!(positions, at);
    let adopted = &events[2];
    assert_eq!(adopted.payload(), "{\"amount\": 5}");
    assert_eq!(adopted.metadata().source.as_deref(), Some("shop"));
    assert_eq!(adopted.metadata().key.as_deref(), Some("ü"));
    assert!(adopted.metadata().extra.contains_key("own"));
    assert_eq!(history(&other, &account("new")).await[0].position(), new);
    assert_sound(&store).await;

    let accounts = Repository::<Account>::new(store.clone());
    let loaded = accounts.load("a").await.unwrap();
    assert_eq!((loaded.version, loaded.state.balance), (4, 12));
    append(&store, &own, Expected::Exact(4), vec![deposit()]).await;
    assert_eq!(adopt(&store, &bank).await.unwrap().adopted, 0);
    assert_sound(&store).await;
}

/// What was adopted out of order is no mistake, also when its entry is trimmed away.
pub async fn what_was_adopted_is_not_out_of_order<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    foreign(harness, &store, "a", None).await;
    with_events(&store, account("a"), 2).await;
    assert_eq!(adopt(&store, &bank()).await.unwrap().adopted, 1);
    append(&store, &account("a"), Expected::Exact(3), vec![deposit()]).await;
    assert_sound(&store).await;
    for left in [3, 2, 0] {
        let policy = TrimPolicy::new().max_entries(left);
        store.trim(&bank(), &policy).await.unwrap();
        assert_eq!(assert_sound(&store).await.trimmed, 4 - left);
    }
}

/// What was adopted stays so when the feed is trimmed, or the history compacted.
pub async fn what_was_adopted_stays_adopted<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for _ in 0..120 {
        foreign(harness, &store, "a", Some(1)).await;
    }
    assert_eq!(adopt(&store, &bank()).await.unwrap().adopted, 120);
    let accounts = accounts(store.clone());
    assert_eq!(accounts.compact("a").await.unwrap().removed, 20);
    assert_eq!(adopt(&store, &bank()).await.unwrap().adopted, 0);
    store
        .trim(&bank(), &TrimPolicy::new().max_entries(10))
        .await
        .unwrap();
    assert_eq!(adopt(&store, &bank()).await.unwrap().adopted, 0);
    assert_sound(&store).await;
    assert_eq!(accounts.load("a").await.unwrap().state.balance, 600);
}

/// An adoption that is broken off anywhere, again and again, adopts each entry once.
pub async fn an_adoption_that_is_broken_off_goes_on<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut chance = Chance::new(11);
    let mut at = Vec::new();
    for round in 0..600 / H::LOAD_DIVISOR {
        at.push(foreign(harness, &store, &format!("a{}", round % 3), None).await);
    }
    // Each time it may go on for longer.
    for attempt in 0.. {
        let bank = bank();
        let breaking_off = async {
            for _ in 0..attempt {
                chance.pause().await;
            }
        };
        tokio::select! {
            biased;
            adopted = adopt(&store, &bank) => {
                adopted.unwrap();
                break;
            }
            () = breaking_off => {}
        }
    }
    let mut found = Vec::new();
    for n in 0..3 {
        let events = history(&store, &account(&format!("a{n}"))).await;
        let positions: Vec<_> = events.iter().map(RecordedEvent::position).collect();
        assert!(positions.is_sorted(), "in the order of the feed");
        found.extend(positions);
    }
    found.sort_unstable();
    assert_eq!(found, at);
    assert_sound(&store).await;
}

/// While others append to the same aggregates, each entry is adopted once and each append counts.
pub async fn adopting_beside_writers_loses_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let count = 100 / H::LOAD_DIVISOR;
    let mut writers = Vec::new();
    for _ in 0..2 {
        let accounts = Repository::<Account>::new(harness.other_client(&store).await);
        writers.push(tokio::spawn(async move {
            for _ in 0..count {
                accounts
                    .execute("a", AccountCommand::Deposit(1))
                    .await
                    .unwrap();
            }
        }));
    }
    let other = harness.other_client(&store).await;
    let mut adopted = 0;
    for _ in 0..count {
        foreign(harness, &store, "a", None).await;
        let bank = bank();
        let (one, two) = tokio::join!(adopt(&store, &bank), adopt(&other, &bank));
        adopted += one.unwrap().adopted + two.unwrap().adopted;
    }
    for writer in writers {
        within("a writer ends", writer).await.unwrap();
    }
    assert_eq!(adopted, count as u64);
    let accounts = Repository::<Account>::new(store.clone());
    let loaded = accounts.load("a").await.unwrap();
    let count = count as u64;
    assert_eq!(
        (loaded.version, loaded.state.balance),
        (3 * count, 7 * count)
    );
    assert_sound(&store).await;
}

/// A history that was compacted is whole again when it is made anew, with the versions that it had.
pub async fn a_history_is_made_anew_from_the_feed<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    foreign(harness, &store, "a", None).await;
    let accounts = accounts(store.clone());
    accounts
        .execute("a", AccountCommand::DepositCoins(700))
        .await
        .unwrap();
    adopt(&store, &bank()).await.unwrap();
    accounts
        .execute("a", AccountCommand::DepositCoins(50))
        .await
        .unwrap();
    let not_adopted = foreign(harness, &store, "a", None).await;
    let before = history(&store, &account("a")).await;
    assert_eq!(accounts.compact("a").await.unwrap().removed, 651);

    let rebuilt = rebuild_history(&store, &account("a")).await.unwrap();
    assert_eq!((rebuilt.version, rebuilt.not_adopted), (751, 1));
    let after = history(&store, &account("a")).await;
    assert_eq!(after, before);
    assert_eq!(version_of(&after[750]), 751);
    assert!(after.iter().all(|event| event.position() != not_adopted));
    // And once more, though nothing is wrong with it.
    assert_eq!(
        rebuild_history(&store, &account("a"))
            .await
            .unwrap()
            .version,
        751
    );
    append(&store, &account("a"), Expected::Exact(751), vec![deposit()]).await;
    assert_eq!(adopt(&store, &bank()).await.unwrap().adopted, 1);
    assert_sound(&store).await;
}

/// A history is not made anew of a feed that does not have all of it, and stays as it is.
pub async fn what_is_not_whole_is_left_as_it_is<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    with_events(&store, account("gone"), 5).await;
    with_events(&store, account("a"), 5).await;
    with_events(&store, account("b"), 5).await;
    let unknown = rebuild_history(&store, &account("c")).await;
    assert!(
        matches!(unknown, Err(RebuildHistoryError::NotFound { .. })),
        "{unknown:?}"
    );
    store
        .trim(&bank(), &TrimPolicy::new().max_entries(7))
        .await
        .unwrap();
    for (id, missing) in [("gone", 1), ("a", 1), ("c", 1)] {
        match rebuild_history(&store, &account(id)).await {
            Err(RebuildHistoryError::Incomplete { version, .. }) => assert_eq!(version, missing),
            other => panic!("`{id}` is not whole, and came to {other:?}"),
        }
    }
    assert_eq!(
        rebuild_history(&store, &account("b"))
            .await
            .unwrap()
            .version,
        5
    );
    // Two entries that say they are the same.
    foreign(harness, &store, "b", Some(2)).await;
    match rebuild_history(&store, &account("b")).await {
        Err(RebuildHistoryError::Twice { version: 2, .. }) => {}
        other => panic!("version 2 is there twice, and it came to {other:?}"),
    }
    for id in ["gone", "a", "b"] {
        assert_eq!(history(&store, &account(id)).await.len(), 5);
    }
}

/// While others append to it, and adopt, a history is made anew without losing anything.
pub async fn a_history_made_anew_beside_writers_loses_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let a: AggregateId = account("a");
    append(&store, &a, Expected::Any, deposits(700)).await;
    let count = 60 / H::LOAD_DIVISOR;
    let writer = {
        let store = harness.other_client(&store).await;
        let a = a.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..count {
                let events = deposits(3);
                ids.extend(super::steps::new_ids(&events));
                append(&store, &a, Expected::Any, events).await;
            }
            ids
        })
    };
    let mut rounds = 0;
    while !writer.is_finished() || rounds == 0 {
        match rebuild_history(&store, &a).await {
            Ok(rebuilt) => assert!(rebuilt.version >= 700),
            Err(error) => panic!("it must be made anew: {error}"),
        }
        rounds += 1;
    }
    let ids = within("the writer ends", writer).await.unwrap();
    let rebuilt = rebuild_history(&store, &a).await.unwrap();
    assert_eq!(rebuilt.version, 700 + 3 * count as u64);
    let tail = read(&store, &a, &Versions::from(701)).await;
    assert_eq!(recorded_ids(&tail), ids);
    assert_sound(&store).await;
}

/// What a decoder cannot read is found, in histories, too.
pub async fn what_cannot_be_read_is_found<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    with_events(&store, account("a"), 3).await;
    let checks = Checks::new().examples(1).decoder(|event| {
        let version = event.aggregate().map_or(0, |own| own.version);
        (version != 3).then(|| match version {
            2 => Err(CodecError::Malformed {
                reason: "not this one".into(),
            }),
            _ => Ok(()),
        })
    });
    let found = verify(&store, &bank(), &checks).await.unwrap();
    assert_eq!((found.unreadable.count, found.unknown_types.count), (1, 1));
    let finding = &found.unreadable.first[0];
    assert_eq!(
        (finding.version, finding.aggregate.clone()),
        (Some(2), Some(account("a")))
    );
    assert!(finding.to_string().contains("not this one"), "{finding}");
    assert!(store.first_available(&bank().into()).await.is_ok());
}

/// What was adopted and is trimmed away while others look at it is not missing.
pub async fn what_is_trimmed_away_meanwhile_is_not_missing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    foreign(harness, &store, "a", None).await;
    let unknown = foreign(harness, &store, "b", None).await;
    let partition = Partition::from(bank());
    let entries = store.read_feed(&partition, Position::START, 10).await;
    let entries = entries.unwrap().into_iter();
    let events: Vec<_> = entries.map(|entry| entry.into_event().unwrap()).collect();
    assert_eq!(
        store.adopt_events(&partition, &events[..1]).await.unwrap(),
        1
    );
    let missing = store.missing_in_history(&partition, &events).await;
    assert_eq!(missing.unwrap(), [unknown]);
    for left in [1, 0] {
        let policy = TrimPolicy::new().max_entries(left);
        store.trim(&bank(), &policy).await.unwrap();
        let missing = store.missing_in_history(&partition, &events).await;
        assert_eq!(missing.unwrap().len() as u64, left);
    }
}

/// A step of making a history anew that is sent again, since its reply was lost, is done once.
pub async fn a_step_that_is_sent_again_is_done_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let a = with_events(&store, account("a"), 5).await;
    let events = history(&store, &a).await;
    let last = events[4].position();
    let numbered: Vec<_> = (1..).zip(events.iter().cloned()).collect();
    for part in [&numbered[..2], &numbered[2..]] {
        for _ in 0..2 {
            store.stage_history(&a, "made", part).await.unwrap();
        }
    }
    let swapped = store.swap_history(&a, "made", last, 5).await.unwrap();
    assert_eq!(swapped, Swapped::Done);
    assert_eq!(history(&store, &a).await, events);
    // What is in place is not there to be put in place again.
    let swapped = store.swap_history(&a, "made", last, 5).await.unwrap();
    assert_eq!(swapped, Swapped::Lost);
    assert_eq!(history(&store, &a).await, events);
    // Of what does not begin at its beginning nothing is made.
    store
        .stage_history(&a, "late", &numbered[2..])
        .await
        .unwrap();
    for version in [3, 5] {
        let swapped = store.swap_history(&a, "late", last, version).await;
        assert_eq!(swapped.unwrap(), Swapped::Lost);
    }
    assert_eq!(history(&store, &a).await, events);
}
