//! Deliveries taken in on memory: the sample, twice, out of order, and lines of every kind.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod ingesting;

use std::collections::BTreeMap;

use std::time::Duration;

use event_core::{Acquired, Category, Commit, Groups, Limits, MemoryStore};
use github_webhooks::phase::Phase;
use github_webhooks::report::Report;
use github_webhooks::repository::PullRequestState;
use github_webhooks::sample;
use github_webhooks::service::{SERVICE, repo_agent};
use github_webhooks::signature::{Secret, Signatures};
use serde_json::json;

use ingesting::{ingest_on, ingest_sample_on, line};

fn versions(report: &Report) -> BTreeMap<&str, u64> {
    let versions = report.repositories.iter();
    versions
        .map(|(name, repository)| (name.as_str(), repository.version))
        .collect()
}

#[tokio::test]
async fn the_sample_tells_its_story() {
    let report = ingest_sample_on(&MemoryStore::new()).await;
    assert_eq!((report.deliveries, report.accepted), (53, 52));
    let [rejected] = report.rejected.as_slice() else {
        panic!("{:?}", report.rejected)
    };
    assert_eq!(rejected.line, 25);
    assert!(
        rejected.reason.starts_with("the signature is wrong"),
        "{}",
        rejected.reason
    );

    let count = |event_type: &str| report.events.get(event_type).copied().unwrap_or_default();
    // One of the 52 was redelivered.
    let from_github = report
        .events
        .iter()
        .filter(|(name, _)| name.starts_with("github."));
    assert_eq!(from_github.map(|(_, count)| count).sum::<u64>(), 51);
    assert_eq!(count("github.pr.opened"), 2);
    assert_eq!(count("github.lighthouse_keeper.relieved"), 1);
    assert_eq!(
        (count("github.push"), count("repository.analyzed")),
        (11, 11)
    );
    assert_eq!(
        (
            count("github.package.published"),
            count("package.published")
        ),
        (2, 2)
    );
    assert_eq!(
        (count("codebase.phase.entered"), count("sdlc.phase.changed")),
        (13, 13)
    );
    assert_eq!(count("codebase.refused"), 4);

    assert_eq!(report.repositories.len(), 5);
    let greenhouse = &report.repositories["octo-garden/greenhouse"].state;
    assert_eq!(greenhouse.phase, Some(Phase::Release));
    assert_eq!(
        greenhouse.pull_requests,
        BTreeMap::from([(2, PullRequestState::Merged)])
    );
    assert_eq!(greenhouse.checks["ci"], "success");
    assert!(greenhouse.releases.contains("v0.1.0") && greenhouse.open_issues.is_empty());

    // Released before it was tested, and merged when it was closed.
    assert_eq!(
        report.repositories["octo-garden/seed-catalog"]
            .state
            .refusals,
        2
    );
    let lighthouse = &report.repositories["octo-reef/old-lighthouse"].state;
    assert!(lighthouse.archived && lighthouse.heads.is_empty());
    let old = &report.repositories["octo-reef/tide-clock"].state;
    assert_eq!(old.moved_to.as_deref(), Some("octo-reef/tidal-clock"));
    let new = &report.repositories["octo-reef/tidal-clock"].state;
    assert_eq!(new.previous_names, ["octo-reef/tide-clock"]);
}

#[tokio::test]
async fn the_same_again_changes_nothing() {
    let store = MemoryStore::new();
    let first = ingest_sample_on(&store).await;
    let second = ingest_sample_on(&store).await;
    assert_eq!(second.accepted, 52);
    assert_eq!(second.events, BTreeMap::new());
    assert_eq!(second.repositories, first.repositories);
}

/// Sets the service's checkpoint back, as somebody may who has everything handled again.
async fn begin_anew(store: &MemoryStore, category: &Category) {
    let lease = Duration::from_secs(10);
    let acquired = store
        .acquire(SERVICE, &category.into(), "test", lease)
        .await
        .unwrap();
    let Acquired::Yes { lease, .. } = acquired else {
        panic!("{acquired:?}");
    };
    let commit = Commit {
        number: 1,
        ..Commit::default()
    };
    store.commit(&lease, &commit).await.unwrap();
    store.release(&lease).await.unwrap();
}

#[tokio::test]
async fn handlers_that_are_called_again_change_nothing() {
    let store = MemoryStore::new();
    let first = ingest_sample_on(&store).await;
    for category in ["github", "codebase", "repository", "package", "sdlc"] {
        begin_anew(&store, &Category::new(category).unwrap()).await;
    }
    let again = repo_agent(store.clone())
        .unwrap()
        .run_until_idle()
        .await
        .unwrap();
    assert!(again.entries > 51, "{again:?}");
    let second = ingest_sample_on(&store).await;
    assert_eq!(second.events, BTreeMap::new());
    assert_eq!(second.repositories, first.repositories);
}

#[tokio::test]
async fn what_the_store_has_forgotten_the_repositories_remember() {
    let limits = Limits {
        remembered_ids: 1,
        ..Limits::default()
    };
    let store = MemoryStore::new().with_limits(limits);
    let first = ingest_sample_on(&store).await;
    let second = ingest_sample_on(&store).await;
    assert!(second.events["github.push"] > 0);
    assert_eq!(versions(&second), versions(&first));
    assert_eq!(second.repositories, first.repositories);
}

#[tokio::test]
async fn where_the_secret_is_set_everything_must_be_signed() {
    let secret = Secret::new(sample::SECRET).unwrap();
    let required = Signatures::Required(secret);
    let report = ingest_on(
        &MemoryStore::new(),
        sample::DELIVERIES.as_bytes(),
        &required,
    )
    .await;
    assert_eq!((report.accepted, report.rejected.len()), (2, 51));
    let other = Signatures::Required(Secret::new("octo-other-secret").unwrap());
    let report = ingest_on(&MemoryStore::new(), sample::DELIVERIES.as_bytes(), &other).await;
    assert_eq!((report.accepted, report.rejected.len()), (0, 53));
    let unchecked = Signatures::Unchecked;
    let report = ingest_on(
        &MemoryStore::new(),
        sample::DELIVERIES.as_bytes(),
        &unchecked,
    )
    .await;
    assert_eq!((report.accepted, report.rejected.len()), (53, 0));
}

#[tokio::test]
async fn a_refused_command_stops_nothing() {
    let pull_request = |action: &str, merged: bool| {
        let payload = json!({"number": 3, "pull_request": {"number": 3, "merged": merged}});
        line("pull_request", action, payload)
    };
    let lines = [
        pull_request("opened", false),
        pull_request("closed", false),
        pull_request("closed", true),
        pull_request("reopened", false),
        line("issues", "opened", json!({"issue": {"number": 4}})),
    ];
    let store = MemoryStore::new();
    let report = ingest_on(&store, lines.join("\n").as_bytes(), &Signatures::Unchecked).await;
    let lab = &report.repositories["octo-test/lab"].state;
    assert_eq!((report.accepted, lab.refusals), (5, 1));
    assert_eq!(lab.pull_requests[&3], PullRequestState::Open);
    assert!(lab.open_issues.contains(&4));
}

#[tokio::test]
async fn every_bad_line_has_its_number_and_the_rest_goes_on() {
    let good = line("star", "created", json!({}));
    let mut lines = Vec::new();
    for bad in [
        &b"\xff\xfe"[..],
        b"{\"name\": \"push\", \"payl",
        b"",
        b"   \r",
        b"[]",
        b"{\"name\": \"push\", \"payload\": {}}",
        b"{\"name\": \"no event\", \"payload\": {}}",
    ] {
        lines.extend_from_slice(bad);
        lines.push(b'\n');
        lines.extend_from_slice(good.as_bytes());
        lines.push(b'\n');
    }
    lines.resize(lines.len() + 30_000_000, b'x');
    lines.push(b'\n');
    lines.extend_from_slice(good.as_bytes());

    let report = ingest_on(&MemoryStore::new(), &lines, &Signatures::Unchecked).await;
    let numbers: Vec<_> = report
        .rejected
        .iter()
        .map(|rejected| rejected.line)
        .collect();
    assert_eq!(numbers, [1, 3, 9, 11, 13, 15]);
    assert!(report.rejected[5].reason.contains("26214400 bytes"));
    // The good lines are equal, so they are one delivery.
    assert_eq!((report.deliveries, report.accepted), (14, 8));
    assert_eq!(report.events["github.star.created"], 1);
}

#[tokio::test]
async fn more_deliveries_than_are_handled_at_once() {
    let lines: Vec<_> = (0..1_000)
        .map(|number| line("issues", "opened", json!({"issue": {"number": number}})))
        .collect();
    let report = ingest_on(
        &MemoryStore::new(),
        lines.join("\n").as_bytes(),
        &Signatures::Unchecked,
    )
    .await;
    assert_eq!(
        report.repositories["octo-test/lab"].state.open_issues.len(),
        1_000
    );
    assert_eq!(report.events["codebase.issue.opened"], 1_000);
}
