use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[event_handler(on = "github.push", emits = github.push)]
async fn option(event: GithubPush) -> GithubPush {
    event
}

#[event_handler(on = "github.push")]
#[emits(github.push)]
async fn attribute(event: GithubPush) -> GithubPush {
    event
}

#[event_handler(on = "github.push")]
#[emits]
async fn nothing(event: GithubPush) -> GithubPush {
    event
}

fn main() {}
