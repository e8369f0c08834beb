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
    async fn by_value(&self, _event: GithubPush, _context: event_core::Context) {}

    #[on("github.push")]
    async fn twice(
        &self,
        _event: GithubPush,
        _context: &event_core::Context,
        _again: &event_core::Context,
    ) {
    }
}

fn main() {}
