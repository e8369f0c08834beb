//! The Redis store against real servers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod append;
mod caches;
mod commit;
mod connect;
mod dead_letters;
mod faults;
mod feed;
mod gathering;
mod groups;
mod history;
mod outbox;
mod parallel_groups;
mod partitions;
mod projections;
mod reader;
mod realtime;
mod repair;
mod snapshots;
mod stored_form;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod trimming;
