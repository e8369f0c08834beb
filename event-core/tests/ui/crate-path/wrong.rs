use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

#[derive(Serialize, Deserialize, Event)]
#[event("github.pull", crate = my_core)]
struct GithubPull {}

#[event_handler(on = "github.push", crate = my_core)]
async fn handle(_event: GithubPush) {}

fn main() {}
