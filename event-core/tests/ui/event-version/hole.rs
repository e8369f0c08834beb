use event_core::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;

fn same(payload: Value) -> Value {
    payload
}

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", version = 4, upcast(2 = same))]
struct Push {}

#[derive(Serialize, Deserialize, Event)]
#[event("github.pulled", version = 2)]
struct Pulled {}

#[derive(Serialize, Deserialize, Event)]
#[event("github.starred", upcast(1 = same))]
struct Starred {}

#[derive(Serialize, Deserialize, Event)]
#[event("github.forked", version = 2, upcast(1 = same, 1 = same, 2 = same))]
struct Forked {}

fn main() {}
