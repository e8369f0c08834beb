//! The metrics, in a process of their own: a recorder is installed once for all of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event_core::metrics::{self, Metric};
use event_core::prelude::*;
use event_core::testing::TestService;
use event_core::{HandlerDefinition, Retry, Service, ServiceBuilder};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use serde::{Deserialize, Serialize};

const DOCUMENT: &str = include_str!("../../docs/reference/metrics.md");

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("github.push", key = repository)]
struct GithubPush {
    repository: String,
    commits: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("repository.analyzed", key = repository)]
struct RepositoryAnalyzed {
    repository: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("ai.response.chunk", realtime)]
struct ResponseChunk {
    text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("sdlc.phase.changed")]
struct PhaseChanged {
    to: String,
}

#[derive(Default)]
struct Project;

impl Aggregate for Project {
    const TYPE: &'static str = "project";
    type Event = PhaseChanged;
    type Command = String;
    type Error = std::convert::Infallible;

    fn apply(&mut self, _: &PhaseChanged) {}

    fn handle(&self, to: String) -> Result<Vec<PhaseChanged>, Self::Error> {
        Ok(vec![PhaseChanged { to }])
    }
}

/// Fails for ever on `poison`, and once on `flaky`.
fn analyzes() -> HandlerDefinition {
    let has_failed = AtomicBool::new(false);
    HandlerDefinition::function("analyze", move |push: GithubPush, _: Context| {
        let fails = match push.repository.as_str() {
            "poison" => true,
            "flaky" => !has_failed.swap(true, Ordering::SeqCst),
            _ => false,
        };
        async move {
            if fails {
                return Err("not now");
            }
            Ok(RepositoryAnalyzed {
                repository: push.repository,
            })
        }
    })
    .on("github.push")
    .emits("repository.analyzed")
}

fn builder(name: &str) -> ServiceBuilder {
    Service::builder(name)
        .without_discovered_handlers()
        .retry(Retry {
            base: Duration::from_millis(1),
            max_delay: Duration::from_millis(1),
            max: 2,
        })
}

fn push(repository: &str) -> GithubPush {
    GithubPush {
        repository: repository.into(),
        commits: 1,
    }
}

/// What was recorded until now, by name and labels. Empties histograms and sets counters back, so it
/// is asked for once.
struct Recorded(BTreeMap<String, DebugValue>);

impl Recorded {
    fn take(snapshotter: &Snapshotter) -> Self {
        let metrics = snapshotter.snapshot().into_vec().into_iter();
        Self(
            metrics
                .map(|(key, _, _, value)| {
                    let key = key.key();
                    let mut labels: Vec<_> = key
                        .labels()
                        .map(|label| format!("{}={}", label.key(), label.value()))
                        .collect();
                    labels.sort();
                    (format!("{} {}", key.name(), labels.join(" ")), value)
                })
                .collect(),
        )
    }

    fn find(&self, metric: &Metric, labels: &str) -> &DebugValue {
        let found = self.0.iter().find(|(key, _)| {
            let mut words = key.split(' ');
            words.next() == Some(metric.name) && {
                let own: Vec<_> = words.collect();
                labels.split(' ').all(|wanted| own.contains(&wanted))
            }
        });
        match found {
            Some((_, value)) => value,
            None => panic!("no {} with {labels}: {:#?}", metric.name, self.0),
        }
    }

    #[track_caller]
    fn is(&self, metric: &Metric, labels: &str, expected: u64) {
        let found = match self.find(metric, labels) {
            DebugValue::Counter(count) => *count,
            DebugValue::Gauge(value) => value.into_inner() as u64,
            DebugValue::Histogram(values) => {
                assert!(values.iter().all(|value| value.into_inner() < 10.0));
                values.len() as u64
            }
        };
        assert_eq!(found, expected, "{} {labels}", metric.name);
    }
}

#[tokio::test]
async fn what_happens_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    metrics::describe();

    // Labels are told apart by their group.
    let chunk = HandlerDefinition::function("chunk", |_: ResponseChunk, _: Context| async {})
        .on("ai.response.chunk")
        .realtime();
    let test = TestService::start(builder("agent").handler(analyzes()).handler(chunk))
        .await
        .unwrap();
    test.publish(vec![push("a"), push("flaky"), push("poison"), push("b")])
        .await
        .unwrap();
    test.publish(ResponseChunk { text: "hi".into() })
        .await
        .unwrap();
    test.run_until_idle().await.unwrap_err();
    // It follows the one before among the dead letters.
    test.publish(push("poison")).await.unwrap();
    test.run_until_idle().await.unwrap();

    let projects = test.repository::<Project>();
    projects.execute("gothic", "build".into()).await.unwrap();
    let late = [PhaseChanged { to: "test".into() }];
    projects
        .append("gothic", Expected::NoStream, &late)
        .await
        .unwrap_err();

    let recorded = Recorded::take(&snapshotter);
    let sent = |category| format!("messaging.destination.name={category}");
    recorded.is(&metrics::SENT, &sent("github"), 5);
    recorded.is(&metrics::SENT, &sent("repository"), 3);
    recorded.is(&metrics::SENT, &sent("ai"), 1);
    recorded.is(&metrics::SENT, &sent("sdlc"), 1);
    recorded.is(&metrics::APPEND_CONFLICTS, &sent("sdlc"), 1);

    let github = "messaging.consumer.group.name=agent messaging.destination.name=github \
                  messaging.destination.partition.id=0";
    recorded.is(&metrics::CONSUMED, github, 5);
    let ai = "messaging.consumer.group.name=agent messaging.destination.name=ai";
    recorded.is(&metrics::CONSUMED, ai, 1);
    recorded.is(&metrics::PARKED, github, 2);
    // It owns nothing any more.
    recorded.is(&metrics::DEAD_LETTERS, github, 0);
    let changes = |change| format!("{github} event.lease.change={change}");
    recorded.is(&metrics::LEASE_CHANGES, &changes("lost"), 0);
    assert!(
        matches!(recorded.find(&metrics::COMMITS, github), DebugValue::Counter(count) if *count > 1)
    );

    let analyze = "messaging.consumer.group.name=agent event.handler=analyze";
    recorded.is(&metrics::RETRIES, analyze, 2);
    recorded.is(
        &metrics::PROCESS_DURATION,
        &format!("{analyze} error.type=failed"),
        3,
    );

    // While it runs, it tells how far it is behind.
    let service = test.service().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        service
            .run_until(async {
                let _ = stopped.await;
            })
            .await
    });
    loop {
        let recorded = Recorded::take(&snapshotter);
        if matches!(recorded.find(&metrics::DEAD_LETTERS, github), DebugValue::Gauge(count) if count.into_inner() == 2.0)
        {
            recorded.is(&metrics::LAG, github, 0);
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    let recorded = Recorded::take(&snapshotter);
    recorded.is(&metrics::DEAD_LETTERS, github, 0);
}

#[test]
fn the_document_has_every_metric_and_no_other() {
    let rows: Vec<Vec<String>> = DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect();
    let expected: Vec<Vec<String>> = metrics::ALL
        .iter()
        .map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
            vec![
                format!("`{}`", metric.name),
                metric.kind.name().to_owned(),
                metric.unit.as_str().to_owned(),
                labels.join(", "),
                metric.description.to_owned(),
            ]
        })
        .collect();
    let table: Vec<_> = expected
        .iter()
        .map(|row| format!("| {} |", row.join(" | ")))
        .collect();
    assert_eq!(
        rows,
        expected,
        "docs/reference/metrics.md must have these rows:\n{}",
        table.join("\n")
    );
}
