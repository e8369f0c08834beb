use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

struct Repositories;

#[event_handler]
impl Repositories {
    #[on("github.push")]
    async fn handle(&self, _event: GithubPush) {}

    #[on("github.push")]
    async fn other(&self, _event: GithubPush) {}
}

fn main() {}
