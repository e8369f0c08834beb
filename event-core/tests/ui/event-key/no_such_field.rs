use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", key = repo)]
struct GithubPush {
    repository: String,
    commits: u32,
}

#[derive(Serialize, Deserialize, Event)]
enum ProjectEvent {
    #[event("project.opened", key = 1)]
    Opened(String),
    #[event("project.closed", key = name)]
    Closed,
}

fn main() {}
