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
    async fn of_type<T: Event>(&self, _event: T) {}

    #[on("github.push")]
    async fn of_const<const N: usize>(&self, _event: GithubPush) {}

    #[on("github.push")]
    async fn of_lifetime<'a>(&self, _event: &'a GithubPush) {}

    #[on("github.push")]
    async fn open(&self, _event: impl Event) {}

    #[on("github.push")]
    #[emits("repository.analyzed")]
    async fn open_output(&self, _event: GithubPush) -> Result<impl event_core::Emit, std::fmt::Error> {
        Ok(RepositoryAnalyzed {})
    }
}

fn main() {}
