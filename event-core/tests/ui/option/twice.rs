use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

#[event_handler(on = "github.push", group = "a", on = "github.pull", group = "b", realtime, realtime)]
async fn handle(_event: &event_core::RecordedEvent) {}

fn main() {}
