//! Commits of a partition's owner: from a [`Commit`] to the call of the script, and back.

use std::sync::Arc;

use event_core::{Category, Commit, CommitError, Committed, Lease, StoreError};
use redis::{Cmd, RedisWrite, Value};

use crate::append::write_flags;
use crate::emissions::{self, Emissions, to_json};
use crate::error::UnexpectedReply;
use crate::keys::Ordered;
use crate::scripts::{COMMIT, commit_status};
use crate::store::Parts;
use crate::wire::{self, Unreadable};

const OPERATION: &str = "commit";
const COMMAND: &str = "EVALSHA commit.lua";

/// What commits look at before they write. Only tests that must find a fault leave something out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    pub(crate) epoch: bool,
    pub(crate) number: bool,
}

/// Stores what the owner of a partition has done, or nothing.
pub(crate) async fn commit(
    parts: &Parts,
    lease: &Lease,
    commit: &Commit,
) -> Result<Committed, CommitError> {
    loop {
        let emitted = commit.emitted.iter().map(Vec::as_slice);
        let source = parts.keys.of(&lease.partition);
        let emissions = Emissions::new(parts, OPERATION, emitted)
            .and_then(|emissions| emissions.check_slots(parts, &source))
            .map_err(|refused| CommitError::Refused { refused })?;
        let command = encode(parts, lease, commit, &emissions)?;
        let reply = match emissions.ask(parts, command, &COMMIT, is_stored).await {
            Ok(reply) => reply,
            Err(error @ StoreError::Refused { .. }) => {
                return Err(match emissions.blame(parts, error).await {
                    Ok(refused) => CommitError::Refused { refused },
                    Err(error) => error.into(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        match decode(lease, commit, &emissions, reply)? {
            Outcome::Committed(committed) => {
                emissions.settle(parts);
                return Ok(committed);
            }
            // It is settled now, so that this happens once for each category.
            Outcome::Partitions(category, count) => parts.keys.settle(&category, count),
        }
    }
}

fn is_stored(status: i64) -> bool {
    matches!(status, commit_status::STORED | commit_status::REPEATED)
}

/// The call of the script: what its keys and arguments are, it says itself.
fn encode(
    parts: &Parts,
    lease: &Lease,
    commit: &Commit,
    emissions: &Emissions<'_>,
) -> Result<Cmd, CommitError> {
    let open = to_json(OPERATION, &commit.progress.open)?;
    let keys = parts.keys.of(&lease.partition);
    let group = keys.group(&lease.group);
    let waits = parts.replication.is_some() && !commit.emitted.is_empty();

    let key_count = 5 + emissions.key_count();
    let letter_count = commit.parked.len() + commit.retried.len() + commit.resolved.len();
    let argument_count = 15 + letter_count * 3 + emissions.argument_count();
    let bytes = 1024 + open.len() + letter_count * 512 + emissions.bytes();
    let mut command = COMMIT.call(key_count, argument_count, bytes);

    for key in [
        group.progress.as_str(),
        keys.feed(),
        &group.dead,
        &group.dead_order,
        &group.dead_raw,
    ] {
        command.write_arg(key.as_bytes());
    }
    emissions.write_keys(&mut command);

    command.write_arg(lease.instance.as_bytes());
    command.write_arg_fmt(lease.epoch);
    command.write_arg_fmt(commit.number);
    command.write_arg(lease.group.as_bytes());
    write_flags(
        &mut command,
        [
            (b'r', waits),
            (b'e', !parts.checks.epoch),
            (b'n', !parts.checks.number),
        ],
    );
    command.write_arg_fmt(commit.progress.checkpoint);
    match commit.progress.event_id {
        Some(id) => command.write_arg_fmt(id),
        None => command.write_arg(b""),
    }
    command.write_arg_fmt(commit.progress.reached);
    command.write_arg(&open);
    command.write_arg_fmt(commit.finished);
    for count in [
        commit.parked.len(),
        commit.retried.len(),
        commit.resolved.len(),
        emissions.target_count(),
        emissions.append_count(),
    ] {
        command.write_arg_fmt(count);
    }
    for letter in &commit.parked {
        let id = letter.id();
        command.write_arg_fmt(&id);
        command.write_arg_fmt(Ordered(&id));
        command.write_arg(&to_json(OPERATION, letter)?);
    }
    for letter in &commit.retried {
        command.write_arg_fmt(letter.id());
        command.write_arg(&to_json(OPERATION, letter)?);
    }
    for id in &commit.resolved {
        command.write_arg_fmt(id);
        command.write_arg_fmt(Ordered(id));
    }
    emissions.write_arguments(&mut command);
    Ok(command)
}

/// What the script replies with, where it does not refuse.
enum Outcome {
    Committed(Committed),
    /// Nothing was stored: the category has so many partitions.
    Partitions(Category, u32),
}

fn decode(
    lease: &Lease,
    commit: &Commit,
    emissions: &Emissions<'_>,
    reply: Value,
) -> Result<Outcome, CommitError> {
    let unreadable =
        |what| CommitError::Store(UnexpectedReply::form(COMMAND, what).refused(OPERATION));
    let status = emissions::status(&reply).ok_or_else(|| unreadable("no status"))?;
    let values = wire::array(reply).map_err(unreadable)?;
    let number = |index: usize| -> Result<usize, Unreadable> {
        let value = values.get(index).ok_or("too few parts")?;
        usize::try_from(wire::count(value)?).map_err(|_| "too large a number")
    };
    match status {
        commit_status::STORED => {
            let failure = values.get(2).map_or(Ok(""), wire::text);
            let failure = failure.map_err(unreadable)?;
            if !failure.is_empty() {
                tracing::warn!(%failure, "an event was emitted, but not published");
            }
            let places = values.get(3..).unwrap_or_default();
            let emitted = emissions.stored(commit.emitted.len(), places);
            let emitted = emitted.map_err(unreadable)?.into_iter();
            Ok(Outcome::Committed(Committed {
                dead_letters: number(1).map_err(unreadable)?,
                // A commit leaves out none.
                emitted: emitted.map(Option::unwrap_or_default).collect(),
            }))
        }
        commit_status::REPEATED => Ok(Outcome::Committed(Committed {
            dead_letters: number(1).map_err(unreadable)?,
            emitted: Vec::new(),
        })),
        commit_status::LOST => Err(CommitError::LeaseLost {
            group: Arc::clone(&lease.group),
            partition: lease.partition.clone(),
        }),
        commit_status::REFUSED => Err(CommitError::Refused {
            refused: emissions.refused(&values[1..]).map_err(unreadable)?,
        }),
        commit_status::PARTITIONS => {
            let others = emissions.partitions(&values[1..]).map_err(unreadable)?;
            Ok(Outcome::Partitions(others.0, others.1))
        }
        _ => Err(unreadable("an unknown status")),
    }
}
