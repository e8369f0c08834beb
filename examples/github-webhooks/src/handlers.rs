//! Handlers: what the service does when GitHub tells something.
//!
//! A handler is called at least once for each event. So what it asks of a repository is named after
//! the event ([`Command::new`]): asked twice, it happens once. A repository that refuses is no
//! failure, since it would refuse the next time, too: the refusal is noted in its history, and the
//! event is through. What fails is a store that does not answer, and then the handler is called
//! again.

use std::sync::Arc;

use event_core::{At, Context, Event, RecordedEvent, Repository, RepositoryError, event_handler};

use crate::analyzer::{AnalyzeError, Analyzer};
use crate::events::{PackagePublished, PhaseChanged, RepositoryAnalyzed};
use crate::github::{
    CheckRunCompleted, GithubPackage, GithubPush, IssueEvent, Origin, PullRequestEvent, Release,
    ReleaseEvent, RepositoryChangeEvent, Run, WorkflowRunEvent,
};
use crate::phase::Phase;
use crate::repository::{Change, Command, GithubRepository, Refusal, RepositoryEvent};

/// Analyzes pushes, and keeps the repositories.
#[event_handler]
pub struct RepositoryEventHandler {
    analyzer: Arc<dyn Analyzer>,
    repositories: Repository<GithubRepository>,
}

#[event_handler(group = "repo-agent")]
impl RepositoryEventHandler {
    #[on("github.push")]
    #[emits("repository.analyzed")]
    async fn handle_push(&self, event: GithubPush) -> Result<RepositoryAnalyzed, AnalyzeError> {
        let analysis = self.analyzer.analyze(&event)?;
        Ok(RepositoryAnalyzed {
            repository: event.repository,
            reference: event.reference,
            head: event.head,
            analysis,
        })
    }

    #[on("github.push")]
    async fn record_push(&self, event: GithubPush, ctx: &Context) -> Result<(), RepositoryError> {
        let origin = event.origin();
        let entered = origin.is_default_branch(event.branch()).then(|| {
            let because = format!("{} commits came to the default branch", event.commits);
            enter(Phase::Build, because)
        });
        let change = Change::Push {
            reference: event.reference,
            head: event.head,
            commits: event.commits,
        };
        self.ask(ctx, &origin, change, entered).await
    }

    #[on("github.pr.*")]
    async fn handle_pr(&self, event: &RecordedEvent, ctx: &Context) -> Result<(), RepositoryError> {
        let Some(event) = readable::<PullRequestEvent>(event) else {
            return Ok(());
        };
        let (PullRequestEvent::Opened(pull_request)
        | PullRequestEvent::Synchronize(pull_request)
        | PullRequestEvent::Closed(pull_request)
        | PullRequestEvent::Reopened(pull_request)) = &event;
        let Some(number) = pull_request.number else {
            return Ok(());
        };
        let change = match &event {
            PullRequestEvent::Opened(_) => Change::OpenPullRequest(number),
            PullRequestEvent::Synchronize(_) => Change::UpdatePullRequest {
                number,
                head: pull_request.head.clone(),
            },
            PullRequestEvent::Closed(_) if pull_request.merged => Change::MergePullRequest(number),
            PullRequestEvent::Closed(_) => Change::ClosePullRequest(number),
            PullRequestEvent::Reopened(_) => Change::ReopenPullRequest(number),
        };
        self.ask(ctx, &pull_request.origin, change, None).await
    }

    #[on("github.issues.*")]
    async fn handle_issue(&self, event: IssueEvent, ctx: &Context) -> Result<(), RepositoryError> {
        let (IssueEvent::Opened(issue)
        | IssueEvent::Reopened(issue)
        | IssueEvent::Closed(issue)
        | IssueEvent::Deleted(issue)
        | IssueEvent::Transferred(issue)) = &event;
        let Some(number) = issue.number else {
            return Ok(());
        };
        let (change, entered) = match &event {
            IssueEvent::Opened(_) => {
                let because = format!("issue #{number} was opened");
                (Change::OpenIssue(number), Some(enter(Phase::Plan, because)))
            }
            IssueEvent::Reopened(_) => (Change::OpenIssue(number), None),
            IssueEvent::Closed(_) | IssueEvent::Deleted(_) | IssueEvent::Transferred(_) => {
                (Change::CloseIssue(number), None)
            }
        };
        self.ask(ctx, &issue.origin, change, entered).await
    }

    #[on("github.release.*")]
    async fn handle_release(
        &self,
        event: ReleaseEvent,
        ctx: &Context,
    ) -> Result<(), RepositoryError> {
        let (ReleaseEvent::Published(release)
        | ReleaseEvent::Unpublished(release)
        | ReleaseEvent::Deleted(release)) = &event;
        let Some(tag) = release.tag.clone() else {
            return Ok(());
        };
        let (change, entered) = match &event {
            ReleaseEvent::Published(Release { prerelease, .. }) => {
                let entered =
                    (!prerelease).then(|| enter(Phase::Release, format!("{tag} was released")));
                let prerelease = *prerelease;
                (Change::Release { tag, prerelease }, entered)
            }
            ReleaseEvent::Unpublished(_) | ReleaseEvent::Deleted(_) => {
                (Change::WithdrawRelease(tag), None)
            }
        };
        self.ask(ctx, &release.origin, change, entered).await
    }

    #[on("github.workflow_run.*")]
    async fn handle_workflow_run(
        &self,
        event: WorkflowRunEvent,
        ctx: &Context,
    ) -> Result<(), RepositoryError> {
        let (run, conclusion) = match &event {
            WorkflowRunEvent::Requested(run) | WorkflowRunEvent::InProgress(run) => {
                (run, "running")
            }
            WorkflowRunEvent::Completed(run) => (run, conclusion(run)),
        };
        let phase = match conclusion {
            "running" | "success" => Some(Phase::Test),
            "failure" | "timed_out" | "startup_failure" => Some(Phase::Build),
            _ => None,
        };
        let entered = phase
            .filter(|_| run.origin.is_default_branch(run.branch.as_deref()))
            .map(|phase| enter(phase, format!("workflow {}: {conclusion}", name(run))));
        let change = check(run, conclusion);
        self.ask(ctx, &run.origin, change, entered).await
    }

    #[on("github.check_run.completed")]
    async fn handle_check_run(
        &self,
        CheckRunCompleted(run): CheckRunCompleted,
        ctx: &Context,
    ) -> Result<(), RepositoryError> {
        let change = check(&run, conclusion(&run));
        self.ask(ctx, &run.origin, change, None).await
    }

    #[on("github.package.published")]
    #[emits("package.published")]
    async fn handle_package(
        &self,
        event: GithubPackage,
        ctx: &Context,
    ) -> Result<Option<PackagePublished>, RepositoryError> {
        let Some(name) = event.name else {
            return Ok(None);
        };
        if let Some(version) = event.version.clone() {
            let name = name.clone();
            let change = Change::PublishPackage { name, version };
            self.ask(ctx, &event.origin, change, None).await?;
        }
        Ok(Some(PackagePublished {
            name,
            version: event.version,
            ecosystem: event.ecosystem,
            repository: event.origin.repository,
        }))
    }

    #[on("github.repository.*")]
    async fn handle_repository(
        &self,
        event: RepositoryChangeEvent,
        ctx: &Context,
    ) -> Result<(), RepositoryError> {
        use RepositoryChangeEvent as Event;
        let (Event::Created(change)
        | Event::Edited(change)
        | Event::Privatized(change)
        | Event::Publicized(change)
        | Event::Renamed(change)
        | Event::Transferred(change)
        | Event::Archived(change)
        | Event::Unarchived(change)
        | Event::Deleted(change)) = &event;
        let origin = &change.origin;
        let (change, entered) = match &event {
            Event::Created(_) => {
                let because = "the repository was created".to_owned();
                (Change::Create, Some(enter(Phase::Plan, because)))
            }
            Event::Edited(_) | Event::Privatized(_) | Event::Publicized(_) => {
                (Change::Configure, None)
            }
            Event::Renamed(_) | Event::Transferred(_) => {
                let Some(previous) = &change.previous else {
                    return Ok(());
                };
                if let Some(name) = &origin.repository {
                    let old = Origin {
                        repository: Some(previous.clone()),
                        ..origin.clone()
                    };
                    self.ask(ctx, &old, Change::MoveTo(name.clone()), None)
                        .await?;
                }
                (Change::ArriveFrom(previous.clone()), None)
            }
            Event::Archived(_) => (Change::Archive, None),
            Event::Unarchived(_) => (Change::Unarchive, None),
            Event::Deleted(_) => (Change::Delete, None),
        };
        self.ask(ctx, origin, change, entered).await
    }

    /// Whatever happens in a repository, it is known from then on.
    #[on("github.*")]
    async fn register(&self, event: &RecordedEvent, ctx: &Context) -> Result<(), RepositoryError> {
        let Ok(origin) = serde_json::from_str::<Origin>(event.payload()) else {
            return Ok(());
        };
        let Some(name) = &origin.repository else {
            return Ok(());
        };
        // Its first event tells that it is known, and the others need not be read for this.
        match self.repositories.load_at(name, At::Version(1)).await {
            Ok(_) => Ok(()),
            Err(RepositoryError::NotFound { .. }) => {
                self.ask(ctx, &origin, Change::Register, None).await
            }
            Err(error) => Err(error),
        }
    }

    /// Asks a repository for a change and for what follows from it. What it refuses is noted.
    async fn ask(
        &self,
        ctx: &Context,
        origin: &Origin,
        change: Change,
        consequence: Option<Change>,
    ) -> Result<(), RepositoryError> {
        let Some(name) = &origin.repository else {
            return Ok(());
        };
        let command =
            Command::new(ctx.event_id(), origin.clone(), change).with_consequence(consequence);
        let Err(error) = self.repositories.execute(name, command.clone()).await else {
            return Ok(());
        };
        match error.rejection::<Refusal>() {
            Some(refusal) => {
                let note = command.refused(refusal);
                self.repositories.execute(name, note).await?;
                Ok(())
            }
            None => Err(error),
        }
    }
}

/// Tells everybody that a repository has come to another phase. Made from the repository's own
/// event, so that it is told once, however often the handlers above are called.
#[event_handler(
    on = "codebase.phase.entered",
    emits = "sdlc.phase.changed",
    group = "repo-agent"
)]
async fn announce_phase(event: RepositoryEvent) -> Option<PhaseChanged> {
    match event {
        RepositoryEvent::PhaseEntered {
            repository,
            from,
            to,
            because,
            ..
        } => Some(PhaseChanged {
            repository,
            from,
            to,
            because,
        }),
        _ => None,
    }
}

fn enter(phase: Phase, because: String) -> Change {
    Change::Enter { phase, because }
}

fn check(run: &Run, conclusion: &str) -> Change {
    Change::Check {
        name: name(run).to_owned(),
        conclusion: conclusion.to_owned(),
    }
}

fn name(run: &Run) -> &str {
    run.name.as_deref().unwrap_or("unnamed")
}

fn conclusion(run: &Run) -> &str {
    run.conclusion.as_deref().unwrap_or("unknown")
}

/// The event as `E`, where it is one. What somebody else has written in another shape is left out:
/// it would be no better the next time.
fn readable<E: Event>(event: &RecordedEvent) -> Option<E> {
    event.view().unwrap_or_else(|error| {
        tracing::error!(event_id = %event.metadata().event_id, %error, "an event was left out");
        None
    })
}
