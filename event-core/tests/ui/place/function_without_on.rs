use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

#[event_handler]
async fn handle(_event: GithubPush) {}

#[event_handler(group = "agents")]
#[emits("repository.analyzed")]
async fn emits(_event: GithubPush) -> RepositoryAnalyzed {
    RepositoryAnalyzed {}
}

#[event_handler(on = [])]
async fn nothing(_event: GithubPush) {}

fn main() {}
