use event_core::{Event, RecordedEvent, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

#[event_handler(on = "github.push")]
#[emits("repository.analyzed", retry(max = 3))]
async fn handle(_: &RecordedEvent) -> RepositoryAnalyzed {
    RepositoryAnalyzed {}
}

fn main() {}
