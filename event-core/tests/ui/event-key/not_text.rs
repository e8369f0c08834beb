use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", key = commits)]
struct GithubPush {
    commits: Vec<u32>,
}

fn main() {}
