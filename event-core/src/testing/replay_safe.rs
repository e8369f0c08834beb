//! Whether an aggregate can be rebuilt from what was recorded, whole and from snapshots.

// Its assertion is that of a test: what does not come out is reported by a panic.
#![allow(clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::golden::difference;
use crate::aggregate::Aggregate;
use crate::recorded::{RecordedEvent, Version};
use crate::recording::Recording;

/// From how many versions of each aggregate the rest of its history is replayed, beside the newest.
const SNAPSHOTS: usize = 16;

/// An aggregate that is not rebuilt as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ReplayUnsafe {
    /// The recording has nothing of the aggregate type.
    #[error(
        "the recording has no event of an aggregate `{aggregate_type}`; record the category of its events"
    )]
    NothingRecorded {
        /// The type.
        aggregate_type: &'static str,
    },
    /// The recording does not have the whole history of an aggregate.
    #[error(
        "version {found} of `{aggregate}` follows version {last} in the recording; record its history from the beginning"
    )]
    Incomplete {
        /// The aggregate.
        aggregate: String,
        /// The version before.
        last: Version,
        /// The version that was found.
        found: Version,
    },
    /// An event cannot be read.
    #[error("version {version} of `{aggregate}` (`{event_type}`) cannot be read: {source}")]
    Unreadable {
        /// The aggregate.
        aggregate: String,
        /// The version of the event.
        version: Version,
        /// Its type.
        event_type: String,
        /// Why.
        source: crate::CodecError,
    },
    /// `apply` panics.
    #[error(
        "`apply` panics at version {version} of `{aggregate}` (`{event_type}`); an event has happened, so it must be taken in"
    )]
    Panicked {
        /// The aggregate.
        aggregate: String,
        /// The version of the event.
        version: Version,
        /// Its type.
        event_type: String,
    },
    /// A state cannot be written as JSON, or what is written cannot be read.
    #[error("the state of `{aggregate}` at version {version} is not kept by a snapshot: {source}")]
    NotKept {
        /// The aggregate.
        aggregate: String,
        /// The version.
        version: Version,
        /// Why.
        source: serde_json::Error,
    },
    /// The state that goes on from a snapshot is not that of the whole history.
    #[error(
        "`{aggregate}` at version {version} is another state from a snapshot of version {snapshot} (+) than from its whole history (-); let serde keep all that `apply` looks at\n{difference}"
    )]
    Different {
        /// The aggregate.
        aggregate: String,
        /// The version that was compared.
        version: Version,
        /// The version of the snapshot.
        snapshot: Version,
        /// The lines that differ.
        difference: String,
    },
}

/// Rebuilds every aggregate of a type that was recorded, and makes sure that each of its events can be read
/// and taken in, that every state is the same after it was written and read, and that the rest of the
/// history leads to the same state from a snapshot as from the beginning.
///
/// States are compared by `==`, so that what serde skips is missed where it makes a difference. The recording
/// must have whole histories: record the category of the aggregate's events.
///
/// ```
/// use event_core::prelude::*;
/// use event_core::testing::assert_replay_safe;
/// use event_core::{Category, Recording};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Debug, Serialize, Deserialize, Event)]
/// # #[event("counter.raised")]
/// # pub struct Raised { by: u32 }
/// #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
/// pub struct Counter {
///     total: u32,
/// }
///
/// impl Aggregate for Counter {
///     const TYPE: &'static str = "counter";
/// #     type Event = Raised;
/// #     type Command = u32;
/// #     type Error = BoxError;
///     fn apply(&mut self, event: &Raised) {
///         self.total += event.by;
///     }
/// #     fn handle(&self, by: u32) -> Result<Vec<Raised>, BoxError> { Ok(vec![Raised { by }]) }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let store = MemoryStore::new();
/// Repository::<Counter>::new(store.clone()).execute("visits", 2).await?;
/// let recording = Recording::of(&store).category(Category::new("counter")?).record().await?;
/// assert_replay_safe::<Counter>(&recording);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// If one of that does not hold, with what [`ReplayUnsafe`] says.
#[track_caller]
pub fn assert_replay_safe<A>(recording: &Recording)
where
    A: Aggregate + Serialize + DeserializeOwned + PartialEq + Debug,
{
    if let Err(error) = ReplayUnsafe::check::<A>(recording) {
        panic!("{error}");
    }
}

impl ReplayUnsafe {
    /// As [`assert_replay_safe`], without a panic.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check<A>(recording: &Recording) -> Result<(), Self>
    where
        A: Aggregate + Serialize + DeserializeOwned + PartialEq + Debug,
    {
        let mut histories: BTreeMap<&str, Vec<&RecordedEvent>> = BTreeMap::new();
        for line in recording.lines() {
            // Without a version it lies in the feed alone.
            if let Some(own) = line.event.aggregate()
                && own.aggregate_type == A::TYPE
                && own.version > 0
            {
                histories.entry(&own.id).or_default().push(&line.event);
            }
        }
        if histories.is_empty() {
            return Err(Self::NothingRecorded {
                aggregate_type: A::TYPE,
            });
        }
        for (id, events) in histories {
            History::<A>::read(format!("{}:{id}", A::TYPE), &events)?.check()?;
        }
        Ok(())
    }
}

/// The events of one aggregate, each as what it is read as.
struct History<'a, A: Aggregate> {
    aggregate: String,
    events: Vec<(&'a str, Vec<A::Event>)>,
}

impl<'a, A> History<'a, A>
where
    A: Aggregate + Serialize + DeserializeOwned + PartialEq + Debug,
{
    fn read(aggregate: String, recorded: &[&'a RecordedEvent]) -> Result<Self, ReplayUnsafe> {
        let mut events = Vec::with_capacity(recorded.len());
        for (event, version) in recorded.iter().zip(1..) {
            let found = event.aggregate().map_or(0, |own| own.version);
            if found != version {
                return Err(ReplayUnsafe::Incomplete {
                    aggregate,
                    last: version - 1,
                    found,
                });
            }
            match event.decode_all::<A::Event>() {
                Ok(parts) => events.push((event.event_type(), parts)),
                Err(source) => {
                    return Err(ReplayUnsafe::Unreadable {
                        aggregate,
                        version,
                        event_type: event.event_type().to_owned(),
                        source,
                    });
                }
            }
        }
        Ok(Self { aggregate, events })
    }

    fn check(&self) -> Result<(), ReplayUnsafe> {
        // One state goes on as it is, the other from a snapshot of each version.
        let (mut whole, mut kept) = (A::default(), A::default());
        let step = self.events.len().div_ceil(SNAPSHOTS).max(1);
        let mut snapshots = Vec::new();
        for version in 1..=self.events.len() {
            self.apply(&mut whole, version)?;
            self.apply(&mut kept, version)?;
            self.compare(&whole, &kept, version, version - 1)?;
            kept = self.through_snapshot(&whole, version)?;
            self.compare(&whole, &kept, version, version)?;
            if version % step == 0 {
                snapshots.push((version, self.through_snapshot(&whole, version)?));
            }
        }
        let last = self.events.len();
        for (version, mut resumed) in snapshots {
            for next in version + 1..=last {
                self.apply(&mut resumed, next)?;
            }
            self.compare(&whole, &resumed, last, version)?;
        }
        Ok(())
    }

    /// Takes the event of a version in.
    fn apply(&self, state: &mut A, version: usize) -> Result<(), ReplayUnsafe> {
        let (event_type, parts) = &self.events[version - 1];
        let applied = catch_unwind(AssertUnwindSafe(|| {
            for event in parts {
                state.apply(event);
            }
        }));
        applied.map_err(|_| ReplayUnsafe::Panicked {
            aggregate: self.aggregate.clone(),
            version: version as Version,
            event_type: (*event_type).to_owned(),
        })
    }

    /// The state as it is read from a snapshot.
    fn through_snapshot(&self, state: &A, version: usize) -> Result<A, ReplayUnsafe> {
        serde_json::to_string(state)
            .and_then(|text| serde_json::from_str(&text))
            .map_err(|source| ReplayUnsafe::NotKept {
                aggregate: self.aggregate.clone(),
                version: version as Version,
                source,
            })
    }

    fn compare(
        &self,
        whole: &A,
        resumed: &A,
        version: usize,
        snapshot: usize,
    ) -> Result<(), ReplayUnsafe> {
        if whole == resumed {
            return Ok(());
        }
        let (whole, resumed) = (format!("{whole:#?}\n"), format!("{resumed:#?}\n"));
        Err(ReplayUnsafe::Different {
            aggregate: self.aggregate.clone(),
            version: version as Version,
            snapshot: snapshot as Version,
            difference: difference(&whole, &resumed).unwrap_or_default(),
        })
    }
}
