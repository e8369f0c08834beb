use event_core::Event;
use serde::{Deserialize, Serialize};

fn other(old: String) -> Vec<String> {
    vec![old]
}

#[derive(Serialize, Deserialize, Event)]
#[event(split("sdlc.created" = other))]
enum Split {
    #[event("sdlc.opened")]
    Opened,
}

#[derive(Serialize, Deserialize, Event)]
#[event(split("sdlc.created"))]
enum WithoutFunction {
    #[event("sdlc.closed")]
    Closed,
}

fn main() {}
