//! Limits: what is refused before anything is written.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::StoreHarness;
use super::bank::{Notice, account, bank, category, deposit, deposits, event_of, event_with};
use super::steps::{append, append_to_feed, feed, fresh, head, history, send};
use crate::codec::{CodecError, NewEvent, entry};
use crate::event::Category;
use crate::metadata::RESERVED_KEYS;
use crate::recorded::Position;
use crate::store::{Append, AppendError, EventStore, Expected, Limits};

/// Sends appends that must be refused, to an aggregate and to a feed, and makes sure that nothing is
/// stored.
async fn expect_refused(
    store: &impl EventStore,
    events: &[NewEvent],
    is_reason: impl Fn(&AppendError) -> bool,
) {
    for append in [
        Append::to(account("refused"), Expected::Any, events.to_vec()),
        Append::to(account("refused"), Expected::NoStream, events.to_vec()),
        Append::to_feed(bank(), events.to_vec()),
    ] {
        match store.append(&append).await {
            Ok(_) => panic!("this must be refused: {append:?}"),
            Err(error) => assert!(is_reason(&error), "refused for another reason: {error}"),
        }
        assert_eq!(
            history(store, &account("refused")).await,
            [],
            "what is refused must leave no history"
        );
        for category in categories(&append) {
            assert_eq!(
                feed(store, &category).await,
                [],
                "what is refused must leave nothing in the feed of `{category}`"
            );
            assert_eq!(
                head(store, &category).await,
                Position::START,
                "what is refused must not move the head of `{category}`"
            );
        }
    }
}

/// Every category that something of the append could have been written to.
fn categories(append: &Append) -> Vec<Category> {
    let own = append.target().category().clone();
    append
        .events()
        .iter()
        .filter_map(|event| Category::of(event.event_type()).ok())
        .chain([own])
        .collect()
}

/// An append without events is refused.
pub async fn an_append_of_nothing_is_refused<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    expect_refused(&store, &[], |error| matches!(error, AppendError::NoEvents)).await;
}

/// One event of another category than the append's keeps all of its events out, wherever it stands
/// among them.
pub async fn an_event_of_another_category_keeps_all_out<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for stranger in ["shop", "ban", "bankrupt", "bank_"] {
        let stranger = event_of(&category(stranger));
        for place in 0..3 {
            let mut events = deposits(2);
            events.insert(place, stranger.clone());
            expect_refused(&store, &events, |error| {
                matches!(error, AppendError::OtherCategory { event_type, category }
                    if event_type == stranger.event_type() && category == "bank")
            })
            .await;
        }
    }
}

/// A realtime event is kept nowhere: one keeps all events of its append out.
pub async fn a_realtime_event_keeps_all_out<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let notice = Notice::RateQuoted { number: 1 }.encode();
    let among_others = [deposits(2), vec![notice.clone()]].concat();
    for events in [vec![notice], among_others] {
        expect_refused(&store, &events, |error| {
            matches!(error, AppendError::NotStored { event_type } if event_type == "bank.rate.quoted")
        })
        .await;
    }
}

/// Two events with one id keep all events of their append out.
pub async fn an_id_given_twice_keeps_all_out<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut events = deposits(3);
    let id: Uuid = events[0].metadata().event_id;
    events[2].metadata_mut().event_id = id;
    expect_refused(
        &store,
        &events,
        |error| matches!(error, AppendError::RepeatedId { event_id } if *event_id == id),
    )
    .await;
}

/// Metadata that would not read back as it is written keeps all events of its append out: names that
/// belong to the framework, and times that have no place in the stored form.
pub async fn metadata_that_would_not_survive_keeps_all_out<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for key in RESERVED_KEYS {
        let mut event = deposit();
        let extra = &mut event.metadata_mut().extra;
        extra.insert(key.to_owned(), "mine".into());
        expect_refused(&store, &[deposit(), event], |error| {
            matches!(error, AppendError::Codec(CodecError::ReservedKey { key: named }) if named == key)
        })
        .await;
    }
    let mut event = deposit();
    event.metadata_mut().timestamp = DateTime::<Utc>::MAX_UTC;
    expect_refused(&store, &[deposit(), event], |error| {
        matches!(error, AppendError::Codec(CodecError::Malformed { .. }))
    })
    .await;
}

/// A payload above `Limits::payload_bytes` keeps all events of its append out.
pub async fn an_oversized_payload_keeps_all_out<H: StoreHarness>(harness: &H) {
    const LIMIT: usize = 100;
    let store = harness
        .store(Limits {
            payload_bytes: LIMIT,
            ..Limits::default()
        })
        .await;
    let large = event_with("bank.deposited", &payload_of(LIMIT + 1));
    for events in [vec![large.clone()], vec![deposit(), large]] {
        expect_refused(&store, &events, |error| {
            matches!(error, AppendError::PayloadTooLarge { bytes, limit: LIMIT, .. }
                if *bytes == LIMIT + 1)
        })
        .await;
    }
}

/// Metadata above `Limits::metadata_bytes` keeps all events of its append out.
pub async fn oversized_metadata_keeps_all_out<H: StoreHarness>(harness: &H) {
    const LIMIT: usize = 400;
    let store = harness
        .store(Limits {
            metadata_bytes: LIMIT,
            ..Limits::default()
        })
        .await;
    let large = with_metadata_of(LIMIT + 1);
    for events in [vec![large.clone()], vec![deposit(), large]] {
        expect_refused(&store, &events, |error| {
            matches!(error, AppendError::MetadataTooLarge { bytes, limit: LIMIT, .. }
                if *bytes == LIMIT + 1)
        })
        .await;
    }
}

/// More events than `Limits::events_per_append` are refused, all of them.
pub async fn too_many_events_are_refused<H: StoreHarness>(harness: &H) {
    let store = harness
        .store(Limits {
            events_per_append: 3,
            ..Limits::default()
        })
        .await;
    expect_refused(&store, &deposits(4), |error| {
        matches!(error, AppendError::TooManyEvents { count: 4, limit: 3 })
    })
    .await;
}

/// What is exactly as large as the limits allow is stored.
pub async fn what_is_just_within_the_limits_is_stored<H: StoreHarness>(harness: &H) {
    let limits = Limits {
        payload_bytes: 100,
        metadata_bytes: 400,
        events_per_append: 3,
        ..Limits::default()
    };
    let store = harness.store(limits).await;
    let events = vec![
        event_with("bank.deposited", &payload_of(100)),
        with_metadata_of(400),
        deposit(),
    ];
    append(&store, &account("a"), Expected::NoStream, events).await;
    let more = vec![
        event_with("bank.deposited", &payload_of(100)),
        with_metadata_of(400),
        deposit(),
    ];
    append_to_feed(&store, &bank(), more).await;
    assert_eq!(feed(&store, &bank()).await.len(), 6);

    let store = fresh(harness).await;
    let most = Limits::default();
    send(
        &store,
        &Append::to_feed(bank(), deposits(most.events_per_append)),
    )
    .await;
    let largest = event_with("bank.deposited", &payload_of(most.payload_bytes));
    append(&store, &account("a"), Expected::Any, vec![largest]).await;
}

/// A payload of so many bytes.
fn payload_of(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// An event whose metadata has so many bytes as JSON.
fn with_metadata_of(bytes: usize) -> NewEvent {
    let mut event = deposit();
    event.insert_metadata("filling", "").unwrap();
    let short = entry::encode_metadata(&event).unwrap().len();
    event
        .insert_metadata("filling", "x".repeat(bytes - short))
        .unwrap();
    event
}
