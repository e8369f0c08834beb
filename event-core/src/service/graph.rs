//! The check of a service: its handlers, what they need and what they react to and emit.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use crate::dependencies::Dependencies;
use crate::event::{
    Category, Declared, EventDefinition, EventRegistration, MissingUpcast, is_event_type,
};
use crate::handler::{Delivery, HandlerDefinition, Start};
use crate::pattern::Pattern;
use crate::publisher::AggregateEvents;

/// What is looked at.
pub(super) struct Graph<'a> {
    /// Sorted by name.
    pub(super) definitions: &'a [HandlerDefinition],
    pub(super) dependencies: &'a Dependencies,
    pub(super) aggregates: &'a AggregateEvents,
    pub(super) expected_handlers: Option<&'a [String]>,
    pub(super) published_elsewhere: Option<&'a [String]>,
}

#[derive(Default)]
pub(super) struct Checked {
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<Warning>,
}

impl Graph<'_> {
    pub(super) fn check(&self) -> Checked {
        let mut checked = Checked::default();
        self.note_aggregates();
        self.check_names(&mut checked.mistakes);
        let catalog: HashSet<&'static str> = EventRegistration::all()
            .flat_map(|registration| registration.definitions())
            .map(|definition| definition.name())
            .collect();
        for definition in self.definitions {
            self.check_dependencies(definition, &mut checked.mistakes);
            check_on(definition, &mut checked.mistakes);
            check_delivery(definition, &mut checked.mistakes);
            self.check_emits(definition, &catalog, &mut checked.mistakes);
        }
        self.check_upcasts(&mut checked.mistakes);
        self.check_starts(&mut checked.mistakes);
        self.check_publishers(&mut checked.mistakes);
        checked.warnings = self.cycles();
        checked
    }

    /// Repositories among the dependencies, and `To` among the emits, say which events belong to
    /// aggregates.
    fn note_aggregates(&self) {
        for definition in self.definitions {
            for dependency in &definition.dependencies {
                if let Some((aggregate_type, definitions)) = dependency.aggregate() {
                    self.aggregates.add(aggregate_type, definitions);
                }
            }
            definition.declares.for_each(&mut |event, aggregate_type| {
                if let Some(aggregate_type) = aggregate_type {
                    self.aggregates
                        .add(aggregate_type, std::slice::from_ref(event));
                }
            });
        }
    }

    fn check_names(&self, mistakes: &mut Vec<Mistake>) {
        for same in self.definitions.chunk_by(|a, b| a.name == b.name) {
            if same.len() > 1 {
                mistakes.push(Mistake::DuplicateHandler {
                    handler: same[0].name.clone(),
                    locations: same
                        .iter()
                        .map(|each| each.location.unwrap_or("added by hand").to_owned())
                        .collect(),
                });
            }
        }
        if let Some(expected) = self.expected_handlers {
            let found: BTreeSet<&str> = self.definitions.iter().map(|d| d.name.as_str()).collect();
            let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
            for handler in expected.difference(&found) {
                mistakes.push(Mistake::HandlerNotFound {
                    handler: (*handler).to_owned(),
                });
            }
            for handler in found.difference(&expected) {
                mistakes.push(Mistake::HandlerNotExpected {
                    handler: (*handler).to_owned(),
                });
            }
        }
    }

    fn check_dependencies(&self, definition: &HandlerDefinition, mistakes: &mut Vec<Mistake>) {
        for dependency in &definition.dependencies {
            if !dependency.is_provided(self.dependencies) {
                mistakes.push(Mistake::MissingDependency {
                    handler: definition.name.clone(),
                    dependency: dependency.name(),
                    provided_instead: self.dependencies.provided_instead(dependency.name()),
                });
            }
        }
    }

    fn check_emits(
        &self,
        definition: &HandlerDefinition,
        catalog: &HashSet<&'static str>,
        mistakes: &mut Vec<Mistake>,
    ) {
        let handler = || definition.name.clone();
        let mut declared = BTreeMap::new();
        definition.declares.for_each(&mut |event, aggregate_type| {
            declared.insert(event.name(), (event.is_realtime(), aggregate_type));
        });
        for event_type in &definition.emits {
            let event_type = event_type.clone();
            if !is_event_type(&event_type)
                || !(declared.contains_key(event_type.as_str())
                    || catalog.contains(event_type.as_str()))
            {
                mistakes.push(Mistake::UndefinedEmit {
                    handler: handler(),
                    event_type,
                });
                continue;
            }
            if !definition.declares.matches(&event_type) {
                mistakes.push(Mistake::NotReturned {
                    handler: handler(),
                    event_type,
                });
                continue;
            }
            match declared.get(event_type.as_str()) {
                Some((false, _)) if definition.realtime => {
                    mistakes.push(Mistake::StoredEmitOfRealtimeHandler {
                        handler: handler(),
                        event_type,
                    });
                }
                Some((_, None)) => {
                    if let Some(aggregate_type) = self.aggregates.owner(&event_type) {
                        mistakes.push(Mistake::EmitOfAggregateEvent {
                            handler: handler(),
                            event_type,
                            aggregate_type,
                        });
                    }
                }
                _ => {}
            }
        }
        if definition.emits.is_empty() && !declared.is_empty() {
            mistakes.push(Mistake::UndeclaredEmits {
                handler: handler(),
                event_types: declared.into_keys().map(str::to_owned).collect(),
            });
        }
    }

    /// What is read must be readable in each of its versions.
    fn check_upcasts(&self, mistakes: &mut Vec<Mistake>) {
        let mut holes = BTreeSet::new();
        let mut look = |event: &'static EventDefinition| {
            for version in event.versions_without_upcast() {
                holes.insert((event.name(), version));
            }
        };
        for definition in self.definitions {
            definition.covers.for_each(&mut |event, _| look(event));
            for dependency in &definition.dependencies {
                if let Some((_, events)) = dependency.aggregate() {
                    events.iter().for_each(&mut look);
                }
            }
        }
        mistakes.extend(
            holes
                .into_iter()
                .map(|(event_type, from)| MissingUpcast { event_type, from })
                .map(Mistake::MissingUpcast),
        );
    }

    /// The handlers that a group calls in order have one checkpoint for each feed, and so one start.
    fn check_starts(&self, mistakes: &mut Vec<Mistake>) {
        let mut starts: BTreeMap<Category, (&str, Start)> = BTreeMap::new();
        let mut conflicting = BTreeSet::new();
        let ordered = |d: &&HandlerDefinition| !d.realtime && d.delivery == Delivery::Ordered;
        for definition in self.definitions.iter().filter(ordered) {
            for category in stored_categories(definition) {
                let (first, start) = *starts
                    .entry(category.clone())
                    .or_insert((&definition.name, definition.start));
                if start != definition.start && conflicting.insert(category.clone()) {
                    mistakes.push(Mistake::ConflictingStarts {
                        category,
                        handlers: [first.to_owned(), definition.name.clone()],
                        starts: [start, definition.start],
                    });
                }
            }
        }
    }

    fn check_publishers(&self, mistakes: &mut Vec<Mistake>) {
        let Some(elsewhere) = self.published_elsewhere else {
            return;
        };
        let emitted: Vec<&str> = self
            .definitions
            .iter()
            .flat_map(|definition| &definition.emits)
            .map(String::as_str)
            .chain(elsewhere.iter().map(String::as_str))
            .collect();
        for definition in self.definitions {
            for on in &definition.on {
                let Ok(pattern) = on.parse::<Pattern>() else {
                    continue;
                };
                // What is published elsewhere may be given as a pattern as well.
                let published = emitted.iter().any(|emitted| {
                    pattern.matches(emitted) || crate::pattern::matches(emitted, on)
                });
                if !published {
                    mistakes.push(Mistake::NobodyPublishes {
                        handler: definition.name.clone(),
                        pattern: on.clone(),
                    });
                }
            }
        }
    }

    /// Handlers that may keep each other busy for ever, each cycle once.
    fn cycles(&self) -> Vec<Warning> {
        let next: Vec<Vec<usize>> = self
            .definitions
            .iter()
            .map(|from| {
                (0..self.definitions.len())
                    .filter(|to| {
                        let to = &self.definitions[*to];
                        from.emits.iter().any(|event_type| {
                            to.covers.matches(event_type)
                                && to
                                    .on
                                    .iter()
                                    .any(|on| crate::pattern::matches(on, event_type))
                        })
                    })
                    .collect()
            })
            .collect();
        let mut found = BTreeSet::new();
        for start in 0..next.len() {
            if let Some(cycle) = shortest_cycle(&next, start) {
                // The same cycle is found from each of its handlers: begin it at the first.
                let first = cycle
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, handler)| **handler)
                    .map_or(0, |(index, _)| index);
                let mut cycle = cycle;
                cycle.rotate_left(first);
                found.insert(cycle);
            }
        }
        found
            .into_iter()
            .map(|cycle| Warning::Cycle {
                handlers: cycle
                    .into_iter()
                    .map(|index| self.definitions[index].name.clone())
                    .collect(),
            })
            .collect()
    }
}

/// The shortest way from a node back to itself.
fn shortest_cycle(next: &[Vec<usize>], start: usize) -> Option<Vec<usize>> {
    let mut came_from: Vec<Option<usize>> = vec![None; next.len()];
    let mut frontier = vec![start];
    while !frontier.is_empty() {
        let mut further = Vec::new();
        for from in frontier {
            for &to in &next[from] {
                if to == start {
                    let mut cycle = vec![from];
                    let mut at = from;
                    while at != start {
                        at = came_from[at]?;
                        cycle.push(at);
                    }
                    cycle.reverse();
                    return Some(cycle);
                }
                if came_from[to].is_none() {
                    came_from[to] = Some(from);
                    further.push(to);
                }
            }
        }
        frontier = further;
    }
    None
}

fn stored_categories(definition: &HandlerDefinition) -> BTreeSet<Category> {
    definition
        .on
        .iter()
        .filter_map(|on| on.parse::<Pattern>().ok()?.category())
        .collect()
}

fn check_on(definition: &HandlerDefinition, mistakes: &mut Vec<Mistake>) {
    let HandlerDefinition {
        name,
        on,
        covers,
        realtime,
        ..
    } = definition;
    check_patterns(name, on, covers, *realtime, mistakes);
}

/// Checks what a handler, or a method of a projection, reacts to.
pub(super) fn check_patterns(
    name: &str,
    on: &[String],
    covers: &Declared,
    realtime: bool,
    mistakes: &mut Vec<Mistake>,
) {
    let handler = || name.to_owned();
    if on.is_empty() {
        mistakes.push(Mistake::ReactsToNothing { handler: handler() });
    }
    for on in on {
        let pattern = on.clone();
        match on.parse::<Pattern>() {
            Err(_) => mistakes.push(Mistake::InvalidPattern {
                handler: handler(),
                pattern,
            }),
            Ok(parsed) if parsed.category().is_none() && !realtime => {
                mistakes.push(Mistake::AnyCategory {
                    handler: handler(),
                    pattern,
                });
            }
            Ok(_) if !covers.matches(on) => mistakes.push(Mistake::NotCovered {
                handler: handler(),
                pattern,
            }),
            Ok(_) if !realtime && covers.only_realtime(on) && !covers.only_stored(on) => {
                mistakes.push(Mistake::NotRealtime {
                    handler: handler(),
                    pattern,
                });
            }
            Ok(_) => {}
        }
    }
}

/// Realtime events reach every instance, whatever a handler wishes.
fn check_delivery(definition: &HandlerDefinition, mistakes: &mut Vec<Mistake>) {
    if definition.realtime && definition.delivery == Delivery::Parallel {
        mistakes.push(Mistake::ParallelRealtimeHandler {
            handler: definition.name.clone(),
        });
    }
}

/// Something that is wrong with a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// There is no store.
    #[error("there is no store; add `.store(…)`, for example with `MemoryStore::new()`")]
    NoStore,
    /// Nobody provides what a handler needs.
    #[error(
        "`{handler}` needs `{dependency}`, which nobody provides; {}",
        remedy(*provided_instead)
    )]
    MissingDependency {
        /// The handler.
        handler: String,
        /// The type of the dependency.
        dependency: &'static str,
        /// What is provided and was perhaps meant: the same type in an `Arc`, or without one.
        provided_instead: Option<&'static str>,
    },
    /// Two dependencies of one type.
    #[error("`{dependency}` is provided twice; give one of them a type of its own")]
    ProvidedTwice {
        /// The type.
        dependency: &'static str,
    },
    /// Two handlers of one name.
    #[error("{} handlers are named `{handler}` ({}); rename all but one", locations.len(), locations.join(", "))]
    DuplicateHandler {
        /// The name.
        handler: String,
        /// Where they are written.
        locations: Vec<String>,
    },
    /// A handler that was expected is not there.
    #[error(
        "handler `{handler}` is expected but not found; if its crate is named nowhere in code, link it with `use its_crate as _;`, and see that its group is this service's"
    )]
    HandlerNotFound {
        /// The name.
        handler: String,
    },
    /// A handler is there that was not expected.
    #[error(
        "handler `{handler}` is found but not expected; add it to `.expect_handlers([…])`, or give it a group of its own"
    )]
    HandlerNotExpected {
        /// The name.
        handler: String,
    },
    /// A handler without a type or pattern.
    #[error("`{handler}` reacts to nothing; add `.on(\"…\")`")]
    ReactsToNothing {
        /// The handler.
        handler: String,
    },
    /// Two projections of one name and version.
    #[error("two projections are `{projection}`; rename one, or give it another version")]
    DuplicateProjection {
        /// Its name and version.
        projection: String,
    },
    /// Not a name for a projection.
    #[error(
        "`{name}` is no name for a projection; write letters, digits, `_`, `-` and `.`, with a letter at the beginning"
    )]
    InvalidProjectionName {
        /// What was given.
        name: String,
    },
    /// An inline projection whose events may lie on other nodes than its state.
    #[error(
        "`{projection}` cannot be filled inline on this store, whose keys lie on several nodes; register it by `.projection(…)`"
    )]
    InlineElsewhere {
        /// The projection.
        projection: String,
    },
    /// A method of an inline projection that takes what is not known before an event is stored.
    #[error(
        "`{method}` takes a `RecordedEvent`, whose position is not known before it is stored; take a typed event, or register the projection by `.projection(…)`"
    )]
    InlineRecorded {
        /// The method.
        method: String,
    },
    /// Not a pattern of event types.
    #[error(
        "`{handler}` reacts to `{pattern}`, which is no event type or pattern; write one such as `github.push` or `github.pr.*`"
    )]
    InvalidPattern {
        /// The handler.
        handler: String,
        /// The text.
        pattern: String,
    },
    /// A pattern over categories, for stored events.
    #[error(
        "`{handler}` reacts to `{pattern}`; only a realtime handler may have `*` in the first segment, so write one pattern for each category"
    )]
    AnyCategory {
        /// The handler.
        handler: String,
        /// The pattern.
        pattern: String,
    },
    /// A pattern that the handler's event can never match.
    #[error(
        "`{handler}` reacts to `{pattern}`, but the event that it takes has no such type; take another event, or `RecordedEvent`"
    )]
    NotCovered {
        /// The handler.
        handler: String,
        /// The pattern.
        pattern: String,
    },
    /// A stored handler for realtime events.
    #[error(
        "`{handler}` reacts to `{pattern}`, which is a realtime event and never stored; make the handler `realtime`"
    )]
    NotRealtime {
        /// The handler.
        handler: String,
        /// The pattern.
        pattern: String,
    },
    /// A realtime handler that asks for another delivery.
    #[error(
        "`{handler}` is a realtime handler, which gets events in every instance as they are sent, and is `parallel`, which is for stored events; remove one of the two"
    )]
    ParallelRealtimeHandler {
        /// The handler.
        handler: String,
    },
    /// An emitted type that no code defines.
    #[error(
        "`{handler}` emits `{event_type}`, which no `#[derive(Event)]` defines; correct the name, or define it"
    )]
    UndefinedEmit {
        /// The handler.
        handler: String,
        /// The event type.
        event_type: String,
    },
    /// An emitted type that the handler does not return.
    #[error(
        "`{handler}` emits `{event_type}`, but what it returns has no such type; return it, or take it out of the emits"
    )]
    NotReturned {
        /// The handler.
        handler: String,
        /// The event type.
        event_type: String,
    },
    /// A handler that returns events, and does not say so.
    #[error("`{handler}` returns events ({}) but declares no emits; add `.emits(\"…\")` for each that it may return", event_types.join(", "))]
    UndeclaredEmits {
        /// The handler.
        handler: String,
        /// The types that it can return.
        event_types: Vec<String>,
    },
    /// A realtime handler that emits something stored.
    #[error(
        "`{handler}` is a realtime handler, which runs in every instance, and emits `{event_type}`, which would be stored by each; react to a stored event instead"
    )]
    StoredEmitOfRealtimeHandler {
        /// The handler.
        handler: String,
        /// The event type.
        event_type: String,
    },
    /// An aggregate's event without its aggregate.
    #[error(
        "`{handler}` emits `{event_type}`, which belongs to the aggregate `{aggregate_type}`; return `To(id, event)`, or execute a command"
    )]
    EmitOfAggregateEvent {
        /// The handler.
        handler: String,
        /// The event type.
        event_type: String,
        /// The aggregate's type.
        aggregate_type: &'static str,
    },
    /// Handlers that would begin one feed in two places.
    #[error(
        "`{}` begins the feed of `{category}` {} and `{}` {}, but a group reads a feed once; let both start alike, or give one a group of its own", handlers[0], starts[0], handlers[1], starts[1]
    )]
    ConflictingStarts {
        /// The category.
        category: Category,
        /// Two handlers that begin it in different places.
        handlers: [String; 2],
        /// Where each of them begins it.
        starts: [Start; 2],
    },
    /// Stored events of an older version that nothing can read.
    #[error(transparent)]
    MissingUpcast(MissingUpcast),
    /// A type that nobody publishes.
    #[error(
        "`{handler}` reacts to `{pattern}`, which no handler emits; correct it, or list it in `.expect_publishers([…])` where others publish it"
    )]
    NobodyPublishes {
        /// The handler.
        handler: String,
        /// The pattern.
        pattern: String,
    },
}

fn remedy(provided_instead: Option<&str>) -> String {
    match provided_instead {
        None => "add `.provide(…)` with a value of this type".to_owned(),
        Some(other) => {
            format!("`{other}` is provided, which is another type: let one be as the other")
        }
    }
}

/// Something that is suspicious, but may be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// Handlers that may keep each other busy for ever.
    #[error("what these handlers emit leads back to the first of them, perhaps without end: {}", handlers.join(" → "))]
    Cycle {
        /// Their names, in the order of the cycle.
        handlers: Vec<String>,
    },
    /// No handler runs here, and there are some that are of other groups.
    #[error(
        "no handler is of the group `{group}`, so none runs here; there are handlers of {}: name the service as one of these, or choose one with `.group(…)`",
        quoted(other_groups)
    )]
    NoHandlers {
        /// The group of the service: its name, unless another was chosen.
        group: String,
        /// The groups of the handlers that are there.
        other_groups: Vec<String>,
    },
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// Everything that is wrong with a service, in one report.
#[derive(Clone, PartialEq, Eq)]
pub struct BuildError {
    service: String,
    mistakes: Vec<Mistake>,
}

impl BuildError {
    pub(super) fn new(service: String, mistakes: Vec<Mistake>) -> Self {
        Self { service, mistakes }
    }

    /// What is wrong, each once.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service `{}` cannot be built:", self.service)?;
        for mistake in &self.mistakes {
            write!(f, "\n- {mistake}")?;
        }
        Ok(())
    }
}

/// As [`Display`](fmt::Display): a `main` that returns an error, and a test that unwraps one, print
/// this, and the report is for those who read it there.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for BuildError {}

#[cfg(test)]
mod tests {
    use crate::{MemoryStore, Service};

    #[test]
    fn a_service_that_only_publishes_is_not_warned_of() {
        // No handler is linked into this program.
        let service = Service::builder("publisher").store(MemoryStore::new());
        assert_eq!(service.build().unwrap().warnings(), []);
    }
}
