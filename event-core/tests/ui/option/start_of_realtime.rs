use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

#[event_handler(on = "ai.response.chunk", realtime, start = now)]
async fn handle(_event: &event_core::RecordedEvent) {}

fn main() {}
