//! How a golden file shows what was replayed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Failed, Made, State};
use crate::metadata::Metadata;
use crate::recorded::RecordedEvent;

/// A golden file. The order of the fields is that of the keys.
#[derive(Serialize)]
pub(super) struct Golden<'a> {
    /// How many events of the recording were handled.
    pub(super) inputs: usize,
    pub(super) events: Vec<GoldenEvent<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) failures: &'a [Failed],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) states: BTreeMap<&'a String, State>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) projections: BTreeMap<&'a String, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) observed: BTreeMap<&'a String, Value>,
}

#[derive(Serialize)]
pub(super) struct GoldenEvent<'a> {
    of: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'a str>,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// Only where times are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    /// Where it is not the first version of its type.
    #[serde(rename = "schemaVersion", skip_serializing_if = "Option::is_none")]
    schema_version: Option<u32>,
    payload: Value,
    /// What is the program's own of it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
}

impl Made {
    pub(super) fn show(&self, shown: &mut Shown<'_>) -> GoldenEvent<'_> {
        let metadata: &Metadata = self.event.metadata();
        let aggregate = self.event.aggregate();
        GoldenEvent {
            of: self.of.as_deref().unwrap_or("nothing of the recording"),
            because: self.because.as_deref(),
            event_type: self.event.event_type(),
            aggregate: aggregate
                .map(|own| format!("{} {}, version {}", own.aggregate_type, own.id, own.version)),
            key: metadata.key.as_deref(),
            timestamp: shown
                .recorded_ids
                .is_none()
                .then(|| metadata.timestamp.to_rfc3339()),
            schema_version: Some(metadata.schema_version).filter(|version| *version != 1),
            payload: shown.value(&json_of(&self.event)),
            metadata: shown.fields(&metadata.extra),
        }
    }
}

/// Which values are shown as they are.
pub(super) struct Shown<'a> {
    pub(super) ignored: &'a BTreeSet<String>,
    /// Ids that are; `None` for all.
    pub(super) recorded_ids: Option<&'a HashSet<Uuid>>,
    /// The others, in the order in which they come.
    pub(super) counted: HashMap<Uuid, usize>,
}

impl Shown<'_> {
    pub(super) fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(values) => values.iter().map(|value| self.value(value)).collect(),
            Value::Object(fields) => Value::Object(self.fields(fields)),
            other => other.clone(),
        }
    }

    fn fields(&mut self, fields: &Map<String, Value>) -> Map<String, Value> {
        let mut shown = Map::new();
        for (name, value) in fields {
            let value = if self.ignored.contains(name) {
                "<ignored>".into()
            } else {
                self.value(value)
            };
            shown.insert(name.clone(), value);
        }
        shown
    }

    fn text(&mut self, text: &str) -> String {
        match (self.recorded_ids, id_in(text)) {
            (Some(recorded), Some(id)) if !recorded.contains(&id) => {
                let next = self.counted.len() + 1;
                let number = self.counted.entry(id).or_insert(next);
                format!("<id {number}>")
            }
            _ => text.to_owned(),
        }
    }
}

/// The payload; as a text where it is no JSON, which no store gives out.
pub(super) fn json_of(event: &RecordedEvent) -> Value {
    serde_json::from_str(event.payload()).unwrap_or_else(|_| event.payload().into())
}

pub(super) fn gather_ids(value: &Value, ids: &mut HashSet<Uuid>) {
    match value {
        Value::String(text) => ids.extend(id_in(text)),
        Value::Array(values) => values.iter().for_each(|value| gather_ids(value, ids)),
        Value::Object(fields) => fields.values().for_each(|value| gather_ids(value, ids)),
        _ => {}
    }
}

/// The id that a text is, written as ids are in metadata.
fn id_in(text: &str) -> Option<Uuid> {
    (text.len() == 36)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
}
