//! Repair: which entries no history has, and histories that are made anew.

use std::collections::HashMap;
use std::time::Duration;

use event_core::codec::history::{encode_recorded, encode_recorded_tail};
use event_core::{
    AggregateId, CodecError, HistoryPage, Partition, Position, RecordedEvent, StoreError, Swapped,
    Version,
};
use redis::{Cmd, RedisWrite, Value};

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::glob::literal;
use crate::scripts::{ADOPT, HISTORIES, STAGE_HISTORY, SWAP_HISTORY, swap_status};
use crate::store::Parts;
use crate::wire::{self, Unreadable};
use crate::{partitions, trim};

const LISTING: &str = "histories";
const COMPARING: &str = "missing_in_history";
const ADOPTING: &str = "adopt_events";
const ASKING: &str = "adopted_versions";
const STAGING: &str = "stage_history";
const SWAPPING: &str = "swap_history";
const DISCARDING: &str = "discard_staged";

/// Keys that the server looks at for one page.
const SCANNED: usize = 1_000;

/// What was made of a history is kept for so long after the last of it was added.
const STAGED_FOR: Duration = Duration::from_secs(60 * 60);

/// Some of the histories of a partition.
pub(crate) async fn histories(
    parts: &Parts,
    partition: &Partition,
    from: Option<&str>,
) -> Result<HistoryPage, StoreError> {
    let keys = parts.keys.of(partition);
    let beginning = keys.history_prefix();
    let mut command = HISTORIES.call(1, 3, 256);
    command.write_arg(keys.feed().as_bytes());
    command.write_arg(from.unwrap_or("0").as_bytes());
    command.write_arg(format!("{}*", literal(&beginning)).as_bytes());
    command.write_arg_fmt(SCANNED);
    let request = Request::Command(&command);
    let reply = parts.connections.ask(LISTING, request, Some(&HISTORIES));
    let unreadable = |what| UnexpectedReply::form("EVALSHA histories.lua", what).refused(LISTING);
    let values = wire::array(reply.await?).map_err(unreadable)?;
    let [cursor, found] = values.as_slice() else {
        return Err(unreadable("another number of parts"));
    };
    let cursor = wire::text(cursor).map_err(unreadable)?;
    let mut page = HistoryPage {
        aggregates: Vec::new(),
        next: (cursor != "0").then(|| cursor.to_owned()),
    };
    for key in wire::array(found.clone()).map_err(unreadable)? {
        // Another program may have called its own so.
        let Ok(key) = wire::text(&key) else { continue };
        let name = key
            .strip_prefix(&beginning)
            .and_then(|name| name.split_once(':'));
        if let Some((aggregate_type, id)) = name
            && let Ok(aggregate) = AggregateId::new(
                partition.category().clone(),
                aggregate_type.to_owned(),
                id.to_owned(),
            )
        {
            page.aggregates.push(aggregate);
        }
    }
    Ok(page)
}

/// The positions of those events that no history has.
pub(crate) async fn missing(
    parts: &Parts,
    partition: &Partition,
    events: &[RecordedEvent],
) -> Result<Vec<Position>, StoreError> {
    compare(parts, COMPARING, partition, events, "look").await
}

/// Puts those events that no history has at the end of these.
pub(crate) async fn adopt(
    parts: &Parts,
    partition: &Partition,
    events: &[RecordedEvent],
) -> Result<u64, StoreError> {
    let adopted = compare(parts, ADOPTING, partition, events, "adopt").await?;
    Ok(adopted.len() as u64)
}

async fn compare(
    parts: &Parts,
    operation: &'static str,
    partition: &Partition,
    events: &[RecordedEvent],
    what: &str,
) -> Result<Vec<Position>, StoreError> {
    let keys = parts.keys.of(partition);
    let mut numbers: HashMap<AggregateId, usize> = HashMap::new();
    let mut histories = Vec::new();
    let mut own = Vec::with_capacity(events.len());
    for event in events {
        let Ok(Some(aggregate)) = event.aggregate_id() else {
            continue;
        };
        let number = *numbers.entry(aggregate.clone()).or_insert_with(|| {
            histories.push(aggregate);
            histories.len()
        });
        own.push((number, event));
    }
    let bytes = 128 * histories.len() + 256 * own.len();
    let mut command = ADOPT.call(2 + histories.len(), 1 + 6 * own.len(), bytes);
    command.write_arg(keys.feed().as_bytes());
    command.write_arg(keys.adopted().as_bytes());
    for aggregate in &histories {
        keys.write_history(&mut command, aggregate);
    }
    command.write_arg(what.as_bytes());
    for (number, event) in own {
        command.write_arg_fmt(number);
        command.write_arg_fmt(event.position());
        command.write_arg_fmt(event.aggregate().map_or(0, |own| own.version));
        command.write_arg_fmt(event.metadata().event_id);
        command.write_arg(event.event_type().as_bytes());
        match what {
            "adopt" => {
                let tail =
                    encode_recorded_tail(event).map_err(|error| unwritable(operation, error))?;
                command.write_arg(tail.as_bytes());
            }
            _ => command.write_arg(b""),
        }
    }
    let request = Request::Command(&command);
    let reply = parts
        .connections
        .ask(operation, request, Some(&ADOPT))
        .await?;
    let positions = || {
        let values = wire::array(reply)?;
        values
            .iter()
            .map(trim::position)
            .collect::<Result<_, Unreadable>>()
    };
    positions().map_err(|what| UnexpectedReply::form("EVALSHA adopt.lua", what).refused(operation))
}

fn unwritable(operation: &'static str, error: CodecError) -> StoreError {
    StoreError::Refused {
        operation,
        source: error.into(),
    }
}

/// Under which versions entries were adopted.
pub(crate) async fn adopted(
    parts: &Parts,
    partition: &Partition,
    positions: &[Position],
) -> Result<Vec<Option<Version>>, StoreError> {
    if positions.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = Cmd::with_capacity(2 + positions.len(), 64 + 24 * positions.len());
    command.write_arg(b"HMGET");
    command.write_arg(parts.keys.of(partition).adopted().as_bytes());
    for position in positions {
        command.write_arg_fmt(position);
    }
    let request = Request::Command(&command);
    let reply = parts.connections.ask(ASKING, request, None).await?;
    let versions = || {
        let values = wire::array(reply)?;
        let version = |value: &Value| match value {
            Value::Nil => Ok(None),
            value => {
                let version = wire::text(value)?.parse();
                version.map(Some).map_err(|_| "a version that is none")
            }
        };
        values
            .iter()
            .map(version)
            .collect::<Result<_, Unreadable>>()
    };
    versions().map_err(|what| UnexpectedReply::form("HMGET", what).refused(ASKING))
}

/// Adds events to a history that is being made.
pub(crate) async fn stage(
    parts: &Parts,
    aggregate: &AggregateId,
    staging: &str,
    events: &[(Version, RecordedEvent)],
) -> Result<(), StoreError> {
    let key = staged_key(parts, aggregate, staging).await?;
    let Some((first, _)) = events.first() else {
        return Ok(());
    };
    let mut command = STAGE_HISTORY.call(1, 2 + events.len(), 128 + 512 * events.len());
    command.write_arg(key.as_bytes());
    command.write_arg_fmt(first);
    command.write_arg_fmt(STAGED_FOR.as_millis());
    for (version, event) in events {
        let element = encode_recorded(event, *version);
        let element = element.map_err(|error| unwritable(STAGING, error))?;
        command.write_arg(element.as_bytes());
    }
    let request = Request::Command(&command);
    let reply = parts
        .connections
        .ask(STAGING, request, Some(&STAGE_HISTORY));
    reply.await?;
    Ok(())
}

async fn staged_key(
    parts: &Parts,
    aggregate: &AggregateId,
    staging: &str,
) -> Result<String, StoreError> {
    let count = partitions::count(parts, aggregate.category()).await?;
    let keys = parts.keys.of(&Partition::of_aggregate(aggregate, count));
    Ok(keys.staged(staging))
}

/// Puts what was made in the place of the history.
pub(crate) async fn swap(
    parts: &Parts,
    aggregate: &AggregateId,
    staging: &str,
    read_to: Position,
    version: Version,
) -> Result<Swapped, StoreError> {
    let count = partitions::count(parts, aggregate.category()).await?;
    let keys = parts.keys.of(&Partition::of_aggregate(aggregate, count));
    let mut command = SWAP_HISTORY.call(3, 4, 512);
    keys.write_history(&mut command, aggregate);
    command.write_arg(keys.staged(staging).as_bytes());
    command.write_arg(keys.feed().as_bytes());
    command.write_arg_fmt(read_to);
    command.write_arg_fmt(version);
    command.write_arg(aggregate.aggregate_type().as_bytes());
    command.write_arg(aggregate.id().as_bytes());
    let request = Request::Command(&command);
    let reply = parts
        .connections
        .ask(SWAPPING, request, Some(&SWAP_HISTORY));
    let unreadable =
        |what| UnexpectedReply::form("EVALSHA swap_history.lua", what).refused(SWAPPING);
    let values = wire::array(reply.await?).map_err(unreadable)?;
    let status = values.first().map_or(Ok(-1), wire::integer);
    match (status.map_err(unreadable)?, values.as_slice()) {
        (swap_status::DONE, _) => Ok(Swapped::Done),
        (swap_status::READ_ON, _) => Ok(Swapped::ReadOn),
        (swap_status::NEWER, [_, version]) => Ok(Swapped::Newer {
            version: wire::count(version).map_err(unreadable)?,
        }),
        (swap_status::LOST, _) => Ok(Swapped::Lost),
        _ => Err(unreadable("an unknown status")),
    }
}

/// Removes what was made of a history.
pub(crate) async fn discard(
    parts: &Parts,
    aggregate: &AggregateId,
    staging: &str,
) -> Result<(), StoreError> {
    let key = staged_key(parts, aggregate, staging).await?;
    let mut command = redis::cmd("UNLINK");
    command.arg(key);
    let request = Request::Command(&command);
    parts.connections.ask(DISCARDING, request, None).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("{a*b:events:x}:"), "{a\\*b:events:x}:");
        assert_eq!(literal("a-b[c]"), "a\\-b\\[c\\]");
    }
}
