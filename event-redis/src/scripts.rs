//! What the server runs itself.

use std::sync::LazyLock;

use redis::{Cmd, RedisWrite};

/// Appends events: see the script.
pub(crate) static APPEND: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/append.lua")));

/// The statuses that the append script replies with.
pub(crate) mod append_status {
    pub(crate) const STORED: i64 = 0;
    pub(crate) const IN_PART: i64 = 1;
    pub(crate) const REPEATED: i64 = 2;
    pub(crate) const CONFLICT: i64 = 3;
    pub(crate) const UNREADABLE: i64 = 4;
    pub(crate) const FORMAT: i64 = 5;
    pub(crate) const FORBIDDEN: i64 = 6;
    pub(crate) const TAKEN: i64 = 7;
}

/// A script, and the hash by which a server calls it that knows it.
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self {
            text,
            hash: redis::Script::new(text).get_hash().to_owned(),
        }
    }

    /// A call, with room for its keys and arguments, which the caller adds.
    pub(crate) fn call(&self, keys: usize, arguments: usize, bytes: usize) -> Cmd {
        let mut command = Cmd::with_capacity(3 + keys + arguments, 64 + bytes);
        command.write_arg(b"EVALSHA");
        command.write_arg(self.hash.as_bytes());
        command.write_arg_fmt(keys);
        command
    }

    /// The command that makes the server know it.
    pub(crate) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.text);
        command
    }
}
