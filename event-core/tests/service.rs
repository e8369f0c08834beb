//! Services: built, checked and run on the memory store.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "service/build.rs"]
mod build;
#[path = "service/deliver.rs"]
mod deliver;
#[path = "service/dispatch.rs"]
mod dispatch;
#[path = "service/events.rs"]
mod events;
#[path = "service/flow.rs"]
mod flow;
#[path = "service/projections.rs"]
mod projections;
#[path = "service/realtime.rs"]
mod realtime;
#[path = "service/trimming.rs"]
mod trimming;
