//! Lines of any content: none panics, none stops the handlers, each is accepted or has a reason.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod ingesting;

use event_core::MemoryStore;
use github_webhooks::signature::Signatures;
use proptest::prelude::*;
use serde_json::{Value, json};

use ingesting::{ingest_on, sample_signatures};

/// Names that lead somewhere, so that what is random lies where it is read.
fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "name", "payload", "body", "delivery", "signature", "action", "repository",
            "full_name", "default_branch", "private", "ref", "after", "commits", "added",
            "modified", "removed", "number", "pull_request", "merged", "head", "sha", "issue",
            "release", "tag_name", "prerelease", "workflow_run", "check_run", "check_suite",
            "head_branch", "conclusion", "package", "package_version", "version", "changes",
            "owner", "from", "user", "login", "sender",
        ])
        .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => prop::sample::select(vec![
            "push", "pull_request", "issues", "release", "workflow_run", "check_run", "package",
            "repository", "star", "opened", "closed", "reopened", "synchronize", "published",
            "deleted", "created", "renamed", "transferred", "archived", "requested", "completed",
            "success", "failure", "main", "refs/heads/main", "octo-test/lab", "octo-test/other",
            "lab",
        ])
        .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..4_u64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(field(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Something in the shape of a delivery, at least outside.
fn delivery() -> impl Strategy<Value = Value> {
    (
        text(),
        text(),
        text(),
        prop::collection::btree_map(field(), value(), 0..8),
    )
        .prop_map(|(name, action, full_name, fields)| {
            let mut payload = json!({
                "action": action,
                "repository": {"full_name": full_name, "default_branch": "main"},
            });
            for (name, value) in fields {
                payload[name] = value;
            }
            json!({"name": name, "payload": payload})
        })
}

fn take_in(lines: &[u8], signatures: &Signatures) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let report = runtime.block_on(ingest_on(&MemoryStore::new(), lines, signatures));
    assert_eq!(
        report.accepted + report.rejected.len() as u64,
        report.deliveries
    );
    for rejected in &report.rejected {
        assert!(
            !rejected.reason.is_empty() && rejected.reason.len() < 500,
            "{rejected:?}"
        );
    }
    // Whatever was taken in can be shown, too.
    assert!(!report.to_string().contains('\u{1b}'));
    assert!(serde_json::to_string(&report).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(lines in prop::collection::vec(any::<u8>(), 0..2_000)) {
        take_in(&lines, &Signatures::Unchecked);
    }

    #[test]
    fn any_json(values in prop::collection::vec(value(), 0..8)) {
        let lines: Vec<_> = values.iter().map(Value::to_string).collect();
        take_in(lines.join("\n").as_bytes(), &sample_signatures());
    }

    #[test]
    fn any_payload(deliveries in prop::collection::vec(delivery(), 0..12)) {
        let lines: Vec<_> = deliveries.iter().map(Value::to_string).collect();
        take_in(lines.join("\n").as_bytes(), &Signatures::Unchecked);
    }

    #[test]
    fn any_cut(delivery in delivery(), at in any::<prop::sample::Index>()) {
        let line = delivery.to_string();
        take_in(&line.as_bytes()[..at.index(line.len())], &Signatures::Unchecked);
    }
}
