use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", kay = repository)]
struct GithubPush {
    repository: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(krate = event_core)]
enum ProjectEvent {
    #[event("project.opened", version = 2)]
    Opened,
    #[event("project.closed", upcast(1 = closed_v1), formerly = "project.shut")]
    Closed,
}

fn main() {}
