//! The Redis store on a cluster.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod caches;
mod connect;
mod contract;
mod failover;
mod load;
mod resharding;
mod routing;
mod support;
