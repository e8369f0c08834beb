use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
enum ManyEvent {
    #[event("many.e0")]
    E0,
    #[event("many.e1")]
    E1,
    #[event("many.e2")]
    E2,
    #[event("many.e3")]
    E3,
    #[event("many.e4")]
    E4,
    #[event("many.e5")]
    E5,
    #[event("many.e6")]
    E6,
    #[event("many.e7")]
    E7,
    #[event("many.e8")]
    E8,
    #[event("many.e9")]
    E9,
}

#[event_handler(on = "many.e10")]
async fn handle(_event: ManyEvent) {}

fn main() {}
