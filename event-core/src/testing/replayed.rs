//! What a recording comes to when it is replayed.

// Its assertions are those of a test: what does not come out is reported by a panic.
#![allow(clippy::panic)]

mod shown;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::TestService;
use super::golden::{self, GoldenError};
use crate::BoxError;
use crate::aggregate::Aggregate;
use crate::projection::{ProjectionError, ProjectionView};
use crate::recorded::{AggregateRef, RecordedEvent, Version};
use crate::recording::{Recording, RecordingLine};
use crate::repository::Repository;
use crate::store::Backend;
use shown::{Golden, Shown, gather_ids, json_of};

/// How many keys of a projection are read at once.
const KEYS_AT_ONCE: usize = 500;

/// An event of the recording that was handled.
pub(super) struct Input {
    pub(super) event_id: Uuid,
    /// Its type and position, by which a reader finds it in the recording.
    pub(super) name: String,
    aggregate: Option<AggregateRef>,
    payload: Value,
}

impl Input {
    pub(super) fn of(line: &RecordingLine) -> Self {
        let event = &line.event;
        Self {
            event_id: event.metadata().event_id,
            name: format!("{} at {}", event.event_type(), event.position()),
            aggregate: event.aggregate().cloned(),
            payload: json_of(event),
        }
    }
}

/// An event that was made meanwhile.
pub(super) struct Made {
    /// The event of the recording that led to it.
    pub(super) of: Option<String>,
    /// The type of what was handled when it was made, where that is not the event of the recording.
    pub(super) because: Option<String>,
    pub(super) event: RecordedEvent,
}

/// Something that a handler has failed on.
#[derive(Serialize)]
pub(super) struct Failed {
    pub(super) of: String,
    pub(super) handler: String,
    pub(super) reason: String,
    pub(super) errors: Vec<String>,
}

#[derive(Serialize)]
struct State {
    version: Version,
    state: Value,
}

/// What a recording has come to when it was replayed: the events that were made, the states of aggregates
/// and whatever else was looked at. Made by [`TestService::replay`].
#[must_use = "compare it with a file: `assert_golden`"]
pub struct Replayed {
    inputs: usize,
    left_out: usize,
    made: Vec<Made>,
    failed: Vec<Failed>,
    undeclared: Vec<String>,
    declared: BTreeSet<String>,
    states: BTreeMap<String, State>,
    projections: BTreeMap<String, Value>,
    observed: BTreeMap<String, Value>,
    ignored: BTreeSet<String>,
    /// The ids that the recording has, which are the same every time.
    recorded_ids: HashSet<Uuid>,
    aggregates: BTreeSet<(String, String)>,
}

impl Replayed {
    pub(super) fn new(
        inputs: Vec<Input>,
        left_out: usize,
        made: Vec<Made>,
        failed: Vec<Failed>,
        undeclared: Vec<String>,
        declared: BTreeSet<String>,
    ) -> Self {
        let mut recorded_ids = HashSet::new();
        for input in &inputs {
            recorded_ids.insert(input.event_id);
            gather_ids(&input.payload, &mut recorded_ids);
        }
        let of_inputs = inputs.iter().filter_map(|input| input.aggregate.as_ref());
        let of_made = made.iter().filter_map(|made| made.event.aggregate());
        let aggregates = of_inputs
            .chain(of_made)
            .map(|own| (own.aggregate_type.clone(), own.id.clone()))
            .collect();
        Self {
            inputs: inputs.len(),
            left_out,
            made,
            failed,
            undeclared,
            declared,
            states: BTreeMap::new(),
            projections: BTreeMap::new(),
            observed: BTreeMap::new(),
            ignored: BTreeSet::new(),
            recorded_ids,
            aggregates,
        }
    }

    /// How many events of the recording were handled.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How many events of the recording were left out, since the service makes them anew.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The events that were made, stored and sent ones: those of one event of the recording together, each
    /// behind its cause.
    pub fn events(&self) -> Vec<&RecordedEvent> {
        self.made.iter().map(|made| &made.event).collect()
    }

    /// How often a handler has failed on an event for good.
    pub fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Looks at the states of all aggregates of a type that something was recorded of, or has happened to.
    ///
    /// # Errors
    /// Where one cannot be loaded, or written as JSON.
    pub async fn states_of<A: Aggregate + Clone + Serialize>(
        mut self,
        repository: &Repository<A>,
    ) -> Result<Self, BoxError> {
        for (aggregate_type, id) in &self.aggregates {
            if aggregate_type == A::TYPE {
                let loaded = repository.load(id).await?;
                let state = State {
                    version: loaded.version,
                    state: serde_json::to_value(&loaded.state)?,
                };
                self.states.insert(format!("{aggregate_type} {id}"), state);
            }
        }
        Ok(self)
    }

    /// Looks at everything that a projection has: of each key its document and its fields.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn projection_of(mut self, view: &ProjectionView) -> Result<Self, ProjectionError> {
        let mut all = serde_json::Map::new();
        let mut last: Option<String> = None;
        loop {
            let keys = view.keys(last.as_deref(), KEYS_AT_ONCE).await?;
            for key in &keys {
                let document = view.get::<Value>(key).await?;
                let fields = view.fields::<Value>(key).await?;
                let mut shown = serde_json::Map::new();
                shown.extend(document.map(|document| ("document".to_owned(), document)));
                if !fields.is_empty() {
                    let fields = Value::Object(fields.into_iter().collect());
                    shown.insert("fields".to_owned(), fields);
                }
                all.insert(key.clone(), Value::Object(shown));
            }
            match keys.into_iter().next_back() {
                Some(key) => last = Some(key),
                None => break,
            }
        }
        self.projections
            .insert(view.name().to_owned(), Value::Object(all));
        Ok(self)
    }

    /// Adds something else that is to be compared: what a handler has told the outside, say.
    pub fn observe(mut self, name: impl Into<String>, what: Value) -> Self {
        self.observed.insert(name.into(), what);
        self
    }

    /// Does not compare the values of this field, wherever it stands in payloads, states and what is
    /// observed.
    pub fn ignoring(mut self, field: impl Into<String>) -> Self {
        self.ignored.insert(field.into());
        self
    }

    /// What is compared, as a golden file has it: JSON, without positions, times and ids of what was made.
    /// Ids in payloads and states that the recording does not have are counted instead, so that it shows
    /// which of them are the same.
    ///
    /// # Errors
    /// Where it cannot be written as JSON.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        self.text(&mut Shown {
            ignored: &self.ignored,
            recorded_ids: Some(&self.recorded_ids),
            counted: HashMap::new(),
        })
    }

    fn text(&self, shown: &mut Shown<'_>) -> Result<String, serde_json::Error> {
        let events = self.made.iter().map(|made| made.show(shown)).collect();
        let states = self.states.iter().map(|(name, state)| {
            let state = State {
                version: state.version,
                state: shown.value(&state.state),
            };
            (name, state)
        });
        let states = states.collect();
        let observed = self.observed.iter();
        let observed = observed
            .map(|(name, what)| (name, shown.value(what)))
            .collect();
        let projections = self.projections.iter();
        let projections = projections
            .map(|(name, what)| (name, shown.value(what)))
            .collect();
        let mut text = serde_json::to_string_pretty(&Golden {
            inputs: self.inputs,
            events,
            failures: &self.failed,
            states,
            projections,
            observed,
        })?;
        text.push('\n');
        Ok(text)
    }

    /// Compares with a file: all events that were made, all failures, and the states and other things that
    /// were looked at. `UPDATE_GOLDEN=1` has it written anew. A path is relative to the package of the test.
    ///
    /// # Errors
    /// [`GoldenError`] with the lines that differ.
    pub fn compare(&self, path: impl AsRef<Path>) -> Result<(), GoldenError> {
        let path = path.as_ref();
        let text = self.to_text().map_err(|source| GoldenError::File {
            path: path.to_owned(),
            source: source.into(),
        })?;
        golden::compare(path, &text)
    }

    /// As [`compare`](Self::compare), for a test.
    ///
    /// # Panics
    /// If anything differs, with the lines that do; if there is no such file, with what to do about that.
    #[track_caller]
    pub fn assert_golden(&self, path: impl AsRef<Path>) {
        if let Err(error) = self.compare(path) {
            panic!("{error}");
        }
    }

    /// Every event that a handler has led to must be of a type that a handler of the service says it emits,
    /// or an aggregate's own, which a command has led to.
    ///
    /// # Panics
    /// If one is of another type.
    #[track_caller]
    pub fn assert_emits_only_declared(&self) {
        let mut wrong = self.undeclared.clone();
        for made in &self.made {
            let event_type = made.event.event_type();
            let is_caused = made.event.metadata().causation_id.is_some();
            if is_caused && made.event.aggregate().is_none() && !self.declared.contains(event_type)
            {
                let of = made.of.as_deref().unwrap_or("something else");
                wrong.push(format!(
                    "`{event_type}` was published while {of} was handled, and no handler declares it; return it from the handler, and name it in its emits"
                ));
            }
        }
        if !wrong.is_empty() {
            panic!(
                "handlers emit what they do not declare:\n{}",
                wrong.join("\n")
            );
        }
    }
}

impl<S: Backend + Clone> TestService<S> {
    /// Replays a recording twice, each time with a service that `start` makes, on a store of its own. Both
    /// must make the same events, at the same times of a clock that follows the recording, and fail on the
    /// same. Only the ids of what they make, and positions, may differ.
    ///
    /// What is not the same has used something else than its input: the system's clock instead of
    /// [`Clock`](crate::Clock), chance, the order of a hash map, the outside world.
    ///
    /// # Errors
    /// Where a service does not start, or a store does not answer.
    ///
    /// # Panics
    /// If they differ, with the lines that do.
    pub async fn assert_deterministic(
        recording: &Recording,
        mut start: impl AsyncFnMut() -> Result<Self, BoxError>,
    ) -> Result<(), BoxError> {
        let mut texts = Vec::new();
        for _ in 0..2 {
            let replayed = start().await?.replay(recording).await?;
            let text = replayed.text(&mut Shown {
                ignored: &BTreeSet::new(),
                recorded_ids: None,
                counted: HashMap::new(),
            })?;
            texts.push(text);
        }
        if let Some(difference) = golden::difference(&texts[0], &texts[1]) {
            panic!(
                "the first replay comes to one thing (-), and the second to another (+)\n{difference}"
            );
        }
        Ok(())
    }
}
