//! One trace through two services; in a process of its own, for which the exporter is installed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use event_core::prelude::*;
use event_core::{HandlerDefinition, ServiceBuilder};
use opentelemetry::trace::{SpanId, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde::{Deserialize, Serialize};
use tracing::{Instrument, info_span};
use tracing_subscriber::layer::SubscriberExt as _;

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

fn service(name: &str, store: &MemoryStore, handler: HandlerDefinition) -> Service {
    let builder: ServiceBuilder = Service::builder(name)
        .without_discovered_handlers()
        .handler(handler)
        .store(store.clone());
    builder.build().unwrap()
}

fn handler_of(span: &SpanData) -> Option<String> {
    let mut attributes = span.attributes.iter();
    let name = attributes.find(|attribute| attribute.key.as_str() == "name")?;
    (span.name == "handler").then(|| name.value.to_string())
}

#[tokio::test]
async fn one_trace_runs_from_a_publish_through_two_services() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let analyze =
        HandlerDefinition::function("analyze", |push: GithubPush, _: Context| async move {
            RepositoryAnalyzed {
                findings: push.commits,
            }
        })
        .on("github.push")
        .emits("repository.analyzed");
    let tell = HandlerDefinition::function("tell", |_: RepositoryAnalyzed, _: Context| async {})
        .on("repository.analyzed");
    let store = MemoryStore::new();
    let analyzer = service("analyzer", &store, analyze);
    let teller = service("teller", &store, tell);

    analyzer
        .publish(GithubPush { commits: 2 })
        .instrument(info_span!("webhook"))
        .await
        .unwrap();
    // Each in a place of its own, as in another process.
    analyzer.run_until_idle().await.unwrap();
    teller.run_until_idle().await.unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let by_id: HashMap<SpanId, &SpanData> = spans
        .iter()
        .map(|span| (span.span_context.span_id(), span))
        .collect();
    let webhook = spans.iter().find(|span| span.name == "webhook").unwrap();
    let handler = |name: &str| {
        let mut found = spans
            .iter()
            .filter(|span| handler_of(span).as_deref() == Some(name));
        let handler = found.next().unwrap();
        assert!(found.next().is_none(), "`{name}` has run once");
        handler
    };
    let comes_from = |span: &SpanData, other: &SpanData| {
        let mut span = span;
        while let Some(parent) = by_id.get(&span.parent_span_id) {
            if parent.span_context == other.span_context {
                return true;
            }
            span = parent;
        }
        false
    };
    let (analyze, tell) = (handler("analyze"), handler("tell"));
    let trace = webhook.span_context.trace_id();
    assert_eq!(analyze.span_context.trace_id(), trace);
    assert_eq!(tell.span_context.trace_id(), trace);
    assert!(analyze.parent_span_is_remote && tell.parent_span_is_remote);
    assert!(comes_from(analyze, webhook));
    assert!(comes_from(tell, analyze));

    // The commit that stored what was emitted is of no trace, and linked with it.
    let is_linked = |span: &&SpanData| {
        let mut links = span.links.iter();
        span.name == "store" && links.any(|link| link.span_context.trace_id() == trace)
    };
    assert_eq!(spans.iter().filter(is_linked).count(), 1);

    // What is published outside of all that is of another trace.
    let published = analyzer.publish(GithubPush { commits: 1 }).await.unwrap();
    let own = published.events[0].event.metadata().traceparent.clone();
    assert!(!own.unwrap().contains(&trace.to_string()));
}
