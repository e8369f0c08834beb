//! What is passed over is counted. A process of its own, since it installs a recorder.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use event_core::metrics::{self, Metric};
use event_core::prelude::*;
use event_core::{Append, Metadata, NewEvent, Snapshot, SnapshotPolicy};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(retired("counter.greeted"))]
enum CounterEvent {
    #[event("counter.raised")]
    Raised { by: u32 },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counter {
    total: u32,
}

impl Aggregate for Counter {
    const TYPE: &'static str = "counter";
    const SNAPSHOTS: SnapshotPolicy<Self> = SnapshotPolicy::every(u64::MAX).state_version(2);
    type Event = CounterEvent;
    type Command = u32;
    type Error = std::convert::Infallible;

    fn apply(&mut self, CounterEvent::Raised { by }: &CounterEvent) {
        self.total += by;
    }

    fn handle(&self, by: u32) -> Result<Vec<CounterEvent>, Self::Error> {
        Ok(vec![CounterEvent::Raised { by }])
    }
}

/// How much a counter has grown since it was asked for last.
fn counted(snapshotter: &Snapshotter, metric: &Metric) -> u64 {
    let all = snapshotter.snapshot().into_vec();
    let of_it = all
        .into_iter()
        .filter(|(key, ..)| key.key().name() == metric.name);
    of_it
        .map(|(.., value)| match value {
            DebugValue::Counter(count) => count,
            other => panic!("{other:?}"),
        })
        .sum()
}

#[tokio::test]
async fn what_is_passed_over_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let store = MemoryStore::new();
    let counters = Repository::<Counter>::new(store.clone());
    counters.execute("visits", 1).await.unwrap();
    assert_eq!(counted(&snapshotter, &metrics::STATES_PASSED_OVER), 0);

    let visits = AggregateId::of::<Counter>("visits").unwrap();
    let of_another_version = Snapshot {
        version: 1,
        event_id: Uuid::nil(),
        state_version: 1,
        state: r#"{"total":7}"#.into(),
    };
    store
        .save_snapshot(&visits, &of_another_version)
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(counters.load("visits").await.unwrap().state.total, 1);
    }
    assert_eq!(counted(&snapshotter, &metrics::STATES_PASSED_OVER), 3);

    let metadata = Metadata::new(Uuid::now_v7(), chrono::Utc::now());
    let retired = NewEvent::from_parts("counter.greeted", "{}", metadata).unwrap();
    let append = Append::to(visits, Expected::Any, vec![retired]);
    store.append(&append).await.unwrap();
    let plain = Repository::<Counter>::new(store).with_snapshots(SnapshotPolicy::NEVER);
    assert_eq!(plain.load("visits").await.unwrap().version, 2);
    assert_eq!(counted(&snapshotter, &metrics::RETIRED), 1);
}
