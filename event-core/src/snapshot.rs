//! Snapshots: the state of an aggregate as it was at a version, so that a load need not begin at its
//! first event.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::recorded::{AggregateId, Version};
use crate::store::EventStore;

/// So many snapshots of one repository are written at once. Where as many are on their way, the next
/// load tries again.
const WRITERS: usize = 4;

/// The state of an aggregate at a version, as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The version: the number of events the state is made of.
    pub version: Version,
    /// The id of the event of that version, by which a snapshot of another history is noticed.
    pub event_id: Uuid,
    /// The version of the state's shape: see [`SnapshotPolicy::state_version`].
    pub state_version: u32,
    /// The state, as JSON.
    pub state: String,
}

/// When an aggregate's state is kept, and how. It stands at the aggregate:
///
/// ```
/// use event_core::{Aggregate, SnapshotPolicy};
/// use serde::{Deserialize, Serialize};
/// # use event_core::Event;
/// # #[derive(Clone, Serialize, Deserialize, Event)]
/// # enum CounterEvent {
/// #     #[event("counter.raised")]
/// #     Raised { by: u32 },
/// # }
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Counter {
///     total: u32,
/// }
///
/// impl Aggregate for Counter {
///     const TYPE: &'static str = "counter";
///     const SNAPSHOTS: SnapshotPolicy<Self> = SnapshotPolicy::every(100);
///     // …
/// #   type Event = CounterEvent;
/// #   type Command = u32;
/// #   type Error = std::convert::Infallible;
/// #   fn apply(&mut self, _: &CounterEvent) {}
/// #   fn handle(&self, by: u32) -> Result<Vec<CounterEvent>, Self::Error> {
/// #       Ok(vec![CounterEvent::Raised { by }])
/// #   }
/// }
/// ```
///
/// Snapshots are written beside the load or the command that has found one due, and read by every load.
/// One that cannot be read, or is of another version of the state, is passed over: the aggregate is rebuilt
/// from its whole history, and a warning is logged.
pub struct SnapshotPolicy<A> {
    when: When,
    state_version: u32,
    form: Option<Form<A>>,
}

#[derive(Clone, Copy, Debug)]
enum When {
    Never,
    Every(u64),
    SlowerThan(Duration),
}

/// How a state is written and read.
struct Form<A> {
    write: fn(&A) -> Result<String, serde_json::Error>,
    read: fn(&str) -> Result<A, serde_json::Error>,
}

impl<A> Clone for Form<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Form<A> {}

impl<A> Clone for SnapshotPolicy<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for SnapshotPolicy<A> {}

impl<A> fmt::Debug for SnapshotPolicy<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotPolicy")
            .field("when", &self.when)
            .field("state_version", &self.state_version)
            .finish_non_exhaustive()
    }
}

impl<A> SnapshotPolicy<A> {
    /// No snapshots are written or read.
    pub const NEVER: Self = Self {
        when: When::Never,
        state_version: 1,
        form: None,
    };

    /// A snapshot is due when at least so many events have come since the last one.
    pub const fn every(events: u64) -> Self
    where
        A: Serialize + DeserializeOwned,
    {
        Self::when(When::Every(if events == 0 { 1 } else { events }))
    }

    /// A snapshot is due when reading what has come since the last one took longer than this.
    pub const fn slower_than(replay: Duration) -> Self
    where
        A: Serialize + DeserializeOwned,
    {
        Self::when(When::SlowerThan(replay))
    }

    const fn when(when: When) -> Self
    where
        A: Serialize + DeserializeOwned,
    {
        Self {
            when,
            state_version: 1,
            form: Some(Form {
                write: serde_json::to_string::<A>,
                read: read_state::<A>,
            }),
        }
    }

    /// The version of the state, 1 by default. Count it up whenever the state has another shape, or
    /// the same events lead to another state: snapshots of other versions are passed over.
    pub const fn state_version(mut self, version: u32) -> Self {
        self.state_version = version;
        self
    }

    /// Whether there are snapshots at all.
    pub(crate) fn is_on(&self) -> bool {
        self.form.is_some()
    }

    /// Whether one is due, after so many events were read in this time.
    pub(crate) fn is_due(&self, events: u64, took: Duration) -> bool {
        match self.when {
            When::Never => false,
            When::Every(most) => events >= most,
            When::SlowerThan(most) => events > 0 && took > most,
        }
    }

    /// The state of a snapshot; else why it is passed over.
    pub(crate) fn read(&self, snapshot: &Snapshot) -> Result<A, String> {
        let Some(form) = self.form else {
            return Err("this program reads no snapshots".to_owned());
        };
        if snapshot.state_version != self.state_version {
            return Err(format!(
                "it is of version {} of the state, and this program knows version {}",
                snapshot.state_version, self.state_version
            ));
        }
        (form.read)(&snapshot.state).map_err(|error| error.to_string())
    }

    pub(crate) fn write(
        &self,
        state: &A,
        version: Version,
        event_id: Uuid,
    ) -> Option<Result<Snapshot, serde_json::Error>> {
        let form = self.form?;
        Some((form.write)(state).map(|state| Snapshot {
            version,
            event_id,
            state_version: self.state_version,
            state,
        }))
    }
}

fn read_state<A: DeserializeOwned>(json: &str) -> Result<A, serde_json::Error> {
    serde_json::from_str(json)
}

/// Writes snapshots beside everything else.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotWriter(Arc<Semaphore>);

impl Default for SnapshotWriter {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WRITERS)))
    }
}

impl SnapshotWriter {
    /// Begins to write one, unless many are being written; whether it did. `snapshot` is made only then.
    pub(crate) fn begin(
        &self,
        store: &Arc<dyn EventStore>,
        aggregate: &AggregateId,
        snapshot: impl FnOnce() -> Option<Result<Snapshot, serde_json::Error>>,
    ) -> bool {
        let Ok(permit) = Arc::clone(&self.0).try_acquire_owned() else {
            return false;
        };
        let snapshot = match snapshot() {
            Some(Ok(snapshot)) => snapshot,
            Some(Err(error)) => {
                tracing::warn!(%aggregate, %error, "the state cannot be written as JSON, so there is no snapshot");
                return false;
            }
            None => return false,
        };
        let (store, aggregate) = (Arc::clone(store), aggregate.clone());
        tokio::spawn(async move {
            let version = snapshot.version;
            match store.save_snapshot(&aggregate, &snapshot).await {
                Ok(_) => tracing::debug!(%aggregate, version, "a snapshot is stored"),
                Err(error) => {
                    tracing::warn!(%aggregate, version, %error, "a snapshot is not stored; a later load tries again");
                }
            }
            drop(permit);
        });
        true
    }

    /// Waits until all that have begun are written.
    pub(crate) async fn finish(&self) {
        // It is never closed.
        let _ = self.0.acquire_many(WRITERS as u32).await;
    }
}
