use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

#[event_handler]
struct Repositories;

#[event_handler]
impl Repositories {
    #[on("github.push")]
    #[emits("repository.analyzed")]
    async fn omitted(&self, _event: GithubPush) {}

    #[on("github.push")]
    #[emits("repository.analyzed")]
    async fn unit(&self, _event: GithubPush) -> () {}

    #[on("github.push")]
    #[emits("repository.analyzed")]
    async fn result(&self, _event: GithubPush) -> Result<(), std::fmt::Error> {
        Ok(())
    }
}

fn main() {}
