//! Projections: their states beside their checkpoints, all keys of one in one slot.

use std::collections::BTreeMap;
use std::time::Duration;

use event_core::projection::{FieldWrite, ProjectionWrites};
use event_core::{
    ApplyError, Category, Partition, Position, ProjectionCheckpoint, ProjectionId, ProjectionStep,
    ProjectionVersion, ProjectionVersions, ServeError, StoreError,
};
use redis::{Cmd, RedisWrite, Value};

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::keys::ProjectionKeys;
use crate::scripts::{
    APPLY, DROP, HOLD, OPEN_PROJECTION, SERVE, SWITCH, Script, apply_status, drop_status,
    open_projection_status, switch_status,
};
use crate::start;
use crate::store::Parts;
use crate::wire::{self, Unreadable};

const OPENING: &str = "open_projection";
const LISTING: &str = "projection_versions";
const SERVING: &str = "serve_projection";
const SWITCHING: &str = "switch_projection";
const DROPPING: &str = "drop_projection";
const HOLDING: &str = "hold_projection";
const RELEASING: &str = "release_projection";
const LOOKING: &str = "projection_checkpoint";
const APPLYING: &str = "apply_projection";
const READING: &str = "read a projection";
const COUNTING: &str = "entries_after";

/// How many keys are removed at once.
const AT_ONCE: usize = 500;

async fn ask(
    parts: &Parts,
    operation: &'static str,
    command: &Cmd,
    script: Option<&'static Script>,
) -> Result<Value, StoreError> {
    let request = Request::Command(command);
    parts.connections.ask(operation, request, script).await
}

fn unreadable(operation: &'static str) -> impl Fn(Unreadable) -> StoreError {
    move |what| UnexpectedReply::form("a script of projections", what).refused(operation)
}

/// Makes a version known; where that is wanted, only if no other one is read.
pub(crate) async fn open(
    parts: &Parts,
    id: &ProjectionId,
    categories: &[Category],
    only_first: bool,
) -> Result<ProjectionVersions, StoreError> {
    // In this order, so that whoever trims finds everything that there is.
    let mut command = redis::cmd("SADD");
    command.arg(parts.keys.projections()).arg(id.name());
    ask(parts, OPENING, &command, None).await?;

    let keys = parts.keys.projection(id);
    let names: Vec<_> = categories.iter().map(Category::as_str).collect();
    let unreadable = unreadable(OPENING);
    loop {
        let mut command = OPEN_PROJECTION.call(6, 3, 512);
        keys.write_all(&mut command);
        command.write_arg(keys.document("").as_bytes());
        command.write_arg(keys.fields("").as_bytes());
        command.write_arg_fmt(id.version());
        command.write_arg(names.join(" ").as_bytes());
        command.write_arg(if only_first { b"1" } else { b"" });
        let reply = ask(parts, OPENING, &command, Some(&OPEN_PROJECTION)).await?;
        let mut values = wire::array(reply).map_err(&unreadable)?.into_iter();
        let status = values.next().ok_or("nothing").map_err(&unreadable)?;
        match wire::integer(&status).map_err(&unreadable)? {
            open_projection_status::OPEN => {
                let fields = values.next().unwrap_or(Value::Nil);
                return versions(fields).map_err(&unreadable);
            }
            open_projection_status::DROPPING => {
                // Whoever has begun to drop it was broken off.
                if let Err(ServeError::Store(error)) = drop(parts, id).await {
                    return Err(error);
                }
            }
            open_projection_status::FORBIDDEN => {
                let command = values.next().unwrap_or(Value::Nil);
                let command = wire::text(&command).map_err(&unreadable)?.to_owned();
                return Err(UnexpectedReply::Forbidden {
                    feed: keys.versions.clone(),
                    command,
                }
                .refused(OPENING));
            }
            _ => return Err(unreadable("an unknown status")),
        }
    }
}

/// The versions there are.
pub(crate) async fn list(parts: &Parts, name: &str) -> Result<ProjectionVersions, StoreError> {
    let mut command = redis::cmd("HGETALL");
    command.arg(parts.keys.projection_versions(name));
    let reply = ask(parts, LISTING, &command, None).await?;
    versions(reply).map_err(unreadable(LISTING))
}

/// The version that is read.
pub(crate) async fn served(parts: &Parts, name: &str) -> Result<Option<u32>, StoreError> {
    let mut command = redis::cmd("HGET");
    command
        .arg(parts.keys.projection_versions(name))
        .arg("served");
    match ask(parts, LISTING, &command, None).await? {
        Value::Nil => Ok(None),
        served => number(&served).map(Some).map_err(unreadable(LISTING)),
    }
}

fn number(value: &Value) -> Result<u32, Unreadable> {
    wire::text(value)?.parse().map_err(|_| "no version")
}

fn versions(fields: Value) -> Result<ProjectionVersions, Unreadable> {
    let mut versions = ProjectionVersions::default();
    for (field, value) in pairs(fields)? {
        if field == "served" {
            versions.served = Some(value.parse().map_err(|_| "no version")?);
            continue;
        }
        let mut words = value.split(' ');
        let is_live = match words.next() {
            Some("live") => true,
            Some("filling") => false,
            // Somebody drops it.
            _ => continue,
        };
        let categories = words.filter(|word| !word.is_empty());
        let categories = categories.map(|word| Category::new(word.to_owned()));
        let version = ProjectionVersion {
            categories: categories
                .collect::<Result<_, _>>()
                .map_err(|_| "no category")?,
            is_live,
        };
        let number = field.parse().map_err(|_| "no version")?;
        versions.versions.insert(number, version);
    }
    Ok(versions)
}

/// The fields of a hash, as RESP2 and RESP3 have it.
fn pairs(fields: Value) -> Result<BTreeMap<String, String>, Unreadable> {
    let fields = match fields {
        Value::Map(pairs) => pairs.into_iter().flat_map(|(a, b)| [a, b]).collect(),
        other => wire::array(other)?,
    };
    let pair = |pair: &[Value]| match pair {
        [field, value] => Ok((wire::text(field)?.to_owned(), wire::text(value)?.to_owned())),
        _ => Err("a field without a value"),
    };
    fields.chunks(2).map(pair).collect()
}

/// Has a version be the one that is read.
pub(crate) async fn serve(parts: &Parts, id: &ProjectionId) -> Result<Option<u32>, ServeError> {
    let unreadable = unreadable(SERVING);
    let mut command = SERVE.call(1, 1, 256);
    command.write_arg(parts.keys.projection_versions(id.name()).as_bytes());
    command.write_arg_fmt(id.version());
    let reply = ask(parts, SERVING, &command, Some(&SERVE)).await?;
    match wire::array(reply).map_err(&unreadable)?.as_slice() {
        [Value::Int(1), before, ..] if *before != Value::Nil => {
            Ok(Some(number(before).map_err(&unreadable)?))
        }
        [Value::Int(1), ..] => Ok(None),
        _ => Err(ServeError::Unknown { id: id.clone() }),
    }
}

/// Has a version be the one that is read, once it has caught up with the one that is read now.
pub(crate) async fn switch(
    parts: &Parts,
    id: &ProjectionId,
    served: u32,
) -> Result<bool, ServeError> {
    let unreadable = unreadable(SWITCHING);
    let read = ProjectionId::new(id.name(), served).map_err(|_| unreadable("no name"))?;
    let (keys, read) = (parts.keys.projection(id), parts.keys.projection(&read));
    let mut command = SWITCH.call(3, 2, 256);
    for key in [&keys.versions, &keys.checkpoints, &read.checkpoints] {
        command.write_arg(key.as_bytes());
    }
    command.write_arg_fmt(id.version());
    command.write_arg_fmt(served);
    let reply = ask(parts, SWITCHING, &command, Some(&SWITCH)).await?;
    match wire::integer(&reply).map_err(&unreadable)? {
        switch_status::SWITCHED => Ok(true),
        switch_status::BEHIND => Ok(false),
        switch_status::UNKNOWN => Err(ServeError::Unknown { id: id.clone() }),
        _ => Err(unreadable("an unknown status").into()),
    }
}

/// Removes a version, some keys at a time.
pub(crate) async fn drop(parts: &Parts, id: &ProjectionId) -> Result<bool, ServeError> {
    let unreadable = unreadable(DROPPING);
    let keys = parts.keys.projection(id);
    let mut names: Vec<String> = Vec::new();
    loop {
        let mut command = DROP.call(
            4 + 2 * names.len(),
            2 + names.len(),
            256 + 256 * names.len(),
        );
        keys.write_all(&mut command);
        for name in &names {
            command.write_arg(keys.document(name).as_bytes());
            command.write_arg(keys.fields(name).as_bytes());
        }
        command.write_arg_fmt(id.version());
        command.write_arg_fmt(AT_ONCE);
        for name in &names {
            command.write_arg(name.as_bytes());
        }
        let reply = ask(parts, DROPPING, &command, Some(&DROP)).await?;
        let mut values = wire::array(reply).map_err(&unreadable)?.into_iter();
        let status = values.next().ok_or("nothing").map_err(&unreadable)?;
        match wire::integer(&status).map_err(&unreadable)? {
            drop_status::DROPPED => return Ok(true),
            drop_status::MORE => {
                let left = wire::array(values.next().unwrap_or(Value::Nil));
                names = texts(left.map_err(&unreadable)?).map_err(&unreadable)?;
            }
            drop_status::SERVED => return Err(ServeError::Served { id: id.clone() }),
            // Perhaps somebody else has dropped it meanwhile.
            drop_status::UNKNOWN => return Ok(!names.is_empty()),
            _ => return Err(unreadable("an unknown status").into()),
        }
    }
}

fn texts(values: Vec<Value>) -> Result<Vec<String>, Unreadable> {
    let text = |value: &Value| Ok(wire::text(value)?.to_owned());
    values.iter().map(text).collect()
}

/// Makes an instance the one that fills a version.
pub(crate) async fn hold(
    parts: &Parts,
    id: &ProjectionId,
    instance: &str,
    lease: Duration,
) -> Result<bool, StoreError> {
    let command = holding(parts, id, instance, lease.as_millis().max(1));
    let reply = ask(parts, HOLDING, &command, Some(&HOLD)).await?;
    Ok(wire::integer(&reply).map_err(unreadable(HOLDING))? == 1)
}

/// Gives that back.
pub(crate) async fn release(
    parts: &Parts,
    id: &ProjectionId,
    instance: &str,
) -> Result<(), StoreError> {
    let command = holding(parts, id, instance, 0);
    ask(parts, RELEASING, &command, Some(&HOLD)).await?;
    Ok(())
}

fn holding(parts: &Parts, id: &ProjectionId, instance: &str, milliseconds: u128) -> Cmd {
    let keys = parts.keys.projection(id);
    let mut command = HOLD.call(2, 3, 256);
    command.write_arg(keys.versions.as_bytes());
    command.write_arg(keys.holder.as_bytes());
    command.write_arg_fmt(id.version());
    command.write_arg(instance.as_bytes());
    command.write_arg_fmt(milliseconds);
    command
}

/// Up to where a partition is in the state.
pub(crate) async fn checkpoint(
    parts: &Parts,
    id: &ProjectionId,
    partition: &Partition,
) -> Result<Position, StoreError> {
    let mut command = redis::cmd("HGET");
    command.arg(parts.keys.projection(id).checkpoints);
    command.arg(partition.to_string());
    match ask(parts, LOOKING, &command, None).await? {
        Value::Nil => Ok(Position::START),
        found => position(&found).map_err(unreadable(LOOKING)),
    }
}

fn position(value: &Value) -> Result<Position, Unreadable> {
    wire::slice(value).and_then(wire::position)
}

/// Writes what a piece of a partition leads to.
pub(crate) async fn apply(
    parts: &Parts,
    id: &ProjectionId,
    partition: &Partition,
    step: &ProjectionStep,
) -> Result<(), ApplyError> {
    let unreadable = unreadable(APPLYING);
    let keys = parts.keys.projection(id);
    let mut command = APPLY.call(key_count(&step.writes), 0, 256 + 128 * step.writes.len());
    write_keys(&mut command, &keys, &step.writes);
    command.write_arg_fmt(step.from);
    command.write_arg_fmt(step.to);
    write_arguments(&mut command, id, partition, &step.writes);
    let reply = ask(parts, APPLYING, &command, Some(&APPLY)).await?;
    let values = wire::array(reply).map_err(&unreadable)?;
    let text = |index: usize| -> Result<String, StoreError> {
        let value = values.get(index).ok_or("a status alone");
        let text = value.and_then(wire::text).map_err(&unreadable)?;
        Ok(text.to_owned())
    };
    match values.first().map(wire::integer) {
        Some(Ok(apply_status::WRITTEN)) => Ok(()),
        Some(Ok(apply_status::MOVED)) => {
            let checkpoint = values.get(1).ok_or("a status alone").and_then(position);
            Err(ApplyError::Moved {
                checkpoint: checkpoint.map_err(&unreadable)?,
            })
        }
        Some(Ok(apply_status::NO_COUNT)) => Err(ApplyError::NotACount {
            key: text(1)?,
            field: text(2)?,
        }),
        Some(Ok(apply_status::UNKNOWN)) => Err(ApplyError::Unknown { id: id.clone() }),
        _ => Err(unreadable("an unknown status").into()),
    }
}

/// How many keys a script is given for some writes.
pub(crate) fn key_count(writes: &ProjectionWrites) -> usize {
    3 + 2 * writes.len()
}

/// Adds these keys: see project.lua.
pub(crate) fn write_keys(command: &mut Cmd, keys: &ProjectionKeys, writes: &ProjectionWrites) {
    command.write_arg(keys.versions.as_bytes());
    command.write_arg(keys.checkpoints.as_bytes());
    command.write_arg(keys.names.as_bytes());
    for (key, _) in writes.iter() {
        keys.write_document(command, key);
        keys.write_fields(command, key);
    }
}

/// Adds the arguments: see project.lua.
pub(crate) fn write_arguments(
    command: &mut Cmd,
    id: &ProjectionId,
    partition: &Partition,
    writes: &ProjectionWrites,
) {
    command.write_arg_fmt(id.version());
    command.write_arg_fmt(partition);
    command.write_arg_fmt(writes.len());
    // In the order of the keys.
    for (key, of_key) in writes.iter() {
        command.write_arg(key.as_bytes());
        command.write_arg(if of_key.removed { b"1" } else { b"0" });
        match &of_key.document {
            Some(document) => {
                command.write_arg(b"1");
                command.write_arg(document.as_bytes());
            }
            None => command.write_arg(b"0"),
        }
        let fields = || of_key.fields.iter();
        let count = |is: fn(&FieldWrite) -> bool| fields().filter(|(_, write)| is(write)).count();
        command.write_arg_fmt(count(|write| matches!(write, FieldWrite::Increment(_))));
        for (field, write) in fields() {
            if let FieldWrite::Increment(by) = write {
                command.write_arg(field.as_bytes());
                command.write_arg_fmt(by);
            }
        }
        command.write_arg_fmt(count(|write| matches!(write, FieldWrite::Set(_))));
        for (field, write) in fields() {
            if let FieldWrite::Set(value) = write {
                command.write_arg(field.as_bytes());
                command.write_arg(value.as_bytes());
            }
        }
        command.write_arg_fmt(count(|write| matches!(write, FieldWrite::Remove)));
        for (field, write) in fields() {
            if *write == FieldWrite::Remove {
                command.write_arg(field.as_bytes());
            }
        }
    }
}

/// The document of a key.
pub(crate) async fn document(
    parts: &Parts,
    id: &ProjectionId,
    key: &str,
) -> Result<Option<String>, StoreError> {
    let mut command = redis::cmd("GET");
    command.arg(parts.keys.projection(id).document(key));
    optional(ask(parts, READING, &command, None).await?)
}

/// A field of a key.
pub(crate) async fn field(
    parts: &Parts,
    id: &ProjectionId,
    key: &str,
    field: &str,
) -> Result<Option<String>, StoreError> {
    let mut command = redis::cmd("HGET");
    command
        .arg(parts.keys.projection(id).fields(key))
        .arg(field);
    optional(ask(parts, READING, &command, None).await?)
}

fn optional(reply: Value) -> Result<Option<String>, StoreError> {
    match reply {
        Value::Nil => Ok(None),
        found => {
            let text = wire::text(&found).map_err(unreadable(READING))?;
            Ok(Some(text.to_owned()))
        }
    }
}

/// All fields of a key.
pub(crate) async fn fields(
    parts: &Parts,
    id: &ProjectionId,
    key: &str,
) -> Result<BTreeMap<String, String>, StoreError> {
    let mut command = redis::cmd("HGETALL");
    command.arg(parts.keys.projection(id).fields(key));
    let reply = ask(parts, READING, &command, None).await?;
    pairs(reply).map_err(unreadable(READING))
}

/// The keys that have something.
pub(crate) async fn keys(
    parts: &Parts,
    id: &ProjectionId,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let mut command = redis::cmd("ZRANGE");
    command.arg(parts.keys.projection(id).names);
    match after {
        Some(after) => command.arg(format!("({after}")),
        None => command.arg("-"),
    };
    command.arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
    let reply = ask(parts, READING, &command, None).await?;
    let names = wire::array(reply).and_then(texts);
    names.map_err(unreadable(READING))
}

/// Up to where a partition is in everything that is made of it.
pub(crate) async fn checkpoints(
    parts: &Parts,
    partition: &Partition,
) -> Result<Vec<ProjectionCheckpoint>, StoreError> {
    let mut command = redis::cmd("SMEMBERS");
    command.arg(parts.keys.projections());
    let reply = match ask(parts, LOOKING, &command, None).await? {
        Value::Set(names) => Value::Array(names),
        other => other,
    };
    let names = wire::array(reply).and_then(texts);
    let mut found = Vec::new();
    for name in names.map_err(unreadable(LOOKING))? {
        for (version, known) in list(parts, &name).await?.versions {
            if !known.categories.contains(partition.category()) {
                continue;
            }
            let id = ProjectionId::new(name.as_str(), version);
            let id = id.map_err(|_| unreadable(LOOKING)("no name of a projection"))?;
            let position = checkpoint(parts, &id, partition).await?;
            found.push(ProjectionCheckpoint { id, position });
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// How many entries of a partition lie after a position.
pub(crate) async fn entries_after(
    parts: &Parts,
    partition: &Partition,
    after: Position,
) -> Result<u64, StoreError> {
    if after == Position::START {
        let mut command = redis::cmd("XLEN");
        command.arg(parts.keys.of(partition).feed());
        let reply = ask(parts, COUNTING, &command, None).await?;
        return wire::count(&reply).map_err(unreadable(COUNTING));
    }
    let counted = start::count(parts, COUNTING, partition, after).await?;
    Ok(counted.added.saturating_sub(counted.passed))
}
