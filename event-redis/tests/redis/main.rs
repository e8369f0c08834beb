//! The Redis store against real servers.

mod append;
mod feed;
mod history;
mod support;
