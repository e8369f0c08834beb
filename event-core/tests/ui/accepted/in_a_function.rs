//! Types and handlers may be written inside of a function, and where a lint forbids everything.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unused_qualifications, unreachable_pub)]

use event_core::{Event, HandlerRegistration, event_handler};

fn main() {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize, Event)]
    #[event("github.push")]
    struct GithubPush {}

    #[event_handler]
    struct Repositories;

    #[event_handler]
    impl Repositories {
        #[on("github.push")]
        async fn handle(&self, event: GithubPush) {
            drop(event);
        }
    }

    #[event_handler(on = "github.push")]
    async fn handle(event: &GithubPush) {
        let _ = event.key();
    }

    assert_eq!(HandlerRegistration::all().len(), 2);
}
