use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

use std::sync::Mutex;

#[event_handler]
struct Repositories {
    names: Vec<String>,
    counter: Mutex<u32>,
}

fn main() {}
