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
    #[on(github.push)]
    async fn path(&self, _event: GithubPush) {}

    #[on]
    async fn nothing(&self, _event: GithubPush) {}

    #[on()]
    async fn empty(&self, _event: GithubPush) {}

    #[on = "github.push"]
    async fn equals(&self, _event: GithubPush) {}

    #[on("github.push", group = "agents")]
    async fn option(&self, _event: GithubPush) {}
}

fn main() {}
