//! Restoring: recorded events are stored where they lay.

use std::collections::HashMap;

use event_core::{CodecError, Restore, RestoreError};
use redis::{RedisWrite, Value};

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::keys::FeedKeys;
use crate::partitions;
use crate::scripts::{RESTORE, restore_status};
use crate::store::Parts;
use crate::wire::{self, Unreadable};

const OPERATION: &str = "restore";
const COMMAND: &str = "EVALSHA restore.lua";

/// Stores the events of `restore`, or none.
pub(crate) async fn restore(parts: &Parts, restore: &Restore) -> Result<(), RestoreError> {
    if restore.entries().is_empty() {
        return Ok(());
    }
    let partition = restore.partition();
    // Looked at first: what is settled, stays so.
    restore.check_partition(partitions::count(parts, partition.category()).await?)?;
    restore.check_partition(partitions::settle(parts, partition.category()).await?)?;
    let keys = parts.keys.of(partition);

    let aggregates = restore.befores();
    let bytes: usize = restore
        .entries()
        .iter()
        .map(|entry| 2 * (entry.event.payload().len() + entry.metadata.len()) + 256)
        .sum();
    let arguments = aggregates.len() + 7 * restore.entries().len();
    let mut command = RESTORE.call(2 + aggregates.len(), arguments, bytes);
    command.write_arg(keys.feed().as_bytes());
    command.write_arg(keys.format().as_bytes());
    let mut numbers = HashMap::with_capacity(aggregates.len());
    for (number, (aggregate, _)) in aggregates.iter().enumerate() {
        keys.write_history(&mut command, aggregate);
        numbers.insert(aggregate, number + 1);
    }
    for (_, before) in aggregates {
        command.write_arg_fmt(before);
    }
    for entry in restore.entries() {
        let event = &entry.event;
        command.write_arg_fmt(event.position());
        command.write_arg(event.event_type().as_bytes());
        command.write_arg(event.payload().as_bytes());
        command.write_arg(entry.metadata.as_bytes());
        command.write_arg(entry.aggregate.as_deref().unwrap_or_default().as_bytes());
        let (number, element) = match &entry.element {
            Some((aggregate, element)) => (numbers.get(aggregate).copied(), element.as_str()),
            None => (None, ""),
        };
        command.write_arg_fmt(number.unwrap_or_default());
        command.write_arg(element.as_bytes());
    }
    let request = Request::Command(&command);
    let reply = parts.connections.ask(OPERATION, request, Some(&RESTORE));
    decode(&keys, restore, reply.await?)
}

fn decode(keys: &FeedKeys, restore: &Restore, reply: Value) -> Result<(), RestoreError> {
    let unreadable = |what| UnexpectedReply::form(COMMAND, what).refused(OPERATION);
    let values = wire::array(reply).map_err(unreadable)?;
    let value = |at: usize| values.get(at).ok_or("too short a reply");
    let number = |at| wire::count(value(at)?);
    let text = |at| -> Result<String, Unreadable> {
        Ok(String::from_utf8_lossy(wire::slice(value(at)?)?).into_owned())
    };
    let status = value(0).and_then(wire::integer).map_err(unreadable)?;
    let answer = match status {
        restore_status::STORED => return Ok(()),
        restore_status::BEHIND => {
            let head = value(1).and_then(wire::slice).and_then(wire::position);
            let first = restore.entries().first().ok_or("nothing to restore");
            return Err(RestoreError::NotBehind {
                partition: restore.partition().clone(),
                head: head.map_err(unreadable)?,
                first: first.map_err(unreadable)?.event.position(),
            });
        }
        restore_status::VERSION => {
            let at = number(1).map_err(unreadable)?;
            let befores = restore.befores();
            let (aggregate, before) = usize::try_from(at)
                .ok()
                .and_then(|at| befores.get(at.checked_sub(1)?))
                .ok_or_else(|| unreadable("a history that was not named"))?;
            return Err(RestoreError::Version {
                aggregate: aggregate.clone(),
                actual: number(2).map_err(unreadable)?,
                found: before + 1,
            });
        }
        restore_status::UNREADABLE => {
            return Err(RestoreError::Codec(CodecError::Malformed {
                reason: format!("a history ends with `{}`", text(1).map_err(unreadable)?),
            }));
        }
        restore_status::FORMAT => UnexpectedReply::Format {
            feed: keys.feed().to_owned(),
            format: text(1).map_err(unreadable)?,
        },
        restore_status::FORBIDDEN => UnexpectedReply::Forbidden {
            feed: keys.feed().to_owned(),
            command: text(1).map_err(unreadable)?,
        },
        _ => return Err(unreadable("an unknown status").into()),
    };
    Err(answer.refused(OPERATION).into())
}
