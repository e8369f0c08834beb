//! Appending: the stored form, conflicts, repetition, and all or nothing.

use event_core::{
    Append, AppendError, Category, CodecError, EventStore, Expected, Limits, Position, StoreError,
};

use crate::support::{builder, event_as, id, numbered, only, project, sdlc, server, store, to};

const HISTORY: &str = "{events:sdlc}:history:project:gothic";

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[tokio::test]
async fn an_event_of_an_aggregate_lies_in_the_feed_and_in_the_history() {
    let server = server();
    let store = store(&server).await;
    let mut event = event_as(id(7), "sdlc.phase.changed", r#"{"to":"Bü\"ild"}"#);
    event.insert_metadata("user", "ü").unwrap();
    let micros = event.metadata().timestamp.timestamp_micros();
    let append = to("gothic", Expected::NoStream, vec![event.clone()]);
    let appended = store.append(&append).await.unwrap();
    let position = appended.position();
    assert_eq!(appended.version(), 1);

    let metadata = serde_json::to_string(event.metadata()).unwrap();
    assert_eq!(
        lines(
            &server
                .command(&["XRANGE", "events:sdlc", "-", "+"])
                .unwrap()
        ),
        [
            position.to_string().as_str(),
            "type",
            "sdlc.phase.changed",
            "payload",
            r#"{"to":"Bü\"ild"}"#,
            "aggregate",
            r#"{"type":"project","id":"gothic","version":1}"#,
            "metadata",
            metadata.as_str(),
        ]
    );
    assert_eq!(
        server.command(&["LRANGE", HISTORY, "0", "-1"]).unwrap(),
        format!(
            r#"[1,1,"{}","sdlc.phase.changed",{{"to":"Bü\"ild"}},"{position}",{micros},0,0,1,{{"user":"ü"}}]"#,
            id(7)
        )
    );
    // No ids are remembered where an exact version was expected.
    let mut keys = server.command(&["KEYS", "*"]).unwrap();
    let mut names: Vec<_> = keys.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["events:sdlc", "{events:sdlc}:format", HISTORY]);
    keys = server.command(&["GET", "{events:sdlc}:format"]).unwrap();
    assert_eq!(keys, "1");
}

#[tokio::test]
async fn an_event_without_an_aggregate_has_three_fields() {
    let server = server();
    let store = store(&server).await;
    let event = event_as(id(7), "sdlc.phase.changed", "{}");
    let metadata = serde_json::to_string(event.metadata()).unwrap();
    let appended = store
        .append(&Append::to_feed(sdlc(), vec![event]))
        .await
        .unwrap();
    assert_eq!(appended.version(), 0);
    assert_eq!(
        lines(
            &server
                .command(&["XRANGE", "events:sdlc", "-", "+"])
                .unwrap()
        ),
        [
            appended.position().to_string().as_str(),
            "type",
            "sdlc.phase.changed",
            "payload",
            "{}",
            "metadata",
            metadata.as_str(),
        ]
    );
}

#[tokio::test]
async fn a_conflict_tells_the_version() {
    let server = server();
    let store = store(&server).await;
    store
        .append(&to("gothic", Expected::Any, numbered(&[1, 2, 3])))
        .await
        .unwrap();
    for expected in [
        Expected::NoStream,
        Expected::Exact(0),
        Expected::Exact(1),
        Expected::Exact(2),
        Expected::Exact(4),
        Expected::Exact(1 << 52),
    ] {
        let append = to("gothic", expected, numbered(&[9]));
        let error = store.append(&append).await.unwrap_err();
        assert!(
            matches!(&error, AppendError::Conflict { actual: 3, expected: e, aggregate }
                if *e == expected && *aggregate == project("gothic")),
            "{expected}: {error:?}"
        );
    }
    let append = to("new", Expected::Exists, numbered(&[9]));
    let error = store.append(&append).await.unwrap_err();
    assert!(matches!(error, AppendError::Conflict { actual: 0, .. }));
    let append = to("gothic", Expected::Exact(3), numbered(&[9]));
    assert_eq!(store.append(&append).await.unwrap().version(), 4);
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "4");
}

#[tokio::test]
async fn a_repetition_is_a_success_and_stores_nothing() {
    let server = server();
    let store = store(&server).await;
    let append = to("gothic", Expected::Exact(0), numbered(&[1, 2]));
    let first = store.append(&append).await.unwrap();
    // Also when more has come since.
    let more = to("gothic", Expected::Exact(2), numbered(&[3, 4, 5]));
    store.append(&more).await.unwrap();
    let again = store.append(&append).await.unwrap();
    assert!(again.events.iter().all(|event| event.repeated));
    for (first, again) in first.events.iter().zip(&again.events) {
        assert_eq!(
            (first.position, first.version, false),
            (again.position, again.version, first.repeated)
        );
    }
    // Only the same ids at the same versions are the same append.
    for numbers in [&[1][..], &[2, 1], &[1, 3], &[1, 2, 3, 4, 5, 6]] {
        let other = to("gothic", Expected::Exact(0), numbered(numbers));
        match store.append(&other).await {
            Ok(appended) => assert_eq!((numbers, appended.version()), (&[1][..], 1)),
            Err(error) => assert!(matches!(error, AppendError::Conflict { actual: 5, .. })),
        }
    }
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "5");
    assert_eq!(server.command(&["LLEN", HISTORY]).unwrap(), "5");
}

#[tokio::test]
async fn a_repetition_is_found_behind_a_compacted_beginning() {
    let server = server();
    let store = store(&server).await;
    let append = to("gothic", Expected::Exact(0), numbered(&[1, 2, 3]));
    store.append(&append).await.unwrap();
    server.command(&["LPOP", HISTORY, "2"]).unwrap();
    // The version is what the last element says, however many there are.
    let error = store
        .append(&to("gothic", Expected::Exact(1), numbered(&[9])))
        .await
        .unwrap_err();
    assert!(matches!(error, AppendError::Conflict { actual: 3, .. }));
    let last = to("gothic", Expected::Exact(2), numbered(&[3]));
    assert!(store.append(&last).await.unwrap().events[0].repeated);
    // What is gone cannot be compared.
    let error = store.append(&append).await.unwrap_err();
    assert!(matches!(error, AppendError::Conflict { actual: 3, .. }));
    let next = to("gothic", Expected::Exact(3), numbered(&[4]));
    assert_eq!(store.append(&next).await.unwrap().version(), 4);
}

#[tokio::test]
async fn known_events_are_left_out_and_the_others_stored() {
    let server = server();
    let store = store(&server).await;
    let first = store
        .append(&to("gothic", Expected::Any, numbered(&[1, 2])))
        .await
        .unwrap();
    let mixed = store
        .append(&to("gothic", Expected::Exists, numbered(&[2, 3, 1, 4])))
        .await
        .unwrap();
    let summary: Vec<_> = mixed
        .events
        .iter()
        .map(|event| (event.version, event.repeated))
        .collect();
    assert_eq!(summary, [(2, true), (3, false), (1, true), (4, false)]);
    assert_eq!(mixed.events[0].position, first.events[1].position);
    assert_eq!(mixed.events[2].position, first.events[0].position);
    assert_eq!(server.command(&["LLEN", HISTORY]).unwrap(), "4");

    let feed = Append::to_feed(sdlc(), numbered(&[11]));
    let stored = store.append(&feed).await.unwrap();
    let again = store.append(&feed).await.unwrap();
    assert_eq!(again.position(), stored.position());
    assert!(again.events[0].repeated && again.events[0].version == 0);
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "5");
}

#[tokio::test]
async fn ids_are_remembered_in_two_generations() {
    let server = server();
    let limits = Limits {
        remembered_ids: 10,
        ..Limits::default()
    };
    let store = builder(&server).limits(limits).connect().await.unwrap();
    let append = |numbers: &[u32]| Append::to_feed(sdlc(), numbered(numbers));
    let size = |key: &str| -> i64 {
        let key = format!("{{events:sdlc}}:{key}");
        let size: i64 = server.command(&["HLEN", &key]).unwrap().parse().unwrap();
        // Two fields say how many there are, and since when.
        (size - 2).max(0)
    };
    for n in 1..=100 {
        store.append(&append(&[n])).await.unwrap();
        assert!(size("ids:0") <= 10 && size("ids:1") <= 10);
        // The newest ten are always known.
        for known in n.saturating_sub(9).max(1)..=n {
            let again = store.append(&append(&[known])).await.unwrap();
            assert!(again.events[0].repeated, "{known} after {n}");
        }
    }
    assert_eq!((size("ids:0"), size("ids:1")), (10, 10));
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "100");
    // Long forgotten.
    assert!(!store.append(&append(&[1])).await.unwrap().events[0].repeated);
    // Both go by themselves: the older one a day after it has become so at the latest.
    for (key, least) in [("ids:0", 86_400), ("ids:1", 86_400)] {
        let key = format!("{{events:sdlc}}:{key}");
        let ttl: i64 = server.command(&["TTL", &key]).unwrap().parse().unwrap();
        assert!((least..=2 * 86_400).contains(&ttl), "{key}: {ttl}");
    }
    // More at once than are remembered.
    let many: Vec<u32> = (1_000..1_030).collect();
    store.append(&append(&many)).await.unwrap();
    let again = store.append(&append(&many)).await.unwrap();
    assert!(again.events.iter().all(|event| event.repeated));
}

#[tokio::test]
async fn ids_are_remembered_for_a_day() {
    let server = server();
    let store = store(&server).await;
    let append = |numbers: &[u32]| Append::to_feed(sdlc(), numbered(numbers));
    store.append(&append(&[1])).await.unwrap();
    // As if the generation had begun more than a day ago.
    let newer = "{events:sdlc}:ids:0";
    let since: u64 = server
        .command(&["HGET", newer, "since"])
        .unwrap()
        .parse()
        .unwrap();
    let earlier = (since - 86_400_001).to_string();
    server.command(&["HSET", newer, "since", &earlier]).unwrap();
    store.append(&append(&[2])).await.unwrap();
    assert_eq!(server.command(&["HGET", newer, "count"]).unwrap(), "1");
    // It is the older one now, and still known.
    assert!(store.append(&append(&[1])).await.unwrap().events[0].repeated);
}

#[tokio::test]
async fn a_feed_of_another_type_leaves_nothing_written() {
    let server = server();
    let store = store(&server).await;
    server.command(&["SET", "events:sdlc", "x"]).unwrap();
    for append in [
        to("gothic", Expected::NoStream, numbered(&[1, 2])),
        to("gothic", Expected::Any, numbered(&[1, 2])),
        Append::to_feed(sdlc(), numbered(&[1])),
    ] {
        let error = store.append(&append).await.unwrap_err();
        assert!(
            matches!(&error, AppendError::Store(StoreError::Refused { source, .. })
                if source.to_string().contains("WRONGTYPE")),
            "{error:?}"
        );
        assert_eq!(server.command(&["KEYS", "*"]).unwrap(), "events:sdlc");
    }
}

#[tokio::test]
async fn any_key_of_another_type_leaves_nothing_written() {
    for key in ["history:project:gothic", "ids:0", "ids:1", "format"] {
        let server = server();
        let store = store(&server).await;
        let key = format!("{{events:sdlc}}:{key}");
        server.command(&["SADD", &key, "x"]).unwrap();
        let append = to("gothic", Expected::Any, numbered(&[1]));
        let error = store.append(&append).await.unwrap_err();
        assert!(
            matches!(error, AppendError::Store(StoreError::Refused { .. })),
            "{error:?}"
        );
        assert_eq!(server.command(&["KEYS", "*"]).unwrap(), key);
    }
}

#[tokio::test]
async fn what_the_user_may_not_do_leaves_nothing_written() {
    for (lacking, rule) in [("RPUSH", "-rpush"), ("HSET", "-hset"), ("SET", "-set")] {
        let server = server();
        let rules = [
            "ACL", "SETUSER", "app", "on", "nopass", "~*", "&*", "+@all", rule,
        ];
        server.command(&rules).unwrap();
        let url = server.url().replace("redis://", "redis://app:x@");
        let store = event_redis::RedisStore::connect(url).await.unwrap();
        let append = to("gothic", Expected::Any, numbered(&[1]));
        let error = store.append(&append).await.unwrap_err();
        assert!(
            matches!(&error, AppendError::Store(StoreError::Refused { source, .. })
                if source.to_string().contains(&format!("`{lacking}`"))),
            "{error:?}"
        );
        assert_eq!(server.command(&["KEYS", "*"]).unwrap(), "");
    }
}

#[tokio::test]
async fn a_server_without_memory_refuses_before_anything_is_written() {
    let server = server();
    let store = store(&server).await;
    server
        .command(&["CONFIG", "SET", "maxmemory", "1"])
        .unwrap();
    let append = to("gothic", Expected::Any, numbered(&[1]));
    let error = store.append(&append).await.unwrap_err();
    assert!(
        matches!(&error, AppendError::Store(StoreError::Refused { source, .. })
            if source.to_string().contains("OOM")),
        "{error:?}"
    );
    assert_eq!(server.command(&["KEYS", "*"]).unwrap(), "");
}

#[tokio::test]
async fn scripts_are_loaded_again_when_they_are_forgotten() {
    let server = server();
    let store = store(&server).await;
    for n in 1..=3 {
        server.command(&["SCRIPT", "FLUSH"]).unwrap();
        let append = to("gothic", Expected::Exact(u64::from(n) - 1), numbered(&[n]));
        let appended = store.append(&append).await.unwrap();
        assert!(!appended.events[0].repeated);
    }
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "3");
}

#[tokio::test]
async fn another_format_is_refused() {
    let server = server();
    let store = store(&server).await;
    server
        .command(&["SET", "{events:sdlc}:format", "2"])
        .unwrap();
    let append = to("gothic", Expected::Any, numbered(&[1]));
    let error = store.append(&append).await.unwrap_err();
    let AppendError::Store(StoreError::Refused { source, .. }) = &error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("format 2"), "{source}");
    assert_eq!(server.command(&["EXISTS", "events:sdlc"]).unwrap(), "0");
}

#[tokio::test]
async fn a_history_that_is_none_is_reported() {
    let server = server();
    let store = store(&server).await;
    server.command(&["RPUSH", HISTORY, "nonsense"]).unwrap();
    let append = to("gothic", Expected::Any, numbered(&[1]));
    let error = store.append(&append).await.unwrap_err();
    assert!(
        matches!(&error, AppendError::Codec(CodecError::Malformed { reason })
            if reason.contains("nonsense")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_prefix_stands_before_every_key() {
    let server = server();
    let shop = builder(&server).prefix("shop:").connect().await.unwrap();
    let other = store(&server).await;
    let append = to("gothic", Expected::Any, numbered(&[1]));
    shop.append(&append).await.unwrap();
    let keys = server.command(&["KEYS", "*"]).unwrap();
    let mut keys: Vec<_> = keys.lines().collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "shop:events:sdlc",
            "{shop:events:sdlc}:format",
            "{shop:events:sdlc}:history:project:gothic",
            "{shop:events:sdlc}:ids:0",
        ]
    );
    let head = shop.head(&only()).await.unwrap();
    assert!(head > Position::START);
    assert_eq!(other.head(&only()).await.unwrap(), Position::START);
}

#[tokio::test]
async fn an_append_of_thousands_is_one_append() {
    let server = server();
    let limits = Limits {
        events_per_append: 5_000,
        ..Limits::default()
    };
    let store = builder(&server).limits(limits).connect().await.unwrap();
    let numbers: Vec<u32> = (1..=5_000).collect();
    for expected in [Expected::Exact(0), Expected::Exact(5_000), Expected::Any] {
        let offset = match expected {
            Expected::Exact(version) => u32::try_from(version).unwrap(),
            _ => 10_000,
        };
        let numbers: Vec<u32> = numbers.iter().map(|n| n + offset).collect();
        let append = to("gothic", expected, numbered(&numbers));
        let appended = store.append(&append).await.unwrap();
        assert_eq!(appended.version(), u64::from(offset) + 5_000);
        let again = store.append(&append).await.unwrap();
        assert!(again.events.iter().all(|event| event.repeated));
    }
    let other = Append::to_feed(Category::new("other").unwrap(), vec![]);
    assert!(matches!(
        store.append(&other).await,
        Err(AppendError::NoEvents)
    ));
}
