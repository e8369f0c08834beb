use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", key = repository, realtime, key = repository, realtime)]
struct GithubPush {
    repository: String,
}

fn main() {}
