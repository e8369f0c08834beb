use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
enum ProjectEvent {
    #[event("project.opened")]
    Opened,
    #[event("project.closed")]
    Closed,
    #[event("project.opened")]
    Reopened,
}

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", "github.pushed")]
struct GithubPush {}

fn main() {}
