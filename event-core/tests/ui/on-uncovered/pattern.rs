use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
enum ProjectEvent {
    #[event("project.opened")]
    Opened,
    #[event("project.phase.changed")]
    PhaseChanged,
}

#[event_handler(on = ["project.phase.*", "projects.*"])]
async fn handle(_event: ProjectEvent) {}

fn main() {}
