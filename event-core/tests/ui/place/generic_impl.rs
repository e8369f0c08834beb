use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

struct Repositories<T>(T);

#[event_handler]
impl<T> Repositories<T> {
    #[on("github.push")]
    async fn handle(&self, _event: GithubPush) {}
}

fn main() {}
