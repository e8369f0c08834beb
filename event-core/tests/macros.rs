//! Every accepted spelling of `#[derive(Event)]` and `#[event_handler]`, compiled and run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "macros/dependents.rs"]
mod dependents;
#[path = "macros/events.rs"]
mod events;
#[path = "macros/functions.rs"]
mod functions;
#[path = "macros/methods.rs"]
mod methods;
#[path = "macros/policies.rs"]
mod policies;
#[path = "macros/replays.rs"]
mod replays;
