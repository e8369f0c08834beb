//! Restoring: recorded events are stored where they lay, with their positions, times and versions.

use std::collections::HashMap;

use crate::codec::entry;
use crate::codec::{CodecError, NewEvent, history};
use crate::event::Category;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, RecordedEvent, Version};
use crate::store::StoreError;

/// Recorded events on their way back into a store, into the partition that they lay in.
#[derive(Clone, Debug)]
pub struct Restore {
    partition: Partition,
    entries: Vec<RestoreEntry>,
    /// Of each aggregate among them the version that it must be at before.
    befores: Vec<(AggregateId, Version)>,
}

/// One of them, in the stored form.
#[derive(Clone, Debug)]
pub struct RestoreEntry {
    /// The event.
    pub event: RecordedEvent,
    /// The field `metadata` of its entry.
    pub metadata: String,
    /// The field `aggregate` of its entry, where it has one.
    pub aggregate: Option<String>,
    /// The element of its aggregate's history, where it has a version there.
    pub element: Option<(AggregateId, String)>,
}

impl Restore {
    /// Puts the events of a partition together, in the order of their positions.
    ///
    /// # Errors
    /// Every [`RestoreError`] that can be told without the store's content.
    pub fn new(partition: Partition, events: Vec<RecordedEvent>) -> Result<Self, RestoreError> {
        let mut entries = Vec::with_capacity(events.len());
        let mut last = Position::START;
        let mut versions: HashMap<AggregateId, Version> = HashMap::new();
        let mut befores = Vec::new();
        for event in events {
            let position = event.position();
            if position <= last {
                return Err(RestoreError::OutOfOrder {
                    partition,
                    position,
                });
            }
            last = position;
            let entry = RestoreEntry::new(partition.category(), event)?;
            if let Some((aggregate, _)) = &entry.element {
                let found = entry.version();
                let actual = match versions.get_mut(aggregate) {
                    Some(version) => std::mem::replace(version, found),
                    None => {
                        versions.insert(aggregate.clone(), found);
                        befores.push((aggregate.clone(), found - 1));
                        found - 1
                    }
                };
                if found != actual + 1 {
                    return Err(RestoreError::Version {
                        aggregate: aggregate.clone(),
                        actual,
                        found,
                    });
                }
            }
            entries.push(entry);
        }
        Ok(Self {
            partition,
            entries,
            befores,
        })
    }

    /// The partition.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The events, in the order of their positions.
    pub fn entries(&self) -> &[RestoreEntry] {
        &self.entries
    }

    /// The aggregates among them, each with the version that it must be at before.
    pub fn befores(&self) -> &[(AggregateId, Version)] {
        &self.befores
    }

    /// Makes sure that the partition is there, and is that of the aggregates, in a store where the
    /// category has `count` of them.
    ///
    /// # Errors
    /// [`RestoreError::Partition`].
    pub fn check_partition(&self, count: u32) -> Result<(), RestoreError> {
        let is_there = self.partition.number() < count.max(1);
        let mut aggregates = self.befores.iter();
        if is_there
            && aggregates.all(|(id, _)| Partition::of_aggregate(id, count) == self.partition)
        {
            return Ok(());
        }
        Err(RestoreError::Partition {
            partition: self.partition.clone(),
            count,
        })
    }
}

impl RestoreEntry {
    fn new(category: &Category, event: RecordedEvent) -> Result<Self, RestoreError> {
        let new = NewEvent::from_parts(
            event.event_type(),
            event.payload(),
            event.metadata().clone(),
        )?;
        if Category::of(event.event_type()).ok().as_ref() != Some(category) {
            return Err(RestoreError::OtherCategory {
                event_type: event.event_type().to_owned(),
                category: category.clone(),
            });
        }
        let mut aggregate = None;
        let mut element = None;
        if let Some(own) = event.aggregate() {
            let id = AggregateId::new(category.clone(), own.aggregate_type.clone(), &own.id)
                .map_err(CodecError::from)?;
            let head = entry::encode_aggregate_head(&id)?;
            aggregate = Some(format!("{head}{}}}", own.version));
            // Without a version it lies in the feed alone.
            if own.version > 0 {
                let tail = history::encode_tail(&new)?;
                let json = history::encode(&new, own.version, event.position(), &tail);
                element = Some((id, json));
            }
        }
        Ok(Self {
            metadata: entry::encode_metadata(&new)?,
            aggregate,
            element,
            event,
        })
    }

    /// Its version; 0 where it has none.
    pub fn version(&self) -> Version {
        self.event.aggregate().map_or(0, |own| own.version)
    }
}

/// Recorded events that were not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The partition has events that lie as far or farther.
    #[error(
        "`{partition}` has events up to {head} already, and the first to restore lay at {first}; restore into a store where the partition has none of them"
    )]
    NotBehind {
        /// The partition.
        partition: Partition,
        /// Its newest position.
        head: Position,
        /// The first position to restore.
        first: Position,
    },
    /// The history of an aggregate would have a hole, or two events of one version.
    #[error(
        "`{aggregate}` is at version {actual}, and its next event to restore has version {found}; restore its events from the first one on, or leave all of them out"
    )]
    Version {
        /// The aggregate.
        aggregate: AggregateId,
        /// The version that it is at.
        actual: Version,
        /// The version of the event.
        found: Version,
    },
    /// Positions do not grow.
    #[error(
        "the event at {position} of `{partition}` does not lie behind the one before it; put the events in the order of their positions, each with its own"
    )]
    OutOfOrder {
        /// The partition.
        partition: Partition,
        /// The position.
        position: Position,
    },
    /// The category has another number of partitions than where the events were recorded.
    #[error(
        "what lay in `{partition}` does not belong there in this store, where its category has {count} partitions; give it as many as it had where the events were recorded"
    )]
    Partition {
        /// Where the events lay.
        partition: Partition,
        /// How many partitions the category has here.
        count: u32,
    },
    /// An event of another category.
    #[error("`{event_type}` does not belong in the feed of `{category}`; restore it to its own")]
    OtherCategory {
        /// The event's type.
        event_type: String,
        /// The category.
        category: Category,
    },
    /// Something cannot become the stored form.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The store does not answer, or takes in no recorded events. Restoring the same again is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}
