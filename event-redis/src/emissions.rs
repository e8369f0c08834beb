//! What handlers have emitted, on its way to one of the scripts that store it with what was handled.

use std::collections::HashMap;
use std::sync::Arc;

use event_core::codec::{entry, history};
use event_core::{
    AggregateId, Append, AppendError, Appended, Category, CodecError, Partition, StoreError,
    encode_message_head,
};
use redis::{Cmd, RedisWrite, Value};

use crate::append::{refusal, write_flags};
use crate::connection::{Attempts, Request};
use crate::error::UnexpectedReply;
use crate::keys::FeedKeys;
use crate::scripts::{PROBE, Script};
use crate::store::Parts;
use crate::wire::{self, Unreadable};

/// What was emitted, and where it goes.
pub(crate) struct Emissions<'c> {
    operation: &'static str,
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
    /// Everything that can be checked without the server, of each run of a handler; else which of them
    /// cannot be stored.
    pub(crate) fn new(
        parts: &Parts,
        operation: &'static str,
        runs: impl Iterator<Item = &'c [Append]>,
    ) -> Result<Self, Vec<(usize, AppendError)>> {
        let mut emissions = Self {
            operation,
            targets: Vec::new(),
            appends: Vec::new(),
        };
        let mut by_partition = HashMap::new();
        let mut refused = Vec::new();
        for (run, appends) in runs.enumerate() {
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
            Err(refused)
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

    /// Which runs emit to another slot of a cluster than that of what they have handled: no script can
    /// store the two together.
    pub(crate) fn check_slots(
        self,
        parts: &Parts,
        source: &FeedKeys,
    ) -> Result<Self, Vec<(usize, AppendError)>> {
        let mut refused: Vec<(usize, AppendError)> = Vec::new();
        for emitted in &self.appends {
            let target = self.targets[emitted.target].keys.feed();
            let is_named = refused.last().is_some_and(|(run, _)| *run == emitted.run);
            if is_named || parts.connections.same_slot(source.feed(), target) {
                continue;
            }
            let error = UnexpectedReply::OtherSlot {
                source_feed: source.feed().to_owned(),
                target: target.to_owned(),
            };
            refused.push((emitted.run, error.refused(self.operation).into()));
        }
        if refused.is_empty() {
            Ok(self)
        } else {
            Err(refused)
        }
    }

    /// Finds the runs because of which the server refuses the whole call, as it does where the client
    /// may not use a key.
    pub(crate) async fn blame(
        &self,
        parts: &Parts,
        error: StoreError,
    ) -> Result<Vec<(usize, AppendError)>, StoreError> {
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
                .ask(self.operation, request, Some(&PROBE))
                .await
            {
                Ok(_) => {}
                Err(error @ StoreError::Refused { .. }) => {
                    refused.push((emitted.run, error.into()));
                }
                Err(error) => return Err(error),
            }
        }
        if refused.is_empty() {
            Err(error)
        } else {
            Ok(refused)
        }
    }

    /// Notes what a call that was stored has shown of the categories.
    pub(crate) fn settle(&self, parts: &Parts) {
        for target in &self.targets {
            target.keys.set_opened();
            if target.assumed.is_some() {
                parts.keys.settle(target.category, 1);
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
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

    pub(crate) fn target_count(&self) -> usize {
        self.targets.len()
    }

    pub(crate) fn append_count(&self) -> usize {
        self.appends.len()
    }

    pub(crate) fn key_count(&self) -> usize {
        let of_targets = self.targets.iter().map(Target::key_count);
        let of_appends = self.appends.iter().map(Emitted::key_count);
        of_targets.chain(of_appends).sum()
    }

    pub(crate) fn argument_count(&self) -> usize {
        let of_appends = self.appends.iter();
        let of_appends = of_appends.map(|emitted| 4 + emitted.texts.len() * 6);
        self.targets.len() + of_appends.sum::<usize>()
    }

    pub(crate) fn write_keys(&self, command: &mut Cmd) {
        for target in &self.targets {
            target.write_keys(command);
        }
        for emitted in &self.appends {
            emitted.write_keys(&self.targets[emitted.target], command);
        }
    }

    pub(crate) fn write_arguments(&self, command: &mut Cmd) {
        for target in &self.targets {
            write_flags(
                command,
                [
                    (b'f', target.opens),
                    (b'o', target.assumed.is_some()),
                    (b'p', target.publishes),
                ],
            );
        }
        for emitted in &self.appends {
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
    }

    /// Asks; where something is emitted, until enough replicas have it. Asked again, the script must store
    /// nothing twice.
    pub(crate) async fn ask(
        &self,
        parts: &Parts,
        command: Cmd,
        script: &Script,
        is_stored: fn(i64) -> bool,
    ) -> Result<Value, StoreError> {
        let replication = match &parts.replication {
            Some(replication) if !self.appends.is_empty() => replication,
            _ => {
                let request = Request::Command(&command);
                return parts
                    .connections
                    .ask(self.operation, request, Some(script))
                    .await;
            }
        };
        let mut attempts = Attempts::new(self.operation, parts.patience);
        let mut first = None;
        loop {
            let (reply, reached) = replication
                .ask(self.operation, command.clone(), script)
                .await?;
            let is_stored = status(&reply).is_some_and(is_stored);
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

    /// Where the events of so many runs lie: of each append the first version, and then the positions.
    /// `None` for a run that was left out.
    pub(crate) fn stored(
        &self,
        runs: usize,
        mut values: &[Value],
    ) -> Result<Vec<Option<Vec<Appended>>>, Unreadable> {
        let mut stored = vec![Some(Vec::new()); runs];
        for Emitted {
            run,
            aggregate,
            texts,
            ..
        } in &self.appends
        {
            let (version, rest) = values.split_first().ok_or("too few versions")?;
            values = rest;
            if *version == Value::Int(-1) {
                stored[*run] = None;
                continue;
            }
            let (positions, rest) = rest
                .split_at_checked(texts.len())
                .ok_or("too few positions")?;
            values = rest;
            let events = wire::stored(positions, wire::count(version)?, aggregate.is_some())?;
            if let Some(stored) = &mut stored[*run] {
                stored.push(Appended { events });
            }
        }
        Ok(stored)
    }

    /// Which runs are refused, and why.
    pub(crate) fn refused(
        &self,
        values: &[Value],
    ) -> Result<Vec<(usize, AppendError)>, Unreadable> {
        let refused = values.chunks_exact(3).map(|parts| self.refused_run(parts));
        let refused = refused.collect::<Result<Vec<_>, _>>()?;
        if refused.is_empty() {
            return Err("nothing that is refused");
        }
        Ok(refused)
    }

    fn refused_run(&self, parts: &[Value]) -> Result<(usize, AppendError), Unreadable> {
        let [run, reason, text] = parts else {
            return Err("a refusal with too few parts");
        };
        let run = usize::try_from(wire::count(run)?).map_err(|_| "too large a number")?;
        let keys = self
            .appends
            .iter()
            .find(|emitted| emitted.run == run)
            .map(|emitted| &self.targets[emitted.target].keys)
            .ok_or("a run that has emitted nothing")?;
        let text = String::from_utf8_lossy(wire::slice(text)?).into_owned();
        let reason = wire::integer(reason)?;
        Ok((run, refusal(self.operation, keys, reason, text)))
    }

    /// The category that has another number of partitions than it was taken for.
    pub(crate) fn partitions(&self, values: &[Value]) -> Result<(Category, u32), Unreadable> {
        let [target, count, ..] = values else {
            return Err("too few parts");
        };
        let target = usize::try_from(wire::count(target)?).map_err(|_| "too large a number")?;
        let target = target.checked_sub(1).ok_or("not counted from 1")?;
        let target = self.targets.get(target).ok_or("an unknown partition")?;
        let count = u32::try_from(wire::count(count)?).map_err(|_| "too many partitions")?;
        Ok((target.category.clone(), count))
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

/// The number that a script's reply begins with.
pub(crate) fn status(reply: &Value) -> Option<i64> {
    match reply {
        Value::Array(values) => match values.first() {
            Some(Value::Int(status)) => Some(*status),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn to_json(
    operation: &'static str,
    value: &impl serde::Serialize,
) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Refused {
        operation,
        source: Box::new(error),
    })
}
