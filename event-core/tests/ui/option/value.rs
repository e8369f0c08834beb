use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event("repository.analyzed")]
struct RepositoryAnalyzed {}

#[event_handler(on = github.push, group = agents)]
async fn not_strings(_event: GithubPush) {}

#[event_handler(on, group, start, realtime = true, crate)]
async fn nothing(_event: GithubPush) {}

#[event_handler(on = [1], group = 1, start = "now")]
async fn other(_event: GithubPush) {}

#[event_handler(on("github.push"), emits = ["a.b", 2], start = later)]
async fn parentheses(_event: GithubPush) {}

#[event_handler("github.push")]
async fn unnamed(_event: GithubPush) {}

#[event_handler(on = "github.push", group = "", 3)]
async fn empty_group(_event: GithubPush) {}

fn main() {}
