use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
enum ProjectEvent {
    #[event("project.opened")]
    #[serde(skip)]
    Opened,
    #[event("project.closed")]
    #[serde(skip_serializing, rename = "shut")]
    Closed,
    #[event("project.reopened")]
    #[serde(skip_deserializing)]
    Reopened,
    #[event("project.renamed")]
    #[serde(untagged)]
    Renamed { name: String },
}

fn main() {}
