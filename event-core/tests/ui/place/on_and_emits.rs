use event_core::{RecordedEvent, emits, on};

struct Repositories;

impl Repositories {
    #[on("github.push")]
    #[emits("repository.analyzed")]
    async fn handle(&self, _event: RecordedEvent) {}
}

#[on("github.push")]
async fn handle(_event: RecordedEvent) {}

#[on("github.push")]
#[event_core::event_handler]
async fn above(_event: RecordedEvent) {}

fn main() {}
