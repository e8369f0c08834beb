//! Commits of a partition's owner: from a [`Commit`] to the call of the script, and back.

use std::collections::HashMap;
use std::sync::Arc;

use event_core::codec::{entry, history};
use event_core::{
    AggregateId, Append, AppendError, Appended, Category, CodecError, Commit, CommitError,
    Committed, Lease, Partition, StoreError, encode_message_head,
};
use redis::{Cmd, RedisWrite, Value};

use crate::append::{refusal, write_flags};
use crate::connection::{Attempts, Request};
use crate::error::UnexpectedReply;
use crate::keys::{FeedKeys, Ordered};
use crate::scripts::{COMMIT, PROBE, commit_status};
use crate::store::Parts;
use crate::wire::{self, Unreadable};

const OPERATION: &str = "commit";
const COMMAND: &str = "EVALSHA commit.lua";

/// What commits look at before they write. Only tests that must find a fault leave something out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    pub(crate) epoch: bool,
    pub(crate) number: bool,
}

/// Stores what the owner of a partition has done, or nothing.
pub(crate) async fn commit(
    parts: &Parts,
    lease: &Lease,
    commit: &Commit,
) -> Result<Committed, CommitError> {
    loop {
        let emissions = Emissions::new(parts, commit)?;
        let command = encode(parts, lease, commit, &emissions)?;
        let reply = match ask(parts, command, commit).await {
            Ok(reply) => reply,
            Err(error @ StoreError::Refused { .. }) => {
                return Err(emissions.blame(parts, error).await);
            }
            Err(error) => return Err(error.into()),
        };
        match decode(lease, commit, &emissions, reply)? {
            Outcome::Committed(committed) => {
                emissions.settle(parts);
                return Ok(committed);
            }
            // It is settled now, so that this happens once for each category.
            Outcome::Partitions(category, count) => parts.keys.settle(&category, count),
        }
    }
}

/// Asks; where something is emitted, until enough replicas have it. Asked again, the script stores
/// nothing twice.
async fn ask(parts: &Parts, command: Cmd, commit: &Commit) -> Result<Value, StoreError> {
    let replication = match &parts.replication {
        Some(replication) if !commit.emitted.is_empty() => replication,
        _ => {
            let request = Request::Command(&command);
            return parts
                .connections
                .ask(OPERATION, request, Some(&COMMIT))
                .await;
        }
    };
    let mut attempts = Attempts::new(OPERATION, parts.patience);
    let mut first = None;
    loop {
        let (reply, reached) = replication.ask(OPERATION, command.clone(), &COMMIT).await?;
        let is_stored = matches!(
            status(&reply),
            Some(commit_status::STORED | commit_status::REPEATED)
        );
        // A repetition does not say any more where the events lie.
        let reply = first.get_or_insert(reply);
        if !is_stored || reached >= replication.wanted() {
            return Ok(std::mem::take(reply));
        }
        let what = format!(
            "stored, but only {reached} of {} replicas have confirmed it",
            replication.wanted()
        );
        let error = redis::RedisError::from((redis::ErrorKind::Io, "too few replicas", what));
        attempts.pause(error).await?;
    }
}

fn status(reply: &Value) -> Option<i64> {
    match reply {
        Value::Array(values) => match values.first() {
            Some(Value::Int(status)) => Some(*status),
            _ => None,
        },
        _ => None,
    }
}

/// What was emitted, and where it goes.
struct Emissions<'c> {
    targets: Vec<Target<'c>>,
    appends: Vec<Emitted<'c>>,
}

/// A partition that something is emitted to.
struct Target<'c> {
    category: &'c Category,
    keys: Arc<FeedKeys>,
    opens: bool,
    /// The key of the number of partitions, where it is taken to be one.
    assumed: Option<String>,
    publishes: bool,
}

struct Emitted<'c> {
    /// Which run of a handler it is of.
    run: usize,
    /// Which of the targets.
    target: usize,
    aggregate: Option<(&'c AggregateId, String)>,
    append: &'c Append,
    texts: Vec<Texts>,
}

/// What is made of an event beside what it has itself.
struct Texts {
    metadata: String,
    tail: Option<String>,
    message: Option<String>,
}

impl<'c> Emissions<'c> {
    /// Everything that can be checked without the server.
    fn new(parts: &Parts, commit: &'c Commit) -> Result<Self, CommitError> {
        let mut emissions = Self {
            targets: Vec::new(),
            appends: Vec::new(),
        };
        let mut by_partition = HashMap::new();
        let mut refused = Vec::new();
        for (run, appends) in commit.emitted.iter().enumerate() {
            for append in appends {
                if let Err(error) = emissions.add(parts, run, append, &mut by_partition) {
                    refused.push((run, error));
                    break;
                }
            }
        }
        if refused.is_empty() {
            Ok(emissions)
        } else {
            Err(CommitError::Refused { refused })
        }
    }

    fn add(
        &mut self,
        parts: &Parts,
        run: usize,
        append: &'c Append,
        by_partition: &mut HashMap<Partition, usize>,
    ) -> Result<(), AppendError> {
        let metadata = append.check(&parts.limits)?;
        let category = append.target().category();
        let settled = parts.keys.settled(category);
        let partition = append.partition(settled.unwrap_or(1))?;
        let target = match by_partition.get(&partition) {
            Some(target) => *target,
            None => {
                let keys = parts.keys.of(&partition);
                self.targets.push(Target {
                    category,
                    opens: !keys.is_opened(),
                    assumed: settled.is_none().then(|| parts.keys.partitions(category)),
                    publishes: parts.publish_on_commit.contains(category),
                    keys,
                });
                let target = self.targets.len() - 1;
                by_partition.insert(partition, target);
                target
            }
        };
        let Target {
            publishes, keys, ..
        } = &self.targets[target];

        let aggregate = match append.aggregate() {
            Some(aggregate) => Some((aggregate, entry::encode_aggregate_head(aggregate)?)),
            None => None,
        };
        let texts = append
            .events()
            .iter()
            .zip(metadata)
            .map(|(event, metadata)| {
                Ok(Texts {
                    metadata,
                    tail: match aggregate {
                        Some(_) => Some(history::encode_tail(event)?),
                        None => None,
                    },
                    message: if *publishes {
                        Some(encode_message_head(event, keys.feed())?)
                    } else {
                        None
                    },
                })
            });
        let texts = texts.collect::<Result<_, CodecError>>()?;
        self.appends.push(Emitted {
            run,
            target,
            aggregate,
            append,
            texts,
        });
        Ok(())
    }

    /// Finds the runs because of which the server refuses the whole call, as it does where the client
    /// may not use a key.
    async fn blame(&self, parts: &Parts, error: StoreError) -> CommitError {
        let mut refused: Vec<(usize, AppendError)> = Vec::new();
        for emitted in &self.appends {
            if refused.last().is_some_and(|(run, _)| *run == emitted.run) {
                continue;
            }
            let target = &self.targets[emitted.target];
            let mut command = PROBE.call(target.key_count() + emitted.key_count(), 0, 512);
            target.write_keys(&mut command);
            emitted.write_keys(target, &mut command);
            let request = Request::Command(&command);
            match parts
                .connections
                .ask(OPERATION, request, Some(&PROBE))
                .await
            {
                Ok(_) => {}
                Err(error @ StoreError::Refused { .. }) => {
                    refused.push((emitted.run, error.into()));
                }
                Err(error) => return error.into(),
            }
        }
        if refused.is_empty() {
            error.into()
        } else {
            CommitError::Refused { refused }
        }
    }

    /// Notes what a commit that was stored has shown of the categories.
    fn settle(&self, parts: &Parts) {
        for target in &self.targets {
            target.keys.set_opened();
            if target.assumed.is_some() {
                parts.keys.settle(target.category, 1);
            }
        }
    }

    fn bytes(&self) -> usize {
        let bytes = |emitted: &Emitted<'_>| -> usize {
            let events = emitted.append.events().iter().zip(&emitted.texts);
            let texts = |texts: &Texts| {
                texts.metadata.len()
                    + texts.tail.as_ref().map_or(0, String::len)
                    + texts.message.as_ref().map_or(0, String::len)
            };
            let events = events.map(|(event, more)| event.payload().len() + texts(more) + 96);
            events.sum::<usize>() + 256
        };
        self.appends.iter().map(bytes).sum()
    }
}

impl Target<'_> {
    fn key_count(&self) -> usize {
        1 + usize::from(self.opens)
            + usize::from(self.assumed.is_some())
            + usize::from(self.publishes)
    }

    fn write_keys(&self, command: &mut Cmd) {
        command.write_arg(self.keys.feed().as_bytes());
        if self.opens {
            command.write_arg(self.keys.format().as_bytes());
        }
        if let Some(assumed) = &self.assumed {
            command.write_arg(assumed.as_bytes());
        }
        if self.publishes {
            command.write_arg(self.keys.published().as_bytes());
        }
    }
}

impl Emitted<'_> {
    fn key_count(&self) -> usize {
        usize::from(self.aggregate.is_some())
    }

    fn write_keys(&self, target: &Target<'_>, command: &mut Cmd) {
        if let Some((aggregate, _)) = &self.aggregate {
            target.keys.write_history(command, aggregate);
        }
    }
}

/// The call of the script: what its keys and arguments are, it says itself.
fn encode(
    parts: &Parts,
    lease: &Lease,
    commit: &Commit,
    emissions: &Emissions<'_>,
) -> Result<Cmd, CommitError> {
    let open = to_json(&commit.progress.open)?;
    let keys = parts.keys.of(&lease.partition);
    let group = keys.group(&lease.group);
    let waits = parts.replication.is_some() && !commit.emitted.is_empty();

    let of_targets = emissions.targets.iter().map(Target::key_count);
    let of_appends = emissions.appends.iter().map(Emitted::key_count);
    let key_count = 5 + of_targets.sum::<usize>() + of_appends.sum::<usize>();
    let letter_count = commit.parked.len() + commit.retried.len() + commit.resolved.len();
    let event_count: usize = emissions
        .appends
        .iter()
        .map(|emitted| 4 + emitted.texts.len() * 6)
        .sum();
    let argument_count = 15 + letter_count * 3 + emissions.targets.len() + event_count;
    let bytes = 1024 + open.len() + letter_count * 512 + emissions.bytes();
    let mut command = COMMIT.call(key_count, argument_count, bytes);

    for key in [
        group.progress.as_str(),
        keys.feed(),
        &group.dead,
        &group.dead_order,
        &group.dead_raw,
    ] {
        command.write_arg(key.as_bytes());
    }
    for target in &emissions.targets {
        target.write_keys(&mut command);
    }
    for emitted in &emissions.appends {
        emitted.write_keys(&emissions.targets[emitted.target], &mut command);
    }

    command.write_arg(lease.instance.as_bytes());
    command.write_arg_fmt(lease.epoch);
    command.write_arg_fmt(commit.number);
    command.write_arg(lease.group.as_bytes());
    write_flags(
        &mut command,
        [
            (b'r', waits),
            (b'e', !parts.checks.epoch),
            (b'n', !parts.checks.number),
        ],
    );
    command.write_arg_fmt(commit.progress.checkpoint);
    match commit.progress.event_id {
        Some(id) => command.write_arg_fmt(id),
        None => command.write_arg(b""),
    }
    command.write_arg_fmt(commit.progress.reached);
    command.write_arg(&open);
    command.write_arg_fmt(commit.finished);
    for count in [
        commit.parked.len(),
        commit.retried.len(),
        commit.resolved.len(),
        emissions.targets.len(),
        emissions.appends.len(),
    ] {
        command.write_arg_fmt(count);
    }
    for letter in &commit.parked {
        let id = letter.id();
        command.write_arg_fmt(&id);
        command.write_arg_fmt(Ordered(&id));
        command.write_arg(&to_json(letter)?);
    }
    for letter in &commit.retried {
        command.write_arg_fmt(letter.id());
        command.write_arg(&to_json(letter)?);
    }
    for id in &commit.resolved {
        command.write_arg_fmt(id);
        command.write_arg_fmt(Ordered(id));
    }
    for target in &emissions.targets {
        write_flags(
            &mut command,
            [
                (b'f', target.opens),
                (b'o', target.assumed.is_some()),
                (b'p', target.publishes),
            ],
        );
    }
    for emitted in &emissions.appends {
        command.write_arg_fmt(emitted.run);
        command.write_arg_fmt(emitted.target + 1);
        let head = emitted.aggregate.as_ref();
        command.write_arg(head.map_or(b"", |(_, head)| head.as_bytes()));
        command.write_arg_fmt(emitted.texts.len());
        for (event, texts) in emitted.append.events().iter().zip(&emitted.texts) {
            command.write_arg(event.event_type().as_bytes());
            command.write_arg(event.payload().as_bytes());
            command.write_arg(texts.metadata.as_bytes());
            if let Some(tail) = &texts.tail {
                command.write_arg_fmt(event.metadata().event_id);
                command.write_arg(tail.as_bytes());
            }
            if let Some(message) = &texts.message {
                command.write_arg(message.as_bytes());
            }
        }
    }
    Ok(command)
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Refused {
        operation: OPERATION,
        source: Box::new(error),
    })
}

/// What the script replies with, where it does not refuse.
enum Outcome {
    Committed(Committed),
    /// Nothing was stored: the category has so many partitions.
    Partitions(Category, u32),
}

fn decode(
    lease: &Lease,
    commit: &Commit,
    emissions: &Emissions<'_>,
    reply: Value,
) -> Result<Outcome, CommitError> {
    let unreadable =
        |what| CommitError::Store(UnexpectedReply::form(COMMAND, what).refused(OPERATION));
    let status = status(&reply).ok_or_else(|| unreadable("no status"))?;
    let values = wire::array(reply).map_err(unreadable)?;
    let number = |index: usize| -> Result<usize, Unreadable> {
        let value = values.get(index).ok_or("too few parts")?;
        usize::try_from(wire::count(value)?).map_err(|_| "too large a number")
    };
    match status {
        commit_status::STORED => {
            let failure = values.get(2).map_or(Ok(""), wire::text);
            let failure = failure.map_err(unreadable)?;
            if !failure.is_empty() {
                tracing::warn!(%failure, "an event was emitted, but not published");
            }
            let emitted = emitted(commit, emissions, values.get(3..).unwrap_or_default());
            Ok(Outcome::Committed(Committed {
                dead_letters: number(1).map_err(unreadable)?,
                emitted: emitted.map_err(unreadable)?,
            }))
        }
        commit_status::REPEATED => Ok(Outcome::Committed(Committed {
            dead_letters: number(1).map_err(unreadable)?,
            emitted: Vec::new(),
        })),
        commit_status::LOST => Err(CommitError::LeaseLost {
            group: Arc::clone(&lease.group),
            partition: lease.partition.clone(),
        }),
        commit_status::REFUSED => {
            let refused = values[1..]
                .chunks_exact(3)
                .map(|parts| refused(emissions, parts));
            let refused = refused.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
            if refused.is_empty() {
                return Err(unreadable("nothing that is refused"));
            }
            Err(CommitError::Refused { refused })
        }
        commit_status::PARTITIONS => {
            let target = number(1)
                .and_then(|target| {
                    let target = target.checked_sub(1).ok_or("not counted from 1")?;
                    emissions.targets.get(target).ok_or("an unknown partition")
                })
                .map_err(unreadable)?;
            let count = number(2).map_err(unreadable)?;
            let count = u32::try_from(count).map_err(|_| unreadable("too many partitions"))?;
            Ok(Outcome::Partitions(target.category.clone(), count))
        }
        _ => Err(unreadable("an unknown status")),
    }
}

/// Where the emitted events lie: of each append the first version, and then the positions.
fn emitted(
    commit: &Commit,
    emissions: &Emissions<'_>,
    mut values: &[Value],
) -> Result<Vec<Vec<Appended>>, Unreadable> {
    let mut emitted = vec![Vec::new(); commit.emitted.len()];
    for Emitted {
        run,
        aggregate,
        texts,
        ..
    } in &emissions.appends
    {
        let count = texts.len();
        let (version, rest) = values.split_first().ok_or("too few versions")?;
        let (positions, rest) = rest.split_at_checked(count).ok_or("too few positions")?;
        values = rest;
        let events = wire::stored(positions, wire::count(version)?, aggregate.is_some())?;
        emitted[*run].push(Appended { events });
    }
    Ok(emitted)
}

/// Which run is refused, and why.
fn refused(emissions: &Emissions<'_>, parts: &[Value]) -> Result<(usize, AppendError), Unreadable> {
    let [run, reason, text] = parts else {
        return Err("a refusal with too few parts");
    };
    let run = usize::try_from(wire::count(run)?).map_err(|_| "too large a number")?;
    let keys = emissions
        .appends
        .iter()
        .find(|emitted| emitted.run == run)
        .map(|emitted| &emissions.targets[emitted.target].keys)
        .ok_or("a run that has emitted nothing")?;
    let text = String::from_utf8_lossy(wire::slice(text)?).into_owned();
    Ok((run, refusal(OPERATION, keys, wire::integer(reason)?, text)))
}
