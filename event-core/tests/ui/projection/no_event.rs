#![allow(unused_variables)]

use event_core::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {
    commits: i64,
}

struct Pushes;

#[projection(name = "pushes", version = 1)]
impl Pushes {
    #[on("github.push")]
    fn push(&self, writes: &mut Writes) {}
}

fn main() {}
