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
    #[on("*.push")]
    fn open(&self, push: &RecordedEvent, writes: &mut Writes) {}

    #[on("push")]
    fn no_type(&self, push: &RecordedEvent, writes: &mut Writes) {}

    #[on("github.push", retry(max = 3))]
    fn with_option(&self, push: &RecordedEvent, writes: &mut Writes) {}

    #[on]
    fn without(&self, push: &RecordedEvent, writes: &mut Writes) {}
}

fn main() {}
