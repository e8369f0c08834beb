use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("project.opened")]
enum ProjectEvent {
    #[event("project.opened")]
    Opened,
}

fn main() {}
