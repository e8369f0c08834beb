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
    #[emits("repository.analysed")]
    async fn one(&self, _event: GithubPush) -> RepositoryAnalyzed {
        RepositoryAnalyzed {}
    }

    #[on("github.push")]
    #[emits("repository.analyzed", "repository.pushed")]
    async fn several(
        &self,
        _event: GithubPush,
    ) -> Result<(RepositoryAnalyzed, Option<GithubPush>), std::fmt::Error> {
        Ok((RepositoryAnalyzed {}, None))
    }
}

fn main() {}
