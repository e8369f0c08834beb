use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(github.push)]
struct GithubPush {}

#[derive(Serialize, Deserialize, Event)]
#[event = "github.push"]
struct Equals {}

#[derive(Serialize, Deserialize, Event)]
#[event(name = "github.push")]
struct Named {}

fn main() {}
