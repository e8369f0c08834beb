//! Dead letters: reading them, and deciding what becomes of them. Commits write them.

use event_core::{
    Chosen, DeadLetter, DeadLetterError, DeadLetterId, InspectedDeadLetter, Partition, StoreError,
};
use redis::{RedisWrite, Value};

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::groups::announce;
use crate::keys::{FeedKeys, Ordered};
use crate::scripts::{CHOOSE, INSPECT, LIST, choose_status};
use crate::store::Parts;
use crate::wire::{self, Unreadable};

const LISTING: &str = "list_dead_letters";
const INSPECTING: &str = "inspect_dead_letter";
const REDRIVING: &str = "redrive_dead_letters";
const DISCARDING: &str = "discard_dead_letters";

/// Dead letters that are read at once.
const CHUNK: usize = 500;

/// How much of a dead letter that cannot be read an error quotes, in characters.
const QUOTED: usize = 100;

/// At most `limit` dead letters, of those after `after`.
pub(crate) async fn list(
    parts: &Parts,
    group: &str,
    partition: &Partition,
    after: Option<&DeadLetterId>,
    limit: usize,
) -> Result<Vec<DeadLetter>, StoreError> {
    let keys = parts.keys.of(partition);
    let of_group = keys.group(group);
    let unreadable = |what| UnexpectedReply::form("EVALSHA list.lua", what).refused(LISTING);
    let mut after = after.map_or(Vec::new(), |id| Ordered(id).to_string().into_bytes());
    let mut letters = Vec::new();
    while letters.len() < limit {
        let count = (limit - letters.len()).min(CHUNK);
        let mut command = LIST.call(2, 2, 256);
        command.write_arg(of_group.dead.as_bytes());
        command.write_arg(of_group.dead_order.as_bytes());
        command.write_arg(&after);
        command.write_arg_fmt(count);
        let request = Request::Command(&command);
        let reply = parts.connections.ask(LISTING, request, Some(&LIST)).await?;
        let mut values = wire::array(reply).map_err(unreadable)?.into_iter();
        let Some(last) = values.next() else {
            break;
        };
        after = wire::bytes(last).map_err(unreadable)?;
        let is_full = values.len() == count;
        for value in values {
            // Where somebody else has taken the letter out of the hash alone, there is none.
            if value != Value::Nil {
                letters.push(read(LISTING, &keys, &value)?);
            }
        }
        if !is_full {
            break;
        }
    }
    Ok(letters)
}

fn read(operation: &'static str, keys: &FeedKeys, value: &Value) -> Result<DeadLetter, StoreError> {
    let json = wire::slice(value)
        .map_err(|what| UnexpectedReply::form("HGET", what).refused(operation))?;
    serde_json::from_slice(json).map_err(|source| {
        let beginning = String::from_utf8_lossy(json).chars().take(QUOTED).collect();
        let feed = keys.feed().to_owned();
        UnexpectedReply::DeadLetter {
            feed,
            beginning,
            source,
        }
        .refused(operation)
    })
}

/// One dead letter with the raw entry.
pub(crate) async fn inspect(
    parts: &Parts,
    group: &str,
    partition: &Partition,
    id: &DeadLetterId,
) -> Result<Option<InspectedDeadLetter>, StoreError> {
    let keys = parts.keys.of(partition);
    let of_group = keys.group(group);
    let mut command = INSPECT.call(2, 1, 256);
    command.write_arg(of_group.dead.as_bytes());
    command.write_arg(of_group.dead_raw.as_bytes());
    command.write_arg_fmt(id);
    let request = Request::Command(&command);
    let reply = parts
        .connections
        .ask(INSPECTING, request, Some(&INSPECT))
        .await?;
    let unreadable = |what| UnexpectedReply::form("EVALSHA inspect.lua", what).refused(INSPECTING);
    let mut values = wire::array(reply).map_err(unreadable)?.into_iter();
    let Some(letter) = values.next() else {
        return Ok(None);
    };
    let mut raw = Vec::new();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        let field = wire::bytes(name).and_then(|name| Ok((name, wire::bytes(value)?)));
        raw.push(field.map_err(unreadable)?);
    }
    Ok(Some(InspectedDeadLetter {
        letter: read(INSPECTING, &keys, &letter)?,
        raw,
    }))
}

/// Has the chosen ones handled again.
pub(crate) async fn redrive(
    parts: &Parts,
    group: &str,
    partition: &Partition,
    chosen: &Chosen,
) -> Result<usize, DeadLetterError> {
    let count = choose(parts, REDRIVING, "redrive", group, partition, chosen).await?;
    announce(parts, REDRIVING, group, "redriven").await?;
    Ok(count)
}

/// Removes the chosen ones for good.
pub(crate) async fn discard(
    parts: &Parts,
    group: &str,
    partition: &Partition,
    chosen: &Chosen,
) -> Result<usize, DeadLetterError> {
    let count = choose(parts, DISCARDING, "discard", group, partition, chosen).await?;
    announce(parts, DISCARDING, group, "discarded").await?;
    Ok(count)
}

async fn choose(
    parts: &Parts,
    operation: &'static str,
    what: &str,
    group: &str,
    partition: &Partition,
    chosen: &Chosen,
) -> Result<usize, DeadLetterError> {
    let keys = parts.keys.of(partition);
    let of_group = keys.group(group);
    let mut command = CHOOSE.call(3, 3, 512);
    command.write_arg(of_group.dead.as_bytes());
    command.write_arg(of_group.dead_order.as_bytes());
    command.write_arg(of_group.dead_raw.as_bytes());
    command.write_arg(what.as_bytes());
    match chosen {
        Chosen::One(id) => {
            command.write_arg(b"one");
            command.write_arg_fmt(Ordered(id));
        }
        Chosen::Key(key) => {
            command.write_arg(b"key");
            command.write_arg(key.as_bytes());
        }
        Chosen::Handler(handler) => {
            command.write_arg(b"handler");
            command.write_arg(handler.as_bytes());
        }
        Chosen::All => {
            command.write_arg(b"all");
            command.write_arg(b"");
        }
    }
    let request = Request::Command(&command);
    let reply = parts
        .connections
        .ask(operation, request, Some(&CHOOSE))
        .await?;

    let unreadable = |what| UnexpectedReply::form("EVALSHA choose.lua", what).refused(operation);
    let values = wire::array(reply).map_err(unreadable)?;
    let status = values.first().map_or(Ok(-1), wire::integer);
    match (status.map_err(unreadable)?, values.as_slice(), chosen) {
        (choose_status::DONE, [_, count], _) => {
            let count = wire::count(count).map_err(unreadable)?;
            Ok(usize::try_from(count).unwrap_or(usize::MAX))
        }
        (choose_status::NOT_FIRST, [_, key, first], Chosen::One(chosen)) => {
            Err(DeadLetterError::NotFirst {
                chosen: chosen.clone(),
                key: wire::text(key).map_err(unreadable)?.to_owned(),
                first: parse(first).map_err(unreadable)?,
            })
        }
        (choose_status::FORBIDDEN, [_, command], _) => {
            let feed = keys.feed().to_owned();
            let command = wire::text(command).map_err(unreadable)?.to_owned();
            let forbidden = UnexpectedReply::Forbidden { feed, command };
            Err(forbidden.refused(operation).into())
        }
        _ => Err(unreadable("an unknown status").into()),
    }
}

fn parse(name: &Value) -> Result<DeadLetterId, Unreadable> {
    wire::text(name)?
        .parse()
        .map_err(|_| "not the name of a dead letter")
}
