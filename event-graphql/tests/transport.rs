//! A real server and real clients: what the transport promises to them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "transport/client.rs"]
mod client;
#[path = "transport/closes.rs"]
mod closes;
#[path = "transport/limits.rs"]
mod limits;
#[path = "transport/operations.rs"]
mod operations;
#[path = "transport/server.rs"]
mod server;
#[path = "transport/sse.rs"]
mod sse;
