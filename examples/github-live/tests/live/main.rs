//! The service as its clients meet it: over HTTP and WebSockets, in memory and on a real Redis.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod client;
mod harness;

mod commands;
mod correlation;
mod page;
mod queries;
mod restarts;
mod sample;
mod session;
mod subscriptions;
mod watching;
mod webhook;
