//! One entry that was taken, and what has come of those that are handled.

use std::sync::Arc;

use crate::dispatcher::HandlerFailure;
use crate::recorded::{Position, RecordedEvent};
use crate::store::{Append, AppendError, DeadLetter, EntryEmits, Finish};
use crate::subscription::retrying::Retrying;

/// Which entry: in which partition, by its number among all of them, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) partition: usize,
    pub(super) position: Position,
}

/// An entry that is pending here.
pub(super) struct Work {
    /// `None` where it is no event.
    pub(super) event: Option<RecordedEvent>,
    /// The bytes of its payload.
    pub(super) bytes: usize,
    pub(super) retrying: Option<Retrying>,
    /// What was emitted, where somebody waits for it.
    pub(super) emitted: Vec<RecordedEvent>,
    /// Why the handler gave up.
    pub(super) failure: Option<Arc<HandlerFailure>>,
}

impl Work {
    pub(super) fn new(event: Option<RecordedEvent>) -> Self {
        Self {
            bytes: event.as_ref().map_or(0, |event| event.payload().len()),
            event,
            retrying: None,
            emitted: Vec::new(),
            failure: None,
        }
    }
}

/// What has come of entries of a partition and is not stored yet.
#[derive(Default)]
pub(super) struct Gathered {
    done: Vec<Position>,
    emitted: Vec<EntryEmits>,
    parked: Vec<DeadLetter>,
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.done.is_empty() && !self.is_urgent()
    }

    /// Whether somebody may wait for what is stored with it.
    pub(super) fn is_urgent(&self) -> bool {
        !self.emitted.is_empty() || !self.parked.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.done.len() + self.emitted.len() + self.parked.len()
    }

    pub(super) fn add_done(&mut self, position: Position) {
        self.done.push(position);
    }

    pub(super) fn add_emitted(&mut self, position: Position, appends: Vec<Append>) {
        self.emitted.push(EntryEmits { position, appends });
    }

    pub(super) fn add_parked(&mut self, letter: DeadLetter) {
        self.parked.push(letter);
    }

    /// What is to be stored.
    pub(super) fn take(&mut self, wants_places: bool) -> Finish {
        let Self {
            done,
            emitted,
            parked,
        } = std::mem::take(self);
        Finish {
            done,
            emitted,
            parked,
            wants_places,
        }
    }

    /// Takes back what could not be stored, and gives what is refused.
    pub(super) fn take_back(
        &mut self,
        finish: Finish,
        refused: Vec<(usize, AppendError)>,
    ) -> Vec<(Position, AppendError)> {
        let mut failures = Vec::new();
        let mut refused = refused.into_iter().peekable();
        for (index, emits) in finish.emitted.into_iter().enumerate() {
            match refused.next_if(|(refused, _)| *refused == index) {
                Some((_, error)) => failures.push((emits.position, error)),
                None => self.emitted.push(emits),
            }
        }
        self.done.extend(finish.done);
        self.parked.extend(finish.parked);
        failures
    }
}
