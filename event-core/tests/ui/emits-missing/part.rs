use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
enum RepositoryEvent {
    #[event("repository.analyzed")]
    Analyzed,
    #[event("repository.failed")]
    Failed,
}

#[event_handler(on = "github.push", emits = "repository.analyzed")]
async fn some_of_an_enum(_event: GithubPush) -> RepositoryEvent {
    RepositoryEvent::Analyzed
}

#[event_handler(on = "github.push", emits = "github.push")]
async fn not_all(_event: GithubPush) -> (GithubPush, Option<RepositoryEvent>) {
    (_event, Some(RepositoryEvent::Failed))
}

fn main() {}
