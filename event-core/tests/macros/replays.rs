//! `replay`: which handlers may be given events again.

use event_core::prelude::*;
use event_core::{MemoryStore, Replay};

#[event_handler]
struct Replayed;

#[event_handler(group = "replayed", replay = allow)]
impl Replayed {
    #[on("macros.named")]
    async fn allowed_for_all(&self, _: &RecordedEvent) {}

    #[on("macros.named", replay = refuse)]
    async fn refused_for_one(&self, _: &RecordedEvent) {}
}

#[event_handler(on = "macros.named", group = "replayed", replay = allow)]
async fn allowed_function(_: &RecordedEvent) {}

#[event_handler(on = "macros.named", group = "replayed")]
async fn says_nothing(_: &RecordedEvent) {}

#[event_handler(group = "replayed")]
impl Others {
    #[on("macros.named", replay = allow, delivery = parallel)]
    async fn allowed_alone(&self, _: &RecordedEvent) {}
}

#[event_handler]
struct Others;

#[tokio::test]
async fn a_handler_is_replayed_where_it_says_so() {
    let service = Service::builder("replayed")
        .store(MemoryStore::new())
        .build()
        .unwrap();
    let report = service.replay(Replay::all()).await.unwrap();
    let chosen: Vec<_> = report.handled.into_keys().collect();
    let allowed = [
        "Others::allowed_alone",
        "Replayed::allowed_for_all",
        "allowed_function",
    ];
    assert_eq!(chosen, allowed);
    for name in ["Replayed::refused_for_one", "says_nothing"] {
        assert!(report.left_out.iter().any(|other| other == name), "{name}");
    }
}
