//! A handler knows where it is written: at the line of its name.

use event_core::{MemoryStore, RecordedEvent, Service, event_handler};

#[event_handler]
struct Repositories;

#[event_handler]
impl Repositories {
    #[on("github.push")]
    async fn handle(
        &self,
        _: &RecordedEvent,
    ) {
    }
}

mod other {
    #[super::event_handler]
    struct Repositories;

    #[super::event_handler]
    impl Repositories {
        #[on("github.push")]
        async fn handle(&self, _: &super::RecordedEvent) {}
    }
}

fn main() {
    let twice = Service::builder("agents").store(MemoryStore::new()).build();
    let message = twice.err().map(|error| error.to_string()).unwrap_or_default();
    for location in ["location.rs:11", "location.rs:25"] {
        assert!(message.contains(location), "{message}");
    }
}
