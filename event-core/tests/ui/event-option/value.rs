use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", key, realtime = true, crate = "event_core")]
struct GithubPush {
    repository: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event("github.pull", key(repository), realtime = )]
struct GithubPull {
    repository: String,
}

fn main() {}
