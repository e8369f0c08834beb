//! Groups: which instances there are, and which of them owns which partition.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use event_core::codec::entry;
use event_core::{
    Acquired, GroupBatch, GroupReader, Lease, Member, Open, Partition, Position, Progress,
    ReadError, Start, StoreError, Wanted,
};
use redis::{Cmd, Pipeline, RedisWrite, Value};
use tokio::time::timeout;

use crate::connection::Request;
use crate::error::{UnexpectedReply, refused};
use crate::reader::{Changes, Reader};
use crate::scripts::{ACQUIRE, JOIN, OPEN, RELEASE, RENEW, Script, acquire_status};
use crate::start::StartFrom;
use crate::store::Parts;
use crate::trim;
use crate::wire::{self, Unreadable};

const JOINING: &str = "join";
const LEAVING: &str = "leave";
const LISTING: &str = "members";
const OPENING: &str = "open";
const ACQUIRING: &str = "acquire";
const RENEWING: &str = "renew";
const RELEASING: &str = "release";
const OWNING: &str = "owner";
const READING: &str = "group_reader";

/// For how long is waited for the node that knows a group's changes, which may be another than that of a
/// partition: readers notice changes by themselves, only later.
const TELLING: Duration = Duration::from_secs(1);

/// How many of a group's changes are kept, about. Readers only want to know that there are new ones.
const CHANGES: &str = "100";

/// Says that an instance is there, and gives all that are.
pub(crate) async fn join(
    parts: &Parts,
    group: &str,
    instance: &str,
    lease: Duration,
) -> Result<Vec<Member>, StoreError> {
    let mut command = JOIN.call(2, 2, 256);
    command.write_arg(parts.keys.members(group).as_bytes());
    command.write_arg(parts.keys.changes(group).as_bytes());
    command.write_arg(instance.as_bytes());
    command.write_arg_fmt(lease.as_millis());
    let reply = call(parts, JOINING, &command, &JOIN).await?;
    parse_members(reply)
        .map_err(|what| UnexpectedReply::form("EVALSHA join.lua", what).refused(JOINING))
}

/// The instances of a group that are there.
pub(crate) async fn members(parts: &Parts, group: &str) -> Result<Vec<Member>, StoreError> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline
        .cmd("ZRANGE")
        .arg(parts.keys.members(group))
        .arg("0")
        .arg("-1")
        .arg("WITHSCORES");
    pipeline.cmd("TIME");
    let [members, time] = two(parts, LISTING, &pipeline).await?;
    for reply in [&members, &time] {
        if let Value::ServerError(error) = reply {
            return Err(refused(LISTING, error.clone().into()));
        }
    }
    let unreadable = |what| UnexpectedReply::form("ZRANGE", what).refused(LISTING);
    let now = milliseconds(time).map_err(unreadable)?;
    let mut there = Vec::new();
    for member in wire::array(members).map_err(unreadable)?.chunks_exact(2) {
        let until = number(&member[1]).map_err(unreadable)?;
        if until > now {
            there.push(Member {
                instance: wire::text(&member[0]).map_err(unreadable)?.to_owned(),
                remaining: Duration::from_millis(until - now),
            });
        }
    }
    there.sort_by(|a, b| a.instance.cmp(&b.instance));
    Ok(there)
}

fn parse_members(reply: Value) -> Result<Vec<Member>, Unreadable> {
    let mut members = Vec::new();
    let mut values = wire::array(reply)?.into_iter();
    while let (Some(instance), Some(remaining)) = (values.next(), values.next()) {
        members.push(Member {
            instance: wire::text(&instance)?.to_owned(),
            remaining: Duration::from_millis(wire::count(&remaining)?),
        });
    }
    members.sort_by(|a, b| a.instance.cmp(&b.instance));
    Ok(members)
}

/// Says that an instance has gone.
pub(crate) async fn leave(parts: &Parts, group: &str, instance: &str) -> Result<(), StoreError> {
    let mut command = redis::cmd("ZREM");
    command.arg(parts.keys.members(group)).arg(instance);
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline
        .add_command(command)
        .add_command(change(parts, group, "members"));
    let request = Request::Pipeline(&pipeline);
    let replies = parts.connections.ask(LEAVING, request, None).await?;
    for reply in wire::array(replies).unwrap_or_default() {
        if let Value::ServerError(error) = reply {
            return Err(refused(LEAVING, error.into()));
        }
    }
    Ok(())
}

/// The command that wakes the readers of a group.
fn change(parts: &Parts, group: &str, what: &str) -> Cmd {
    let mut command = redis::cmd("XADD");
    command
        .arg(parts.keys.changes(group))
        .arg("MAXLEN")
        .arg("~")
        .arg(CHANGES)
        .arg("*")
        .arg("change")
        .arg(what);
    command
}

/// Tells the readers of a group that something has changed. Said once too often it does no harm, so
/// it is said whatever came of the change: the reply to that may have been lost before.
pub(crate) async fn announce(
    parts: &Parts,
    operation: &'static str,
    group: &str,
    what: &str,
) -> Result<(), StoreError> {
    let command = change(parts, group, what);
    let request = Request::Command(&command);
    parts.connections.ask(operation, request, None).await?;
    Ok(())
}

/// Makes the group known for a partition.
pub(crate) async fn open(
    parts: &Parts,
    group: &str,
    partition: &Partition,
    start: Start,
) -> Result<Progress, StoreError> {
    let keys = parts.keys.of(partition);
    let progress_key = keys.group(group).progress;
    let mut from = StartFrom::new(start);
    loop {
        let mut command = OPEN.call(4, 1 + StartFrom::ARGUMENTS, 256);
        for key in [&progress_key, keys.feed(), keys.groups(), keys.trimmed()] {
            command.write_arg(key.as_bytes());
        }
        command.write_arg(group.as_bytes());
        from.write(&mut command);
        let reply = call(parts, OPENING, &command, &OPEN).await?;
        let unreadable = |what| UnexpectedReply::form("EVALSHA open.lua", what).refused(OPENING);
        let values = wire::array(reply).map_err(unreadable)?;
        match values.as_slice() {
            [] => from = from.counted(parts, OPENING, partition).await?,
            [up_to] => return Err(trim::gone(partition, up_to).map_err(unreadable)?),
            _ => return progress(&values).map_err(unreadable),
        }
    }
}

fn progress(values: &[Value]) -> Result<Progress, Unreadable> {
    let [checkpoint, event_id, reached, open, ..] = values else {
        return Err("a progress with too few parts");
    };
    Ok(Progress {
        checkpoint: wire::position(wire::slice(checkpoint)?)?,
        event_id: match wire::text(event_id)? {
            "" => None,
            id => Some(id.parse().map_err(|_| "the event's id is no uuid")?),
        },
        reached: wire::position(wire::slice(reached)?)?,
        open: serde_json::from_slice::<Vec<Open>>(wire::slice(open)?)
            .map_err(|_| "what is open is not in the stored form")?,
    })
}

/// Makes an instance the owner of a partition, unless another owns it.
pub(crate) async fn acquire(
    parts: &Parts,
    group: &str,
    partition: &Partition,
    instance: &str,
    lease: Duration,
) -> Result<Acquired, StoreError> {
    let keys = parts.keys.of(partition);
    let of_group = keys.group(group);
    let mut command = ACQUIRE.call(5, 2, 512);
    command.write_arg(of_group.progress.as_bytes());
    command.write_arg(keys.feed().as_bytes());
    command.write_arg(of_group.dead.as_bytes());
    command.write_arg(of_group.dead_order.as_bytes());
    command.write_arg(of_group.dead_raw.as_bytes());
    command.write_arg(instance.as_bytes());
    command.write_arg_fmt(lease.as_millis());
    let reply = call(parts, ACQUIRING, &command, &ACQUIRE).await?;

    let unreadable = |what| UnexpectedReply::form("EVALSHA acquire.lua", what).refused(ACQUIRING);
    let values = wire::array(reply).map_err(unreadable)?;
    let status = values.first().map_or(Ok(-1), wire::integer);
    match (status.map_err(unreadable)?, values.as_slice()) {
        (acquire_status::OWNED, [_, epoch, progress @ .., lost, entry]) => {
            let lease = Lease {
                group: group.into(),
                partition: partition.clone(),
                instance: instance.into(),
                epoch: wire::count(epoch).map_err(unreadable)?,
            };
            let progress = self::progress(progress).map_err(unreadable)?;
            let is_other = is_other(partition, &progress, entry).map_err(unreadable)?;
            let history_lost = is_other || wire::integer(lost).map_err(unreadable)? == 1;
            Ok(Acquired::Yes {
                lease,
                progress,
                history_lost,
            })
        }
        (acquire_status::REFUSED, [_, remaining]) => Ok(Acquired::No {
            remaining: Duration::from_millis(wire::count(remaining).map_err(unreadable)?),
        }),
        (acquire_status::FORBIDDEN, [_, command]) => {
            let feed = keys.feed().to_owned();
            let command = wire::text(command).map_err(unreadable)?.to_owned();
            Err(UnexpectedReply::Forbidden { feed, command }.refused(ACQUIRING))
        }
        _ => Err(unreadable("an unknown status")),
    }
}

/// Whether the entry at the checkpoint is another than the one that was handled. `entries` has it, if
/// there is one.
fn is_other(
    partition: &Partition,
    progress: &Progress,
    entries: &Value,
) -> Result<bool, Unreadable> {
    let Some(handled) = progress.event_id else {
        return Ok(false);
    };
    let Some((position, fields)) = wire::first_entry(entries)? else {
        return Ok(false);
    };
    let found = entry::decode(partition, position, &fields);
    Ok(found.map_or(true, |event| event.metadata().event_id != handled))
}

/// Prolongs a lease; `false` where it is lost.
pub(crate) async fn renew(
    parts: &Parts,
    lease: &Lease,
    duration: Duration,
) -> Result<bool, StoreError> {
    let mut command = owned(parts, lease, &RENEW, 1);
    command.write_arg_fmt(duration.as_millis());
    let reply = call(parts, RENEWING, &command, &RENEW).await?;
    let renewed = wire::integer(&reply)
        .map_err(|what| UnexpectedReply::form("EVALSHA renew.lua", what).refused(RENEWING))?;
    Ok(renewed == 1)
}

/// Gives a lease back.
pub(crate) async fn release(parts: &Parts, lease: &Lease) -> Result<(), StoreError> {
    let command = owned(parts, lease, &RELEASE, 0);
    call(parts, RELEASING, &command, &RELEASE).await?;
    let announcing = announce(parts, RELEASING, &lease.group, "released");
    match timeout(TELLING, announcing).await {
        Ok(announced) => announced,
        Err(_) => {
            tracing::warn!(
                partition = %lease.partition,
                "the group is not told that the partition is given back; it notices by itself"
            );
            Ok(())
        }
    }
}

/// The instance that owns a partition now.
pub(crate) async fn owner(
    parts: &Parts,
    group: &str,
    partition: &Partition,
) -> Result<Option<String>, StoreError> {
    let keys = parts.keys.of(partition);
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline
        .cmd("HMGET")
        .arg(keys.group(group).progress)
        .arg("owner")
        .arg("until");
    pipeline.cmd("TIME");
    let [owned, time] = two(parts, OWNING, &pipeline).await?;
    for reply in [&owned, &time] {
        if let Value::ServerError(error) = reply {
            return Err(refused(OWNING, error.clone().into()));
        }
    }
    let unreadable = |what| UnexpectedReply::form("HMGET", what).refused(OWNING);
    match wire::array(owned).map_err(unreadable)?.as_slice() {
        [Value::Nil, _] | [_, Value::Nil] => Ok(None),
        [owner, until] => {
            let owner = wire::text(owner).map_err(unreadable)?;
            let until = number(until).map_err(unreadable)?;
            let now = milliseconds(time).map_err(unreadable)?;
            Ok((!owner.is_empty() && until > now).then(|| owner.to_owned()))
        }
        _ => Err(unreadable("another number of fields")),
    }
}

/// A number that is kept as a text.
pub(crate) fn number(value: &Value) -> Result<u64, Unreadable> {
    wire::text(value)?
        .parse()
        .map_err(|_| "a number that is none")
}

/// The server's time, as it replies to `TIME`.
fn milliseconds(time: Value) -> Result<u64, Unreadable> {
    match wire::array(time)?.as_slice() {
        [seconds, micros] => Ok(number(seconds)? * 1_000 + number(micros)? / 1_000),
        _ => Err("a time of other parts"),
    }
}

/// Asks two things at once.
pub(crate) async fn two(
    parts: &Parts,
    operation: &'static str,
    pipeline: &Pipeline,
) -> Result<[Value; 2], StoreError> {
    let request = Request::Pipeline(pipeline);
    let reply = parts.connections.ask(operation, request, None).await?;
    wire::array(reply)
        .ok()
        .and_then(|replies| replies.try_into().ok())
        .ok_or_else(|| {
            UnexpectedReply::form("a pipeline", "another number of replies").refused(operation)
        })
}

/// A call of a script that takes the progress, the instance and the epoch.
fn owned(parts: &Parts, lease: &Lease, script: &Script, more: usize) -> Cmd {
    let keys = parts.keys.of(&lease.partition);
    let mut command = script.call(1, 2 + more, 256);
    command.write_arg(keys.group(&lease.group).progress.as_bytes());
    command.write_arg(lease.instance.as_bytes());
    command.write_arg_fmt(lease.epoch);
    command
}

async fn call(
    parts: &Parts,
    operation: &'static str,
    command: &Cmd,
    script: &Script,
) -> Result<Value, StoreError> {
    let request = Request::Command(command);
    parts
        .connections
        .ask(operation, request, Some(script))
        .await
}

/// Follows partitions for a group.
pub(crate) struct RedisGroupReader {
    reader: Reader,
}

impl RedisGroupReader {
    /// A reader that tells what changes in the group from now on.
    pub(crate) async fn new(parts: &Arc<Parts>, group: &str) -> Result<Self, StoreError> {
        let key = parts.keys.changes(group);
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&key).arg("+").arg("-").arg("COUNT").arg(1);
        let request = Request::Command(&command);
        let asking = parts.connections.ask(READING, request, None);
        let newest = match timeout(TELLING, asking).await {
            Ok(reply) => wire::last_position(reply?)
                .map_err(|what| UnexpectedReply::form("XREVRANGE", what).refused(READING))?,
            // Then it is told of older ones, too, which does no harm.
            Err(_) => None,
        };
        let changes = Changes {
            key,
            after: newest.unwrap_or(Position::START),
        };
        Ok(Self {
            reader: Reader::new(parts, READING, Some(changes)),
        })
    }
}

#[async_trait]
impl GroupReader for RedisGroupReader {
    async fn next(&mut self, wanted: &[Wanted]) -> Result<GroupBatch, ReadError> {
        Ok(self.reader.next(wanted).await?)
    }
}
