//! Snapshots: the newest state of each aggregate that was kept.

use std::sync::Arc;

use event_core::{
    AggregateId, CodecError, CompactError, Compacted, Partition, ReadError, Snapshot, StoreError,
    Version,
};
use redis::{Cmd, RedisWrite, Value};

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::keys::FeedKeys;
use crate::scripts::{COMPACT, SNAPSHOT, compact_status};
use crate::store::Parts;
use crate::{partitions, wire};

const SAVING: &str = "save_snapshot";
const LOADING: &str = "load_snapshot";
const DELETING: &str = "delete_snapshot";
const COMPACTING: &str = "compact";

/// The keys of the partition that an aggregate lies in.
async fn keys(parts: &Parts, aggregate: &AggregateId) -> Result<Arc<FeedKeys>, StoreError> {
    let count = partitions::count(parts, aggregate.category()).await?;
    Ok(parts.keys.of(&Partition::of_aggregate(aggregate, count)))
}

/// Keeps a state, unless one as new is kept, or one that nothing else leads to.
pub(crate) async fn save(
    parts: &Parts,
    aggregate: &AggregateId,
    snapshot: &Snapshot,
) -> Result<bool, StoreError> {
    let keys = keys(parts, aggregate).await?;
    let mut command = SNAPSHOT.call(2, 4, 384 + snapshot.state.len());
    keys.write_snapshot(&mut command, aggregate);
    keys.write_history(&mut command, aggregate);
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

/// Keeps a state, and drops the beginning of the history behind it.
pub(crate) async fn compact(
    parts: &Parts,
    aggregate: &AggregateId,
    snapshot: &Snapshot,
    first_kept: Version,
) -> Result<Compacted, CompactError> {
    let keys = keys(parts, aggregate).await?;
    let mut command = COMPACT.call(2, 5, 512 + snapshot.state.len());
    keys.write_history(&mut command, aggregate);
    keys.write_snapshot(&mut command, aggregate);
    command.write_arg_fmt(snapshot.version);
    command.write_arg_fmt(snapshot.event_id);
    command.write_arg_fmt(snapshot.state_version);
    command.write_arg(snapshot.state.as_bytes());
    command.write_arg_fmt(first_kept);
    let request = Request::Command(&command);
    let reply = parts.connections.ask(COMPACTING, request, Some(&COMPACT));

    let unreadable = |what| UnexpectedReply::form("EVALSHA compact.lua", what).refused(COMPACTING);
    let values = wire::array(reply.await?).map_err(unreadable)?;
    let status = values.first().map_or(Ok(-1), wire::integer);
    match (
        status.map_err(unreadable)?,
        values.get(1..).unwrap_or_default(),
    ) {
        (compact_status::COMPACTED, [removed, first]) => Ok(Compacted {
            removed: wire::count(removed).map_err(unreadable)?,
            first_available: wire::count(first).map_err(unreadable)?,
        }),
        (compact_status::NOT_FOUND, _) => Err(CompactError::NotFound {
            aggregate: aggregate.clone(),
        }),
        (compact_status::OTHER, _) => Err(CompactError::OtherHistory {
            aggregate: aggregate.clone(),
            version: snapshot.version,
        }),
        (compact_status::NEWER, [kept]) => Err(CompactError::NewerState {
            aggregate: aggregate.clone(),
            kept: wire::count(kept)
                .and_then(|kept| u32::try_from(kept).map_err(|_| "too large a number"))
                .map_err(unreadable)?,
            known: snapshot.state_version,
        }),
        _ => Err(unreadable("an unknown status").into()),
    }
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
