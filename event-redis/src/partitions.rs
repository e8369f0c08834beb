//! How many partitions the feed of a category has. It never changes once there are events.

use event_core::{Category, Partition, StoreError};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, RedisWrite, Value};

use crate::connection::Request;
use crate::error::{UnexpectedReply, refused};
use crate::keys::Keys;
use crate::scripts::PARTITIONS;
use crate::store::Parts;
use crate::wire;

const OPERATION: &str = "partitions";

/// How many partitions a category has; 1 where nobody has said.
pub(crate) async fn count(parts: &Parts, category: &Category) -> Result<u32, StoreError> {
    if let Some(count) = parts.keys.settled(category) {
        return Ok(count);
    }
    let keys = parts.keys.of(&Partition::from(category));
    let mut pipeline = Pipeline::with_capacity(3);
    // In this order: whoever records a number finds what has existed here. An empty stream says
    // nothing: groups wait there for the first entry.
    pipeline
        .cmd("XLEN")
        .arg(keys.feed())
        .cmd("EXISTS")
        .arg(keys.format())
        .cmd("GET")
        .arg(parts.keys.partitions(category));
    let request = Request::Pipeline(&pipeline);
    let reply = parts.connections.ask(OPERATION, request, None).await?;
    let unreadable = |what| UnexpectedReply::form("GET", what).refused(OPERATION);
    let mut replies = wire::array(reply).map_err(unreadable)?.into_iter();
    match (replies.next(), replies.next(), replies.next()) {
        (Some(Value::ServerError(error)), _, _)
        | (_, Some(Value::ServerError(error)), _)
        | (_, _, Some(Value::ServerError(error))) => Err(refused(OPERATION, error.into())),
        (Some(Value::Int(entries)), Some(Value::Int(formats)), Some(Value::Nil)) => {
            if entries + formats > 0 {
                parts.keys.settle(category, 1);
            }
            Ok(1)
        }
        (Some(_), Some(_), Some(recorded)) => {
            let count = parse(&recorded).map_err(unreadable)?;
            parts.keys.settle(category, count);
            Ok(count)
        }
        _ => Err(unreadable("too few replies")),
    }
}

fn parse(recorded: &Value) -> Result<u32, wire::Unreadable> {
    std::str::from_utf8(wire::slice(recorded)?)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|count| *count > 0)
        .ok_or("not a number of partitions")
}

/// Settles for good how many partitions a category has: one, where nobody has said otherwise.
pub(crate) async fn settle(parts: &Parts, category: &Category) -> Result<u32, StoreError> {
    let command = recording(&parts.keys, category, 1);
    let request = Request::Command(&command);
    let reply = parts.connections.ask(OPERATION, request, Some(&PARTITIONS));
    let count = wire::count(&reply.await?)
        .and_then(|count| u32::try_from(count).map_err(|_| "too many partitions"))
        .map_err(|what| UnexpectedReply::form("EVALSHA partitions.lua", what).refused(OPERATION))?;
    parts.keys.settle(category, count);
    Ok(count)
}

/// The call that records how many partitions a category is to have, unless that is settled.
pub(crate) fn recording(keys: &Keys, category: &Category, wanted: u32) -> Cmd {
    let feed = keys.of(&Partition::from(category));
    let mut command = PARTITIONS.call(3, 1, 256);
    command.write_arg(keys.partitions(category).as_bytes());
    command.write_arg(feed.feed().as_bytes());
    command.write_arg(feed.format().as_bytes());
    command.write_arg_fmt(wanted);
    command
}

/// How many partitions a category has, as that call replies; 0 where the reply cannot be read.
pub(crate) fn recorded(keys: &Keys, category: &Category, reply: &Value) -> u32 {
    let count = wire::count(reply).unwrap_or_default();
    let count = u32::try_from(count).unwrap_or_default();
    if count > 0 {
        keys.settle(category, count);
    }
    count
}

/// Records how many partitions a category is to have, unless that is settled; gives what it has.
pub(crate) async fn record(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    category: &Category,
    wanted: u32,
) -> Result<u32, RedisError> {
    let command = recording(keys, category, wanted);
    for command in [PARTITIONS.load(), command] {
        match connection.send_packed_command(&command).await? {
            Value::ServerError(error) => return Err(error.into()),
            reply @ Value::Int(_) => return Ok(recorded(keys, category, &reply)),
            _ => {}
        }
    }
    Err((
        redis::ErrorKind::UnexpectedReturnType,
        "the number of partitions is not a number",
    )
        .into())
}
