//! What the server runs itself.

use std::sync::LazyLock;

use redis::{Cmd, RedisWrite};

/// A script of several files, one behind the other. The first line says what it may do, where no file does.
macro_rules! script {
    ($first:literal; $($file:literal),+) => {
        LazyLock::new(|| {
            Script::new(concat!($first, "\n", $(include_str!(concat!("scripts/", $file, ".lua"))),+))
        })
    };
    ($($file:literal),+) => {
        LazyLock::new(|| {
            Script::new(concat!($(include_str!(concat!("scripts/", $file, ".lua"))),+))
        })
    };
}

/// Appends events: see the script.
pub(crate) static APPEND: LazyLock<Script> = script!("publish", "append");

/// Appends events, and writes to projections in the same step: see the script.
pub(crate) static APPEND_PROJECTED: LazyLock<Script> = script!(
    "publish",
    "stream",
    "project",
    "append_projected_begin",
    "append",
    "append_projected_end"
);

/// Writes to a projection: see the script.
pub(crate) static APPLY: LazyLock<Script> = script!("#!lua"; "project", "apply");

/// Makes a version of a projection known: see the script.
pub(crate) static OPEN_PROJECTION: LazyLock<Script> = script!("open_projection");

/// Has a version of a projection be the one that is read: see the script.
pub(crate) static SERVE: LazyLock<Script> = script!("serve");

/// The same, once it has caught up with the one that is read: see the script.
pub(crate) static SWITCH: LazyLock<Script> = script!("#!lua"; "stream", "switch");

/// Removes a version of a projection: see the script.
pub(crate) static DROP: LazyLock<Script> = script!("drop");

/// Says which instance fills a version of a projection: see the script.
pub(crate) static HOLD: LazyLock<Script> = script!("hold");

/// Keeps the state of an aggregate.
pub(crate) static SNAPSHOT: LazyLock<Script> = script!("snapshot");

/// Drops the beginning of a history, behind a snapshot: see the script.
pub(crate) static COMPACT: LazyLock<Script> = script!("compact");

/// Puts entries that no history has at the end of theirs: see the script.
pub(crate) static ADOPT: LazyLock<Script> = script!("adopt");

/// Finds histories: see the script.
pub(crate) static HISTORIES: LazyLock<Script> = script!("histories");

/// Adds events to a history that is being made: see the script.
pub(crate) static STAGE_HISTORY: LazyLock<Script> = script!("stage_history");

/// Puts a history that was made anew in its place: see the script.
pub(crate) static SWAP_HISTORY: LazyLock<Script> = script!("swap_history");

/// Records how many partitions a category has: see the script.
pub(crate) static PARTITIONS: LazyLock<Script> = script!("partitions");

/// Says that an instance of a group is there: see the script.
pub(crate) static JOIN: LazyLock<Script> = script!("join");

/// Makes a group known for a partition: see the script.
pub(crate) static OPEN: LazyLock<Script> = script!("#!lua"; "stream", "trimmed", "open");

/// Counts what a feed has had up to a position: see the script.
pub(crate) static COUNT: LazyLock<Script> = script!("#!lua flags=no-writes"; "stream", "count");

/// Forgets what a group has done, or moves it: see the script.
pub(crate) static RESET: LazyLock<Script> = script!("#!lua"; "stream", "trimmed", "reset");

/// Stores recorded events where they lay: see the script.
pub(crate) static RESTORE: LazyLock<Script> = script!("#!lua"; "stream", "restore");

/// Makes an instance the owner of a partition: see the script.
pub(crate) static ACQUIRE: LazyLock<Script> = script!("#!lua"; "stream", "acquire");

/// Prolongs the ownership of a partition: see the script.
pub(crate) static RENEW: LazyLock<Script> = script!("renew");

/// Gives the ownership of a partition back: see the script.
pub(crate) static RELEASE: LazyLock<Script> = script!("release");

/// Stores what the owner of a partition has done: see the script.
pub(crate) static COMMIT: LazyLock<Script> = script!("publish", "emit", "commit");

/// Stores what has come of entries that were taken: see the script.
pub(crate) static FINISH: LazyLock<Script> = script!("publish", "stream", "emit", "finish");

/// Looks whether what is emitted to another slot can be stored there: see the script.
pub(crate) static CHECK_TARGET: LazyLock<Script> = script!("publish", "emit", "check_target");

/// Stores what lies in an outbox in another slot: see the script.
pub(crate) static DELIVER: LazyLock<Script> = script!("publish", "emit", "deliver");

/// Drops what was delivered from an outbox, and reads what comes next: see the script.
pub(crate) static READ_OUTBOX: LazyLock<Script> = script!("read_outbox");

/// Makes the group of a handler known for a partition: see the script.
pub(crate) static OPEN_PARALLEL: LazyLock<Script> =
    script!("#!lua"; "stream", "trimmed", "open_parallel");

/// Sets for how long entries have been idle: see the script.
pub(crate) static TOUCH: LazyLock<Script> = script!("touch");

/// Looks whether entries are finished: see the script.
pub(crate) static IS_FINISHED: LazyLock<Script> =
    script!("#!lua flags=no-writes"; "stream", "is_finished");

/// Forgets consumers for which nothing is pending: see the script.
pub(crate) static REMOVE_CONSUMERS: LazyLock<Script> = script!("remove_consumers");

/// Removes the beginning of a feed: see the script.
pub(crate) static TRIM: LazyLock<Script> =
    script!("#!lua flags=allow-oom"; "stream", "trimmed", "trim");

/// Tells whether the client may use some keys: see the script.
pub(crate) static PROBE: LazyLock<Script> = script!("probe");

/// Reads dead letters in their order: see the script.
pub(crate) static LIST: LazyLock<Script> = script!("list");

/// Reads one dead letter and its raw entry: see the script.
pub(crate) static INSPECT: LazyLock<Script> = script!("inspect");

/// Redrives or discards dead letters: see the script.
pub(crate) static CHOOSE: LazyLock<Script> = script!("choose");

/// Notes that a value for a cache is being loaded: see the script.
pub(crate) static CACHE_BEGIN: LazyLock<Script> = script!("cache_begin");

/// Keeps a value in a cache: see the script.
pub(crate) static CACHE_PUT: LazyLock<Script> = script!("#!lua"; "covers", "cache_put");

/// Removes values from a cache: see the script.
pub(crate) static CACHE_INVALIDATE: LazyLock<Script> =
    script!("#!lua"; "covers", "cache_invalidate");

/// Puts an entry of a cache under a tag: see the script.
pub(crate) static CACHE_TAG: LazyLock<Script> = script!("cache_tag");

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
    pub(crate) const PARTITIONS: i64 = 8;
    pub(crate) const DONE: i64 = 9;
}

/// What has come of a projection that an append was to write to.
pub(crate) mod projected_status {
    pub(crate) const BEHIND: i64 = 1;
}

/// The statuses that the apply script replies with.
pub(crate) mod apply_status {
    pub(crate) const WRITTEN: i64 = 0;
    pub(crate) const MOVED: i64 = 1;
    pub(crate) const NO_COUNT: i64 = 2;
    pub(crate) const UNKNOWN: i64 = 3;
}

/// The statuses that the script replies with that opens a projection.
pub(crate) mod open_projection_status {
    pub(crate) const OPEN: i64 = 0;
    pub(crate) const DROPPING: i64 = 1;
    pub(crate) const FORBIDDEN: i64 = 2;
}

/// The statuses that the switch script replies with.
pub(crate) mod switch_status {
    pub(crate) const SWITCHED: i64 = 0;
    pub(crate) const UNKNOWN: i64 = 1;
    pub(crate) const BEHIND: i64 = 2;
}

/// The statuses that the drop script replies with.
pub(crate) mod drop_status {
    pub(crate) const DROPPED: i64 = 0;
    pub(crate) const MORE: i64 = 1;
    pub(crate) const SERVED: i64 = 2;
    pub(crate) const UNKNOWN: i64 = 3;
}

/// The statuses that the acquire script replies with.
pub(crate) mod acquire_status {
    pub(crate) const OWNED: i64 = 0;
    pub(crate) const REFUSED: i64 = 1;
    pub(crate) const FORBIDDEN: i64 = 2;
}

/// The statuses that the commit script replies with.
pub(crate) mod commit_status {
    pub(crate) const STORED: i64 = 0;
    pub(crate) const REPEATED: i64 = 1;
    pub(crate) const LOST: i64 = 2;
    pub(crate) const REFUSED: i64 = 3;
    pub(crate) const PARTITIONS: i64 = 4;
    pub(crate) const FULL: i64 = 5;
}

/// The statuses that the script replies with that opens a group of a handler.
pub(crate) mod open_status {
    pub(crate) const OPEN: i64 = 0;
    pub(crate) const COUNT: i64 = 1;
    pub(crate) const FORBIDDEN: i64 = 2;
    pub(crate) const FORGOTTEN: i64 = 3;
    pub(crate) const TRIMMED: i64 = 4;
}

/// The statuses that the reset script replies with.
pub(crate) mod reset_status {
    pub(crate) const DONE: i64 = 0;
    pub(crate) const COUNT: i64 = 1;
    pub(crate) const FORBIDDEN: i64 = 2;
    pub(crate) const OWNED: i64 = 3;
    pub(crate) const HANDLERS: i64 = 4;
    pub(crate) const TRIMMED: i64 = 5;
}

/// The statuses that the trim script replies with.
pub(crate) mod trim_status {
    pub(crate) const TRIMMED: i64 = 0;
    pub(crate) const GROUPS: i64 = 1;
    pub(crate) const HANDLERS: i64 = 2;
    pub(crate) const FORBIDDEN: i64 = 3;
}

/// The statuses that the compact script replies with.
pub(crate) mod compact_status {
    pub(crate) const COMPACTED: i64 = 0;
    pub(crate) const NOT_FOUND: i64 = 1;
    pub(crate) const OTHER: i64 = 2;
    pub(crate) const NEWER: i64 = 3;
}

/// The statuses that the script replies with that puts a history in its place.
pub(crate) mod swap_status {
    pub(crate) const DONE: i64 = 0;
    pub(crate) const READ_ON: i64 = 1;
    pub(crate) const NEWER: i64 = 2;
    pub(crate) const LOST: i64 = 3;
}

/// The statuses that the restore script replies with.
pub(crate) mod restore_status {
    pub(crate) const STORED: i64 = 0;
    pub(crate) const BEHIND: i64 = 1;
    pub(crate) const VERSION: i64 = 2;
    pub(crate) const UNREADABLE: i64 = 3;
    pub(crate) const FORMAT: i64 = 4;
    pub(crate) const FORBIDDEN: i64 = 5;
}

/// The statuses that the finish script replies with.
pub(crate) mod finish_status {
    pub(crate) const STORED: i64 = 0;
    pub(crate) const NO_GROUP: i64 = 1;
    pub(crate) const REFUSED: i64 = 3;
    pub(crate) const PARTITIONS: i64 = 4;
    pub(crate) const FULL: i64 = 5;
}

/// The statuses that the check script replies with.
pub(crate) mod check_status {
    pub(crate) const POSSIBLE: i64 = 0;
    pub(crate) const REFUSED: i64 = 3;
    pub(crate) const PARTITIONS: i64 = 4;
    pub(crate) const NOT_ALLOWED: i64 = 6;
}

/// The statuses that the deliver script replies with.
pub(crate) mod deliver_status {
    pub(crate) const STORED: i64 = 0;
    pub(crate) const GAP: i64 = 1;
    pub(crate) const REFUSED: i64 = 3;
}

/// The statuses that the choose script replies with.
pub(crate) mod choose_status {
    pub(crate) const DONE: i64 = 0;
    pub(crate) const NOT_FIRST: i64 = 1;
    pub(crate) const FORBIDDEN: i64 = 2;
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
