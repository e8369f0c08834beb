//! The rules of a repository: what it takes in, and what it refuses.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use event_core::testing::Scenario;
use github_webhooks::github::Origin;
use github_webhooks::phase::Phase;
use github_webhooks::repository::{
    Change, Command, GithubRepository, PullRequestState, Refusal, RepositoryEvent,
};
use uuid::Uuid;

const CAUSE: Uuid = Uuid::from_u128(7);
const EARLIER: Uuid = Uuid::from_u128(1);

fn origin() -> Origin {
    Origin {
        repository: Some("octo-test/lab".into()),
        default_branch: Some("main".into()),
        private: Some(false),
    }
}

fn command(change: Change) -> Command {
    Command::new(CAUSE, origin(), change)
}

fn registered() -> RepositoryEvent {
    RepositoryEvent::Registered {
        repository: "octo-test/lab".into(),
        default_branch: Some("main".into()),
        private: Some(false),
    }
}

fn entered(to: Phase) -> RepositoryEvent {
    RepositoryEvent::PhaseEntered {
        command: EARLIER,
        repository: "octo-test/lab".into(),
        from: None,
        to,
        because: "so it began".into(),
    }
}

fn push() -> Change {
    Change::Push {
        reference: "refs/heads/main".into(),
        head: Some("c0ffee".into()),
        commits: 2,
    }
}

fn enter(phase: Phase) -> Change {
    Change::Enter {
        phase,
        because: "it is time".into(),
    }
}

#[test]
fn the_first_command_registers() {
    let asked = command(push());
    Scenario::<GithubRepository>::new()
        .when(asked.clone())
        .then_emits([
            registered(),
            RepositoryEvent::Pushed {
                command: asked.id(),
                reference: "refs/heads/main".into(),
                head: Some("c0ffee".into()),
                commits: 2,
            },
        ])
        .then_state(|repository| assert_eq!(repository.commits, 2));
    Scenario::<GithubRepository>::new()
        .when(command(Change::Register))
        .then_emits([registered()]);
    Scenario::<GithubRepository>::given([registered()])
        .when(command(Change::Register))
        .then_nothing();
}

#[test]
fn a_command_is_decided_once() {
    let asked = command(Change::OpenPullRequest(3));
    let opened = RepositoryEvent::PullRequestOpened {
        command: asked.id(),
        number: 3,
    };
    let refused = RepositoryEvent::Refused {
        command: command(push()).id(),
        change: "push".into(),
        reason: "the repository is archived".into(),
    };
    Scenario::<GithubRepository>::given([registered(), opened])
        .when(asked)
        .then_nothing();
    Scenario::<GithubRepository>::given([registered(), refused])
        .when(command(push()))
        .then_nothing();
}

#[test]
fn an_archived_repository_is_only_read() {
    let archived = || [registered(), RepositoryEvent::Archived { command: EARLIER }];
    for change in [push(), Change::OpenPullRequest(1), Change::OpenIssue(1)] {
        Scenario::<GithubRepository>::given(archived())
            .when(command(change))
            .then_fails_with(Refusal::Archived);
    }
    let unarchive = command(Change::Unarchive);
    Scenario::<GithubRepository>::given(archived())
        .when(unarchive.clone())
        .then_emits([RepositoryEvent::Unarchived {
            command: unarchive.id(),
        }])
        .then_state(|repository| assert!(!repository.archived));
}

#[test]
fn a_refusal_is_noted() {
    let asked = command(push());
    let note = asked.clone().refused(&Refusal::Archived);
    let archived = RepositoryEvent::Archived { command: EARLIER };
    Scenario::<GithubRepository>::given([registered(), archived])
        .when(note)
        .then_emits([RepositoryEvent::Refused {
            command: asked.id(),
            change: "push".into(),
            reason: "the repository is archived".into(),
        }])
        .then_state(|repository| assert_eq!(repository.refusals, 1));
}

#[test]
fn only_an_open_pull_request_is_merged() {
    let opened = || RepositoryEvent::PullRequestOpened {
        command: EARLIER,
        number: 3,
    };
    let closed = || RepositoryEvent::PullRequestClosed {
        command: EARLIER,
        number: 3,
    };
    let merged = || RepositoryEvent::PullRequestMerged {
        command: EARLIER,
        number: 3,
    };
    let merge = || command(Change::MergePullRequest(3));

    Scenario::<GithubRepository>::given([registered(), opened(), closed()])
        .when(merge())
        .then_fails_with(Refusal::NotOpen {
            number: 3,
            state: PullRequestState::Closed,
        });
    Scenario::<GithubRepository>::given([registered(), opened()])
        .when(merge())
        .then_state(|repository| {
            assert_eq!(repository.pull_requests[&3], PullRequestState::Merged);
        });
    // It was opened before the webhook was set up.
    Scenario::<GithubRepository>::given([registered()])
        .when(merge())
        .then_emits([RepositoryEvent::PullRequestMerged {
            command: merge().id(),
            number: 3,
        }]);
    Scenario::<GithubRepository>::given([registered(), merged()])
        .when(command(Change::ReopenPullRequest(3)))
        .then_fails_with(Refusal::NotOpen {
            number: 3,
            state: PullRequestState::Merged,
        });
    Scenario::<GithubRepository>::given([registered(), merged()])
        .when(command(Change::OpenPullRequest(3)))
        .then_fails_with(Refusal::OpenedBefore {
            number: 3,
            state: PullRequestState::Merged,
        });
}

#[test]
fn phases_come_in_their_order() {
    for (from, to) in [
        (Phase::Plan, Phase::Test),
        (Phase::Plan, Phase::Release),
        (Phase::Build, Phase::Release),
    ] {
        Scenario::<GithubRepository>::given([registered(), entered(from)])
            .when(command(enter(to)))
            .then_fails_with(Refusal::PhaseOutOfOrder { from, to });
    }
    for (from, to) in [
        (Phase::Plan, Phase::Build),
        (Phase::Build, Phase::Test),
        (Phase::Test, Phase::Build),
        (Phase::Test, Phase::Release),
        (Phase::Release, Phase::Plan),
    ] {
        Scenario::<GithubRepository>::given([registered(), entered(from)])
            .when(command(enter(to)))
            .then_state(|repository| assert_eq!(repository.phase, Some(to)));
    }
    // There already; and plans beside the work change nothing.
    for (from, to) in [(Phase::Test, Phase::Test), (Phase::Build, Phase::Plan)] {
        Scenario::<GithubRepository>::given([registered(), entered(from)])
            .when(command(enter(to)))
            .then_nothing();
    }
    // The webhook was set up in the middle.
    Scenario::<GithubRepository>::given([registered()])
        .when(command(enter(Phase::Release)))
        .then_state(|repository| assert_eq!(repository.phase, Some(Phase::Release)));
}

#[test]
fn a_change_happens_also_where_its_consequence_is_refused() {
    let tag = "v1".to_owned();
    let release = Change::Release {
        tag: tag.clone(),
        prerelease: false,
    };
    let asked = command(release).with_consequence(Some(enter(Phase::Release)));
    Scenario::<GithubRepository>::given([registered(), entered(Phase::Build)])
        .when(asked.clone())
        .then_emits([
            RepositoryEvent::Released {
                command: asked.id(),
                tag,
                prerelease: false,
            },
            RepositoryEvent::Refused {
                command: asked.id(),
                change: "enter phase".into(),
                reason: "release cannot follow build".into(),
            },
        ]);
}

#[test]
fn a_repository_that_moved_takes_nothing_more() {
    let to = "octo-test/laboratory".to_owned();
    let moved = || RepositoryEvent::Moved {
        command: EARLIER,
        to: "octo-test/laboratory".into(),
    };
    Scenario::<GithubRepository>::given([registered(), moved()])
        .when(command(push()))
        .then_fails_with(Refusal::Moved { to: to.clone() });
    // Nothing was known of it, so there is nothing to end.
    Scenario::<GithubRepository>::new()
        .when(command(Change::MoveTo(to)))
        .then_nothing();
    // GitHub gives the name away again.
    let create = command(Change::Create);
    Scenario::<GithubRepository>::given([registered(), entered(Phase::Test), moved()])
        .when(create.clone())
        .then_emits([
            registered(),
            RepositoryEvent::Created {
                command: create.id(),
            },
        ])
        .then_state(|repository| {
            assert_eq!((&repository.moved_to, repository.phase), (&None, None));
        });
}
