//! Recordings: taken, written, read, and replayed in tests.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "recordings/events.rs"]
mod events;
#[path = "recordings/files.rs"]
mod files;
#[path = "recordings/replay_safe.rs"]
mod replay_safe;
#[path = "recordings/replayed.rs"]
mod replayed;
