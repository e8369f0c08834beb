use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

#[event_handler(group = "agents", on = "github.push")]
struct Repositories;

#[event_handler(on = "github.push", emits = "repository.analyzed")]
impl Repositories {
    #[on("github.push")]
    async fn handle(&self, _event: GithubPush) {}
}

#[event_handler("github.push")]
impl Repositories {
    #[on("github.push")]
    async fn other(&self, _event: GithubPush) {}
}

fn main() {}
