//! Reading and following feeds.

use std::time::Duration;

use event_core::{
    Append, EventStore, Expected, FeedEntry, FeedReader, Position, ReadError, StoreError,
};

use crate::support::{events, only, sdlc, server, soon, store, to, until};

fn payloads(entries: &[FeedEntry]) -> Vec<String> {
    entries
        .iter()
        .map(|entry| match entry {
            FeedEntry::Event(event) => event.payload().to_owned(),
            FeedEntry::Undecodable { position, error } => panic!("{position}: {error}"),
        })
        .collect()
}

/// Reads until there are so many.
async fn take(reader: &mut dyn FeedReader, count: usize, limit: usize) -> Vec<FeedEntry> {
    let mut entries = Vec::new();
    while entries.len() < count {
        let batch = soon("a batch", reader.next_batch(limit)).await.unwrap();
        assert!(!batch.is_empty() && batch.len() <= limit);
        entries.extend(batch);
    }
    entries
}

fn numbers(range: std::ops::RangeInclusive<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn what_any_client_writes_is_an_event() {
    let server = server();
    let store = store(&server).await;
    let add = [
        "XADD",
        "events:sdlc",
        "5-1",
        "type",
        "phase.changed",
        "payload",
        r#"{"a":1}"#,
    ];
    server.command(&add).unwrap();
    let entries = store.read_feed(&only(), Position::START, 10).await.unwrap();
    let [FeedEntry::Event(event)] = entries.as_slice() else {
        panic!("{entries:?}");
    };
    assert_eq!(event.event_type(), "sdlc.phase.changed");
    assert_eq!(event.payload(), r#"{"a":1}"#);
    assert_eq!(event.position(), Position::new(5, 1));
    assert_eq!(event.metadata().event_id.get_version_num(), 5);
    assert_eq!(event.metadata().schema_version, 1);
}

#[tokio::test]
async fn a_feed_is_read_from_anywhere_in_batches() {
    let server = server();
    let store = store(&server).await;
    for _ in 0..3 {
        store
            .append(&Append::to_feed(sdlc(), events(1_000)))
            .await
            .unwrap();
    }
    let all = store
        .read_feed(&only(), Position::START, usize::MAX)
        .await
        .unwrap();
    assert_eq!(all.len(), 3_000);
    assert!(
        all.windows(2)
            .all(|two| two[0].position() < two[1].position())
    );
    for (after, limit, expected) in [(0, 0, 0), (0, 1, 1), (1_499, 1_200, 1_200), (2_998, 9, 1)] {
        let after = all[after].position();
        let read = store.read_feed(&only(), after, limit).await.unwrap();
        assert_eq!(read.len(), expected);
        assert!(read.iter().all(|entry| entry.position() > after));
    }
}

#[tokio::test]
async fn the_head_is_known_when_everything_is_trimmed() {
    let server = server();
    let store = store(&server).await;
    assert_eq!(store.head(&only()).await.unwrap(), Position::START);
    let appended = store
        .append(&to("gothic", Expected::Any, events(2)))
        .await
        .unwrap();
    assert_eq!(store.head(&only()).await.unwrap(), appended.position());
    server
        .command(&["XTRIM", "events:sdlc", "MAXLEN", "0"])
        .unwrap();
    assert_eq!(store.head(&only()).await.unwrap(), appended.position());
}

#[tokio::test]
async fn a_reader_gets_old_events_and_then_new_ones() {
    let server = server();
    let store = store(&server).await;
    let append = |count| Append::to_feed(sdlc(), events(count));
    store.append(&append(1_000)).await.unwrap();
    let mut reader = store.follow(&only(), Position::START).await.unwrap();
    let old = take(&mut *reader, 1_000, 300).await;
    assert_eq!(payloads(&old), numbers(1..=1_000));

    let waiting = tokio::spawn(async move {
        let batch = take(&mut *reader, 1, 300).await;
        (reader, batch)
    });
    until("a blocked reader", || {
        server
            .command(&["INFO", "clients"])
            .unwrap()
            .contains("blocked_clients:1")
    })
    .await;
    store.append(&append(3)).await.unwrap();
    let (mut reader, batch) = soon("the new events", waiting).await.unwrap();
    assert_eq!(payloads(&batch), numbers(1..=3));
    store.append(&append(2)).await.unwrap();
    // What does not fit in one batch comes with the next.
    assert_eq!(payloads(&take(&mut *reader, 1, 1).await), ["1"]);
    assert_eq!(payloads(&take(&mut *reader, 1, 1).await), ["2"]);
}

#[tokio::test]
async fn a_reader_that_is_dropped_while_it_waits_loses_nothing() {
    let server = server();
    let store = store(&server).await;
    let mut reader = store.follow(&only(), Position::START).await.unwrap();
    let mut entries = Vec::new();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for event in events(500) {
                let append = Append::to_feed(sdlc(), vec![event]);
                store.append(&append).await.unwrap();
            }
        }
    });
    while entries.len() < 500 {
        let wait = Duration::from_micros(300);
        if let Ok(batch) = tokio::time::timeout(wait, reader.next_batch(3)).await {
            entries.extend(batch.unwrap());
        }
    }
    writer.await.unwrap();
    assert_eq!(payloads(&entries), numbers(1..=500));
}

#[tokio::test]
async fn what_is_no_event_stops_no_reader() {
    let server = server();
    let store = store(&server).await;
    let add = |fields: &[&str]| {
        let mut command = vec!["XADD", "events:sdlc", "*"];
        command.extend(fields);
        server.command(&command).unwrap();
    };
    add(&["type", "phase.changed", "payload", "1"]);
    add(&["payload", "2"]);
    add(&["type", "phase.changed", "payload", "not json"]);
    add(&["type", "phase.changed", "payload", "4"]);
    let mut reader = store.follow(&only(), Position::START).await.unwrap();
    let entries = take(&mut *reader, 4, 10).await;
    let kinds: Vec<_> = entries
        .iter()
        .map(|entry| matches!(entry, FeedEntry::Event(_)))
        .collect();
    assert_eq!(kinds, [true, false, false, true]);
}

#[tokio::test]
async fn a_reader_survives_the_server() {
    let mut server = server();
    let store = store(&server).await;
    store
        .append(&Append::to_feed(sdlc(), events(10)))
        .await
        .unwrap();
    let mut reader = store.follow(&only(), Position::START).await.unwrap();
    take(&mut *reader, 4, 4).await;
    server.kill();
    let reading = tokio::spawn(async move { take(&mut *reader, 16, 4).await });
    server.restart().unwrap();
    store
        .append(&Append::to_feed(sdlc(), events(10)))
        .await
        .unwrap();
    let entries = soon("the rest", reading).await.unwrap();
    let mut expected = numbers(5..=10);
    expected.extend(numbers(1..=10));
    assert_eq!(payloads(&entries), expected);
}

#[tokio::test]
async fn a_reader_says_when_the_server_does_not_answer() {
    let mut server = server();
    let store = crate::support::builder(&server)
        .patience(Duration::from_millis(200))
        .connect()
        .await
        .unwrap();
    store
        .append(&Append::to_feed(sdlc(), events(1)))
        .await
        .unwrap();
    let mut reader = store.follow(&only(), Position::START).await.unwrap();
    take(&mut *reader, 1, 1).await;
    server.kill();
    let error = soon("an error", reader.next_batch(1)).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Store(StoreError::Unavailable { .. })),
        "{error:?}"
    );
    // The same reader goes on when the server is back.
    server.restart().unwrap();
    store
        .append(&Append::to_feed(sdlc(), events(1)))
        .await
        .unwrap();
    let patient = async {
        loop {
            match reader.next_batch(1).await {
                Ok(entries) => break entries,
                Err(ReadError::Store(StoreError::Unavailable { .. })) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    assert_eq!(payloads(&soon("an event", patient).await), ["1"]);
}

#[tokio::test]
async fn a_feed_of_another_type_is_refused() {
    let server = server();
    let store = store(&server).await;
    server.command(&["SET", "events:sdlc", "x"]).unwrap();
    let error = store.follow(&only(), Position::START).await.err().unwrap();
    assert!(
        matches!(error, ReadError::Store(StoreError::Refused { .. })),
        "{error:?}"
    );
    let later = Position::new(1, 0);
    let mut reader = store.follow(&only(), later).await.unwrap();
    let error = soon("an error", reader.next_batch(1)).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Store(StoreError::Refused { .. })),
        "{error:?}"
    );
    let error = store
        .read_feed(&only(), Position::START, 1)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ReadError::Store(StoreError::Refused { .. })),
        "{error:?}"
    );
}
