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
    #[event("project.opened", versoin = 2)]
    Opened,
    #[event("project.closed", upcasts(1 = closed_v1), previously = "project.shut")]
    Closed,
}

fn main() {}
