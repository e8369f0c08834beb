//! What GitHub tells, as events of the category `github`.
//!
//! | delivery | event |
//! |---|---|
//! | `push` | `github.push` |
//! | `pull_request`, action `opened` | `github.pr.opened` |
//! | any other `name` | `github.<name>` |
//! | any other `name` with an `action` | `github.<name>.<action>` |
//!
//! A payload holds what somebody reacts to, and no more: GitHub's own has 10 to 30 KB. Events that
//! nobody reacts to yet are an [`Activity`].

mod origin;
mod push;

use event_core::{Clock, CodecError, Event, Metadata, NewEvent};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use origin::Origin;
pub use push::{FileChanges, GithubPush};

use crate::delivery::{Delivery, DeliveryError, is_word, quote};
use crate::json::Json;
use crate::service::SERVICE;

/// The category of everything that GitHub tells.
pub const CATEGORY: &str = "github";

/// A pull request, as every `github.pr.*` tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PullRequest {
    /// The repository it is for.
    #[serde(flatten)]
    pub origin: Origin,
    /// Its number.
    pub number: Option<u64>,
    /// Its title.
    pub title: Option<String>,
    /// Whether it is merged.
    #[serde(default)]
    pub merged: bool,
    /// The newest commit in it.
    pub head: Option<String>,
}

/// The actions on pull requests that somebody reacts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
pub enum PullRequestEvent {
    /// It was opened.
    #[event("github.pr.opened")]
    Opened(PullRequest),
    /// Commits came to it.
    #[event("github.pr.synchronize")]
    Synchronize(PullRequest),
    /// It was merged, or closed without.
    #[event("github.pr.closed")]
    Closed(PullRequest),
    /// It was opened again.
    #[event("github.pr.reopened")]
    Reopened(PullRequest),
}

/// An issue, as every `github.issues.*` tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Issue {
    /// The repository it is in.
    #[serde(flatten)]
    pub origin: Origin,
    /// Its number.
    pub number: Option<u64>,
    /// Its title.
    pub title: Option<String>,
}

/// The actions on issues that somebody reacts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
pub enum IssueEvent {
    /// It was opened.
    #[event("github.issues.opened")]
    Opened(Issue),
    /// It was opened again.
    #[event("github.issues.reopened")]
    Reopened(Issue),
    /// It was closed.
    #[event("github.issues.closed")]
    Closed(Issue),
    /// It was removed.
    #[event("github.issues.deleted")]
    Deleted(Issue),
    /// It went to another repository.
    #[event("github.issues.transferred")]
    Transferred(Issue),
}

/// A release, as every `github.release.*` tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    /// The repository it is of.
    #[serde(flatten)]
    pub origin: Origin,
    /// Its tag.
    pub tag: Option<String>,
    /// Whether it is only a try.
    #[serde(default)]
    pub prerelease: bool,
}

/// The actions on releases that somebody reacts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
pub enum ReleaseEvent {
    /// It can be had now.
    #[event("github.release.published")]
    Published(Release),
    /// It cannot be had any more.
    #[event("github.release.unpublished")]
    Unpublished(Release),
    /// It was removed.
    #[event("github.release.deleted")]
    Deleted(Release),
}

/// A run of a workflow or a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// The repository it runs for.
    #[serde(flatten)]
    pub origin: Origin,
    /// The name of the workflow or the check.
    pub name: Option<String>,
    /// The branch it runs on.
    pub branch: Option<String>,
    /// How it ended: `success`, `failure`, …; nothing while it runs.
    pub conclusion: Option<String>,
}

/// The stages of a workflow's run that somebody reacts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
pub enum WorkflowRunEvent {
    /// It is about to run.
    #[event("github.workflow_run.requested")]
    Requested(Run),
    /// It runs.
    #[event("github.workflow_run.in_progress")]
    InProgress(Run),
    /// It has ended.
    #[event("github.workflow_run.completed")]
    Completed(Run),
}

/// A check has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
#[event("github.check_run.completed")]
pub struct CheckRunCompleted(pub Run);

/// A version of a package was published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
#[event("github.package.published")]
pub struct GithubPackage {
    /// The repository it was made from, if any: a package may belong to an organization alone.
    #[serde(flatten)]
    pub origin: Origin,
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The kind of package: `npm`, `container`, ….
    pub ecosystem: Option<String>,
}

/// A repository itself, as every `github.repository.*` tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepositoryChange {
    /// The repository, under the name that it has now.
    #[serde(flatten)]
    pub origin: Origin,
    /// The full name that it had before, where that is what changed.
    pub previous: Option<String>,
}

/// The actions on repositories that somebody reacts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
pub enum RepositoryChangeEvent {
    /// It is new.
    #[event("github.repository.created")]
    Created(RepositoryChange),
    /// Its description, default branch, … is another.
    #[event("github.repository.edited")]
    Edited(RepositoryChange),
    /// Only some may see it now.
    #[event("github.repository.privatized")]
    Privatized(RepositoryChange),
    /// Everybody may see it now.
    #[event("github.repository.publicized")]
    Publicized(RepositoryChange),
    /// It has another name.
    #[event("github.repository.renamed")]
    Renamed(RepositoryChange),
    /// It has another owner.
    #[event("github.repository.transferred")]
    Transferred(RepositoryChange),
    /// It can only be read now.
    #[event("github.repository.archived")]
    Archived(RepositoryChange),
    /// It can be written to again.
    #[event("github.repository.unarchived")]
    Unarchived(RepositoryChange),
    /// It was removed.
    #[event("github.repository.deleted")]
    Deleted(RepositoryChange),
}

/// Anything else that GitHub tells, also what it has invented since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Activity {
    /// The repository it happened in, if any.
    #[serde(flatten)]
    pub origin: Origin,
    /// GitHub's name of the event.
    pub event: String,
    /// What happened, where there are several things that can.
    pub action: Option<String>,
    /// Who did it.
    pub sender: Option<String>,
}

/// A delivery as an event: its type, and what is kept of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GithubEvent {
    event_type: String,
    /// The number of the repository, which it keeps when it is renamed.
    repository_id: Option<u64>,
    content: Content,
}

/// What is kept of a payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Content {
    Push(GithubPush),
    PullRequest(PullRequest),
    Issue(Issue),
    Release(Release),
    Run(Run),
    Package(GithubPackage),
    Repository(RepositoryChange),
    Activity(Activity),
}

impl GithubEvent {
    /// What a delivery tells.
    ///
    /// # Errors
    /// [`DeliveryError`] where it is no event, or of no repository.
    pub fn of(delivery: &Delivery<'_>) -> Result<Self, DeliveryError> {
        let (name, payload) = (delivery.name(), delivery.payload());
        let action = action(payload)?;
        let origin = Origin::read(payload)?;
        let repository_id = payload.field("repository").field("id").number();
        let content = match (name, action.as_deref()) {
            ("push", None) => Content::Push(push::read(origin, payload)?),
            ("pull_request", _) => Content::PullRequest(pull_request(origin, payload)),
            ("issues", _) => Content::Issue(Issue {
                number: payload.at(&["issue", "number"]).number(),
                title: payload.at(&["issue", "title"]).text(),
                origin,
            }),
            ("release", _) => Content::Release(Release {
                tag: payload.at(&["release", "tag_name"]).text(),
                prerelease: payload.at(&["release", "prerelease"]).flag() == Some(true),
                origin,
            }),
            ("workflow_run", _) => Content::Run(run(
                origin,
                payload.field("workflow_run"),
                payload.field("workflow"),
            )),
            ("check_run", _) => {
                Content::Run(run(origin, payload.field("check_run"), Json::default()))
            }
            ("package", _) => Content::Package(package(origin, payload.field("package"))),
            ("repository", _) => Content::Repository(RepositoryChange {
                previous: origin.previous_name(payload),
                origin,
            }),
            _ => Content::Activity(Activity {
                event: name.to_owned(),
                action: action.clone(),
                sender: payload.at(&["sender", "login"]).text(),
                origin,
            }),
        };
        let event = Self {
            event_type: event_type(name, action.as_deref()),
            repository_id,
            content,
        };
        match &event.content {
            // These may be of an organization or an account alone.
            Content::Package(_) | Content::Activity(_) => {}
            _ if event.repository().is_none() => {
                return Err(DeliveryError::NoRepository {
                    name: name.to_owned(),
                });
            }
            _ => {}
        }
        Ok(event)
    }

    /// The event's type, such as `github.pr.opened`.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The full name of the repository, if it is of one.
    pub fn repository(&self) -> Option<&str> {
        let origin = match &self.content {
            Content::Push(push) => return Some(&push.repository),
            Content::PullRequest(pull_request) => &pull_request.origin,
            Content::Issue(issue) => &issue.origin,
            Content::Release(release) => &release.origin,
            Content::Run(run) => &run.origin,
            Content::Package(package) => &package.origin,
            Content::Repository(repository) => &repository.origin,
            Content::Activity(activity) => &activity.origin,
        };
        origin.repository.as_deref()
    }

    /// The full name that the repository had before, if this is what changed.
    pub fn previous_repository(&self) -> Option<&str> {
        match &self.content {
            Content::Repository(change) => change.previous.as_deref(),
            _ => None,
        }
    }

    /// The event as it is appended to the feed, under the id of its delivery.
    ///
    /// GitHub's events are more than this program could name, so they are not published as typed
    /// events but put together from type and payload. Who reads one takes a type such as
    /// [`GithubPush`].
    ///
    /// # Errors
    /// [`CodecError`] where it cannot be encoded.
    pub fn encode(&self, delivery: &Delivery<'_>, clock: &Clock) -> Result<NewEvent, CodecError> {
        let mut metadata = Metadata::new(delivery.event_id(), clock.now());
        metadata.source = Some(SERVICE.to_owned());
        // What happens in one repository stays in order, whatever it is called by then.
        metadata.key = match self.repository_id {
            Some(id) => Some(format!("repository:{id}")),
            None => self.repository().map(str::to_owned),
        };
        if let Some(delivery) = delivery.delivery() {
            let delivery = Value::String(delivery.to_owned());
            metadata.extra.insert("delivery".to_owned(), delivery);
        }
        let payload =
            serde_json::to_string(&self.content).map_err(|source| CodecError::Encode {
                event_type: self.event_type.clone(),
                source,
            })?;
        NewEvent::from_parts(&self.event_type, payload, metadata)
    }
}

/// What happened, where the payload says it in GitHub's way.
fn action(payload: Json<'_>) -> Result<Option<String>, DeliveryError> {
    match payload.field("action").string() {
        None => Ok(None),
        Some(action) if is_word(&action) => Ok(Some(action)),
        Some(action) => Err(DeliveryError::OddAction {
            action: quote(&action),
        }),
    }
}

fn event_type(name: &str, action: Option<&str>) -> String {
    let name = match name {
        "pull_request" => "pr",
        other => other,
    };
    match action {
        Some(action) => format!("{CATEGORY}.{name}.{action}"),
        None => format!("{CATEGORY}.{name}"),
    }
}

fn pull_request(origin: Origin, payload: Json<'_>) -> PullRequest {
    let [number, pull_request] = payload.fields(["number", "pull_request"]);
    let [own_number, title, merged, head] =
        pull_request.fields(["number", "title", "merged", "head"]);
    PullRequest {
        origin,
        number: number.number().or(own_number.number()),
        title: title.text(),
        merged: merged.flag() == Some(true),
        head: head.field("sha").text(),
    }
}

fn run(origin: Origin, run: Json<'_>, workflow: Json<'_>) -> Run {
    let [name, branch, suite, conclusion] =
        run.fields(["name", "head_branch", "check_suite", "conclusion"]);
    Run {
        origin,
        name: name
            .text()
            .filter(|name| !name.is_empty())
            .or_else(|| workflow.field("name").text()),
        branch: branch.text().or_else(|| suite.field("head_branch").text()),
        conclusion: conclusion.text(),
    }
}

fn package(origin: Origin, package: Json<'_>) -> GithubPackage {
    let [name, kind, ecosystem, version] =
        package.fields(["name", "package_type", "ecosystem", "package_version"]);
    GithubPackage {
        origin,
        name: name.text(),
        version: version.field("version").text(),
        ecosystem: kind.text().or_else(|| ecosystem.text()),
    }
}

#[cfg(test)]
mod tests;
