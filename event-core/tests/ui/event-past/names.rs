use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("github.push", formerly = "gitlab.push")]
struct OtherFeed {}

#[derive(Serialize, Deserialize, Event)]
#[event("github.pulled", formerly("github.pulled", "github pulled"))]
struct SameName {}

#[derive(Serialize, Deserialize, Event)]
#[event("github.starred", retired("github.unstarred"))]
struct OnStruct {}

#[derive(Serialize, Deserialize, Event)]
#[event(retired("sdlc.pinned", "sdlc.opened", "other.pinned"))]
enum Retired {
    #[event("sdlc.opened", formerly = "sdlc.pinned")]
    Opened,
}

fn main() {}
