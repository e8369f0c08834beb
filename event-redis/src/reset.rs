//! Resets: what a group has done is forgotten, or the group goes on from another place.

use std::time::Duration;

use event_core::{ParallelGroup, Partition, Reset, ResetError};
use redis::{RedisWrite, Value};

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::scripts::{RESET, reset_status};
use crate::start::StartFrom;
use crate::store::Parts;
use crate::trim;
use crate::wire::{self, Unreadable};

const OPERATION: &str = "reset";

/// Forgets what a group has done in a partition, or moves it.
pub(crate) async fn reset(
    parts: &Parts,
    group: &str,
    partition: &Partition,
    reset: Reset,
) -> Result<(), ResetError> {
    let keys = parts.keys.of(partition);
    let of_group = keys.group(group);
    let mut from = match reset {
        Reset::Forget => StartFrom::forget(),
        Reset::MoveTo(start) => StartFrom::new(start),
    };
    // The script names the keys that are still missing.
    let mut handlers: Vec<String> = Vec::new();
    loop {
        let argument_count = 1 + StartFrom::ARGUMENTS + handlers.len();
        let bytes = 512 + 128 * handlers.len();
        let mut command = RESET.call(8 + handlers.len(), argument_count, bytes);
        for key in [
            of_group.progress.as_str(),
            keys.feed(),
            &of_group.dead,
            &of_group.dead_order,
            &of_group.dead_raw,
            &of_group.handlers,
            keys.groups(),
            keys.trimmed(),
        ] {
            command.write_arg(key.as_bytes());
        }
        for handler in &handlers {
            let group = ParallelGroup {
                group: group.into(),
                handler: handler.as_str().into(),
            };
            command.write_arg(keys.parallel(&group).as_bytes());
        }
        command.write_arg(group.as_bytes());
        from.write(&mut command);
        for handler in &handlers {
            command.write_arg(handler.as_bytes());
        }
        let request = Request::Command(&command);
        let reply = parts.connections.ask(OPERATION, request, Some(&RESET));
        let reply = reply.await?;

        let unreadable = |what| UnexpectedReply::form("EVALSHA reset.lua", what).refused(OPERATION);
        let values = wire::array(reply).map_err(unreadable)?;
        let status = values.first().map_or(Ok(-1), wire::integer);
        match (status.map_err(unreadable)?, values.as_slice()) {
            (reset_status::DONE, _) => return Ok(()),
            (reset_status::COUNT, _) => from = from.counted(parts, OPERATION, partition).await?,
            (reset_status::HANDLERS, [_, names @ ..]) => {
                handlers = names_of(names).map_err(unreadable)?;
            }
            (reset_status::TRIMMED, [_, up_to]) => {
                return Err(trim::gone(partition, up_to).map_err(unreadable)?.into());
            }
            (reset_status::OWNED, [_, owner, remaining]) => {
                return Err(ResetError::Owned {
                    group: group.to_owned(),
                    partition: partition.clone(),
                    owner: wire::text(owner).map_err(unreadable)?.to_owned(),
                    remaining: Duration::from_millis(wire::count(remaining).map_err(unreadable)?),
                });
            }
            (reset_status::FORBIDDEN, [_, command]) => {
                let feed = keys.feed().to_owned();
                let command = wire::text(command).map_err(unreadable)?.to_owned();
                let forbidden = UnexpectedReply::Forbidden { feed, command };
                return Err(forbidden.refused(OPERATION).into());
            }
            _ => return Err(unreadable("an unknown status").into()),
        }
    }
}

fn names_of(values: &[Value]) -> Result<Vec<String>, Unreadable> {
    let names = values.iter().map(|name| Ok(wire::text(name)?.to_owned()));
    names.collect()
}
