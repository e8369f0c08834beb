use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

#[derive(Serialize, Deserialize, Event)]
#[event("ai.response.chunk", realtime)]
struct ResponseChunk {}

#[event_handler(on = "ai.response.chunk", emits = "repository.analyzed", realtime)]
async fn handle(_event: ResponseChunk) -> RepositoryAnalyzed {
    RepositoryAnalyzed {}
}

fn main() {}
