use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

#[event_handler(grup = "agents")]
struct Repositories;

#[event_handler(grup = "agents", deliver = parallel)]
impl Repositories {
    #[on("github.push")]
    async fn handle(&self, _event: GithubPush) {}
}

#[event_handler(on = "github.push", emit = "repository.analyzed")]
async fn handle(_event: GithubPush) {}

fn main() {}
