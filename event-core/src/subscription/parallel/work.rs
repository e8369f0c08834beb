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

/// What has come of entries and is not stored yet.
#[derive(Default)]
pub(super) struct Gathered {
    done: Vec<Place>,
    emitted: Vec<(Place, Vec<Append>)>,
    parked: Vec<(Place, DeadLetter)>,
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

    pub(super) fn add_done(&mut self, place: Place) {
        self.done.push(place);
    }

    pub(super) fn add_emitted(&mut self, place: Place, appends: Vec<Append>) {
        self.emitted.push((place, appends));
    }

    pub(super) fn add_parked(&mut self, place: Place, letter: DeadLetter) {
        self.parked.push((place, letter));
    }

    /// What is to be stored, by partition, of which there are so many.
    pub(super) fn take(&mut self, partitions: usize) -> Vec<(usize, Finish)> {
        let mut finishes = vec![Finish::default(); partitions];
        for place in self.done.drain(..) {
            finishes[place.partition].done.push(place.position);
        }
        for (place, appends) in self.emitted.drain(..) {
            let position = place.position;
            let emits = EntryEmits { position, appends };
            finishes[place.partition].emitted.push(emits);
        }
        for (place, letter) in self.parked.drain(..) {
            finishes[place.partition].parked.push(letter);
        }
        let mut finishes: Vec<_> = finishes.into_iter().enumerate().collect();
        finishes.retain(|(_, finish)| {
            !(finish.done.is_empty() && finish.emitted.is_empty() && finish.parked.is_empty())
        });
        finishes
    }

    /// Takes back what could not be stored, and gives what is refused.
    pub(super) fn take_back(
        &mut self,
        partition: usize,
        finish: Finish,
        refused: Vec<(usize, AppendError)>,
    ) -> Vec<(Place, AppendError)> {
        let place = |position| Place {
            partition,
            position,
        };
        let mut failures = Vec::new();
        let mut refused = refused.into_iter().peekable();
        for (index, emits) in finish.emitted.into_iter().enumerate() {
            match refused.next_if(|(refused, _)| *refused == index) {
                Some((_, error)) => failures.push((place(emits.position), error)),
                None => self.add_emitted(place(emits.position), emits.appends),
            }
        }
        self.done.extend(finish.done.into_iter().map(place));
        let parked = finish.parked.into_iter();
        self.parked
            .extend(parked.map(|letter| (place(letter.position), letter)));
        failures
    }
}
