//! Aggregates: state that is rebuilt from its events, and that decides on commands.

use crate::event::{Event, EventDefinition};
use crate::recorded::{AggregateId, InvalidAggregateId};
use crate::snapshot::SnapshotPolicy;

/// State that is rebuilt from its own events, and decides which commands may happen.
///
/// ```
/// use event_core::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
/// pub enum CounterEvent {
///     #[event("counter.raised")]
///     Raised { by: u32 },
/// }
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("raise the counter by at least 1")]
/// pub struct NothingToRaise;
///
/// #[derive(Default)]
/// pub struct Counter {
///     total: u32,
/// }
///
/// impl Aggregate for Counter {
///     const TYPE: &'static str = "counter";
///     type Event = CounterEvent;
///     type Command = u32;
///     type Error = NothingToRaise;
///
///     fn apply(&mut self, event: &CounterEvent) {
///         match event {
///             CounterEvent::Raised { by } => self.total += by,
///         }
///     }
///
///     fn handle(&self, by: u32) -> Result<Vec<CounterEvent>, NothingToRaise> {
///         match by {
///             0 => Err(NothingToRaise),
///             by => Ok(vec![CounterEvent::Raised { by }]),
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let counters = Repository::<Counter>::new(MemoryStore::new());
/// counters.execute("visits", 2).await?;
/// counters.execute("visits", 3).await?;
/// assert_eq!(counters.load("visits").await?.state.total, 5);
/// # Ok(())
/// # }
/// ```
///
/// # Contract
/// - [`apply`](Aggregate::apply) must depend on nothing but the state and the event: no clock, no
///   chance, no outside world. It is called for every event each time the state is rebuilt.
/// - [`handle`](Aggregate::handle) must not change anything: it says which events the command leads
///   to, and is called again with newer state where another writer was faster.
/// - All types of [`Event`](Aggregate::Event) must be stored types of one category.
pub trait Aggregate: Default + Send + Sync + 'static {
    /// The aggregate's type: one word of lower-case letters, digits and `_`.
    const TYPE: &'static str;

    /// When its state is kept, so that a load need not begin at the first event; never, by default.
    const SNAPSHOTS: SnapshotPolicy<Self> = SnapshotPolicy::NEVER;

    /// Its events.
    type Event: Event;

    /// What it can be asked to do. Cloned where a command has to be decided again.
    type Command: Clone + Send + Sync;

    /// Why it refuses.
    type Error: Into<crate::BoxError> + Send + Sync + 'static;

    /// Takes an event into the state. It happened, so this cannot fail.
    fn apply(&mut self, event: &Self::Event);

    /// Decides on a command: which events it leads to (none, if there is nothing to do).
    ///
    /// # Errors
    /// Why the command is refused.
    fn handle(&self, command: Self::Command) -> Result<Vec<Self::Event>, Self::Error>;
}

/// Names the aggregate of type `A` with this id.
///
/// # Errors
/// [`InvalidAggregateId`] where the id is empty or too long, or [`Aggregate::TYPE`] is no word.
pub(crate) fn id_of<A: Aggregate>(id: &str) -> Result<AggregateId, InvalidAggregateId> {
    let definition =
        A::Event::DEFINITIONS
            .first()
            .ok_or_else(|| InvalidAggregateId::Categories {
                aggregate_type: A::TYPE.to_owned(),
            })?;
    AggregateId::new(definition.category(), A::TYPE, id)
}

impl AggregateId {
    /// Names the aggregate of type `A` with this id.
    ///
    /// # Errors
    /// [`InvalidAggregateId`] where the id is empty or too long, or [`Aggregate::TYPE`] is no word.
    pub fn of<A: Aggregate>(id: &str) -> Result<Self, InvalidAggregateId> {
        id_of::<A>(id)
    }
}

/// Whether these can be the events of an aggregate: stored, of one category, at least one.
pub(crate) const fn can_be_aggregate(definitions: &[EventDefinition]) -> bool {
    if definitions.is_empty() {
        return false;
    }
    let first = definitions[0].name().as_bytes();
    let mut index = 0;
    while index < definitions.len() {
        if definitions[index].is_realtime() {
            return false;
        }
        let name = definitions[index].name().as_bytes();
        let mut at = 0;
        while first[at] == name[at] && first[at] != b'.' {
            at += 1;
        }
        if first[at] != b'.' || name[at] != b'.' {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_an_aggregate_are_stored_and_of_one_category() {
        const A: EventDefinition = EventDefinition::new("a.b");
        const A2: EventDefinition = EventDefinition::new("a.c.d");
        const AB: EventDefinition = EventDefinition::new("ab.c");
        assert!(can_be_aggregate(&[A, A2]));
        assert!(!can_be_aggregate(&[A, AB]));
        assert!(!can_be_aggregate(&[AB, A]));
        assert!(!can_be_aggregate(&[A.realtime()]));
        assert!(!can_be_aggregate(&[]));
    }
}
