use std::collections::BTreeMap;

use event_core::{Position, RecordedEvent};
use serde_json::json;

use super::*;
use crate::signature::Signatures;

fn github_event(line: &Value) -> Result<GithubEvent, DeliveryError> {
    let line = line.to_string();
    GithubEvent::of(&Delivery::read(line.as_bytes(), &Signatures::Unchecked)?)
}

/// As it is read from the feed.
fn stored(line: &Value) -> RecordedEvent {
    let line = line.to_string();
    let delivery = Delivery::read(line.as_bytes(), &Signatures::Unchecked).unwrap();
    let event = GithubEvent::of(&delivery).unwrap();
    let event = event.encode(&delivery, &Clock::system()).unwrap();
    RecordedEvent::new(
        event.event_type(),
        event.payload(),
        Position::START,
        None,
        event.metadata().clone(),
    )
}

fn repository() -> Value {
    json!({"full_name": "octo-team/hello", "default_branch": "main", "private": true})
}

fn origin() -> Origin {
    Origin {
        repository: Some("octo-team/hello".into()),
        default_branch: Some("main".into()),
        private: Some(true),
    }
}

#[test]
fn every_delivery_has_its_event_type() {
    for (name, action, expected) in [
        ("push", json!(null), "github.push"),
        ("ping", json!(null), "github.ping"),
        ("ping", json!(7), "github.ping"),
        ("pull_request", json!("opened"), "github.pr.opened"),
        (
            "pull_request_review",
            json!("submitted"),
            "github.pull_request_review.submitted",
        ),
        ("issues", json!("closed"), "github.issues.closed"),
        (
            "invented_tomorrow",
            json!("done"),
            "github.invented_tomorrow.done",
        ),
    ] {
        let payload = json!({"action": action, "repository": repository()});
        let event = github_event(&json!({"name": name, "payload": payload})).unwrap();
        assert_eq!(event.event_type(), expected);
        assert_eq!(event.repository(), Some("octo-team/hello"));
    }
    let odd = json!({"name": "star", "payload": {"action": "Star!", "repository": repository()}});
    assert!(matches!(
        github_event(&odd),
        Err(DeliveryError::OddAction { .. })
    ));
}

#[test]
fn some_events_need_no_repository() {
    for name in ["ping", "organization", "package", "invented_tomorrow"] {
        let line = json!({"name": name, "payload": {}});
        assert_eq!(github_event(&line).unwrap().repository(), None, "{name}");
    }
    for name in [
        "push",
        "pull_request",
        "issues",
        "release",
        "repository",
        "check_run",
    ] {
        let line = json!({"name": name, "payload": {"repository": {"full_name": ""}}});
        let refused = github_event(&line);
        assert!(
            matches!(refused, Err(DeliveryError::NoRepository { .. })),
            "{name}"
        );
    }
    let long = json!({"name": "star", "payload": {"repository": {"full_name": "x".repeat(513)}}});
    assert!(matches!(
        github_event(&long),
        Err(DeliveryError::LongRepository { bytes: 513, .. })
    ));
}

#[test]
fn a_push_says_which_files_it_touched() {
    let line = json!({"name": "push", "delivery": "seven", "payload": {
        "ref": "refs/heads/main", "after": "c0ffee", "repository": repository(),
        "commits": [
            {"added": ["a.rs"], "modified": ["b.rs", 3, null], "removed": null},
            {"modified": ["a.rs"], "removed": ["b.rs"]},
            "odd",
        ],
    }});
    let event = stored(&line);
    let push: GithubPush = event.decode().unwrap();
    let file = |added, modified, removed| FileChanges {
        added,
        modified,
        removed,
    };
    let expected = GithubPush {
        repository: "octo-team/hello".into(),
        default_branch: Some("main".into()),
        private: Some(true),
        reference: "refs/heads/main".into(),
        head: Some("c0ffee".into()),
        commits: 3,
        files: BTreeMap::from([
            ("a.rs".into(), file(1, 1, 0)),
            ("b.rs".into(), file(0, 1, 1)),
        ]),
        files_left_out: 0,
    };
    assert_eq!(push, expected);
    assert_eq!((push.branch(), push.origin()), (Some("main"), origin()));
    assert_eq!(event.metadata().key.as_deref(), Some("octo-team/hello"));
    assert_eq!(event.metadata().extra["delivery"], "seven");
}

#[test]
fn a_push_of_everything_stays_small() {
    let paths: Vec<String> = (0..20_000)
        .map(|n| format!("\u{1}\u{2}\u{3}/{n}"))
        .collect();
    let line = json!({"name": "push", "payload": {
        "ref": "x".repeat(9999), "after": NO_COMMIT, "repository": repository(),
        "commits": [{"added": paths}],
    }});
    let event = stored(&line);
    assert!(
        event.payload().len() < 1024 * 1024,
        "{}",
        event.payload().len()
    );
    let push: GithubPush = event.decode().unwrap();
    assert_eq!(push.files.len() + push.files_left_out as usize, 20_000);
    assert_eq!((push.head.as_deref(), push.branch()), (None, None));
}

const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

#[test]
fn what_is_stored_is_read_as_the_typed_event() {
    let payload = json!({"action": "closed", "repository": repository(), "number": 7,
        "pull_request": {"title": "Greet", "merged": true, "head": {"sha": "c0ffee"}}});
    let event = stored(&json!({"name": "pull_request", "payload": payload}));
    let expected = PullRequest {
        origin: origin(),
        number: Some(7),
        title: Some("Greet".into()),
        merged: true,
        head: Some("c0ffee".into()),
    };
    assert_eq!(
        event.view().unwrap(),
        Some(PullRequestEvent::Closed(expected))
    );

    let payload = json!({"action": "opened", "repository": repository(), "issue": {"number": 3}});
    let event = stored(&json!({"name": "issues", "payload": payload}));
    let expected = Issue {
        origin: origin(),
        number: Some(3),
        title: None,
    };
    assert_eq!(event.view().unwrap(), Some(IssueEvent::Opened(expected)));

    let payload = json!({"action": "published", "repository": repository(),
        "release": {"tag_name": "v1", "prerelease": true}});
    let event = stored(&json!({"name": "release", "payload": payload}));
    let expected = Release {
        origin: origin(),
        tag: Some("v1".into()),
        prerelease: true,
    };
    assert_eq!(
        event.view().unwrap(),
        Some(ReleaseEvent::Published(expected))
    );

    let payload = json!({"action": "completed", "repository": repository(),
        "check_run": {"name": "lint", "conclusion": "success",
            "check_suite": {"head_branch": "main"}}});
    let event = stored(&json!({"name": "check_run", "payload": payload}));
    let expected = Run {
        origin: origin(),
        name: Some("lint".into()),
        branch: Some("main".into()),
        conclusion: Some("success".into()),
    };
    assert_eq!(event.view().unwrap(), Some(CheckRunCompleted(expected)));

    let payload = json!({"action": "published", "package": {"name": "hello",
        "package_type": "npm", "package_version": {"version": "1.0.0"}}});
    let event = stored(&json!({"name": "package", "payload": payload}));
    let expected = GithubPackage {
        origin: Origin::default(),
        name: Some("hello".into()),
        version: Some("1.0.0".into()),
        ecosystem: Some("npm".into()),
    };
    assert_eq!(event.view().unwrap(), Some(expected));
}

#[test]
fn a_renamed_repository_says_what_it_was_called() {
    let previous = |changes: Value| {
        let payload = json!({"action": "renamed", "repository": repository(), "changes": changes});
        let event = github_event(&json!({"name": "repository", "payload": payload})).unwrap();
        event.previous_repository().map(str::to_owned)
    };
    let name = json!({"repository": {"name": {"from": "hi"}}});
    assert_eq!(previous(name).as_deref(), Some("octo-team/hi"));
    let user = json!({"owner": {"from": {"user": {"login": "octo-cat"}}}});
    assert_eq!(previous(user).as_deref(), Some("octo-cat/hello"));
    let organization = json!({"owner": {"from": {"organization": {"login": "octo-org"}}}});
    assert_eq!(previous(organization).as_deref(), Some("octo-org/hello"));
    for nothing in [
        json!(null),
        json!({"repository": {"name": {"from": "hello"}}}),
        json!({"description": {"from": "hi"}}),
    ] {
        assert_eq!(previous(nothing), None);
    }
}

#[test]
fn any_field_may_be_of_any_shape() {
    let shapes = [
        json!(null),
        json!(true),
        json!(-1.5),
        json!("text"),
        json!([]),
        json!([[null]]),
        json!({}),
        json!({"number": [], "login": {}, "from": 3, "name": 4}),
    ];
    let fields = [
        "action",
        "commits",
        "ref",
        "after",
        "number",
        "pull_request",
        "issue",
        "release",
        "workflow_run",
        "check_run",
        "package",
        "changes",
        "sender",
    ];
    let names = [
        "push",
        "pull_request",
        "issues",
        "release",
        "workflow_run",
        "check_run",
        "package",
        "repository",
        "ping",
        "star",
    ];
    for name in names {
        for field in fields {
            for shape in &shapes {
                let mut payload = json!({"repository": repository()});
                payload[field] = shape.clone();
                let line = json!({"name": name, "payload": payload});
                let event = stored(&line);
                assert!(event.event_type().starts_with("github."), "{line}");
            }
        }
    }
}
