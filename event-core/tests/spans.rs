//! The spans of the flow, in a process of their own: `tracing` asks a station's first caller whether
//! anybody listens to it and keeps the answer, and other tests on other threads would say no.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use event_core::prelude::*;
use event_core::testing::TestService;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {
    commits: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {
    findings: u32,
}

#[event_handler(on = "github.push", emits = "repository.analyzed")]
async fn analyze(push: GithubPush) -> RepositoryAnalyzed {
    RepositoryAnalyzed {
        findings: push.commits,
    }
}

/// Notes the names of the spans that are opened.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<&'static str>>>);

impl tracing::Subscriber for Spans {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let mut names = self.0.lock().unwrap();
        names.push(span.metadata().name());
        tracing::span::Id::from_u64(names.len() as u64)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn each_station_of_the_flow_has_its_span() {
    let spans = Spans::default();
    tracing::subscriber::set_global_default(spans.clone()).unwrap();
    let test = TestService::start(Service::builder("s")).await.unwrap();
    test.publish(GithubPush { commits: 1 }).await.unwrap();
    test.run_until_idle().await.unwrap();
    let names = spans.0.lock().unwrap().clone();
    let mut at = names.iter();
    for station in [
        "codec",
        "store",
        "subscription",
        "feed",
        "dispatcher",
        "handler",
        "codec",
        "emit",
        "store",
    ] {
        assert!(
            at.any(|name| *name == station),
            "no span `{station}` in its place: {names:?}"
        );
    }
}
