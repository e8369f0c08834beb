//! All mistakes of an `impl` block are reported at once, and its methods stay.

use event_core::{Event, RecordedEvent, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[event_handler]
struct Repositories;

#[event_handler(grupe = "agents", start = later)]
impl Repositories {
    #[on("Github.Push")]
    #[emits("analyzed")]
    fn first(&mut self, _event: GithubPush) {}

    #[on("github.pull")]
    async fn second(&self, _event: GithubPush) {}

    #[on("github.push", "github.push")]
    async fn third(&self, _event: GithubPush, _other: RecordedEvent) {}
}

fn main() {
    Repositories.first(GithubPush {});
    let _ = Repositories.second(GithubPush {});
}
