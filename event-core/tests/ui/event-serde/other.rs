use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
enum ProjectEvent {
    #[event("project.opened")]
    Opened,
    #[event("project.changed")]
    #[serde(other)]
    Changed,
}

fn main() {}
