//! All mistakes of a type are reported at once, and what uses it adds none.

use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("Github.Push", kee = repository, key = repo)]
struct GithubPush {
    repository: String,
}

#[event_handler(on = "github.push", emits = "github.push")]
async fn echo(event: GithubPush) -> GithubPush {
    event
}

fn main() {
    let push = GithubPush { repository: "octo/hello".into() };
    let _ = push.key();
    let _ = push.definition().name();
}
