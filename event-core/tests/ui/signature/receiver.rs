#![allow(unused_mut)]

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
    async fn by_value(self, _event: GithubPush) {}

    #[on("github.push")]
    async fn by_mut(&mut self, _event: GithubPush) {}

    #[on("github.push")]
    async fn mut_value(mut self, _event: GithubPush) {}

    #[on("github.push")]
    async fn boxed(self: Box<Self>, _event: GithubPush) {}

    #[on("github.push")]
    async fn none(_event: GithubPush) {}
}

fn main() {}
