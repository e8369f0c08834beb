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
    fn two(&self, push: GithubPush, other: &GithubPush, writes: &mut Writes) {}

    #[on("github.push")]
    fn by_value(&self, push: GithubPush, writes: Writes) {}

    #[on("github.push")]
    fn not_mutable(&self, push: GithubPush, writes: &Writes) {}

    #[on("github.push")]
    fn mutable(&self, push: &mut GithubPush, writes: &mut Writes) {}
}

fn main() {}
