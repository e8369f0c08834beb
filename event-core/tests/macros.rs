//! Every accepted spelling of `#[derive(Event)]`, `#[event_handler]` and `#[projection]`, compiled and run.

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
#[path = "macros/projections.rs"]
mod projections;
#[path = "macros/replays.rs"]
mod replays;
