//! Trimming: removing the beginning of a feed, and knowing what was removed.

use event_core::{HeldBack, ParallelGroup, Partition, Position, StoreError, TrimPolicy, Trimmed};
use redis::{Cmd, Pipeline, RedisWrite, Value};

use crate::connection::Request;
use crate::error::{UnexpectedReply, refused};
use crate::groups::two;
use crate::keys::FeedKeys;
use crate::lag;
use crate::projections;
use crate::scripts::{TRIM, trim_status};
use crate::store::Parts;
use crate::wire::{self, Unreadable};

const TRIMMING: &str = "trim";
const LOOKING: &str = "first_available";

/// What of a feed's readers the client knows: the script looks whether that is all.
type Readers = Vec<(String, Vec<String>)>;

/// Removes the beginning of a partition, as far as it may go and nobody needs it.
pub(crate) async fn trim(
    parts: &Parts,
    partition: &Partition,
    policy: &TrimPolicy,
) -> Result<Trimmed, StoreError> {
    let unreadable = |what| UnexpectedReply::form("EVALSHA trim.lua", what).refused(TRIMMING);
    let elsewhere = held_back_elsewhere(parts, partition).await?;
    let mut readers = Readers::new();
    let mut removed = 0;
    loop {
        let command = call(parts, partition, policy, elsewhere.as_ref(), &readers);
        let request = Request::Command(&command);
        let reply = parts
            .connections
            .ask(TRIMMING, request, Some(&TRIM))
            .await?;
        let values = wire::array(reply).map_err(unreadable)?;
        let status = values.first().map_or(Ok(-1), wire::integer);
        match (status.map_err(unreadable)?, &values[1..]) {
            (trim_status::TRIMMED, [now, more, up_to, by, after]) => {
                removed += wire::count(now).map_err(unreadable)?;
                if wire::integer(more).map_err(unreadable)? == 0 {
                    return Ok(Trimmed {
                        partition: partition.clone(),
                        removed,
                        first_available: position(up_to).map_err(unreadable)?.next(),
                        held_back_by: held_back(by, after).map_err(unreadable)?,
                    });
                }
            }
            (trim_status::GROUPS, names) => {
                readers = names
                    .iter()
                    .map(|name| Ok((wire::text(name)?.to_owned(), Vec::new())))
                    .collect::<Result<_, Unreadable>>()
                    .map_err(unreadable)?;
            }
            (trim_status::HANDLERS, names) => {
                learn_handlers(&mut readers, names).map_err(unreadable)?;
            }
            (trim_status::FORBIDDEN, [command]) => {
                let feed = parts.keys.of(partition).feed().to_owned();
                let command = wire::text(command).map_err(unreadable)?.to_owned();
                return Err(UnexpectedReply::Forbidden { feed, command }.refused(TRIMMING));
            }
            _ => return Err(unreadable("an unknown status")),
        }
    }
}

/// Who needs the oldest entries of a partition, of those whose keys lie in other slots, so that the script
/// cannot look at them. They are asked before: a checkpoint only grows, and one who is new meanwhile is told
/// where it reads.
async fn held_back_elsewhere(
    parts: &Parts,
    partition: &Partition,
) -> Result<Option<HeldBack>, StoreError> {
    // Every group has its keys in the slot of the partition; projections do not.
    let checkpoints = projections::checkpoints(parts, partition).await?;
    Ok(HeldBack::of_projections(checkpoints))
}

fn call(
    parts: &Parts,
    partition: &Partition,
    policy: &TrimPolicy,
    elsewhere: Option<&HeldBack>,
    readers: &Readers,
) -> Cmd {
    let keys = parts.keys.of(partition);
    let handlers: usize = readers.iter().map(|(_, handlers)| handlers.len()).sum();
    let key_count = 4 + 2 * readers.len() + handlers;
    let argument_count = 6 + 2 * readers.len() + handlers;
    let mut command = TRIM.call(key_count, argument_count, 128 * key_count);
    for key in [keys.feed(), keys.trimmed(), keys.groups(), keys.adopted()] {
        command.write_arg(key.as_bytes());
    }
    for (group, _) in readers {
        let of_group = keys.group(group);
        command.write_arg(of_group.progress.as_bytes());
        command.write_arg(of_group.handlers.as_bytes());
    }
    for (group, handlers) in readers {
        for handler in handlers {
            let group = ParallelGroup {
                group: group.as_str().into(),
                handler: handler.as_str().into(),
            };
            command.write_arg(keys.parallel(&group).as_bytes());
        }
    }
    let age = policy.age().map(|age| age.as_millis());
    for limit in [
        policy.entries().map(u128::from),
        age,
        policy.bytes().map(u128::from),
    ] {
        match limit {
            Some(limit) => command.write_arg_fmt(limit),
            None => command.write_arg(b""),
        }
    }
    match elsewhere {
        Some(HeldBack { by, needs_after }) => {
            command.write_arg(by.as_bytes());
            command.write_arg_fmt(needs_after);
        }
        None => {
            command.write_arg(b"");
            command.write_arg(b"");
        }
    }
    command.write_arg_fmt(readers.len());
    for (group, handlers) in readers {
        command.write_arg(group.as_bytes());
        command.write_arg_fmt(handlers.len());
        for handler in handlers {
            command.write_arg(handler.as_bytes());
        }
    }
    command
}

/// Takes in the handlers of each group, as the script replies them.
fn learn_handlers(readers: &mut Readers, mut values: &[Value]) -> Result<(), Unreadable> {
    for (_, handlers) in readers {
        let (count, rest) = values.split_first().ok_or("too few groups")?;
        let count = usize::try_from(wire::count(count)?).map_err(|_| "too large a number")?;
        let names = rest.get(..count).ok_or("too few handlers")?;
        *handlers = names
            .iter()
            .map(|name| Ok(wire::text(name)?.to_owned()))
            .collect::<Result<_, Unreadable>>()?;
        values = &rest[count..];
    }
    Ok(())
}

fn held_back(by: &Value, after: &Value) -> Result<Option<HeldBack>, Unreadable> {
    let by = wire::text(by)?;
    if by.is_empty() {
        return Ok(None);
    }
    Ok(Some(HeldBack {
        by: by.to_owned(),
        needs_after: position(after)?,
    }))
}

pub(crate) fn position(value: &Value) -> Result<Position, Unreadable> {
    wire::position(wire::slice(value)?)
}

/// From where on a partition is whole.
pub(crate) async fn first_available(
    parts: &Parts,
    partition: &Partition,
) -> Result<Position, StoreError> {
    Ok(up_to(parts, LOOKING, partition).await?.next())
}

/// Up to where a partition was trimmed away.
async fn up_to(
    parts: &Parts,
    operation: &'static str,
    partition: &Partition,
) -> Result<Position, StoreError> {
    let keys = parts.keys.of(partition);
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("XINFO").arg("STREAM").arg(keys.feed());
    // Afterwards, so that what is removed in between is known to be.
    pipeline
        .cmd("HMGET")
        .arg(keys.trimmed())
        .arg(&["position", "removed"]);
    let [info, known] = two(parts, operation, &pipeline).await?;
    let unreadable = |what| UnexpectedReply::form("XINFO STREAM", what).refused(operation);
    let info = match info {
        Value::ServerError(error) if lag::is_missing(&error) => Vec::new(),
        Value::ServerError(error) => return Err(refused(operation, error.into())),
        info => wire::array(info).map_err(unreadable)?,
    };
    match known {
        Value::ServerError(error) => Err(refused(operation, error.into())),
        known => by_counters(&info, known).map_err(unreadable),
    }
}

/// The same as `trimmed_up_to` of the scripts.
fn by_counters(info: &[Value], known: Value) -> Result<Position, Unreadable> {
    let (own, own_removed) = match wire::array(known)?.as_slice() {
        [Value::Nil, ..] => (Position::START, 0),
        [own, removed] => {
            let removed = wire::text(removed)?.parse().map_err(|_| "no number")?;
            (position(own)?, removed)
        }
        _ => return Err("another number of fields"),
    };
    if info.is_empty() {
        return Ok(own);
    }
    let count = |name| lag::field(info, name).and_then(wire::count);
    let removed: u64 = count("entries-added")?.saturating_sub(count("length")?);
    if removed <= own_removed {
        return Ok(own);
    }
    let at = |name| lag::field(info, name).and_then(position);
    let theirs = match lag::field(info, "first-entry")? {
        Value::Nil => at("last-generated-id")?,
        first => {
            let first = wire::array(first.clone())?;
            let first = position(first.first().ok_or("an entry without a position")?)?;
            match at("max-deleted-entry-id")? < first {
                true => first.before(),
                false => Position::START,
            }
        }
    };
    Ok(own.max(theirs))
}

/// That a part of a feed is not there any more, as scripts reply it.
pub(crate) fn gone(partition: &Partition, up_to: &Value) -> Result<StoreError, Unreadable> {
    Ok(trimmed(partition, position(up_to)?))
}

fn trimmed(partition: &Partition, up_to: Position) -> StoreError {
    StoreError::FeedTrimmed {
        partition: partition.clone(),
        first_available: up_to.next(),
    }
}

/// The command that asks up to where this store has trimmed a feed away.
fn asking(keys: &FeedKeys) -> Cmd {
    let mut command = Cmd::with_capacity(3, 96);
    command.write_arg(b"HGET");
    command.write_arg(keys.trimmed().as_bytes());
    command.write_arg(b"position");
    command
}

/// Reads something, and then asks up to where the feed is trimmed away.
pub(crate) async fn read_with_trimmed(
    parts: &Parts,
    operation: &'static str,
    keys: &FeedKeys,
    read: Cmd,
) -> Result<[Value; 2], StoreError> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.add_command(read).add_command(asking(keys));
    two(parts, operation, &pipeline).await
}

/// Makes sure that nothing was trimmed away that lies behind a position, by what the server has said.
///
/// What others have trimmed is known by how much is missing, and not where that was: so it is looked at
/// only where the very beginning is read.
pub(crate) async fn expect_available(
    parts: &Parts,
    operation: &'static str,
    partition: &Partition,
    after: Position,
    reply: Value,
) -> Result<(), StoreError> {
    let known = match &reply {
        Value::Nil => Position::START,
        Value::ServerError(error) => return Err(refused(operation, error.clone().into())),
        known => position(known)
            .map_err(|what| UnexpectedReply::form("HGET", what).refused(operation))?,
    };
    let up_to = match after {
        Position::START => up_to(parts, operation, partition).await?,
        _ => known,
    };
    match after < up_to {
        true => Err(trimmed(partition, up_to)),
        false => Ok(()),
    }
}

/// Makes sure that nothing was trimmed away that lies behind a position.
pub(crate) async fn look(
    parts: &Parts,
    operation: &'static str,
    partition: &Partition,
    after: Position,
) -> Result<(), StoreError> {
    let command = asking(&parts.keys.of(partition));
    let request = Request::Command(&command);
    let reply = parts.connections.ask(operation, request, None).await?;
    expect_available(parts, operation, partition, after, reply).await
}
