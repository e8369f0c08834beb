//! The events, the aggregate and the small tools that the tests share.

use std::sync::{Arc, Mutex};

use event_core::prelude::*;
use event_core::{HandlerDefinition, Retry, ServiceBuilder};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("github.push", key = repository)]
pub(crate) struct GithubPush {
    pub(crate) repository: String,
    pub(crate) commits: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("repository.analyzed", key = repository)]
pub(crate) struct RepositoryAnalyzed {
    pub(crate) repository: String,
    pub(crate) findings: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
pub(crate) enum PullRequest {
    #[event("github.pr.opened")]
    Opened { number: u32 },
    #[event("github.pr.closed")]
    Closed { number: u32 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("ai.response.chunk", realtime)]
pub(crate) struct ResponseChunk {
    pub(crate) text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
pub(crate) enum ProjectEvent {
    #[event("sdlc.project.opened")]
    Opened { name: String },
    #[event("sdlc.phase.changed")]
    PhaseChanged { to: String },
}

#[derive(Debug, thiserror::Error, PartialEq)]
#[error("the project is in phase `{0}` already")]
pub(crate) struct SamePhase(pub(crate) String);

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Project {
    pub(crate) phase: String,
}

impl Aggregate for Project {
    const TYPE: &'static str = "project";
    type Event = ProjectEvent;
    type Command = String;
    type Error = SamePhase;

    fn apply(&mut self, event: &ProjectEvent) {
        if let ProjectEvent::PhaseChanged { to } = event {
            self.phase.clone_from(to);
        }
    }

    fn handle(&self, to: String) -> Result<Vec<ProjectEvent>, SamePhase> {
        if self.phase == to {
            Err(SamePhase(to))
        } else {
            Ok(vec![ProjectEvent::PhaseChanged { to }])
        }
    }
}

pub(crate) fn push(repository: &str, commits: u32) -> GithubPush {
    GithubPush {
        repository: repository.into(),
        commits,
    }
}

/// A service that has only the handlers that a test adds, and does not wait long between attempts.
pub(crate) fn builder(name: &str) -> ServiceBuilder {
    Service::builder(name)
        .without_discovered_handlers()
        .retry(Retry {
            base: std::time::Duration::from_millis(1),
            max_delay: std::time::Duration::from_millis(5),
            max: 3,
        })
}

/// What handlers have seen, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Notes `repository:commits` of each push.
pub(crate) fn notes_pushes(name: &str, seen: &Seen) -> HandlerDefinition {
    let seen = seen.clone();
    HandlerDefinition::function(name, move |push: GithubPush, _: Context| {
        seen.note(format!("{}:{}", push.repository, push.commits));
        async {}
    })
    .on("github.push")
}

/// Emits `repository.analyzed` for each push.
pub(crate) fn analyzes(name: &str) -> HandlerDefinition {
    HandlerDefinition::function(name, |push: GithubPush, _: Context| async move {
        RepositoryAnalyzed {
            repository: push.repository,
            findings: push.commits,
        }
    })
    .on("github.push")
    .emits("repository.analyzed")
}

/// Waits until `condition` holds; fails the test if it does not within 10 s.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}
