//! Outboxes: what was emitted to feeds in other slots, on its way there.
//!
//! A script touches the keys of one slot. So what is emitted to another is recorded in an outbox beside
//! the progress, by the script that stores both, and is delivered from there by a
//! [courier](crate::courier). The records of an outbox are numbered from 1 without holes, and the target
//! remembers up to which number it has them, so that each is delivered once.

use std::collections::HashMap;

use event_core::{AggregateId, AppendError, AppendedEvent, FeedEntry, Partition, StoreError};
use redis::{Cmd, RedisWrite, Value};
use serde::Deserialize;
use uuid::Uuid;

use crate::append::{refusal, write_flags};
use crate::connection::Request;
use crate::emissions;
use crate::error::UnexpectedReply;
use crate::keys::FeedKeys;
use crate::scripts::{DELIVER, READ_OUTBOX, deliver_status};
use crate::store::Parts;
use crate::wire::{self, Unreadable};

/// Records that are delivered at once, and how many events and about how many bytes they may have. Nothing
/// else is done by the server meanwhile.
pub(crate) const BATCH: usize = 256;
const BATCH_EVENTS: usize = 1_000;
const BATCH_BYTES: usize = 1024 * 1024;

/// Entries of a feed among which an event is looked for that was just delivered.
const PAGE: usize = 500;
const PAGES: usize = 10;

const DELIVERING: &str = "deliver";

/// What one append has emitted, or a part of it.
pub(crate) struct Record {
    pub(crate) number: u64,
    /// The aggregate, and itself as JSON up to its version.
    aggregate: Option<(AggregateId, Vec<u8>)>,
    /// What the script wants of each event, one event after the other.
    values: Vec<Vec<u8>>,
    count: usize,
    publishes: bool,
}

/// What has come of a delivery.
pub(crate) enum Delivered {
    /// Everything up to this number is delivered now.
    UpTo(u64),
    /// Nothing was stored: only what is up to this number was delivered before.
    Gap(u64),
    /// Nothing was stored: this record is refused, counted from 0.
    Refused(usize, AppendError),
}

/// Drops what was delivered from an outbox, and reads what comes next: as far as it can be delivered
/// at once.
pub(crate) async fn take(
    parts: &Parts,
    outbox: &str,
    target: &Partition,
    delivered: u64,
    most: usize,
) -> Result<Vec<Record>, StoreError> {
    let mut command = READ_OUTBOX.call(1, 3, 256);
    command.write_arg(outbox.as_bytes());
    command.write_arg_fmt(delivered);
    command.write_arg_fmt(most);
    command.write_arg_fmt(BATCH_BYTES);
    let request = Request::Command(&command);
    let reply = parts
        .connections
        .ask(DELIVERING, request, Some(&READ_OUTBOX));
    let entries = wire::array(reply.await?).map_err(|what| {
        UnexpectedReply::form("EVALSHA read_outbox.lua", what).refused(DELIVERING)
    })?;
    // The first one alone can stop the others.
    let id = entries.first().map(id_of).unwrap_or_default();
    records(target, entries).map_err(|what| {
        let outbox = outbox.to_owned();
        UnexpectedReply::Record { outbox, id, what }.refused(DELIVERING)
    })
}

/// The id of a record, be it readable or not.
fn id_of(entry: &Value) -> String {
    let id = match entry {
        Value::Array(parts) => parts.first().and_then(|id| wire::slice(id).ok()),
        _ => None,
    };
    id.map_or_else(String::new, |id| String::from_utf8_lossy(id).into_owned())
}

/// The first of some records that follow on each other and are of one kind.
fn records(target: &Partition, entries: Vec<Value>) -> Result<Vec<Record>, Unreadable> {
    let mut records: Vec<Record> = Vec::with_capacity(entries.len());
    let mut events = 0;
    for entry in entries {
        let record = match record(target, entry) {
            Ok(record) => record,
            // Those before it can be delivered.
            Err(what) if records.is_empty() => return Err(what),
            Err(_) => break,
        };
        events += record.count;
        if let Some(last) = records.last()
            && (record.number != last.number + 1
                || record.publishes != last.publishes
                || events > BATCH_EVENTS)
        {
            break;
        }
        records.push(record);
    }
    Ok(records)
}

fn record(target: &Partition, entry: Value) -> Result<Record, Unreadable> {
    let mut entry = wire::array(entry)?.into_iter();
    let (Some(id), Some(fields)) = (entry.next(), entry.next()) else {
        return Err("a record of too few parts");
    };
    let number = wire::position(wire::slice(&id)?)?.milliseconds();
    let mut fields = wire::array(fields)?.into_iter();
    let (mut names, mut values) = (Vec::new(), Vec::new());
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        names.push(wire::bytes(name)?);
        values.push(wire::bytes(value)?);
    }
    let aggregate = match names.first().map(Vec::as_slice) {
        Some(b"aggregate") => {
            names.remove(0);
            let head = values.remove(0);
            Some((aggregate(target, &head)?, head))
        }
        _ => None,
    };
    let publishes = names.iter().any(|name| name == b"message");
    let mut wanted: Vec<&[u8]> = vec![b"type", b"payload", b"metadata"];
    if aggregate.is_some() {
        wanted.extend([b"id".as_slice(), b"history"]);
    }
    if publishes {
        wanted.push(b"message");
    }
    if names.is_empty() || !names.chunks(wanted.len()).all(|names| *names == *wanted) {
        return Err("a record of other fields");
    }
    Ok(Record {
        number,
        aggregate,
        count: values.len() / wanted.len(),
        values,
        publishes,
    })
}

/// The aggregate that an entry's field begins with, up to its version.
fn aggregate(target: &Partition, head: &[u8]) -> Result<AggregateId, Unreadable> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "type")]
        aggregate_type: String,
        id: String,
    }

    let whole = [head, b"0}"].concat();
    let head: Head = serde_json::from_slice(&whole).map_err(|_| "an aggregate that is none")?;
    AggregateId::new(target.category().clone(), head.aggregate_type, head.id)
        .map_err(|_| "an aggregate that cannot be")
}

/// Stores records in their feed that were not delivered yet. `accepted` says that what lies between this
/// number, which was delivered last, and the first of these records is lost.
pub(crate) async fn deliver(
    parts: &Parts,
    from: &str,
    target: &FeedKeys,
    records: &[Record],
    accepted: Option<u64>,
) -> Result<Delivered, StoreError> {
    let Some(first) = records.first() else {
        return Ok(Delivered::UpTo(0));
    };
    let publishes = first.publishes;
    let opens = !target.is_opened();
    let bytes = records.iter().flat_map(|record| &record.values);
    let bytes: usize = bytes.map(|value| value.len() + 16).sum();
    let histories = records.iter().filter(|record| record.aggregate.is_some());
    let key_count = 2 + usize::from(opens) + usize::from(publishes) + histories.count();
    let arguments = records.iter().map(|record| 4 + record.values.len());
    let argument_count = 6 + arguments.sum::<usize>();
    let mut command = DELIVER.call(key_count, argument_count, 512 + bytes);

    command.write_arg(target.delivered().as_bytes());
    command.write_arg(target.feed().as_bytes());
    if opens {
        command.write_arg(target.format().as_bytes());
    }
    if publishes {
        command.write_arg(target.published().as_bytes());
    }
    for (aggregate, _) in records
        .iter()
        .filter_map(|record| record.aggregate.as_ref())
    {
        target.write_history(&mut command, aggregate);
    }

    command.write_arg(from.as_bytes());
    command.write_arg_fmt(first.number);
    match accepted {
        Some(accepted) => command.write_arg_fmt(accepted),
        None => command.write_arg(b""),
    }
    write_flags(
        &mut command,
        [
            (b'r', parts.replication.is_some()),
            (b'd', !parts.checks.delivered),
        ],
    );
    command.write_arg_fmt(records.len());
    write_flags(&mut command, [(b'f', opens), (b'p', publishes)]);
    for (run, record) in records.iter().enumerate() {
        write(run, record, &mut command);
    }

    let is_stored = |status| status == deliver_status::STORED;
    let reply = emissions::ask_replicated(parts, DELIVERING, command, &DELIVER, is_stored).await?;
    decode(target, reply)
        .map_err(|what| UnexpectedReply::form("EVALSHA deliver.lua", what).refused(DELIVERING))
}

fn write(run: usize, record: &Record, command: &mut Cmd) {
    command.write_arg_fmt(run);
    command.write_arg(b"1");
    let head = record.aggregate.as_ref();
    command.write_arg(head.map_or(b"", |(_, head)| head));
    command.write_arg_fmt(record.count);
    for value in &record.values {
        command.write_arg(value);
    }
}

fn decode(target: &FeedKeys, reply: Value) -> Result<Delivered, Unreadable> {
    let status = emissions::status(&reply).ok_or("no status")?;
    let values = wire::array(reply)?;
    match (status, values.as_slice()) {
        (deliver_status::STORED, [_, delivered, failure]) => {
            target.set_opened();
            let failure = wire::text(failure)?;
            if !failure.is_empty() {
                tracing::warn!(feed = target.feed(), %failure, "an event was emitted, but not published");
            }
            Ok(Delivered::UpTo(wire::count(delivered)?))
        }
        (deliver_status::GAP, [_, delivered]) => Ok(Delivered::Gap(wire::count(delivered)?)),
        (deliver_status::REFUSED, [_, record, reason, text, ..]) => {
            let record = usize::try_from(wire::count(record)?).map_err(|_| "too large a number")?;
            let text = String::from_utf8_lossy(wire::slice(text)?).into_owned();
            let error = refusal(DELIVERING, target, wire::integer(reason)?, text);
            Ok(Delivered::Refused(record, error))
        }
        _ => Err("an unknown status"),
    }
}

/// Finds events in their feed that were just delivered, as far as they can be found among the newest.
pub(crate) async fn find(
    parts: &Parts,
    operation: &'static str,
    target: &Partition,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, AppendedEvent>, StoreError> {
    let keys = parts.keys.of(target);
    let mut found = HashMap::new();
    let mut before = "+".to_owned();
    for _ in 0..PAGES {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(keys.feed()).arg(&before).arg("-");
        command.arg("COUNT").arg(PAGE);
        let request = Request::Command(&command);
        let reply = parts.connections.ask(operation, request, None).await?;
        let entries = wire::feed_entries(target, reply)
            .map_err(|what| UnexpectedReply::form("XREVRANGE", what).refused(operation))?;
        let Some(last) = entries.last() else {
            break;
        };
        before = format!("({}", last.position());
        for entry in entries {
            let FeedEntry::Event(event) = entry else {
                continue;
            };
            let event_id = event.metadata().event_id;
            if ids.contains(&event_id) {
                let place = AppendedEvent {
                    position: event.position(),
                    version: event.aggregate().map_or(0, |aggregate| aggregate.version),
                    repeated: false,
                };
                found.insert(event_id, place);
            }
        }
        if found.len() >= ids.len() {
            break;
        }
    }
    Ok(found)
}
