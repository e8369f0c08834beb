use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

type Done = Result<(), std::fmt::Error>;

#[event_handler(on = "github.push", emits = "repository.analyzed")]
async fn handle(_event: GithubPush) -> Done {
    Ok(())
}

fn main() {}
