//! Snapshots: the newest state of each aggregate that was kept.

use std::sync::Arc;

use event_core::{AggregateId, CodecError, Partition, ReadError, Snapshot, StoreError, Version};
use redis::{Cmd, RedisWrite, Value};

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::keys::FeedKeys;
use crate::scripts::SNAPSHOT;
use crate::store::Parts;
use crate::{partitions, wire};

const SAVING: &str = "save_snapshot";
const LOADING: &str = "load_snapshot";
const DELETING: &str = "delete_snapshot";

/// The keys of the partition that an aggregate lies in.
async fn keys(parts: &Parts, aggregate: &AggregateId) -> Result<Arc<FeedKeys>, StoreError> {
    let count = partitions::count(parts, aggregate.category()).await?;
    Ok(parts.keys.of(&Partition::of_aggregate(aggregate, count)))
}

/// Keeps a state, unless one as new is kept.
pub(crate) async fn save(
    parts: &Parts,
    aggregate: &AggregateId,
    snapshot: &Snapshot,
) -> Result<bool, StoreError> {
    let keys = keys(parts, aggregate).await?;
    let mut command = SNAPSHOT.call(1, 4, 256 + snapshot.state.len());
    keys.write_snapshot(&mut command, aggregate);
    command.write_arg_fmt(snapshot.version);
    command.write_arg_fmt(snapshot.event_id);
    command.write_arg_fmt(snapshot.state_version);
    command.write_arg(snapshot.state.as_bytes());
    let request = Request::Command(&command);
    let reply = parts.connections.ask(SAVING, request, Some(&SNAPSHOT));
    let stored = wire::integer(&reply.await?)
        .map_err(|what| UnexpectedReply::form("EVALSHA snapshot.lua", what).refused(SAVING))?;
    Ok(stored == 1)
}

/// The state that is kept.
pub(crate) async fn load(
    parts: &Parts,
    aggregate: &AggregateId,
) -> Result<Option<Snapshot>, ReadError> {
    let keys = keys(parts, aggregate).await?;
    let mut command = Cmd::with_capacity(6, 192);
    command.write_arg(b"HMGET");
    keys.write_snapshot(&mut command, aggregate);
    for field in ["version", "event", "stateVersion", "state"] {
        command.write_arg(field.as_bytes());
    }
    let request = Request::Command(&command);
    let reply = parts.connections.ask(LOADING, request, None).await?;
    let fields =
        wire::array(reply).map_err(|what| UnexpectedReply::form("HMGET", what).refused(LOADING))?;
    if fields.iter().all(|field| *field == Value::Nil) {
        return Ok(None);
    }
    match read(&fields) {
        Some(snapshot) => Ok(Some(snapshot)),
        None => Err(CodecError::Malformed {
            reason: format!("the snapshot of `{aggregate}` is not in the stored form"),
        }
        .into()),
    }
}

fn read(fields: &[Value]) -> Option<Snapshot> {
    let [version, event_id, state_version, state] = fields else {
        return None;
    };
    let version: Version = wire::text(version).ok()?.parse().ok()?;
    Some(Snapshot {
        version,
        event_id: wire::text(event_id).ok()?.parse().ok()?,
        state_version: wire::text(state_version).ok()?.parse().ok()?,
        state: wire::text(state).ok()?.to_owned(),
    })
}

/// Forgets the state that is kept.
pub(crate) async fn delete(parts: &Parts, aggregate: &AggregateId) -> Result<bool, StoreError> {
    let keys = keys(parts, aggregate).await?;
    let mut command = Cmd::with_capacity(2, 160);
    command.write_arg(b"DEL");
    keys.write_snapshot(&mut command, aggregate);
    let request = Request::Command(&command);
    let reply = parts.connections.ask(DELETING, request, None).await?;
    let deleted = wire::integer(&reply)
        .map_err(|what| UnexpectedReply::form("DEL", what).refused(DELETING))?;
    Ok(deleted == 1)
}
