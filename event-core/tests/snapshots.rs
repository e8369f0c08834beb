//! Whatever the history, and wherever snapshots are taken: a snapshot and what came after it make the
//! same state as the whole history.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use event_core::prelude::*;
use event_core::{Snapshot, SnapshotPolicy, Versions};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
enum ListEvent {
    #[event("list.pushed")]
    Pushed { text: String },
    #[event("list.popped")]
    Popped,
    #[event("list.reversed")]
    Reversed,
}

/// Its state depends on every event and on their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct List {
    texts: Vec<String>,
    lost: u64,
}

impl Aggregate for List {
    const TYPE: &'static str = "list";
    const SNAPSHOTS: SnapshotPolicy<Self> = SnapshotPolicy::every(u64::MAX);
    type Event = ListEvent;
    type Command = Vec<ListEvent>;
    type Error = std::convert::Infallible;

    fn apply(&mut self, event: &ListEvent) {
        match event {
            ListEvent::Pushed { text } => self.texts.push(text.clone()),
            ListEvent::Popped => self.lost += u64::from(self.texts.pop().is_none()),
            ListEvent::Reversed => self.texts.reverse(),
        }
    }

    fn handle(&self, events: Vec<ListEvent>) -> Result<Vec<ListEvent>, Self::Error> {
        Ok(events)
    }
}

fn event() -> impl Strategy<Value = ListEvent> {
    prop_oneof![
        ".{0,8}".prop_map(|text| ListEvent::Pushed { text }),
        Just(ListEvent::Popped),
        Just(ListEvent::Reversed),
    ]
}

/// A history, in the appends that it came in; where a snapshot is taken, if at all.
fn history() -> impl Strategy<Value = (Vec<Vec<ListEvent>>, Vec<prop::sample::Index>)> {
    let appends = prop::collection::vec(prop::collection::vec(event(), 1..6), 1..12);
    let points = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (appends, points)
}

proptest! {
    #[test]
    fn a_snapshot_and_its_tail_equal_the_whole((appends, points) in history()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::new();
            let whole = Repository::<List>::new(store.clone()).with_snapshots(SnapshotPolicy::NEVER);
            for events in &appends {
                whole.execute("a", events.clone()).await.unwrap();
            }
            let expected = whole.load("a").await.unwrap();
            let newest = usize::try_from(expected.version).unwrap();
            let id = AggregateId::of::<List>("a").unwrap();
            let kept = Repository::<List>::new(store.clone());
            let cached = Repository::<List>::new(store.clone()).with_cache(1 << 20);
            // Each point in turn, from the earliest on, as they would come to be.
            let mut versions: Vec<_> = points.iter().map(|point| point.index(newest) + 1).collect();
            versions.sort_unstable();
            for version in versions {
                let version = version as u64;
                let past = whole.load_at("a", At::Version(version)).await.unwrap();
                let only = Versions::from(version).to(version);
                let event = store.read_aggregate(&id, &only).await.unwrap();
                let snapshot = Snapshot {
                    version,
                    event_id: event[0].metadata().event_id,
                    state_version: 1,
                    state: serde_json::to_string(&past.state).unwrap(),
                };
                store.save_snapshot(&id, &snapshot).await.unwrap();
                assert_eq!(kept.load("a").await.unwrap(), expected);
                assert_eq!(cached.load("a").await.unwrap(), expected);
                for at in 1..=expected.version {
                    let at = At::Version(at);
                    let expected = whole.load_at("a", at).await.unwrap();
                    assert_eq!(kept.load_at("a", at).await.unwrap(), expected);
                }
            }
        });
    }
}
