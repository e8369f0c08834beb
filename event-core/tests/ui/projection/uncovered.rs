#![allow(unused_variables)]

use event_core::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push")]
struct GithubPush {
    commits: i64,
}

struct Pushes;

#[derive(Serialize, Deserialize, Event)]
#[event("github.cursor", realtime)]
struct Cursor {
    x: i64,
}

#[projection(name = "pushes", version = 1)]
impl Pushes {
    #[on("github.pr.*")]
    fn push(&self, push: GithubPush, writes: &mut Writes) {}

    #[on("github.cursor")]
    fn cursor(&self, cursor: Cursor, writes: &mut Writes) {}
}

fn main() {}
