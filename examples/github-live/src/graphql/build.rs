//! Builds as clients see them.

use async_graphql::{ComplexObject, Context, Enum, SimpleObject};
use event_core::Event;
use event_graphql::{Cursor, Edge};
use github_webhooks::github::Run;
use serde::{Deserialize, Serialize};

use super::event::note;

/// What is told of workflows and checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event)]
pub(super) enum BuildEvent {
    #[event("github.workflow_run.requested")]
    Requested(Run),
    #[event("github.workflow_run.in_progress")]
    InProgress(Run),
    #[event("github.workflow_run.completed")]
    Completed(Run),
    #[event("github.check_run.completed")]
    Checked(Run),
}

impl BuildEvent {
    pub(super) fn run(&self) -> &Run {
        match self {
            Self::Requested(run)
            | Self::InProgress(run)
            | Self::Completed(run)
            | Self::Checked(run) => run,
        }
    }
}

/// How far a workflow or a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(super) enum BuildStage {
    /// It is about to run.
    Requested,
    /// It runs.
    InProgress,
    /// It has ended.
    Completed,
}

/// How a workflow or a check is doing.
#[derive(SimpleObject)]
#[graphql(complex)]
pub(super) struct BuildStatus {
    /// The repository's full name.
    repository: Option<String>,
    /// The name of the workflow or the check.
    name: Option<String>,
    /// The branch that it runs on.
    branch: Option<String>,
    /// How far it is.
    stage: BuildStage,
    /// How it ended: `success`, `failure`, ….
    conclusion: Option<String>,
    #[graphql(skip)]
    cursor: Cursor,
}

#[ComplexObject]
impl BuildStatus {
    /// Where to go on behind it: send it back as `after`.
    async fn cursor(&self, ctx: &Context<'_>) -> &Cursor {
        note(ctx, &self.cursor);
        &self.cursor
    }
}

impl BuildStatus {
    pub(super) fn of(edge: Edge<BuildEvent>) -> Self {
        let run = edge.event().run().clone();
        Self {
            repository: run.origin.repository,
            name: run.name,
            branch: run.branch,
            stage: match edge.event() {
                BuildEvent::Requested(_) => BuildStage::Requested,
                BuildEvent::InProgress(_) => BuildStage::InProgress,
                BuildEvent::Completed(_) | BuildEvent::Checked(_) => BuildStage::Completed,
            },
            conclusion: run.conclusion,
            cursor: edge.cursor_behind().clone(),
        }
    }
}
