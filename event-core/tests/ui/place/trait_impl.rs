use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

trait Handles {
    async fn handle(&self, _event: GithubPush);
}

#[event_handler]
struct Repositories;

#[event_handler]
impl Handles for Repositories {
    #[on("github.push")]
    async fn handle(&self, _event: GithubPush) {}
}

fn main() {}
