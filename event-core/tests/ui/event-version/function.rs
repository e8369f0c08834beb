use event_core::Event;
use serde::{Deserialize, Serialize};

struct NoSerde;

fn unreadable(old: NoSerde) -> u8 {
    let _ = old;
    1
}

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", version = 2, upcast(1 = unreadable))]
struct Push {}

fn main() {}
