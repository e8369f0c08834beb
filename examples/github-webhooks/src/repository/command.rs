use uuid::Uuid;

use super::PullRequestState;
use crate::github::Origin;
use crate::phase::Phase;

/// Something that a repository is asked to take in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub(super) id: Uuid,
    pub(super) origin: Origin,
    pub(super) change: Change,
    pub(super) consequence: Option<Change>,
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// To be known.
    Register,
    /// To begin, also where one of its name has ended.
    Create,
    /// To have the settings that it comes with.
    Configure,
    /// To have a branch or a tag at another commit, or without `head` no more.
    Push {
        /// The branch or tag: `refs/heads/main`.
        reference: String,
        /// The commit.
        head: Option<String>,
        /// The number of new commits.
        commits: u32,
    },
    /// To have a new pull request.
    OpenPullRequest(u64),
    /// To have new commits in a pull request.
    UpdatePullRequest {
        /// Its number.
        number: u64,
        /// The newest of its commits.
        head: Option<String>,
    },
    /// To have a pull request closed.
    ClosePullRequest(u64),
    /// To have a pull request merged.
    MergePullRequest(u64),
    /// To have a pull request open again.
    ReopenPullRequest(u64),
    /// To have an open issue.
    OpenIssue(u64),
    /// To have an issue closed.
    CloseIssue(u64),
    /// To have a release.
    Release {
        /// Its tag.
        tag: String,
        /// Whether it is only a try.
        prerelease: bool,
    },
    /// To have a release no more.
    WithdrawRelease(String),
    /// To have a version of a package.
    PublishPackage {
        /// The package's name.
        name: String,
        /// Its version.
        version: String,
    },
    /// To know how a workflow or a check stands.
    Check {
        /// Its name.
        name: String,
        /// How it ended, or that it runs.
        conclusion: String,
    },
    /// To enter a phase.
    Enter {
        /// The phase.
        phase: Phase,
        /// What tells that it is entered.
        because: String,
    },
    /// To be read only.
    Archive,
    /// To be written to again.
    Unarchive,
    /// To have had another name until now.
    ArriveFrom(String),
    /// To have another name from now on.
    MoveTo(String),
    /// To end.
    Delete,
    /// To remember that a command was refused.
    NoteRefusal {
        /// What the command asked for.
        change: String,
        /// Why not.
        reason: String,
    },
}

impl Command {
    /// Asks for a change because of the event `cause`. The same change for the same cause is the
    /// same command, so that a handler may ask twice.
    pub fn new(cause: Uuid, origin: Origin, change: Change) -> Self {
        Self {
            id: Uuid::new_v5(&cause, change.name().as_bytes()),
            origin,
            change,
            consequence: None,
        }
    }

    /// Asks for something that follows from the change. Where that is refused, the change happens
    /// all the same.
    pub fn with_consequence(mut self, consequence: Option<Change>) -> Self {
        self.consequence = consequence;
        self
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Asks to remember that this command was refused.
    pub fn refused(self, refusal: &Refusal) -> Self {
        Self {
            change: Change::NoteRefusal {
                change: self.change.name().to_owned(),
                reason: refusal.to_string(),
            },
            consequence: None,
            ..self
        }
    }
}

impl Change {
    /// What it is called where it is refused.
    pub fn name(&self) -> &'static str {
        match self {
            Change::Register => "register",
            Change::Create => "create",
            Change::Configure => "configure",
            Change::Push { .. } => "push",
            Change::OpenPullRequest(_) => "open pull request",
            Change::UpdatePullRequest { .. } => "update pull request",
            Change::ClosePullRequest(_) => "close pull request",
            Change::MergePullRequest(_) => "merge pull request",
            Change::ReopenPullRequest(_) => "reopen pull request",
            Change::OpenIssue(_) => "open issue",
            Change::CloseIssue(_) => "close issue",
            Change::Release { .. } => "release",
            Change::WithdrawRelease(_) => "withdraw release",
            Change::PublishPackage { .. } => "publish package",
            Change::Check { .. } => "check",
            Change::Enter { .. } => "enter phase",
            Change::Archive => "archive",
            Change::Unarchive => "unarchive",
            Change::ArriveFrom(_) => "arrive",
            Change::MoveTo(_) => "move",
            Change::Delete => "delete",
            Change::NoteRefusal { .. } => "note refusal",
        }
    }
}

/// Why a repository refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It can only be read.
    #[error("the repository is archived")]
    Archived,
    /// It was removed.
    #[error("the repository was deleted")]
    Deleted,
    /// It has another name now.
    #[error("the repository is called {to} now")]
    Moved {
        /// The name.
        to: String,
    },
    /// A pull request is opened once; what comes late must not open it again.
    #[error("pull request #{number} was opened before, and is {state}")]
    OpenedBefore {
        /// The pull request.
        number: u64,
        /// What became of it.
        state: PullRequestState,
    },
    /// Only an open pull request can be merged or changed.
    #[error("pull request #{number} is {state}")]
    NotOpen {
        /// The pull request.
        number: u64,
        /// What became of it.
        state: PullRequestState,
    },
    /// The phases come in their order.
    #[error("{to} cannot follow {from}")]
    PhaseOutOfOrder {
        /// The phase that it is in.
        from: Phase,
        /// The one that was asked for.
        to: Phase,
    },
}

impl std::fmt::Display for PullRequestState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PullRequestState::Open => "open",
            PullRequestState::Closed => "closed",
            PullRequestState::Merged => "merged",
        })
    }
}
