//! Which events a subscription is about, and what they are read as.

use std::any::type_name;
use std::sync::Arc;

use event_core::{Category, Event, EventDefinition, Pattern, RecordedEvent};

use super::any_event::AnyEvent;
use super::entry::{Decoded, Entry, decode};
use super::error::BridgeError;

/// Which events a subscription is about. What they are of is checked when it begins.
pub(crate) enum Selection<E> {
    /// Those of a Rust type.
    Type {
        rust_type: &'static str,
        definitions: &'static [EventDefinition],
        decode: fn(&Entry) -> Arc<Decoded<E>>,
        read: fn(&RecordedEvent) -> Decoded<E>,
    },
    /// Those whose types match one of the patterns, as they are.
    Matching {
        patterns: Vec<Pattern>,
        wrap: fn(&RecordedEvent) -> E,
    },
}

impl<E: Event> Selection<E> {
    pub(crate) fn of_type() -> Self {
        Selection::Type {
            rust_type: type_name::<E>(),
            definitions: E::DEFINITIONS,
            decode: Entry::decode::<E>,
            read: decode::<E>,
        }
    }
}

impl Selection<AnyEvent> {
    pub(crate) fn matching(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let mut patterns: Vec<_> = patterns.into_iter().collect();
        patterns.sort();
        patterns.dedup();
        Selection::Matching {
            patterns,
            wrap: |event| AnyEvent::new(event.clone()),
        }
    }
}

impl<E> Selection<E> {
    /// What of an entry is meant.
    pub(crate) fn decode(&self, entry: &Entry) -> Arc<Decoded<E>> {
        match self {
            Selection::Type { decode, .. } => decode(entry),
            Selection::Matching { .. } => Arc::new(self.read(entry.event())),
        }
    }

    /// What of an event is meant, where nobody else asks.
    pub(crate) fn read(&self, event: &RecordedEvent) -> Decoded<E> {
        match self {
            Selection::Type { read, .. } => read(event),
            Selection::Matching { patterns, wrap } => {
                let event_type = event.event_type();
                let is_meant = patterns.iter().any(|pattern| pattern.matches(event_type));
                let meant = is_meant.then(|| Arc::new(wrap(event)));
                Ok(meant.into_iter().collect())
            }
        }
    }

    /// The categories of stored events, sorted.
    pub(crate) fn categories(&self) -> Result<Vec<Category>, BridgeError> {
        let mut categories: Vec<_> = match self {
            Selection::Type { definitions, .. } => {
                self.must_be(false, "realtime")?;
                definitions.iter().map(EventDefinition::category).collect()
            }
            Selection::Matching { patterns, .. } => {
                let category = |pattern: &Pattern| {
                    let unknown = || BridgeError::PatternWithoutCategory {
                        pattern: pattern.clone(),
                    };
                    pattern.category().ok_or_else(unknown)
                };
                patterns.iter().map(category).collect::<Result<_, _>>()?
            }
        };
        categories.sort();
        categories.dedup();
        Ok(categories)
    }

    /// The patterns of realtime events, sorted.
    pub(crate) fn patterns(&self) -> Result<Vec<Pattern>, BridgeError> {
        match self {
            Selection::Type { definitions, .. } => {
                self.must_be(true, "stored")?;
                let names = definitions.iter().flat_map(|own| {
                    let former = own.former_names().iter().copied();
                    former.chain([own.name()])
                });
                // A type's name is a pattern that matches itself.
                let mut patterns: Vec<_> = names.filter_map(|name| name.parse().ok()).collect();
                patterns.sort();
                patterns.dedup();
                Ok(patterns)
            }
            Selection::Matching { patterns, .. } => Ok(patterns.clone()),
        }
    }

    fn must_be(&self, realtime: bool, found: &'static str) -> Result<(), BridgeError> {
        match self {
            Selection::Type {
                rust_type,
                definitions,
                ..
            } if definitions.iter().any(|own| own.is_realtime() != realtime) => {
                Err(BridgeError::WrongKind { rust_type, found })
            }
            _ => Ok(()),
        }
    }
}
