//! The repository: an aggregate that is rebuilt from its events, and decides what may happen.
//!
//! A repository is known by its full name at the time, `OWNER/NAME`. Where it is renamed or
//! transferred, a repository of the new name begins, which says where it comes from, and the one of
//! the old name ends, which says where it went and refuses what comes late. GitHub may give the old
//! name away again: then it begins anew.

mod command;
mod event;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use event_core::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use command::{Change, Command, Refusal};
pub use event::RepositoryEvent;

use crate::phase::Phase;

/// What is known of a repository of GitHub's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GithubRepository {
    /// Its full name; nothing before anything is known of it.
    pub name: Option<String>,
    /// Where it stands; unknown until something tells.
    pub phase: Option<Phase>,
    /// The branch that its work comes together in.
    pub default_branch: Option<String>,
    /// Whether only some may see it.
    pub private: Option<bool>,
    /// Whether it can only be read.
    pub archived: bool,
    /// Whether it was removed.
    pub deleted: bool,
    /// The name that it has now, if that is another.
    pub moved_to: Option<String>,
    /// The names that it had before.
    pub previous_names: Vec<String>,
    /// The commit that each branch and each tag is at.
    pub heads: BTreeMap<String, String>,
    /// How many commits were pushed.
    pub commits: u64,
    /// Its pull requests, by number.
    pub pull_requests: BTreeMap<u64, PullRequestState>,
    /// The numbers of its open issues.
    pub open_issues: BTreeSet<u64>,
    /// The tags of its releases.
    pub releases: BTreeSet<String>,
    /// The newest version of each of its packages.
    pub packages: BTreeMap<String, String>,
    /// How each workflow and each check ended the last time, or that it runs.
    pub checks: BTreeMap<String, String>,
    /// How many commands were refused.
    pub refusals: u64,
    /// The commands that it has decided on, so that none is decided twice.
    commands: BTreeSet<Uuid>,
}

/// What became of a pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullRequestState {
    /// It may be merged.
    Open,
    /// It was closed without being merged.
    Closed,
    /// It was merged.
    Merged,
}

impl GithubRepository {
    /// Whether it has decided on this command before, so that it does nothing now.
    pub fn has_decided(&self, command: &Command) -> bool {
        self.commands.contains(&command.id())
    }
}

impl Aggregate for GithubRepository {
    const TYPE: &'static str = "repository";
    type Event = RepositoryEvent;
    type Command = Command;
    type Error = Refusal;

    fn apply(&mut self, event: &RepositoryEvent) {
        if let Some(command) = event.command() {
            self.commands.insert(command);
        }
        match event {
            RepositoryEvent::Registered {
                repository,
                default_branch,
                private,
            } => {
                *self = Self {
                    name: Some(repository.clone()),
                    default_branch: default_branch.clone(),
                    private: *private,
                    refusals: self.refusals,
                    commands: std::mem::take(&mut self.commands),
                    ..Self::default()
                };
            }
            RepositoryEvent::Created { .. } => {}
            RepositoryEvent::Configured {
                default_branch,
                private,
                ..
            } => {
                self.default_branch.clone_from(default_branch);
                self.private = *private;
            }
            RepositoryEvent::Pushed {
                reference,
                head,
                commits,
                ..
            } => {
                match head {
                    Some(head) => self.heads.insert(reference.clone(), head.clone()),
                    None => self.heads.remove(reference),
                };
                self.commits += u64::from(*commits);
            }
            RepositoryEvent::PullRequestOpened { number, .. }
            | RepositoryEvent::PullRequestUpdated { number, .. }
            | RepositoryEvent::PullRequestReopened { number, .. } => {
                self.pull_requests.insert(*number, PullRequestState::Open);
            }
            RepositoryEvent::PullRequestClosed { number, .. } => {
                self.pull_requests.insert(*number, PullRequestState::Closed);
            }
            RepositoryEvent::PullRequestMerged { number, .. } => {
                self.pull_requests.insert(*number, PullRequestState::Merged);
            }
            RepositoryEvent::IssueOpened { number, .. } => {
                self.open_issues.insert(*number);
            }
            RepositoryEvent::IssueClosed { number, .. } => {
                self.open_issues.remove(number);
            }
            RepositoryEvent::Released { tag, .. } => {
                self.releases.insert(tag.clone());
            }
            RepositoryEvent::ReleaseWithdrawn { tag, .. } => {
                self.releases.remove(tag);
            }
            RepositoryEvent::PackagePublished { name, version, .. } => {
                self.packages.insert(name.clone(), version.clone());
            }
            RepositoryEvent::Checked {
                name, conclusion, ..
            } => {
                self.checks.insert(name.clone(), conclusion.clone());
            }
            RepositoryEvent::PhaseEntered { to, .. } => self.phase = Some(*to),
            RepositoryEvent::Archived { .. } => self.archived = true,
            RepositoryEvent::Unarchived { .. } => self.archived = false,
            RepositoryEvent::Arrived { from, .. } => {
                self.moved_to = None;
                self.deleted = false;
                self.previous_names.retain(|name| name != from);
                self.previous_names.push(from.clone());
            }
            RepositoryEvent::Moved { to, .. } => self.moved_to = Some(to.clone()),
            RepositoryEvent::Deleted { .. } => self.deleted = true,
            RepositoryEvent::Refused { .. } => self.refusals += 1,
        }
    }

    fn handle(&self, command: Command) -> Result<Vec<RepositoryEvent>, Refusal> {
        self.decide(command)
    }
}
