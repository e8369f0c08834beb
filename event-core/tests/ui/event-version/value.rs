use event_core::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;

fn same(payload: Value) -> Value {
    payload
}

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", version = "2", upcast(1 = same))]
struct Text {}

#[derive(Serialize, Deserialize, Event)]
#[event("github.pulled", version = 0)]
struct Zero {}

#[derive(Serialize, Deserialize, Event)]
#[event("github.starred", version = 2, upcast(same))]
struct WithoutVersion {}

#[derive(Serialize, Deserialize, Event)]
#[event("github.forked", version = 2, upcast = same)]
struct WithoutParentheses {}

#[derive(Serialize, Deserialize, Event)]
#[event("github.shown", realtime, version = 2, upcast(1 = same))]
struct Shown {}

fn main() {}
