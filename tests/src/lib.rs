//! Real Redis servers for the workspace's tests and benchmarks.
//!
//! - [`RedisServer`] starts, kills, freezes and restarts a server of its own.
//! - [`redis_server`] holds what it is started with: [`Aof`](redis_server::Aof),
//!   [`Listen`](redis_server::Listen), and what can go wrong: [`Error`](redis_server::Error).
//!
//! The tests under `tests/` are those that need more than one crate of the workspace.

pub mod redis_server;

pub use redis_server::RedisServer;
