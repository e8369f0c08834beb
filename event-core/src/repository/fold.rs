//! Folding: a state that grows event by event.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::aggregate::Aggregate;
use crate::codec::CodecError;
use crate::codec::history::HistoryEntry;
use crate::recorded::Version;

/// A state that grows event by event.
pub(super) struct Fold<A> {
    pub(super) state: A,
    pub(super) version: Version,
    /// The id of the event of that version; nil before the first.
    pub(super) event_id: Uuid,
    /// The bytes of what it is made of, about.
    pub(super) bytes: usize,
    /// The version of its newest snapshot that is known of.
    pub(super) snapshot: Version,
    until: Option<DateTime<Utc>>,
    /// Whether the next entry must be the last one that the state has in it already.
    is_resumed: bool,
    outcome: Outcome,
}

#[derive(Default)]
enum Outcome {
    #[default]
    Fine,
    /// The state is of another history than that of the store.
    OtherHistory,
    Failed(CodecError),
}

impl<A: Aggregate> Fold<A> {
    pub(super) fn new(until: Option<DateTime<Utc>>) -> Self {
        Self {
            state: A::default(),
            version: 0,
            event_id: Uuid::nil(),
            bytes: 0,
            snapshot: 0,
            until,
            is_resumed: false,
            outcome: Outcome::Fine,
        }
    }

    /// Goes on from a state of before.
    pub(super) fn resume(state: A, version: Version, event_id: Uuid, bytes: usize) -> Self {
        Self {
            state,
            version,
            event_id,
            bytes,
            is_resumed: true,
            ..Self::new(None)
        }
    }

    /// Notes that there is a snapshot of this version.
    pub(super) fn with_snapshot(mut self, version: Version) -> Self {
        self.snapshot = version;
        self
    }

    /// Goes on from where it is: what it has is looked at again.
    pub(super) fn again(mut self) -> Self {
        self.is_resumed = self.version > 0;
        self
    }

    /// The version that it wants to read first.
    pub(super) fn first(&self) -> Version {
        if self.is_resumed {
            self.version
        } else {
            self.version + 1
        }
    }

    pub(super) fn take(&mut self, entry: HistoryEntry<'_>) -> ControlFlow<()> {
        match self.try_take(entry) {
            Ok(flow) => flow,
            Err(error) => {
                self.outcome = Outcome::Failed(error);
                ControlFlow::Break(())
            }
        }
    }

    fn try_take(&mut self, entry: HistoryEntry<'_>) -> Result<ControlFlow<()>, CodecError> {
        if self.is_resumed {
            if entry.version()? != self.version || entry.event_id()? != self.event_id {
                self.outcome = Outcome::OtherHistory;
                return Ok(ControlFlow::Break(()));
            }
            self.is_resumed = false;
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(until) = self.until
            && entry.timestamp_micros()? > until.timestamp_micros()
        {
            return Ok(ControlFlow::Break(()));
        }
        let (version, decoded) = entry.decode::<A::Event>()?;
        if version != self.version + 1 {
            return Err(CodecError::malformed(format!(
                "version {version} of a history follows version {}",
                self.version
            )));
        }
        for event in decoded {
            self.state.apply(&event);
        }
        self.version = version;
        self.event_id = entry.event_id()?;
        self.bytes += entry.bytes();
        Ok(ControlFlow::Continue(()))
    }

    /// Whether it is what the store has; `false` where the state that it went on from is of another
    /// history.
    ///
    /// # Errors
    /// What was wrong with an entry.
    pub(super) fn check(&mut self) -> Result<bool, CodecError> {
        match std::mem::take(&mut self.outcome) {
            Outcome::Failed(error) => Err(error),
            Outcome::OtherHistory => Ok(false),
            // The last event that the state has in it was not there any more.
            Outcome::Fine => Ok(!self.is_resumed),
        }
    }
}
