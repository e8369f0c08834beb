//! The Redis store against real servers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod append;
mod connect;
mod faults;
mod feed;
mod history;
mod realtime;
mod stored_form;
mod support;
#[cfg(feature = "tls")]
mod tls;
