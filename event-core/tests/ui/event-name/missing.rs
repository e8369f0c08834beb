use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event(realtime)]
struct ResponseChunk {}

#[derive(Serialize, Deserialize, Event)]
enum ProjectEvent {
    #[event("project.opened")]
    Opened,
    PhaseChanged { phase: String },
}

fn main() {}
