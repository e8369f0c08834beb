//! Commits of a partition's owner: from a [`Commit`] to the call of the script, and back.

use std::collections::HashMap;
use std::sync::Arc;

use event_core::{Category, Commit, CommitError, Committed, Lease, StoreError};
use redis::{Cmd, RedisWrite, Value};

use crate::append::write_flags;
use crate::connection::Attempts;
use crate::courier::Couriers;
use crate::emissions::{self, Emissions, Origin, Stored, to_json};
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
    pub(crate) delivered: bool,
}

/// Stores what the owner of a partition has done, or nothing.
pub(crate) async fn commit(
    parts: &Parts,
    couriers: &Couriers,
    lease: &Lease,
    commit: &Commit,
) -> Result<Committed, CommitError> {
    let origin = Origin {
        couriers,
        group: &lease.group,
        partition: &lease.partition,
    };
    let mut attempts = Attempts::new(OPERATION, parts.patience);
    loop {
        let emitted = commit.emitted.iter().map(Vec::as_slice);
        let emissions = Emissions::new(parts, OPERATION, origin, emitted)
            .map_err(|refused| CommitError::Refused { refused })?;
        if !emissions.meet(parts).await? {
            continue;
        }
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
            Outcome::Committed(dead_letters, mut stored) => {
                emissions.settle(parts);
                // After a repetition, too, since whoever was told of the first may be gone.
                emissions.send();
                if commit.wants_places {
                    emissions.find(parts, &mut stored).await;
                }
                return Ok(Committed {
                    dead_letters,
                    // A commit leaves out none.
                    emitted: stored
                        .runs
                        .into_iter()
                        .map(Option::unwrap_or_default)
                        .collect(),
                });
            }
            Outcome::Full(values) => emissions.wait_for_room(&values[1..], &mut attempts).await?,
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
    let argument_count = 15 + letter_count * 4 + emissions.argument_count();
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
    let follows: HashMap<_, _> = commit.follows.iter().map(|(id, of)| (id, of)).collect();
    for letter in &commit.parked {
        let id = letter.id();
        command.write_arg_fmt(&id);
        command.write_arg_fmt(Ordered(&id));
        command.write_arg(&to_json(OPERATION, letter)?);
        match follows.get(&id) {
            Some(followed) => command.write_arg_fmt(followed),
            None => command.write_arg(b""),
        }
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
    /// So many dead letters there are now, and this was stored.
    Committed(usize, Stored),
    /// Nothing was stored: there is no room for it.
    Full(Vec<Value>),
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
            let stored = emissions.stored(commit.emitted.len(), places);
            Ok(Outcome::Committed(
                number(1).map_err(unreadable)?,
                stored.map_err(unreadable)?,
            ))
        }
        commit_status::REPEATED => Ok(Outcome::Committed(
            number(1).map_err(unreadable)?,
            Stored::default(),
        )),
        commit_status::FULL => Ok(Outcome::Full(values)),
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
