//! Round trips: what is read is what was written.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::StoreHarness;
use super::bank::{AccountEvent, account, bank, category, deposit, deposits, event_with};
use super::steps::{
    append, append_to_feed, events, feed, follow, fresh, head, history, next_events, read,
    read_feed, version_of,
};
use crate::codec::{Codec, NewEvent};
use crate::metadata::Metadata;
use crate::recorded::{Position, RecordedEvent};
use crate::store::{Backend, Expected, Versions};

/// Reads an event in every way there is, and makes sure that it is what was written.
async fn expect_as_written(store: &impl Backend, written: &NewEvent, in_history: bool) {
    let mut found = Vec::new();
    if in_history {
        let account = account("a");
        found.push(("read_aggregate", history(store, &account).await.pop()));
        let last = read(store, &account, &Versions::last(1)).await.pop();
        found.push(("read_aggregate backwards", last));
    }
    let head = head(store, &bank()).await;
    found.push(("read_feed", feed(store, &bank()).await.pop()));
    let before = Position::new(head.milliseconds().saturating_sub(1), u64::MAX);
    let near = events(read_feed(store, &bank(), before, usize::MAX).await).pop();
    found.push(("read_feed from near the head", near));
    let count = feed(store, &bank()).await.len();
    let mut follower = follow(store, &bank(), Position::START).await;
    let followed = next_events(&mut *follower, count, count).await.pop();
    found.push(("follow", followed));

    for (way, event) in found {
        let event = event.expect("an event that was stored must be read");
        assert_eq!(event.event_type(), written.event_type(), "{way}: the type");
        assert_eq!(event.payload(), written.payload(), "{way}: the payload");
        assert_eq!(event.metadata(), written.metadata(), "{way}: the metadata");
        assert_eq!(event.position(), head, "{way}: the position");
        assert_eq!(
            event.aggregate().is_some(),
            in_history,
            "{way}: the aggregate"
        );
        if let Some(aggregate) = event.aggregate() {
            assert_eq!(aggregate.aggregate_type, "account", "{way}: the aggregate");
            assert_eq!(aggregate.id, "a", "{way}: the aggregate");
        }
    }
}

/// An event with something in every part of its metadata.
fn rich_event() -> NewEvent {
    let mut event = deposit();
    let metadata = event.metadata_mut();
    metadata.event_id = Uuid::from_u128(0xfedc_ba98_7654_4321_8fed_cba9_8765_4321);
    metadata.correlation_id = "order \"7\" — ünïcode \\ \n 🦀".into();
    metadata.causation_id = Some("{\"not\": \"an object\"}".into());
    metadata.source = Some("rates/ätna".into());
    metadata.schema_version = 3;
    metadata.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    metadata.key = Some("key:{a}*\u{0}".into());
    for (name, value) in [
        ("delivery", json!("72d3162e-cc78-11e3-81ab-4c9367dc0958")),
        ("userId", json!(18_446_744_073_709_551_615_u64)),
        ("ratio", json!(-0.125)),
        ("nothing", json!(null)),
        ("empty", json!({})),
        (
            "list",
            json!([1, [true, "\u{0}\u{1f}\u{2028}"], {"日本": "語"}]),
        ),
        ("", json!("a name may be empty")),
        ("ключ", json!("a name may be any text")),
        ("aggregate", json!("not the event's")),
        ("version", json!(7)),
    ] {
        event.insert_metadata(name, value).unwrap();
    }
    event
}

/// Id, correlation, cause, time, source, schema version, trace, key and the user's own metadata of
/// an aggregate's event survive.
pub async fn metadata_survives<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for expected in [Expected::NoStream, Expected::Any] {
        let mut event = rich_event();
        if expected == Expected::Any {
            event.metadata_mut().event_id = Uuid::now_v7();
        }
        append(
            &store,
            &account("a"),
            expected,
            vec![deposit(), event.clone()],
        )
        .await;
        expect_as_written(&store, &event, true).await;
    }
}

/// All metadata of an event without aggregate survives.
pub async fn metadata_of_a_feed_event_survives<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let event = rich_event();
    append_to_feed(&store, &bank(), vec![deposit(), event.clone()]).await;
    expect_as_written(&store, &event, false).await;
}

/// An event that has an id and a time alone is read with these alone.
pub async fn plain_metadata_survives<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let event = deposit();
    assert_eq!(event.metadata().causation_id, None);
    append(&store, &account("a"), Expected::Any, vec![event.clone()]).await;
    expect_as_written(&store, &event, true).await;
    let other = deposit();
    append_to_feed(&store, &bank(), vec![other.clone()]).await;
    expect_as_written(&store, &other, false).await;
}

/// Times are kept to the microsecond, before 1970 and far ahead, too.
pub async fn times_are_kept_to_the_microsecond<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for micros in [
        0,
        1,
        -1,
        1_763_900_000_000_000,
        1_763_900_000_000_001,
        1_763_900_000_999_999,
        -62_135_596_800_000_000,
        253_402_300_799_999_999,
    ] {
        let mut event = deposit();
        event.metadata_mut().timestamp = DateTime::from_timestamp_micros(micros).unwrap();
        append(&store, &account("a"), Expected::Any, vec![event.clone()]).await;
        expect_as_written(&store, &event, true).await;
    }

    // What is finer than a microsecond is cut off, in the same way everywhere.
    let time: DateTime<Utc> = DateTime::from_timestamp_micros(1_763_900_000_000_001).unwrap();
    let mut event = deposit();
    event.metadata_mut().timestamp = time + TimeDelta::nanoseconds(999);
    append(&store, &account("a"), Expected::Any, vec![event.clone()]).await;
    event.metadata_mut().timestamp = time;
    expect_as_written(&store, &event, true).await;
}

/// A payload is read byte for byte as it was written, whatever is in it.
pub async fn payloads_survive_byte_for_byte<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let all_escapes: String = (0..0x20).map(|code| format!("\\u{code:04x}")).collect();
    for payload in [
        "{}",
        "null",
        "0",
        "\"\"",
        "[]",
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{ "spaces" : [ 1 , 2 ] }"#,
        "{\"lines\":\r\n\t[1,\n2]}",
        r#"{"large":123456789012345678901234567890,"small":0.1000,"e":1E+2,"minus":-0}"#,
        r#"{"9007199254740993":9007199254740993}"#,
        r#"{"text":"ünïcode 日本語 🦀 e\u0301 \ud83e\udd80"}"#,
        "{\"raw\":\"\u{7f}\u{80}\u{ff}\u{2028}\u{fffd}\u{10ffff}\"}",
        r#"{"like binary":"\u0000\u0001\\\"\/\b\f\n\r\t","base64":"AP8Q/w=="}"#,
        r#"{"like a reply":"$-1\r\n*3\r\n+OK","like a script":"]]--%s {0}"}"#,
        r#""[1,7,\"a\",\"b\",{},\"5-1\",1,0,0,1]""#,
        &format!("\"{all_escapes}\""),
        &deep,
    ] {
        let event = event_with("bank.deposited", payload);
        append(&store, &account("a"), Expected::Any, vec![event.clone()]).await;
        expect_as_written(&store, &event, true).await;
        let event = event_with("bank.deposited", payload);
        append_to_feed(&store, &bank(), vec![event.clone()]).await;
        expect_as_written(&store, &event, false).await;
    }
}

/// A payload of half a mebibyte survives, among small ones.
pub async fn a_large_payload_survives<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let text = "0123456789abcdef ünïcode 🦀\\n".repeat(18_000);
    let large = event_with("bank.deposited", &format!("\"{text}\""));
    append(
        &store,
        &account("a"),
        Expected::NoStream,
        vec![deposit(), large.clone()],
    )
    .await;
    expect_as_written(&store, &large, true).await;
    append(&store, &account("a"), Expected::Any, vec![deposit()]).await;
    assert_eq!(
        history(&store, &account("a")).await[1].payload(),
        large.payload()
    );
}

/// Typed events are decoded as they were encoded, from histories and from feeds.
pub async fn typed_events_survive<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let typed = [
        AccountEvent::Deposited { amount: u64::MAX },
        AccountEvent::Withdrawn {
            amount: 0,
            note: Some("ünïcode \u{0} 🦀".into()),
        },
        AccountEvent::Withdrawn {
            amount: 1,
            note: None,
        },
        AccountEvent::Closed,
    ];
    let codec = Codec::default();
    let new = typed
        .iter()
        .map(|event| codec.encode(event).unwrap())
        .collect();
    append(&store, &account("a"), Expected::NoStream, new).await;
    let decode = |events: Vec<RecordedEvent>| -> Vec<AccountEvent> {
        events.iter().map(|event| event.decode().unwrap()).collect()
    };
    assert_eq!(decode(history(&store, &account("a")).await), typed);
    assert_eq!(decode(feed(&store, &bank()).await), typed);
}

/// A history and the feed tell the same of every event.
pub async fn history_and_feed_tell_the_same<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    for (id, expected) in [
        ("a", Expected::NoStream),
        ("b", Expected::Any),
        ("a", Expected::Exact(5)),
        ("a", Expected::Any),
        ("b", Expected::Exists),
    ] {
        let mut events = deposits(4);
        events.push({
            let mut event = rich_event();
            event.metadata_mut().event_id = Uuid::now_v7();
            event
        });
        append(&store, &account(id), expected, events).await;
    }
    let of_other_category = {
        let metadata = Metadata::new(Uuid::now_v7(), Utc::now());
        NewEvent::from_parts("shop.happened", "{}", metadata).unwrap()
    };
    append_to_feed(&store, &category("shop"), vec![of_other_category]).await;

    let in_feed = feed(&store, &bank()).await;
    assert_eq!(in_feed.len(), 25);
    for id in ["a", "b"] {
        let own: Vec<_> = in_feed
            .iter()
            .filter(|event| {
                event
                    .aggregate()
                    .is_some_and(|aggregate| aggregate.id == id)
            })
            .cloned()
            .collect();
        assert_eq!(own, history(&store, &account(id)).await);
        assert_eq!(own.last().map(version_of), Some(own.len() as u64));
    }
}
