//! The bridge on the memory store and on a real Redis: nothing missing, nothing twice, whoever is slow.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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
mod slow_clients;
