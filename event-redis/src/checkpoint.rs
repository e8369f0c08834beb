//! How far each group has handled each feed.

use event_core::{Category, Position, StoreError};
use redis::Value;

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::store::Parts;
use crate::wire;

const LOAD: &str = "load_checkpoint";
const SAVE: &str = "save_checkpoint";

/// The field of the hash.
const POSITION: &str = "position";

pub(crate) async fn load(
    parts: &Parts,
    group: &str,
    category: &Category,
) -> Result<Option<Position>, StoreError> {
    let keys = parts.keys.of(category);
    let mut command = redis::cmd("HGET");
    command.arg(keys.checkpoint(group)).arg(POSITION);
    let request = Request::Command(&command);
    match parts.connections.ask(LOAD, request, None).await? {
        Value::Nil => Ok(None),
        reply => wire::slice(&reply)
            .and_then(wire::position)
            .map(Some)
            .map_err(|what| UnexpectedReply::form("HGET", what).refused(LOAD)),
    }
}

pub(crate) async fn save(
    parts: &Parts,
    group: &str,
    category: &Category,
    position: Position,
) -> Result<(), StoreError> {
    let keys = parts.keys.of(category);
    let mut command = redis::cmd("HSET");
    command
        .arg(keys.checkpoint(group))
        .arg(POSITION)
        .arg(position.to_string());
    let request = Request::Command(&command);
    parts.connections.ask(SAVE, request, None).await?;
    Ok(())
}
