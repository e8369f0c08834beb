use event_core::Event;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::phase::Phase;

/// What can happen to a repository.
///
/// The category is `codebase`, since `repository.*` is what handlers announce to others: an
/// aggregate's events are published through the aggregate alone. Each event names the command that
/// led to it; a registration comes along with the first command, whichever that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum RepositoryEvent {
    /// It was heard of for the first time, or begins anew.
    #[event("codebase.registered")]
    Registered {
        repository: String,
        default_branch: Option<String>,
        private: Option<bool>,
    },
    /// It was made.
    #[event("codebase.created")]
    Created { command: Uuid },
    /// Its settings are these now.
    #[event("codebase.configured")]
    Configured {
        command: Uuid,
        default_branch: Option<String>,
        private: Option<bool>,
    },
    /// A branch or a tag is at another commit, or is gone.
    #[event("codebase.pushed")]
    Pushed {
        command: Uuid,
        reference: String,
        head: Option<String>,
        commits: u32,
    },
    /// A pull request was opened.
    #[event("codebase.pr.opened")]
    PullRequestOpened { command: Uuid, number: u64 },
    /// Commits came to a pull request.
    #[event("codebase.pr.updated")]
    PullRequestUpdated {
        command: Uuid,
        number: u64,
        head: Option<String>,
    },
    /// A pull request was closed without being merged.
    #[event("codebase.pr.closed")]
    PullRequestClosed { command: Uuid, number: u64 },
    /// A pull request was merged.
    #[event("codebase.pr.merged")]
    PullRequestMerged { command: Uuid, number: u64 },
    /// A pull request was opened again.
    #[event("codebase.pr.reopened")]
    PullRequestReopened { command: Uuid, number: u64 },
    /// An issue was opened, for the first time or again.
    #[event("codebase.issue.opened")]
    IssueOpened { command: Uuid, number: u64 },
    /// An issue was closed, or is here no more.
    #[event("codebase.issue.closed")]
    IssueClosed { command: Uuid, number: u64 },
    /// A release can be had.
    #[event("codebase.released")]
    Released {
        command: Uuid,
        tag: String,
        prerelease: bool,
    },
    /// A release cannot be had any more.
    #[event("codebase.release.withdrawn")]
    ReleaseWithdrawn { command: Uuid, tag: String },
    /// A version of a package can be had.
    #[event("codebase.package.published")]
    PackagePublished {
        command: Uuid,
        name: String,
        version: String,
    },
    /// A workflow or a check runs, or has ended.
    #[event("codebase.checked")]
    Checked {
        command: Uuid,
        name: String,
        conclusion: String,
    },
    /// It entered a phase.
    #[event("codebase.phase.entered")]
    PhaseEntered {
        command: Uuid,
        repository: String,
        from: Option<Phase>,
        to: Phase,
        because: String,
    },
    /// It can only be read now.
    #[event("codebase.archived")]
    Archived { command: Uuid },
    /// It can be written to again.
    #[event("codebase.unarchived")]
    Unarchived { command: Uuid },
    /// It had another name until now.
    #[event("codebase.arrived")]
    Arrived { command: Uuid, from: String },
    /// It has another name from now on.
    #[event("codebase.moved")]
    Moved { command: Uuid, to: String },
    /// It was removed.
    #[event("codebase.deleted")]
    Deleted { command: Uuid },
    /// A command was refused.
    #[event("codebase.refused")]
    Refused {
        command: Uuid,
        change: String,
        reason: String,
    },
}

impl RepositoryEvent {
    /// The command that led to it.
    pub fn command(&self) -> Option<Uuid> {
        match self {
            Self::Registered { .. } => None,
            Self::Created { command }
            | Self::Configured { command, .. }
            | Self::Pushed { command, .. }
            | Self::PullRequestOpened { command, .. }
            | Self::PullRequestUpdated { command, .. }
            | Self::PullRequestClosed { command, .. }
            | Self::PullRequestMerged { command, .. }
            | Self::PullRequestReopened { command, .. }
            | Self::IssueOpened { command, .. }
            | Self::IssueClosed { command, .. }
            | Self::Released { command, .. }
            | Self::ReleaseWithdrawn { command, .. }
            | Self::PackagePublished { command, .. }
            | Self::Checked { command, .. }
            | Self::PhaseEntered { command, .. }
            | Self::Archived { command }
            | Self::Unarchived { command }
            | Self::Arrived { command, .. }
            | Self::Moved { command, .. }
            | Self::Deleted { command }
            | Self::Refused { command, .. } => Some(*command),
        }
    }
}
