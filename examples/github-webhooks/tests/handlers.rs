//! The handlers, one event at a time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use event_core::testing::TestService;
use event_core::{Retry, Service};
use github_webhooks::analyzer::{Analysis, AnalyzeError, Analyzer, PathAnalyzer};
use github_webhooks::events::{PackagePublished, PhaseChanged, RepositoryAnalyzed};
use github_webhooks::github::{
    FileChanges, GithubPackage, GithubPush, Issue, IssueEvent, Origin, PullRequest,
    PullRequestEvent, Release, ReleaseEvent,
};
use github_webhooks::phase::Phase;
use github_webhooks::repository::{GithubRepository, RepositoryEvent};
use github_webhooks::service::SERVICE;

const LAB: &str = "octo-test/lab";

async fn start(analyzer: impl Analyzer + 'static) -> TestService {
    let analyzer: Arc<dyn Analyzer> = Arc::new(analyzer);
    let retry = Retry {
        base: std::time::Duration::from_millis(1),
        ..Retry::default()
    };
    let builder = Service::builder(SERVICE).provide(analyzer).retry(retry);
    TestService::start(builder).await.unwrap()
}

fn origin() -> Origin {
    Origin {
        repository: Some(LAB.into()),
        default_branch: Some("main".into()),
        private: None,
    }
}

fn push() -> GithubPush {
    let changes = FileChanges {
        added: 1,
        ..FileChanges::default()
    };
    GithubPush {
        repository: LAB.into(),
        default_branch: Some("main".into()),
        reference: "refs/heads/main".into(),
        head: Some("c0ffee".into()),
        commits: 1,
        files: [("src/lib.rs".to_owned(), changes)].into(),
        ..GithubPush::default()
    }
}

#[tokio::test]
async fn a_push_is_analyzed_and_begins_to_build() {
    let test = start(PathAnalyzer).await;
    test.publish(push()).await.unwrap();
    test.run_until_idle().await.unwrap();
    let [analyzed] = test
        .emitted::<RepositoryAnalyzed>()
        .await
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!(
        (&*analyzed.repository, analyzed.analysis.languages["Rust"]),
        (LAB, 1)
    );
    assert_eq!(
        test.emitted::<PhaseChanged>().await.unwrap(),
        [PhaseChanged {
            repository: LAB.into(),
            from: None,
            to: Phase::Build,
            because: "1 commits came to the default branch".into(),
        }]
    );
    let lab = test
        .repository::<GithubRepository>()
        .load(LAB)
        .await
        .unwrap()
        .state;
    assert_eq!(lab.heads["refs/heads/main"], "c0ffee");
}

/// Fails the first two times.
#[derive(Default)]
struct Slow(AtomicU32);

impl Analyzer for Slow {
    fn analyze(&self, push: &GithubPush) -> Result<Analysis, AnalyzeError> {
        if self.0.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err(AnalyzeError {
                repository: push.repository.clone(),
                source: "still warming up".into(),
            });
        }
        PathAnalyzer.analyze(push)
    }
}

#[tokio::test]
async fn an_analyzer_that_fails_is_asked_again() {
    let test = start(Slow::default()).await;
    test.publish(push()).await.unwrap();
    test.run_until_idle().await.unwrap();
    assert_eq!(test.emitted::<RepositoryAnalyzed>().await.unwrap().len(), 1);
    let lab = test
        .repository::<GithubRepository>()
        .load(LAB)
        .await
        .unwrap()
        .state;
    assert_eq!(lab.commits, 1);
}

#[tokio::test]
async fn a_refusal_is_an_event_and_no_failure() {
    let test = start(PathAnalyzer).await;
    let release = Release {
        origin: origin(),
        tag: Some("v1".into()),
        prerelease: false,
    };
    test.publish((push(), ReleaseEvent::Published(release)))
        .await
        .unwrap();
    test.run_until_idle().await.unwrap();
    let refused: Vec<_> = test
        .recorded::<RepositoryEvent>()
        .await
        .unwrap()
        .into_iter()
        .filter_map(|event| match event {
            RepositoryEvent::Refused { change, reason, .. } => Some((change, reason)),
            _ => None,
        })
        .collect();
    let expected = (
        "enter phase".to_owned(),
        "release cannot follow build".to_owned(),
    );
    assert_eq!(refused, [expected]);
    let lab = test
        .repository::<GithubRepository>()
        .load(LAB)
        .await
        .unwrap()
        .state;
    assert!(lab.releases.contains("v1") && lab.phase == Some(Phase::Build));
}

#[tokio::test]
async fn a_package_needs_no_repository() {
    let test = start(PathAnalyzer).await;
    let package = GithubPackage {
        origin: Origin::default(),
        name: Some("lab".into()),
        version: Some("1.0.0".into()),
        ecosystem: Some("npm".into()),
    };
    let nameless = GithubPackage {
        name: None,
        ..package.clone()
    };
    test.publish((package, nameless)).await.unwrap();
    test.run_until_idle().await.unwrap();
    assert_eq!(
        test.emitted::<PackagePublished>().await.unwrap(),
        [PackagePublished {
            name: "lab".into(),
            version: Some("1.0.0".into()),
            ecosystem: Some("npm".into()),
            repository: None,
        }]
    );
    assert!(test.recorded::<RepositoryEvent>().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_has_no_number_is_only_registered() {
    let test = start(PathAnalyzer).await;
    let issue = Issue {
        origin: origin(),
        ..Issue::default()
    };
    let pull_request = PullRequest {
        origin: origin(),
        ..PullRequest::default()
    };
    test.publish((
        IssueEvent::Opened(issue),
        PullRequestEvent::Opened(pull_request),
    ))
    .await
    .unwrap();
    test.run_until_idle().await.unwrap();
    let lab = test
        .repository::<GithubRepository>()
        .load(LAB)
        .await
        .unwrap();
    assert_eq!(lab.version, 1);
}
