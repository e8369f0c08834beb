use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", key = "repository")]
struct GithubPush {
    repository: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event("github.pull", key = repository.name)]
struct GithubPull {
    repository: String,
}

fn main() {}
