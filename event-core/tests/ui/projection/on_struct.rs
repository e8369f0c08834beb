#![allow(unused_variables)]

use event_core::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {
    commits: i64,
}

struct Pushes;

#[projection(name = "others", version = 1)]
struct Others;

fn main() {}
