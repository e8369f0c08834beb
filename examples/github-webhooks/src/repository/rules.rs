//! What a repository decides on commands.
//!
//! Handlers are called at least once, and what they ask twice must happen once. So every decision
//! leaves an event that names its command, also where it changes little: "nothing to do" would be
//! decided anew the next time, when there may be something to do.

use uuid::Uuid;

use super::{Change, Command, GithubRepository, PullRequestState, Refusal, RepositoryEvent};
use crate::github::Origin;
use crate::phase::Phase;

impl GithubRepository {
    pub(super) fn decide(&self, command: Command) -> Result<Vec<RepositoryEvent>, Refusal> {
        let Command {
            id,
            origin,
            change,
            consequence,
        } = command;
        if self.commands.contains(&id) {
            return Ok(Vec::new());
        }
        let known = self.name.is_some();
        let mut events = Vec::new();
        match (&change, self.gone()) {
            // It is known; or nothing was known under the old name, so nothing ends.
            (Change::Register, _) if known => return Ok(events),
            (Change::MoveTo(_), _) if !known => return Ok(events),
            (Change::NoteRefusal { .. }, _) => {}
            (Change::Create | Change::ArriveFrom(_), Some(_)) => events.push(registered(&origin)),
            (_, Some(refusal)) => return Err(refusal),
            (_, None) if known => {}
            (_, None) => events.push(registered(&origin)),
        }
        if self.archived && change.writes() {
            return Err(Refusal::Archived);
        }
        events.extend(self.outcome(id, &origin, change)?);
        if let Some(consequence) = consequence {
            let name = consequence.name();
            events.extend(match self.outcome(id, &origin, consequence) {
                Ok(event) => event,
                Err(refusal) => Some(RepositoryEvent::Refused {
                    command: id,
                    change: name.to_owned(),
                    reason: refusal.to_string(),
                }),
            });
        }
        Ok(events)
    }

    /// Why nothing happens here any more, if that is so.
    fn gone(&self) -> Option<Refusal> {
        match &self.moved_to {
            Some(to) => Some(Refusal::Moved { to: to.clone() }),
            None => self.deleted.then_some(Refusal::Deleted),
        }
    }

    /// What a change leads to in a repository that is there.
    fn outcome(
        &self,
        command: Uuid,
        origin: &Origin,
        change: Change,
    ) -> Result<Option<RepositoryEvent>, Refusal> {
        Ok(Some(match change {
            Change::Register => return Ok(None),
            Change::Create => RepositoryEvent::Created { command },
            Change::Configure => RepositoryEvent::Configured {
                command,
                default_branch: origin
                    .default_branch
                    .clone()
                    .or_else(|| self.default_branch.clone()),
                private: origin.private.or(self.private),
            },
            Change::Push {
                reference,
                head,
                commits,
            } => RepositoryEvent::Pushed {
                command,
                reference,
                head,
                commits,
            },
            Change::OpenPullRequest(number) => match self.pull_requests.get(&number) {
                Some(&state) => return Err(Refusal::OpenedBefore { number, state }),
                None => RepositoryEvent::PullRequestOpened { command, number },
            },
            Change::UpdatePullRequest { number, head } => {
                self.must_be_open(number)?;
                RepositoryEvent::PullRequestUpdated {
                    command,
                    number,
                    head,
                }
            }
            Change::ClosePullRequest(number) => {
                self.must_be_open(number)?;
                RepositoryEvent::PullRequestClosed { command, number }
            }
            Change::MergePullRequest(number) => {
                self.must_be_open(number)?;
                RepositoryEvent::PullRequestMerged { command, number }
            }
            Change::ReopenPullRequest(number) => match self.pull_requests.get(&number) {
                Some(&state @ PullRequestState::Merged) => {
                    return Err(Refusal::NotOpen { number, state });
                }
                _ => RepositoryEvent::PullRequestReopened { command, number },
            },
            Change::OpenIssue(number) => RepositoryEvent::IssueOpened { command, number },
            Change::CloseIssue(number) => RepositoryEvent::IssueClosed { command, number },
            Change::Release { tag, prerelease } => RepositoryEvent::Released {
                command,
                tag,
                prerelease,
            },
            Change::WithdrawRelease(tag) => RepositoryEvent::ReleaseWithdrawn { command, tag },
            Change::PublishPackage { name, version } => RepositoryEvent::PackagePublished {
                command,
                name,
                version,
            },
            Change::Check { name, conclusion } => RepositoryEvent::Checked {
                command,
                name,
                conclusion,
            },
            Change::Enter { phase: to, because } => match (self.phase, to) {
                // It is there already; and plans go on while there is work on others.
                (Some(from), to) if from == to => return Ok(None),
                (Some(Phase::Build | Phase::Test), Phase::Plan) => return Ok(None),
                (Some(from), to) if !to.can_follow(from) => {
                    return Err(Refusal::PhaseOutOfOrder { from, to });
                }
                // The webhook may have been set up at any time, so the first may be any.
                (from, to) => RepositoryEvent::PhaseEntered {
                    command,
                    repository: origin.repository.clone().unwrap_or_default(),
                    from,
                    to,
                    because,
                },
            },
            Change::Archive => RepositoryEvent::Archived { command },
            Change::Unarchive => RepositoryEvent::Unarchived { command },
            Change::ArriveFrom(from) => RepositoryEvent::Arrived { command, from },
            Change::MoveTo(to) => RepositoryEvent::Moved { command, to },
            Change::Delete => RepositoryEvent::Deleted { command },
            Change::NoteRefusal { change, reason } => RepositoryEvent::Refused {
                command,
                change,
                reason,
            },
        }))
    }

    /// A pull request that was never heard of was opened before the webhook was set up.
    fn must_be_open(&self, number: u64) -> Result<(), Refusal> {
        match self.pull_requests.get(&number) {
            Some(PullRequestState::Open) | None => Ok(()),
            Some(&state) => Err(Refusal::NotOpen { number, state }),
        }
    }
}

fn registered(origin: &Origin) -> RepositoryEvent {
    RepositoryEvent::Registered {
        repository: origin.repository.clone().unwrap_or_default(),
        default_branch: origin.default_branch.clone(),
        private: origin.private,
    }
}

impl Change {
    /// Whether GitHub allows it in no archived repository.
    fn writes(&self) -> bool {
        matches!(
            self,
            Change::Push { .. }
                | Change::OpenPullRequest(_)
                | Change::UpdatePullRequest { .. }
                | Change::ClosePullRequest(_)
                | Change::MergePullRequest(_)
                | Change::ReopenPullRequest(_)
                | Change::OpenIssue(_)
                | Change::CloseIssue(_)
                | Change::Release { .. }
                | Change::WithdrawRelease(_)
        )
    }
}
