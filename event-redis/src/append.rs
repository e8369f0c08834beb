//! Appending: from an [`Append`] to the call of the script, and back.

use std::sync::Arc;
use std::time::Duration;

use event_core::codec::{entry, history};
use event_core::{
    AggregateId, Append, AppendError, Appended, AppendedEvent, AppendedProjected, CodecError, Done,
    Expected, InlineStep, Partition, StoreError, Target, encode_message_head,
};
use redis::{Cmd, RedisWrite, Value};

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::gathering::{Checked, Way, may_gather};
use crate::keys::FeedKeys;
use crate::scripts::{APPEND, APPEND_PROJECTED, Script, append_status, projected_status};
use crate::store::Parts;
use crate::wire::{self, Unreadable};
use crate::{lag, partitions, projections};

pub(crate) const OPERATION: &str = "append";
const FINDING: &str = "find_receipt";
const COMMAND: &str = "EVALSHA append.lua";

/// What the script takes for [`Expected::Any`] and [`Expected::Exists`].
const ANY: &str = "-1";
const EXISTS: &str = "-2";

/// Stores all events of `append`, or none.
pub(crate) async fn append(parts: &Parts, append: &Append) -> Result<Appended, AppendError> {
    let metadata = admit(parts, append).await?;
    if let Some(keys) = gathers(parts, append)? {
        let checked = || Checked {
            append: append.clone(),
            metadata: metadata.clone(),
        };
        match keys.appends().enter(parts.patience, checked).await {
            Way::Gone(outcome) => return outcome,
            Way::Lead(lead) => {
                let Some(all) = lead.together(append, &metadata) else {
                    return send(parts, append, &metadata).await;
                };
                let outcome = send(parts, &all.append, &all.metadata).await;
                if let Some(outcome) = lead.tell(outcome) {
                    return outcome;
                }
            }
            Way::Alone => {}
        }
    }
    send(parts, append, &metadata).await
}

/// Stores all events of `append`, or none, and writes to projections in the same step.
pub(crate) async fn append_projected(
    parts: &Parts,
    append: &Append,
    inline: &[InlineStep],
) -> Result<AppendedProjected, AppendError> {
    let metadata = admit(parts, append).await?;
    send_projected(parts, append, &metadata, inline).await
}

/// Checks an append, and waits where a group is too far behind. Gives the metadata as it is stored.
async fn admit(parts: &Parts, append: &Append) -> Result<Vec<String>, AppendError> {
    let metadata = append.check(&parts.limits)?;
    if !parts.backlogs.is_empty() {
        let count = partitions::count(parts, append.target().category()).await?;
        let partition = append.partition(count)?;
        let lag = |group: String, partition: Partition| async move {
            lag::backlog(parts, &group, &partition).await
        };
        parts
            .backlogs
            .admit(&partition, append.events().len(), lag)
            .await?;
    }
    Ok(metadata)
}

/// The keys of the feed where an append may go together with others: it is recognised where it comes
/// again, and it is known that all of them lie in one partition.
fn gathers(parts: &Parts, append: &Append) -> Result<Option<Arc<FeedKeys>>, AppendError> {
    let may = may_gather(append) && parts.limits.remembered_ids > 0 && parts.replication.is_none();
    let count = match may {
        true => parts.keys.settled(append.target().category()),
        false => None,
    };
    let partition = count.map(|count| append.partition(count)).transpose()?;
    Ok(partition.map(|partition| parts.keys.of(&partition)))
}

/// Stores all events of an append in one call, or none.
async fn send(
    parts: &Parts,
    append: &Append,
    metadata: &[String],
) -> Result<Appended, AppendError> {
    let stored = send_projected(parts, append, metadata, &[]).await?;
    Ok(stored.appended)
}

/// As [`send`], with what is written to projections.
async fn send_projected(
    parts: &Parts,
    append: &Append,
    metadata: &[String],
    inline: &[InlineStep],
) -> Result<AppendedProjected, AppendError> {
    let category = append.target().category();
    loop {
        let settled = parts.keys.settled(category);
        let partition = append.partition(settled.unwrap_or(1))?;
        let keys = parts.keys.of(&partition);
        let assumed = settled.is_none().then(|| parts.keys.partitions(category));
        let projected = Projected {
            partition: &partition,
            inline,
        };
        let command = encode(
            parts,
            &keys,
            assumed.as_deref(),
            append,
            metadata,
            &projected,
        )?;
        let script = script_for(inline);
        let reply = match &parts.replication {
            None => {
                parts
                    .connections
                    .ask(OPERATION, Request::Command(&command), Some(script))
                    .await?
            }
            Some(replication) => {
                let (reply, reached) = replication.ask(OPERATION, command, script).await?;
                let wanted = replication.wanted();
                if reached < wanted && holds_events(of_append(&reply, inline)) {
                    return Err(AppendError::NotReplicated { wanted, reached });
                }
                reply
            }
        };
        let (reply, behind) = behind_of(reply, inline)?;
        match decode(&keys, append, reply)? {
            Outcome::Appended(mut appended) => {
                keys.set_opened();
                if assumed.is_some() {
                    parts.keys.settle(category, 1);
                }
                appended.partition = Some(partition);
                return Ok(AppendedProjected { appended, behind });
            }
            // It is settled now, so that this happens once.
            Outcome::Partitions(count) => parts.keys.settle(category, count),
        }
    }
}

/// The projections that are written in the same step.
struct Projected<'a> {
    partition: &'a Partition,
    inline: &'a [InlineStep],
}

/// Ordinary appends have a script that knows nothing of projections.
fn script_for(inline: &[InlineStep]) -> &'static Script {
    match inline {
        [] => &APPEND,
        _ => &APPEND_PROJECTED,
    }
}

/// What the script says of the append itself.
fn of_append<'a>(reply: &'a Value, inline: &[InlineStep]) -> &'a Value {
    match reply {
        Value::Array(values) if !inline.is_empty() => values.first().unwrap_or(reply),
        _ => reply,
    }
}

/// What the script says of the append itself, and the projections that are behind.
fn behind_of(reply: Value, inline: &[InlineStep]) -> Result<(Value, Vec<usize>), StoreError> {
    if inline.is_empty() {
        return Ok((reply, Vec::new()));
    }
    let unreadable = |what| UnexpectedReply::form(COMMAND, what).refused(OPERATION);
    let mut values = wire::array(reply).map_err(unreadable)?.into_iter();
    let of_append = values.next().ok_or("nothing").map_err(unreadable)?;
    let is_behind = |value: &Value| *value == Value::Int(projected_status::BEHIND);
    let statuses = values.enumerate();
    let behind = statuses.filter_map(|(index, status)| is_behind(&status).then_some(index));
    Ok((of_append, behind.collect()))
}

/// What the script replies with, where it does not refuse.
enum Outcome {
    Appended(Appended),
    /// Nothing was stored: the category has so many partitions.
    Partitions(u32),
}

/// The call of the script: what its keys and arguments are, it says itself.
///
/// `assumed` is the key of the number of partitions, where it is taken to be one.
fn encode(
    parts: &Parts,
    keys: &FeedKeys,
    assumed: Option<&str>,
    append: &Append,
    metadata: &[String],
    projected: &Projected<'_>,
) -> Result<Cmd, AppendError> {
    let head = match append.target() {
        Target::Feed(_) => None,
        Target::Aggregate(aggregate) => Some((aggregate, entry::encode_aggregate_head(aggregate)?)),
    };
    let windowed = append.expected().exact().is_none() && parts.limits.remembered_ids > 0;
    let publishes = parts.publish_on_commit.contains(append.target().category());
    let waits = parts.replication.is_some();
    let receipt = append.receipt();
    // Whether the client may write one is only seen where that is looked at.
    let opens = !keys.is_opened() || receipt.is_some();

    let key_count = 1
        + usize::from(head.is_some())
        + if windowed { 2 } else { 0 }
        + usize::from(opens || waits)
        + usize::from(assumed.is_some())
        + usize::from(publishes)
        + usize::from(receipt.is_some());
    let per_event = 4 + usize::from(head.is_some()) + usize::from(publishes);
    let argument_count = 4 + usize::from(receipt.is_some()) + append.events().len() * per_event;
    let inline = projected.inline;
    let inline_keys = inline.iter();
    let inline_keys = inline_keys.map(|step| projections::key_count(&step.writes));
    let all_keys = key_count + inline_keys.sum::<usize>();
    let text_bytes: usize = append
        .events()
        .iter()
        .zip(metadata)
        .map(|(event, metadata)| event.payload().len() + 2 * metadata.len() + 128)
        .sum();
    let script = script_for(inline);
    let mut command = script.call(all_keys, 4 + argument_count, 512 + text_bytes);

    command.write_arg(keys.feed().as_bytes());
    if let Some((aggregate, _)) = &head {
        keys.write_history(&mut command, aggregate);
    }
    if windowed {
        command.write_arg(keys.newer_ids().as_bytes());
        command.write_arg(keys.older_ids().as_bytes());
    }
    if opens || waits {
        command.write_arg(keys.format().as_bytes());
    }
    if let Some(assumed) = assumed {
        command.write_arg(assumed.as_bytes());
    }
    if publishes {
        command.write_arg(keys.published().as_bytes());
    }
    if let (Some((aggregate, _)), Some(receipt)) = (&head, receipt) {
        keys.write_receipt(&mut command, aggregate, &receipt.command_id);
    }
    for step in inline {
        let keys = parts.keys.projection(&step.id);
        projections::write_keys(&mut command, &keys, &step.writes);
    }

    if !inline.is_empty() {
        command.write_arg_fmt(key_count);
        command.write_arg_fmt(argument_count);
        command.write_arg_fmt(append.events().len());
        command.write_arg_fmt(inline.len());
    }
    match append.expected() {
        Expected::Any => command.write_arg(ANY.as_bytes()),
        Expected::Exists => command.write_arg(EXISTS.as_bytes()),
        Expected::NoStream => command.write_arg(b"0"),
        Expected::Exact(version) => command.write_arg_fmt(version),
    }
    if windowed {
        command.write_arg_fmt(parts.limits.remembered_ids);
    } else {
        command.write_arg(b"0");
    }
    write_flags(
        &mut command,
        [
            (b'f', opens),
            (b'o', assumed.is_some()),
            (b'p', publishes),
            (b'r', waits),
            (b'c', receipt.is_some()),
        ],
    );
    command.write_arg(head.as_ref().map_or(b"", |(_, head)| head.as_bytes()));

    if let Some(receipt) = receipt {
        command.write_arg_fmt(milliseconds(receipt.keep));
    }

    for (event, metadata) in append.events().iter().zip(metadata) {
        command.write_arg_fmt(event.metadata().event_id);
        command.write_arg(event.event_type().as_bytes());
        command.write_arg(event.payload().as_bytes());
        command.write_arg(metadata.as_bytes());
        if head.is_some() {
            command.write_arg(history::encode_tail(event)?.as_bytes());
        }
        if publishes {
            command.write_arg(encode_message_head(event, keys.feed())?.as_bytes());
        }
    }
    for step in inline {
        let InlineStep { id, writes } = step;
        projections::write_arguments(&mut command, id, projected.partition, writes);
    }
    Ok(command)
}

/// What the server takes for a time to live: at least 1, and no more than it can reckon with.
fn milliseconds(keep: Duration) -> u64 {
    const MOST: u64 = 1 << 52;
    u64::try_from(keep.as_millis())
        .unwrap_or(MOST)
        .clamp(1, MOST)
}

/// The versions that a command has led to, where its receipt is kept.
pub(crate) async fn find_receipt(
    parts: &Parts,
    aggregate: &AggregateId,
    command_id: &str,
) -> Result<Option<Done>, StoreError> {
    let count = partitions::count(parts, aggregate.category()).await?;
    let keys = parts.keys.of(&Partition::of_aggregate(aggregate, count));
    let mut command = Cmd::with_capacity(2, 256);
    command.write_arg(b"GET");
    keys.write_receipt(&mut command, aggregate, command_id);
    let request = Request::Command(&command);
    let reply = parts.connections.ask(FINDING, request, None).await?;
    if reply == Value::Nil {
        return Ok(None);
    }
    let text = wire::text(&reply)
        .ok()
        .and_then(|text| text.split_once('-'));
    let done = text.and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    match done {
        Some(done) => Ok(Some(done)),
        None => Err(UnexpectedReply::form("GET", "no receipt").refused(FINDING)),
    }
}

/// Adds the flags that are set.
pub(crate) fn write_flags<const N: usize>(command: &mut Cmd, flags: [(u8, bool); N]) {
    let mut text = [0; N];
    let mut count = 0;
    for (flag, is_set) in flags {
        if is_set {
            text[count] = flag;
            count += 1;
        }
    }
    command.write_arg(&text[..count]);
}

/// Whether the script has left events in the feed, now or before.
fn holds_events(reply: &Value) -> bool {
    match reply {
        Value::Array(values) => matches!(
            values.first(),
            Some(Value::Int(
                append_status::STORED
                    | append_status::IN_PART
                    | append_status::REPEATED
                    | append_status::DONE
            ))
        ),
        _ => false,
    }
}

fn decode(keys: &FeedKeys, append: &Append, reply: Value) -> Result<Outcome, AppendError> {
    let unreadable = |what| UnexpectedReply::form(COMMAND, what).refused(OPERATION);
    let values = wire::array(reply).map_err(unreadable)?;
    let (status, rest) = values.split_first().ok_or_else(|| unreadable("nothing"))?;
    let first = || rest.first().ok_or("a status alone");
    let text = || -> Result<String, Unreadable> {
        Ok(String::from_utf8_lossy(wire::slice(first()?)?).into_owned())
    };
    let count = append.events().len();
    let events = match wire::integer(status).map_err(unreadable)? {
        append_status::STORED => {
            let version = wire::count(first().map_err(unreadable)?).map_err(unreadable)?;
            let has_versions = append.aggregate().is_some();
            let positions = rest.get(1..=count).ok_or("too few positions");
            if let Some(failure) = rest.get(count + 1) {
                let failure = String::from_utf8_lossy(wire::slice(failure).map_err(unreadable)?);
                tracing::warn!(feed = keys.feed(), %failure, "an event was stored, but not published");
            }
            positions.and_then(|positions| wire::stored(positions, version, has_versions))
        }
        append_status::IN_PART => rest.iter().map(wire::place).collect(),
        append_status::REPEATED => return repeated(append, rest).map(Outcome::Appended),
        append_status::PARTITIONS => {
            let count = first().and_then(wire::count).map_err(unreadable)?;
            let count = u32::try_from(count).map_err(|_| unreadable("too many partitions"))?;
            return Ok(Outcome::Partitions(count));
        }
        append_status::CONFLICT => {
            let actual = first().and_then(wire::count).map_err(unreadable)?;
            return match append.aggregate() {
                Some(aggregate) => Err(AppendError::Conflict {
                    aggregate: aggregate.clone(),
                    expected: append.expected(),
                    actual,
                }),
                None => Err(unreadable("a conflict without an aggregate").into()),
            };
        }
        append_status::DONE => {
            let last = rest.get(1).ok_or("a first version alone");
            let version = |value| wire::count(value).map_err(unreadable);
            let first = version(first().map_err(unreadable)?)?;
            let last = version(last.map_err(unreadable)?)?;
            return match (append.aggregate(), append.receipt()) {
                (Some(aggregate), Some(receipt)) => Err(AppendError::AlreadyDone {
                    aggregate: aggregate.clone(),
                    command_id: receipt.command_id.clone(),
                    done: first..=last,
                }),
                _ => Err(unreadable("a receipt that was not asked for").into()),
            };
        }
        status @ (append_status::UNREADABLE | append_status::FORMAT | append_status::FORBIDDEN) => {
            return Err(refusal(
                OPERATION,
                keys,
                status,
                text().map_err(unreadable)?,
            ));
        }
        append_status::TAKEN => {
            let event_id = text().map_err(unreadable)?;
            return match append
                .events()
                .iter()
                .map(|event| event.metadata().event_id)
                .find(|own| own.to_string() == event_id)
            {
                Some(event_id) => Err(AppendError::IdTaken {
                    category: append.target().category().to_string(),
                    event_id,
                }),
                None => Err(unreadable("an id that was not asked for").into()),
            };
        }
        _ => Err("an unknown status"),
    };
    let events = events.map_err(unreadable)?;
    if events.len() == count {
        Ok(Outcome::Appended(Appended {
            events,
            partition: None,
        }))
    } else {
        Err(unreadable("another number of events").into())
    }
}

/// Why a script refuses to append to a feed, from its status and what it says about it.
pub(crate) fn refusal(
    operation: &'static str,
    keys: &FeedKeys,
    status: i64,
    text: String,
) -> AppendError {
    let feed = || keys.feed().to_owned();
    let reply = match status {
        append_status::UNREADABLE => {
            return CodecError::Malformed {
                reason: format!("a history ends with `{text}`"),
            }
            .into();
        }
        append_status::FORMAT => UnexpectedReply::Format {
            feed: feed(),
            format: text,
        },
        append_status::FORBIDDEN => UnexpectedReply::Forbidden {
            feed: feed(),
            command: text,
        },
        _ => UnexpectedReply::Failed {
            feed: feed(),
            answer: text,
        },
    };
    reply.refused(operation).into()
}

/// Where events lie whose elements the history has already.
fn repeated(append: &Append, elements: &[Value]) -> Result<Appended, AppendError> {
    let unreadable = |what| UnexpectedReply::form(COMMAND, what).refused(OPERATION);
    let aggregate = append
        .aggregate()
        .ok_or_else(|| unreadable("a history without an aggregate"))?;
    let mut appended = Appended::default();
    for element in elements {
        let element = wire::slice(element).map_err(unreadable)?;
        let entry = history::HistoryEntry::new(element);
        appended.events.push(AppendedEvent {
            position: entry.to_recorded(aggregate)?.position(),
            version: entry.version()?,
            repeated: true,
        });
    }
    Ok(appended)
}
