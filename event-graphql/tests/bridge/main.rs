//! The bridge on the memory store and on a real Redis: nothing missing, nothing twice, whoever is slow.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "../transport/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the transport")]
mod client;

mod handlers_first;
mod harness;

mod access;
mod cursors;
mod following;
mod graphql;
mod listening;
mod patterns;
mod readers;
mod realtime;
mod redis;
mod sharing;
mod slow_clients;
