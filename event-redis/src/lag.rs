//! How far groups are behind.

use event_core::{ParallelGroup, ParallelLag, Partition, StoreError};
use redis::{Pipeline, ServerError, Value};

use crate::error::{UnexpectedReply, refused};
use crate::groups::{number, two};
use crate::start;
use crate::store::Parts;
use crate::wire::{self, Unreadable};

const LAGGING: &str = "lag";

/// How many entries of a partition the group has yet to finish.
pub(crate) async fn in_order(
    parts: &Parts,
    group: &str,
    partition: &Partition,
) -> Result<u64, StoreError> {
    let keys = parts.keys.of(partition);
    let mut pipeline = Pipeline::with_capacity(2);
    // In this order: what is finished meanwhile makes the lag smaller, never negative.
    pipeline.cmd("XINFO").arg("STREAM").arg(keys.feed());
    pipeline
        .cmd("HGET")
        .arg(keys.group(group).progress)
        .arg("finished");
    let [info, finished] = two(parts, LAGGING, &pipeline).await?;
    let unreadable = |what| UnexpectedReply::form("XINFO STREAM", what).refused(LAGGING);
    let info = match info {
        // There is no feed yet, and so nothing to finish.
        Value::ServerError(error) if is_missing(&error) => return Ok(0),
        Value::ServerError(error) => return Err(refused(LAGGING, error.into())),
        info => wire::array(info).map_err(unreadable)?,
    };
    let field = |name: &str| field(&info, name).and_then(wire::count);
    match finished {
        Value::ServerError(error) => Err(refused(LAGGING, error.into())),
        // A group that begins now passes over what was trimmed away.
        Value::Nil => field("length").map_err(unreadable),
        finished => {
            let finished = number(&finished).map_err(unreadable)?;
            let added = field("entries-added").map_err(unreadable)?;
            Ok(added.saturating_sub(finished))
        }
    }
}

/// How far the group of a handler is behind in a partition.
pub(crate) async fn parallel(
    parts: &Parts,
    group: &ParallelGroup,
    partition: &Partition,
) -> Result<ParallelLag, StoreError> {
    let mut pipeline = Pipeline::with_capacity(2);
    let feed = parts.keys.of(partition);
    pipeline.cmd("XINFO").arg("GROUPS").arg(feed.feed());
    pipeline.cmd("XLEN").arg(feed.feed());
    let [groups, length] = two(parts, LAGGING, &pipeline).await?;
    let name = group.to_string();
    match native(parts, partition, groups, &|other| other == name).await? {
        Some(lag) => Ok(lag),
        None => Ok(ParallelLag {
            lag: count_of(length)?,
            pending: 0,
        }),
    }
}

/// How far the part of a group is behind that is so the furthest: what reads the feed in order, or a
/// handler with parallel delivery.
pub(crate) async fn backlog(
    parts: &Parts,
    group: &str,
    partition: &Partition,
) -> Result<u64, StoreError> {
    let keys = parts.keys.of(partition);
    let of_group = keys.group(group);
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("SMEMBERS").arg(&of_group.handlers);
    pipeline.cmd("XINFO").arg("GROUPS").arg(keys.feed());
    let [handlers, groups] = two(parts, LAGGING, &pipeline).await?;
    let handlers = match handlers {
        Value::ServerError(error) => return Err(refused(LAGGING, error.into())),
        handlers => wire::array(handlers).map_err(unreadable)?,
    };
    if handlers.is_empty() {
        return in_order(parts, group, partition).await;
    }
    let names: Vec<_> = handlers
        .iter()
        .map(|handler| Ok(format!("{group}/{}", wire::text(handler)?)))
        .collect::<Result<_, Unreadable>>()
        .map_err(unreadable)?;
    let is_own = |other: &str| names.iter().any(|name| name == other);
    let lag = native(parts, partition, groups, &is_own).await?;
    let lag = lag.unwrap_or_default().lag;

    let mut pipeline = Pipeline::with_capacity(2);
    for field in ["start", "reached"] {
        pipeline.cmd("HGET").arg(&of_group.progress).arg(field);
    }
    let [start, reached] = two(parts, LAGGING, &pipeline).await?;
    // As in open.lua: it may be owned without being read in order.
    let is_open = start != Value::Nil
        || (reached != Value::Nil && wire::slice(&reached).map_err(unreadable)? != b"0-0");
    match is_open {
        true => Ok(lag.max(in_order(parts, group, partition).await?)),
        false => Ok(lag),
    }
}

/// How far the native groups are behind that are meant, the furthest of them; `None` where there are none.
async fn native(
    parts: &Parts,
    partition: &Partition,
    groups: Value,
    is_meant: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Option<ParallelLag>, StoreError> {
    let groups = match groups {
        Value::ServerError(error) if is_missing(&error) => return Ok(None),
        Value::ServerError(error) => return Err(refused(LAGGING, error.into())),
        groups => wire::array(groups).map_err(unreadable)?,
    };
    let mut furthest: Option<ParallelLag> = None;
    for group in groups {
        let group = wire::array(group).map_err(unreadable)?;
        let field = |name| field(&group, name).map_err(unreadable);
        if !is_meant(wire::text(field("name")?).map_err(unreadable)?) {
            continue;
        }
        let pending = wire::count(field("pending")?).map_err(unreadable)?;
        let waiting = match field("lag")? {
            // The server does not know, after entries were deleted for example.
            Value::Nil => {
                let last = wire::slice(field("last-delivered-id")?).and_then(wire::position);
                let last = last.map_err(unreadable)?;
                let counted = start::count(parts, LAGGING, partition, last).await?;
                counted.added.saturating_sub(counted.passed)
            }
            waiting => wire::count(waiting).map_err(unreadable)?,
        };
        let lag = ParallelLag {
            lag: waiting + pending,
            pending,
        };
        if furthest.is_none_or(|furthest| furthest.lag < lag.lag) {
            furthest = Some(lag);
        }
    }
    Ok(furthest)
}

/// A field of what the server says of something.
/// A field of what `XINFO STREAM` says.
pub(crate) fn field<'a>(info: &'a [Value], name: &str) -> Result<&'a Value, Unreadable> {
    let mut pairs = info.chunks_exact(2);
    let value = pairs.find_map(|pair| (wire::text(&pair[0]).ok()? == name).then_some(&pair[1]));
    value.ok_or("a stream without its counters")
}

fn count_of(value: Value) -> Result<u64, StoreError> {
    match value {
        Value::ServerError(error) => Err(refused(LAGGING, error.into())),
        count => wire::count(&count).map_err(unreadable),
    }
}

/// Whether there is no such stream.
pub(crate) fn is_missing(error: &ServerError) -> bool {
    let details = error.details();
    details.is_some_and(|details| details.contains("no such key"))
}

fn unreadable(what: Unreadable) -> StoreError {
    UnexpectedReply::form("XINFO", what).refused(LAGGING)
}
