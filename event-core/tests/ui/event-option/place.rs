use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(key = repository, realtime)]
enum GithubEvent {
    #[event("github.push", crate = event_core)]
    Push { repository: String },
}

fn main() {}
