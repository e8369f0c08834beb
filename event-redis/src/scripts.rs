//! What the server runs itself.

use std::sync::LazyLock;

use redis::{Cmd, RedisWrite};

/// Appends events: see the script.
pub(crate) static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/publish.lua"),
        include_str!("scripts/append.lua")
    ))
});

/// Appends events, and writes to projections in the same step: see the script.
pub(crate) static APPEND_PROJECTED: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/publish.lua"),
        include_str!("scripts/project.lua"),
        include_str!("scripts/append_projected_begin.lua"),
        include_str!("scripts/append.lua"),
        include_str!("scripts/append_projected_end.lua")
    ))
});

/// Writes to a projection: see the script.
pub(crate) static APPLY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        "#!lua\n",
        include_str!("scripts/project.lua"),
        include_str!("scripts/apply.lua")
    ))
});

/// Makes a version of a projection known: see the script.
pub(crate) static OPEN_PROJECTION: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/open_projection.lua")));

/// Has a version of a projection be the one that is read: see the script.
pub(crate) static SERVE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/serve.lua")));

/// The same, once it has caught up with the one that is read: see the script.
pub(crate) static SWITCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        "#!lua\n",
        include_str!("scripts/trimmed.lua"),
        include_str!("scripts/switch.lua")
    ))
});

/// Removes a version of a projection: see the script.
pub(crate) static DROP: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/drop.lua")));

/// Says which instance fills a version of a projection: see the script.
pub(crate) static HOLD: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/hold.lua")));

/// Keeps the state of an aggregate.
pub(crate) static SNAPSHOT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/snapshot.lua")));

/// Drops the beginning of a history, behind a snapshot: see the script.
pub(crate) static COMPACT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/compact.lua")));

/// Puts entries that no history has at the end of theirs: see the script.
pub(crate) static ADOPT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/adopt.lua")));

/// Finds histories: see the script.
pub(crate) static HISTORIES: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/histories.lua")));

/// Adds events to a history that is being made: see the script.
pub(crate) static STAGE_HISTORY: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/stage_history.lua")));

/// Puts a history that was made anew in its place: see the script.
pub(crate) static SWAP_HISTORY: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/swap_history.lua")));

/// Records how many partitions a category has: see the script.
pub(crate) static PARTITIONS: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/partitions.lua")));

/// Says that an instance of a group is there: see the script.
pub(crate) static JOIN: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/join.lua")));

/// Makes a group known for a partition: see the script.
pub(crate) static OPEN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        "#!lua\n",
        include_str!("scripts/trimmed.lua"),
        include_str!("scripts/open.lua")
    ))
});

/// Counts what a feed has had up to a position: see the script.
pub(crate) static COUNT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/count.lua")));

/// Forgets what a group has done, or moves it: see the script.
pub(crate) static RESET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        "#!lua\n",
        include_str!("scripts/trimmed.lua"),
        include_str!("scripts/reset.lua")
    ))
});

/// Stores recorded events where they lay: see the script.
pub(crate) static RESTORE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/restore.lua")));

/// Makes an instance the owner of a partition: see the script.
pub(crate) static ACQUIRE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/acquire.lua")));

/// Prolongs the ownership of a partition: see the script.
pub(crate) static RENEW: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/renew.lua")));

/// Gives the ownership of a partition back: see the script.
pub(crate) static RELEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/release.lua")));

/// Stores what the owner of a partition has done: see the script.
pub(crate) static COMMIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/publish.lua"),
        include_str!("scripts/emit.lua"),
        include_str!("scripts/commit.lua")
    ))
});

/// Stores what has come of entries that were taken: see the script.
pub(crate) static FINISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/publish.lua"),
        include_str!("scripts/emit.lua"),
        include_str!("scripts/finish.lua")
    ))
});

/// Looks whether what is emitted to another slot can be stored there: see the script.
pub(crate) static CHECK_TARGET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/publish.lua"),
        include_str!("scripts/emit.lua"),
        include_str!("scripts/check_target.lua")
    ))
});

/// Stores what lies in an outbox in another slot: see the script.
pub(crate) static DELIVER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/publish.lua"),
        include_str!("scripts/emit.lua"),
        include_str!("scripts/deliver.lua")
    ))
});

/// Drops what was delivered from an outbox, and reads what comes next: see the script.
pub(crate) static READ_OUTBOX: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/read_outbox.lua")));

/// Makes the group of a handler known for a partition: see the script.
pub(crate) static OPEN_PARALLEL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        "#!lua\n",
        include_str!("scripts/trimmed.lua"),
        include_str!("scripts/open_parallel.lua")
    ))
});

/// Sets for how long entries have been idle: see the script.
pub(crate) static TOUCH: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/touch.lua")));

/// Looks whether entries are finished: see the script.
pub(crate) static IS_FINISHED: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/is_finished.lua")));

/// Forgets consumers for which nothing is pending: see the script.
pub(crate) static REMOVE_CONSUMERS: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/remove_consumers.lua")));

/// Tells up to where a feed was trimmed away: see the script.
pub(crate) static AVAILABLE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        "#!lua flags=no-writes\n",
        include_str!("scripts/trimmed.lua"),
        include_str!("scripts/available.lua")
    ))
});

/// Removes the beginning of a feed: see the script.
pub(crate) static TRIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        "#!lua flags=allow-oom\n",
        include_str!("scripts/trimmed.lua"),
        include_str!("scripts/trim.lua")
    ))
});

/// Tells whether the client may use some keys: see the script.
pub(crate) static PROBE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/probe.lua")));

/// Reads dead letters in their order: see the script.
pub(crate) static LIST: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/list.lua")));

/// Reads one dead letter and its raw entry: see the script.
pub(crate) static INSPECT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/inspect.lua")));

/// Redrives or discards dead letters: see the script.
pub(crate) static CHOOSE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/choose.lua")));

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
