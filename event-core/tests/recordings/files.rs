//! Recordings in files: what they look like, and what is said of those that are none.

use std::io::{BufWriter, Cursor};

use event_core::prelude::*;
use event_core::testing::TestService;
use event_core::{Positions, Recording, RecordingError, RecordingReader};

use crate::events::{GithubPush, category, counting};

async fn test() -> TestService {
    let test = TestService::start(counting()).await.unwrap();
    for (repository, commits) in [("octo/hello", 1), ("octo/world", 2), ("octo/hello", 3)] {
        let repository = repository.into();
        let push = GithubPush {
            repository,
            commits,
        };
        test.publish(push).await.unwrap();
        test.run_until_idle().await.unwrap();
        test.clock().advance(chrono::TimeDelta::seconds(1));
    }
    test
}

#[tokio::test]
async fn a_line_has_the_stored_form_in_a_fixed_order() {
    let test = test().await;
    let categories = ["sdlc", "github"].map(category);
    let recorder = Recording::of(test.store()).categories(categories);
    let text = recorder.record().await.unwrap().to_text().unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(
        lines[0],
        r#"{"position":"1767225600000-0","type":"github.push","payload":{"repository":"octo/hello","commits":1},"metadata":{"eventId":"00000000-0000-0000-0000-000000000001","timestamp":"2026-01-01T00:00:00.000000Z","correlationId":"00000000-0000-0000-0000-000000000001","source":"counting","schemaVersion":1,"key":"octo/hello"}}"#
    );
    assert!(
        lines[1].starts_with(r#"{"position":"1767225600000-0","type":"sdlc.work.counted","payload":{"commits":1},"aggregate":{"type":"project","id":"octo/hello","version":1},"metadata":{"#),
        "{}",
        lines[1]
    );
}

#[tokio::test]
async fn what_is_recorded_is_chosen_and_redacted() {
    let test = test().await;
    let from = "2026-01-01T00:00:01Z".parse().unwrap();
    let recording = Recording::of(test.store())
        .category(category("github"))
        .positions(Positions::since(from))
        .matching("github.*".parse().unwrap())
        .filter(|event| !event.payload().contains("world"))
        .redact(|event| {
            assert_eq!(event.event_type(), "github.push");
            event.payload["repository"] = "somebody/something".into();
            event.metadata.key = Some("somebody/something".into());
        })
        .record()
        .await
        .unwrap();
    let [line] = recording.lines() else {
        panic!("{recording:?}");
    };
    let push: GithubPush = line.event.decode().unwrap();
    assert_eq!(
        (push.repository.as_str(), push.commits),
        ("somebody/something", 3)
    );
    assert_eq!(
        line.event.metadata().key.as_deref(),
        Some("somebody/something")
    );

    let nothing = Recording::of(test.store()).record().await;
    assert!(matches!(nothing, Err(RecordingError::NoCategory)));
}

#[tokio::test]
async fn a_file_is_written_and_read_line_by_line() {
    let test = test().await;
    let recorder = || Recording::of(test.store()).categories(["github", "sdlc"].map(category));
    let recording = recorder().record().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    recording.write(&path).unwrap();
    assert_eq!(Recording::read(&path).unwrap(), recording);

    let mut written = BufWriter::new(Vec::new());
    assert_eq!(recorder().record_to(&mut written).await.unwrap(), 6);
    let written = written.into_inner().unwrap();
    assert_eq!(written, std::fs::read(&path).unwrap());

    // An empty line is none, and what the metadata lacks is filled in.
    let other = MemoryStore::new();
    let by_hand = "\n{\"position\":\"5-0\",\"type\":\"shop.opened\",\"payload\":{}}\r\n\n";
    let reader = RecordingReader::new(Cursor::new(by_hand));
    assert_eq!(reader.restore_into(&other).await.unwrap(), 1);
    let reader = RecordingReader::open(&path).unwrap();
    assert_eq!(reader.restore_into(&other).await.unwrap(), 6);
    let shop = Recording::of(&other).category(category("shop"));
    let shop = shop.record().await.unwrap();
    let line = &shop.lines()[0];
    assert_eq!(line.event.metadata().timestamp.timestamp_millis(), 5);
}

#[test]
fn what_is_no_event_is_told_by_line_and_column() {
    let good = r#"{"position":"5-0","type":"shop.opened","payload":{}}"#;
    for (bad, column, said) in [
        (r#"{"position":"5-0","type":"shop.opened""#, 38, "EOF"),
        (
            r#"{"position":"5-0","type":"Shop","payload":{}}"#,
            31,
            "`Shop` is no event type",
        ),
        (
            r#"{"position":"x","type":"shop.opened","payload":{}}"#,
            15,
            "`x` is no position",
        ),
        (
            r#"{"position":"5-0","type":"shop.opened"}"#,
            39,
            "missing field `payload`",
        ),
        (
            r#"{"position":"5-0","type":"shop.opened","payload":{},"paylaod":{}}"#,
            61,
            "unknown field `paylaod`",
        ),
    ] {
        let read = format!("{good}\n\n{bad}\n{good}\n").parse::<Recording>();
        let error = read.unwrap_err();
        let RecordingError::Line {
            line,
            column: at,
            reason,
            path: None,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((*line, *at), (3, column), "{bad}: {error}");
        assert!(reason.contains(said), "{error}");
        assert!(!reason.contains("line 1"), "{error}");
    }
    let error = Recording::read("no/such/file.jsonl").unwrap_err();
    assert!(error.to_string().contains("no/such/file.jsonl"), "{error}");
}
