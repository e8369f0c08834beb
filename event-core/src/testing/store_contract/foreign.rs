//! Foreign entries: what other programs wrote to a feed.

use super::StoreHarness;
use super::bank::{account, bank, deposit, deposits};
use super::steps::{
    append, append_to_feed, assert_ordered, feed, follow, fresh, head, history, next_events,
    read_feed,
};
use crate::codec::CodecError;
use crate::recorded::{AggregateRef, Position, RecordedEvent};
use crate::store::{Expected, FeedEntry};

/// Reads the one event that a foreign program has written.
async fn read_foreign<H: StoreHarness>(
    harness: &H,
    store: &H::Store,
    fields: &[(&str, &str)],
) -> RecordedEvent {
    let position = harness.append_foreign(store, &bank(), fields).await;
    assert_eq!(head(store, &bank()).await, position);
    let event = feed(store, &bank()).await.pop().unwrap();
    assert_eq!(event.position(), position);
    event
}

/// An entry that has a type and a payload alone is an event: its id comes from where it lies, its
/// time from when it was written.
pub async fn type_and_payload_are_enough<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let fields = [("type", "bank.deposited"), ("payload", r#"{"amount": 1}"#)];
    let event = read_foreign(harness, &store, &fields).await;
    assert_eq!(event.event_type(), "bank.deposited");
    assert_eq!(event.payload(), r#"{"amount": 1}"#);
    assert_eq!(event.aggregate(), None);
    let metadata = event.metadata();
    assert_eq!(
        metadata.event_id.get_version_num(),
        5,
        "a uuid made of its place"
    );
    assert_eq!(metadata.correlation_id, metadata.event_id.to_string());
    assert_eq!(metadata.causation_id, None);
    assert_eq!(metadata.schema_version, 1);
    let written = u64::try_from(metadata.timestamp.timestamp_millis()).unwrap();
    assert_eq!(written, event.position().milliseconds());

    let other = read_foreign(harness, &store, &fields).await;
    assert_ne!(
        other.metadata().event_id,
        event.metadata().event_id,
        "two entries must be two events, though they say the same"
    );
}

/// The type of an entry may lack its category, which is then added.
pub async fn a_type_may_lack_its_category<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for (written, read) in [
        ("deposited", "bank.deposited"),
        ("account.closed", "bank.account.closed"),
        ("bank.account.closed", "bank.account.closed"),
        ("bank", "bank.bank"),
        ("bankrupt.declared", "bank.bankrupt.declared"),
        ("2.x", "bank.2.x"),
    ] {
        let event = read_foreign(harness, &store, &[("type", written), ("payload", "{}")]).await;
        assert_eq!(event.event_type(), read);
    }
}

/// Fields that the framework does not know are passed over, wherever they stand.
pub async fn unknown_fields_are_passed_over<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let event = read_foreign(
        harness,
        &store,
        &[
            ("", "no name"),
            ("Type", "not this one"),
            ("payload", r#"{"amount":1}"#),
            ("body", "{not JSON"),
            ("type", "bank.deposited"),
            ("ünïcode", "\u{0}"),
            ("payload2", ""),
        ],
    )
    .await;
    assert_eq!(event.event_type(), "bank.deposited");
    assert_eq!(event.payload(), r#"{"amount":1}"#);
}

/// An entry may name its aggregate without metadata, and without a version.
pub async fn an_aggregate_without_metadata_is_read<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for (json, version) in [
        (r#"{"type":"account","id":"ä:1","version":7}"#, 7),
        (r#"{"id":"ä:1", "other": [], "type":"account"}"#, 0),
    ] {
        let fields = [
            ("type", "deposited"),
            ("payload", "{}"),
            ("aggregate", json),
        ];
        let event = read_foreign(harness, &store, &fields).await;
        let expected = AggregateRef {
            aggregate_type: "account".into(),
            id: "ä:1".into(),
            version,
        };
        assert_eq!(event.aggregate(), Some(&expected));
    }
    assert_eq!(
        history(&store, &account("ä:1")).await,
        [],
        "a foreign entry lies in no history"
    );
}

/// Metadata of a foreign entry is kept: what is missing is filled in, and what is unknown is handed
/// on.
pub async fn foreign_metadata_is_kept<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let id = "0190b6c0-0000-7000-8000-000000000001";
    let json = format!(
        r#"{{"eventId":"{id}","timestamp":"2025-11-23T13:13:20.000001+01:00","correlationId":"c","causationId":null,"source":"shop","schemaVersion":2,"key":"k","userId":3,"tags":["ü"]}}"#
    );
    let fields = [
        ("type", "deposited"),
        ("payload", "1"),
        ("metadata", &*json),
    ];
    let event = read_foreign(harness, &store, &fields).await;
    let metadata = event.metadata();
    assert_eq!(metadata.event_id.to_string(), id);
    assert_eq!(metadata.timestamp.timestamp_micros(), 1_763_900_000_000_001);
    assert_eq!(metadata.correlation_id, "c");
    assert_eq!(metadata.causation_id, None);
    assert_eq!(metadata.source.as_deref(), Some("shop"));
    assert_eq!(metadata.schema_version, 2);
    assert_eq!(metadata.traceparent, None);
    assert_eq!(metadata.key.as_deref(), Some("k"));
    let extra = serde_json::Value::from(metadata.extra.clone());
    assert_eq!(extra, serde_json::json!({"userId": 3, "tags": ["ü"]}));
}

/// A foreign id that is no uuid is an identity all the same: one id is one event id.
pub async fn a_foreign_id_that_is_no_uuid_is_an_identity<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut ids = Vec::new();
    for json in [
        r#"{"eventId":"order-1"}"#,
        r#"{"eventId":"order-1"}"#,
        r#"{"eventId":"order-2"}"#,
    ] {
        let fields = [("type", "deposited"), ("payload", "{}"), ("metadata", json)];
        let event = read_foreign(harness, &store, &fields).await;
        ids.push(event.metadata().event_id);
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}

/// A foreign entry is the same event at every reading, by every client and every way of reading.
pub async fn a_foreign_entry_is_the_same_at_every_reading<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    append_to_feed(&store, &bank(), vec![deposit()]).await;
    let fields = [("type", "deposited"), ("payload", "{}")];
    let event = read_foreign(harness, &store, &fields).await;
    let other = harness.other_client(&store).await;
    assert_eq!(feed(&other, &bank()).await[1], event);
    let mut follower = follow(&other, &bank(), Position::START).await;
    assert_eq!(next_events(&mut *follower, 2, 2).await[1], event);
}

/// Entries that are no events.
pub(super) const NO_EVENTS: &[&[(&str, &str)]] = &[
    &[("payload", "{}")],
    &[("type", "deposited")],
    &[("other", "field")],
    &[("type", ""), ("payload", "{}")],
    &[("type", "No Type"), ("payload", "{}")],
    &[("type", "a..b"), ("payload", "{}")],
    &[("type", "deposited"), ("payload", "")],
    &[("type", "deposited"), ("payload", "{")],
    &[("type", "deposited"), ("payload", "{} {}")],
    &[("type", "deposited"), ("payload", "text")],
    &[("type", "deposited"), ("payload", "{}"), ("metadata", "{")],
    &[("type", "deposited"), ("payload", "{}"), ("metadata", "7")],
    &[("type", "deposited"), ("payload", "{}"), ("aggregate", "")],
    &[
        ("type", "deposited"),
        ("payload", "{}"),
        ("aggregate", r#"{"id":"a"}"#),
    ],
];

/// An entry that is no event is reported where it lies, and what lies around it is read.
pub async fn an_entry_that_is_no_event_stops_no_reader<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut expected = Vec::new();
    for fields in NO_EVENTS {
        let position = harness.append_foreign(&store, &bank(), fields).await;
        expected.push((position, false));
        let appended = append(&store, &account("a"), Expected::Any, vec![deposit()]).await;
        expected.push((appended.position(), true));
    }
    for limit in [1, 3, usize::MAX] {
        let mut found = Vec::new();
        let mut after = Position::START;
        loop {
            let entries = read_feed(&store, &bank(), after, limit).await;
            assert_ordered(&entries, after);
            let Some(last) = entries.last() else { break };
            after = last.position();
            found.extend(entries.into_iter().map(|entry| match entry {
                FeedEntry::Event(event) => (event.position(), true),
                FeedEntry::Undecodable { position, error } => {
                    assert!(
                        matches!(error, CodecError::Malformed { .. }),
                        "what is no event must be called malformed, not: {error}"
                    );
                    (position, false)
                }
            }));
        }
        assert_eq!(found, expected, "in batches of {limit}");
    }
}

/// Appends go on behind foreign entries: positions grow, and versions count their own events only.
pub async fn appends_go_on_behind_a_foreign_entry<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let aggregate = r#"{"type":"account","id":"a","version":2}"#;
    let fields = [
        ("type", "deposited"),
        ("payload", "{}"),
        ("aggregate", aggregate),
    ];
    let mut positions = Vec::new();
    for round in 0..10 {
        positions.push(harness.append_foreign(&store, &bank(), &fields).await);
        let appended = append(
            &store,
            &account("a"),
            Expected::Exact(2 * round),
            deposits(2),
        )
        .await;
        assert_eq!(appended.version(), 2 * round + 2);
        positions.extend(appended.events.iter().map(|event| event.position));
    }
    let found: Vec<_> = feed(&store, &bank())
        .await
        .iter()
        .map(|event| event.position())
        .collect();
    assert_eq!(found, positions);
    assert!(positions.is_sorted());
}
