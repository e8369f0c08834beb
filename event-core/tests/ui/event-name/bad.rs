use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
enum GithubEvent {
    #[event("Github.Push")]
    UpperCase,
    #[event("github.pull-request")]
    Dash,
    #[event("push")]
    NoCategory,
    #[event("Push")]
    NoCategoryUpperCase,
    #[event("github.*")]
    Pattern,
    #[event("github..push")]
    TwoDots,
    #[event("9github.push")]
    Digit,
    #[event("")]
    Empty,
}

fn main() {}
