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
    async fn asynchronous(&self, push: GithubPush, writes: &mut Writes) {}

    #[on("github.push")]
    fn without_self(push: GithubPush, writes: &mut Writes) {}

    #[on("github.push")]
    fn changes_itself(&mut self, push: GithubPush, writes: &mut Writes) {}

    #[on("github.push")]
    fn generic<E>(&self, push: E, writes: &mut Writes) {}

    #[on("github.push")]
    #[emits("github.pushed")]
    fn emits(&self, push: GithubPush, writes: &mut Writes) {}
}

fn main() {}
