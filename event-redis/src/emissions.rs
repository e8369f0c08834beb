//! What handlers have emitted, on its way to one of the scripts that store it with what was handled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event_core::codec::{entry, history};
use event_core::{
    AggregateId, Append, AppendError, Appended, Category, CodecError, CommitError, FinishError,
    Partition, StoreError, encode_message_head,
};
use redis::{Cmd, RedisWrite, Value};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::append::{refusal, write_flags};
use crate::connection::{Attempts, Request};
use crate::courier::{Courier, Couriers, Route};
use crate::error::{UnexpectedReply, unavailable};
use crate::keys::FeedKeys;
use crate::scripts::{CHECK_TARGET, PROBE, Script, check_status};
use crate::store::Parts;
use crate::wire::{self, Unreadable};
use crate::{outbox, partitions};

/// How long a target in another slot may take to say what it would take.
const MEETING: Duration = Duration::from_secs(2);

/// For how long is waited for what somebody wants the places of.
const ARRIVING: Duration = Duration::from_secs(5);

/// What was emitted, and where it goes.
pub(crate) struct Emissions<'c> {
    operation: &'static str,
    /// Where something goes to another slot.
    courier: Option<Arc<Courier>>,
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
    /// How it gets there, where it lies in another slot.
    route: Option<Arc<Route>>,
}

/// From where something is emitted.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) couriers: &'a Couriers,
    pub(crate) group: &'a str,
    pub(crate) partition: &'a Partition,
}

/// Targets in other slots that cannot be emitted to.
pub(crate) enum Unmet {
    Refused(Vec<(usize, AppendError)>),
    Store(StoreError),
}

impl From<StoreError> for Unmet {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unmet> for CommitError {
    fn from(unmet: Unmet) -> Self {
        match unmet {
            Unmet::Refused(refused) => Self::Refused { refused },
            Unmet::Store(error) => error.into(),
        }
    }
}

impl From<Unmet> for FinishError {
    fn from(unmet: Unmet) -> Self {
        match unmet {
            Unmet::Refused(refused) => Self::Refused { refused },
            Unmet::Store(error) => error.into(),
        }
    }
}

/// What is stored of so many runs.
#[derive(Default)]
pub(crate) struct Stored {
    /// Where it lies. `None` for a run that was left out; no places for what is on its way.
    pub(crate) runs: Vec<Option<Vec<Appended>>>,
    /// What is on its way.
    recorded: Vec<Recorded>,
}

/// An append in an outbox.
struct Recorded {
    /// Which of the appends.
    append: usize,
    run: usize,
    /// Which of its run.
    index: usize,
    /// The number of its last record.
    number: u64,
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
        origin: Origin<'_>,
        runs: impl Iterator<Item = &'c [Append]>,
    ) -> Result<Self, Vec<(usize, AppendError)>> {
        let mut emissions = Self {
            operation,
            courier: None,
            targets: Vec::new(),
            appends: Vec::new(),
        };
        let mut by_partition = HashMap::new();
        let mut refused = Vec::new();
        for (run, appends) in runs.enumerate() {
            for append in appends {
                if let Err(error) = emissions.add(parts, origin, run, append, &mut by_partition) {
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
        origin: Origin<'_>,
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
                let source = parts.keys.of(origin.partition);
                let route = (!parts.same_slot(&source, &keys)).then(|| {
                    let courier = self
                        .courier
                        .get_or_insert_with(|| origin.couriers.of(origin.group, origin.partition));
                    courier.route(&partition)
                });
                self.targets.push(Target {
                    category,
                    opens: !keys.is_opened(),
                    assumed: settled.is_none().then(|| parts.keys.partitions(category)),
                    publishes: parts.publish_on_commit.contains(category),
                    route,
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
            let key_count = self.key_count_of(target) + emitted.key_count(target);
            let mut command = PROBE.call(key_count, 0, 512);
            self.write_keys_of(target, &mut command);
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
            if target.route.is_none() {
                target.keys.set_opened();
            }
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
        let of_targets = self.targets.iter();
        let of_targets = of_targets.map(|target| self.key_count_of(target));
        let of_appends = self.appends.iter();
        let of_appends = of_appends.map(|emitted| emitted.key_count(&self.targets[emitted.target]));
        of_targets.chain(of_appends).sum()
    }

    fn key_count_of(&self, target: &Target<'_>) -> usize {
        match target.route {
            Some(_) => 2,
            None => target.key_count(),
        }
    }

    fn write_keys_of(&self, target: &Target<'_>, command: &mut Cmd) {
        match (&target.route, &self.courier) {
            (Some(route), Some(courier)) => {
                command.write_arg(courier.numbers().as_bytes());
                command.write_arg(route.outbox().as_bytes());
            }
            _ => target.write_keys(command),
        }
    }

    pub(crate) fn argument_count(&self) -> usize {
        let of_appends = self.appends.iter();
        let of_appends = of_appends.map(|emitted| 4 + emitted.texts.len() * 6);
        let elsewhere = self.targets.iter().filter(|target| target.route.is_some());
        self.targets.len() + elsewhere.count() * 2 + of_appends.sum::<usize>()
    }

    pub(crate) fn write_keys(&self, command: &mut Cmd) {
        for target in &self.targets {
            self.write_keys_of(target, command);
        }
        for emitted in &self.appends {
            emitted.write_keys(&self.targets[emitted.target], command);
        }
    }

    pub(crate) fn write_arguments(&self, command: &mut Cmd) {
        for target in &self.targets {
            if let Some(route) = &target.route {
                write_flags(command, [(b'x', true), (b'p', target.publishes)]);
                command.write_arg(target.keys.feed().as_bytes());
                command.write_arg_fmt(route.delivered());
                continue;
            }
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
        if self.appends.is_empty() {
            let request = Request::Command(&command);
            let connections = &parts.connections;
            return connections.ask(self.operation, request, Some(script)).await;
        }
        ask_replicated(parts, self.operation, command, script, is_stored).await
    }

    /// Asks the targets in other slots that were not met yet whether they take what is emitted. `false`
    /// where one has another number of partitions than it was taken for, and everything is to be looked
    /// at anew.
    pub(crate) async fn meet(&self, parts: &Parts) -> Result<bool, Unmet> {
        let Some(courier) = &self.courier else {
            return Ok(true);
        };
        let mut refused = Vec::new();
        let mut is_as_assumed = true;
        for (index, target) in self.targets.iter().enumerate() {
            let Some(route) = &target.route else {
                continue;
            };
            if !route.must_meet() && target.assumed.is_none() {
                continue;
            }
            let command = self.check(courier, index, target);
            let request = Request::Command(&command);
            let asked = parts
                .connections
                .ask(self.operation, request, Some(&CHECK_TARGET));
            let asked = timeout(MEETING, asked).await;
            let reply = match asked
                .unwrap_or_else(|_| Err(unavailable(self.operation, MEETING, None)))
            {
                Ok(reply) => reply,
                Err(error @ StoreError::Refused { .. }) => {
                    refused.extend(self.blame_check(parts, index, target, error).await?);
                    continue;
                }
                Err(error) if target.assumed.is_some() => return Err(error.into()),
                // It holds back nothing but what is emitted to it.
                Err(error) => {
                    tracing::warn!(to = %route.target(), %error, "a target cannot be reached; what is emitted to it waits");
                    route.miss();
                    continue;
                }
            };
            match self.checked(index, target, reply) {
                Ok(Checked::Possible(delivered)) => {
                    if target.assumed.is_some() {
                        let count = partitions::settle(parts, target.category).await?;
                        if count != 1 {
                            is_as_assumed = false;
                            continue;
                        }
                    }
                    route.meet(delivered);
                }
                Ok(Checked::Refused(of_target)) => refused.extend(of_target),
                Ok(Checked::Partitions(count)) => {
                    parts.keys.settle(target.category, count);
                    is_as_assumed = false;
                }
                Err(what) => {
                    let error = UnexpectedReply::form("EVALSHA check_target.lua", what);
                    return Err(error.refused(self.operation).into());
                }
            }
        }
        if refused.is_empty() {
            return Ok(is_as_assumed);
        }
        refused.sort_by_key(|(run, _)| *run);
        refused.dedup_by_key(|(run, _)| *run);
        Err(Unmet::Refused(refused))
    }

    fn of_target(&self, index: usize) -> impl Iterator<Item = &Emitted<'c>> {
        let appends = self.appends.iter();
        appends.filter(move |emitted| emitted.target == index)
    }

    /// The call of the script that looks whether a target takes what is emitted to it: what its keys
    /// and arguments are, it says itself.
    fn check(&self, courier: &Courier, index: usize, target: &Target<'_>) -> Cmd {
        let appends = self.of_target(index);
        let histories = appends.filter(|emitted| emitted.aggregate.is_some());
        let key_count = 3 + usize::from(target.assumed.is_some()) + histories.count();
        let append_count = self.of_target(index).count();
        let mut command =
            CHECK_TARGET.call(key_count, 3 + append_count * 4, 512 + append_count * 128);
        command.write_arg(target.keys.delivered().as_bytes());
        command.write_arg(target.keys.feed().as_bytes());
        command.write_arg(target.keys.format().as_bytes());
        if let Some(assumed) = &target.assumed {
            command.write_arg(assumed.as_bytes());
        }
        for (aggregate, _) in self
            .of_target(index)
            .filter_map(|emitted| emitted.aggregate.as_ref())
        {
            target.keys.write_history(&mut command, aggregate);
        }
        command.write_arg(courier.from().as_bytes());
        command.write_arg_fmt(append_count);
        write_flags(
            &mut command,
            [(b'f', true), (b'o', target.assumed.is_some())],
        );
        for emitted in self.of_target(index) {
            command.write_arg_fmt(emitted.run);
            command.write_arg(b"1");
            let head = emitted.aggregate.as_ref();
            command.write_arg(head.map_or(b"", |(_, head)| head.as_bytes()));
            // The events themselves are not looked at.
            command.write_arg(b"0");
        }
        command
    }

    fn checked(
        &self,
        index: usize,
        target: &Target<'_>,
        reply: Value,
    ) -> Result<Checked, Unreadable> {
        let status = status(&reply).ok_or("no status")?;
        let values = wire::array(reply)?;
        let refuse = |reason, text: &Value| {
            let text = String::from_utf8_lossy(wire::slice(text)?).into_owned();
            Ok::<_, Unreadable>(refusal(self.operation, &target.keys, reason, text))
        };
        match (status, values.as_slice()) {
            (check_status::POSSIBLE, [_, delivered]) => {
                Ok(Checked::Possible(wire::count(delivered)?))
            }
            (check_status::REFUSED, [_, refused @ ..]) => {
                let refused = refused.chunks_exact(3).map(|parts| {
                    let run = usize::try_from(wire::count(&parts[0])?);
                    let run = run.map_err(|_| "too large a number")?;
                    Ok((run, refuse(wire::integer(&parts[1])?, &parts[2])?))
                });
                Ok(Checked::Refused(
                    refused.collect::<Result<_, Unreadable>>()?,
                ))
            }
            (check_status::PARTITIONS, [_, _, count]) => {
                let count =
                    u32::try_from(wire::count(count)?).map_err(|_| "too many partitions")?;
                Ok(Checked::Partitions(count))
            }
            (check_status::NOT_ALLOWED, [_, command]) => {
                let runs = self.of_target(index).map(|emitted| {
                    let error = refuse(check_status::NOT_ALLOWED, command)?;
                    Ok((emitted.run, error))
                });
                Ok(Checked::Refused(runs.collect::<Result<_, Unreadable>>()?))
            }
            _ => Err("an unknown status"),
        }
    }

    /// Finds the runs because of which a target refuses the whole call.
    async fn blame_check(
        &self,
        parts: &Parts,
        index: usize,
        target: &Target<'_>,
        error: StoreError,
    ) -> Result<Vec<(usize, AppendError)>, Unmet> {
        let mut refused = Vec::new();
        for emitted in self.of_target(index) {
            let keys = [
                target.keys.delivered(),
                target.keys.feed(),
                target.keys.format(),
            ];
            let mut command = PROBE.call(4 + usize::from(emitted.aggregate.is_some()), 0, 512);
            for key in keys {
                command.write_arg(key.as_bytes());
            }
            command.write_arg(parts.keys.partitions(target.category).as_bytes());
            if let Some((aggregate, _)) = &emitted.aggregate {
                target.keys.write_history(&mut command, aggregate);
            }
            let request = Request::Command(&command);
            let connections = &parts.connections;
            match connections.ask(self.operation, request, Some(&PROBE)).await {
                Ok(_) => {}
                Err(error @ StoreError::Refused { .. }) => {
                    refused.push((emitted.run, error.into()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if refused.is_empty() {
            return Err(error.into());
        }
        Ok(refused)
    }

    /// Has what is recorded delivered.
    pub(crate) fn send(&self) {
        let Some(courier) = &self.courier else {
            return;
        };
        for route in self
            .targets
            .iter()
            .filter_map(|target| target.route.as_ref())
        {
            courier.deliver(route);
        }
    }

    /// Waits until an outbox that has no room may have some; an error where the patience is over.
    pub(crate) async fn wait_for_room(
        &self,
        values: &[Value],
        attempts: &mut Attempts,
    ) -> Result<(), StoreError> {
        let full = values.first().and_then(|target| {
            let target = usize::try_from(wire::count(target).ok()?).ok()?;
            self.targets.get(target.checked_sub(1)?)?.route.as_ref()
        });
        let (Some(route), Some(courier)) = (full, &self.courier) else {
            let error = UnexpectedReply::form("EVALSHA", "an unknown outbox is full");
            return Err(error.refused(self.operation));
        };
        courier.deliver(route);
        let what = format!(
            "the outbox {} has no room until something of it is delivered",
            route.outbox()
        );
        let error = redis::RedisError::from((redis::ErrorKind::Io, "no room", what));
        tokio::select! {
            // It also looks at the time.
            biased;
            paused = attempts.pause(error) => paused,
            () = route.changed() => Ok(()),
        }
    }

    /// Waits until what is on its way has arrived, and notes where it lies. What does not arrive in time
    /// stays without places.
    pub(crate) async fn find(&self, parts: &Parts, stored: &mut Stored) {
        let deadline = Instant::now() + ARRIVING;
        let mut wanted: HashMap<usize, Vec<&Recorded>> = HashMap::new();
        for recorded in &stored.recorded {
            let target = self.appends[recorded.append].target;
            wanted.entry(target).or_default().push(recorded);
        }
        for (target, recorded) in wanted {
            let Some(route) = &self.targets[target].route else {
                continue;
            };
            let last = recorded.iter().map(|recorded| recorded.number).max();
            if !route.wait_for(last.unwrap_or(0), deadline).await {
                continue;
            }
            let ids = |recorded: &Recorded| -> Vec<Uuid> {
                let events = self.appends[recorded.append].append.events().iter();
                events.map(|event| event.metadata().event_id).collect()
            };
            let all: Vec<_> = recorded.iter().flat_map(|recorded| ids(recorded)).collect();
            let found = match outbox::find(parts, self.operation, route.target(), &all).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "where emitted events lie cannot be read");
                    continue;
                }
            };
            for recorded in recorded {
                let places = ids(recorded);
                let places = places.iter().map(|event_id| found.get(event_id).copied());
                if let Some(events) = places.collect::<Option<Vec<_>>>()
                    && let Some(Some(run)) = stored.runs.get_mut(recorded.run)
                    && let Some(appended) = run.get_mut(recorded.index)
                {
                    appended.events = events;
                }
            }
        }
    }

    /// Where the events of so many runs lie: of each append the first version, and then the positions.
    pub(crate) fn stored(&self, runs: usize, mut values: &[Value]) -> Result<Stored, Unreadable> {
        let mut stored = vec![Some(Vec::new()); runs];
        let mut recorded = Vec::new();
        for (append, emitted) in self.appends.iter().enumerate() {
            let Emitted {
                run,
                aggregate,
                texts,
                ..
            } = emitted;
            let (version, rest) = values.split_first().ok_or("too few versions")?;
            values = rest;
            if *version == Value::Int(-1) {
                stored[*run] = None;
                continue;
            }
            if *version == Value::Int(-2) {
                let (number, rest) = values.split_first().ok_or("too few numbers")?;
                values = rest;
                if let Some(stored) = &mut stored[*run] {
                    recorded.push(Recorded {
                        append,
                        run: *run,
                        index: stored.len(),
                        number: wire::count(number)?,
                    });
                    stored.push(Appended::default());
                }
                continue;
            }
            let (positions, rest) = rest
                .split_at_checked(texts.len())
                .ok_or("too few positions")?;
            values = rest;
            let events = wire::stored(positions, wire::count(version)?, aggregate.is_some())?;
            if let Some(stored) = &mut stored[*run] {
                stored.push(Appended {
                    events,
                    partition: None,
                });
            }
        }
        Ok(Stored {
            runs: stored,
            recorded,
        })
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
    fn key_count(&self, target: &Target<'_>) -> usize {
        usize::from(self.aggregate.is_some() && target.route.is_none())
    }

    fn write_keys(&self, target: &Target<'_>, command: &mut Cmd) {
        if let Some((aggregate, _)) = &self.aggregate
            && target.route.is_none()
        {
            target.keys.write_history(command, aggregate);
        }
    }
}

/// What a target in another slot says of what is emitted to it.
enum Checked {
    /// It can be stored, and this number was delivered last.
    Possible(u64),
    Refused(Vec<(usize, AppendError)>),
    /// Its category has so many.
    Partitions(u32),
}

/// Asks until enough replicas have what is stored, where they must. Asked again, the script must store
/// nothing twice.
pub(crate) async fn ask_replicated(
    parts: &Parts,
    operation: &'static str,
    command: Cmd,
    script: &Script,
    is_stored: fn(i64) -> bool,
) -> Result<Value, StoreError> {
    let Some(replication) = &parts.replication else {
        let request = Request::Command(&command);
        return parts
            .connections
            .ask(operation, request, Some(script))
            .await;
    };
    let mut attempts = Attempts::new(operation, parts.patience);
    let mut first = None;
    loop {
        let (reply, reached) = replication.ask(operation, command.clone(), script).await?;
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
