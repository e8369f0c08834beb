//! The groups of handlers with parallel delivery: native groups of the streams.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::{Future, poll_fn};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use event_core::{
    Consumer, FeedEntry, Finish, FinishError, Finished, ParallelGroup, ParallelReader, Partition,
    Position, ReadError, Start, StoreError, Taken,
};
use futures::future::join_all;
use redis::{Cmd, Pipeline, RedisError, RedisWrite, Value};
use tokio::time::sleep;

use crate::connection::{Attempts, Links, Request, next_pause, pauses};
use crate::courier::Couriers;
use crate::emissions::{self, Emissions, Origin, Stored, to_json};
use crate::error::{Remedy, UnexpectedReply, refused, remedy};
use crate::keys::{FeedKeys, Ordered};
use crate::reader::{BLOCK, Live, unblock};
use crate::scripts::{
    FINISH, IS_FINISHED, OPEN_PARALLEL, REMOVE_CONSUMERS, Script, TOUCH, finish_status, open_status,
};
use crate::start::{self, StartFrom};
use crate::store::Parts;
use crate::tap::Reply;
use crate::trim;
use crate::wire::{self, Unreadable};

const OPENING: &str = "open_parallel";
const TAKING: &str = "take";
const TAKING_BACK: &str = "take_back";
const CLAIMING: &str = "claim";
const KEEPING: &str = "keep_alive";
const LETTING_GO: &str = "let_go";
const FINISHING: &str = "finish";
const LOOKING: &str = "is_finished";
const LEAVING: &str = "leave_parallel";
const REMOVING: &str = "remove_consumers";

/// Entries that are claimed at once.
const CHUNK: usize = 500;

/// For how long what was let go counts as idle: longer than any lease, and not before 1970.
const LONG_AGO: Duration = Duration::from_hours(365 * 24);

/// How the server says that there is no such group, or no such stream.
const NO_GROUP: &str = "NOGROUP";

/// Makes the group known for a partition.
pub(crate) async fn open(
    parts: &Parts,
    group: &ParallelGroup,
    partition: &Partition,
    start: Start,
) -> Result<(), StoreError> {
    open_from(parts, group, partition, StartFrom::new(start)).await
}

async fn open_from(
    parts: &Parts,
    group: &ParallelGroup,
    partition: &Partition,
    mut from: StartFrom,
) -> Result<(), StoreError> {
    let keys = parts.keys.of(partition);
    let of_group = keys.group(&group.group);
    let memory = keys.parallel(group);
    let mut before: Option<(Position, u64)> = None;
    loop {
        let mut command = OPEN_PARALLEL.call(8, 4 + StartFrom::ARGUMENTS, 512);
        for key in [
            memory.as_str(),
            keys.feed(),
            &of_group.dead,
            &of_group.dead_order,
            &of_group.dead_raw,
            &of_group.handlers,
            keys.groups(),
            keys.trimmed(),
        ] {
            command.write_arg(key.as_bytes());
        }
        command.write_arg_fmt(group);
        from.write(&mut command);
        command.write_arg(group.handler.as_bytes());
        match before {
            Some((position, passed)) => {
                command.write_arg_fmt(position);
                command.write_arg_fmt(passed);
            }
            None => {
                command.write_arg(b"");
                command.write_arg(b"");
            }
        }
        let reply = call(parts, OPENING, &command, &OPEN_PARALLEL).await?;
        let unreadable =
            |what| UnexpectedReply::form("EVALSHA open_parallel.lua", what).refused(OPENING);
        let values = wire::array(reply).map_err(unreadable)?;
        let status = values.first().map_or(Ok(-1), wire::integer);
        match (status.map_err(unreadable)?, values.as_slice()) {
            (open_status::OPEN, _) => return Ok(()),
            (open_status::FORGOTTEN, _) => {
                let group = group.to_string();
                let feed = keys.feed().to_owned();
                let source = UnexpectedReply::Forgotten { feed, group };
                return Err(StoreError::Forgotten {
                    operation: OPENING,
                    source: Box::new(source),
                });
            }
            (open_status::COUNT, [_, position]) => {
                let position = wire::slice(position).and_then(wire::position);
                let position = position.map_err(unreadable)?;
                let counted = start::count(parts, OPENING, partition, position).await?;
                before = Some((position, counted.passed));
            }
            (open_status::COUNT, _) => from = from.counted(parts, OPENING, partition).await?,
            (open_status::TRIMMED, [_, up_to]) => {
                return Err(trim::gone(partition, up_to).map_err(unreadable)?);
            }
            (open_status::FORBIDDEN, [_, command]) => {
                let feed = keys.feed().to_owned();
                let command = wire::text(command).map_err(unreadable)?.to_owned();
                return Err(UnexpectedReply::Forbidden { feed, command }.refused(OPENING));
            }
            _ => return Err(unreadable("an unknown status")),
        }
    }
}

/// Makes the group again that the server has lost. What is remembered says from where on; where that is
/// lost, too, everything that is there now is new.
async fn heal(
    parts: &Parts,
    group: &ParallelGroup,
    partition: &Partition,
) -> Result<(), StoreError> {
    tracing::warn!(%group, %partition, "the group is lost on the server; it is made again from what is remembered");
    open_from(parts, group, partition, StartFrom::again()).await
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

/// Asks for something of a group; `None` where the server has lost it, and it is made again now.
async fn ask(
    parts: &Parts,
    operation: &'static str,
    group: &ParallelGroup,
    partition: &Partition,
    command: Cmd,
) -> Result<Option<Value>, StoreError> {
    let mut pipeline = Pipeline::with_capacity(1);
    pipeline.add_command(command);
    let request = Request::Pipeline(&pipeline);
    let replies = parts.connections.ask(operation, request, None).await?;
    let reply = wire::array(replies).unwrap_or_default().pop();
    match reply {
        Some(Value::ServerError(error)) if error.code() == NO_GROUP => {
            heal(parts, group, partition).await?;
            Ok(None)
        }
        Some(Value::ServerError(error)) => Err(refused(operation, error.into())),
        Some(reply) => Ok(Some(reply)),
        None => Err(UnexpectedReply::form("XREADGROUP", "no reply").refused(operation)),
    }
}

/// What is pending for a consumer already.
pub(crate) async fn take_back(
    parts: &Parts,
    consumer: &Consumer,
    partition: &Partition,
    mut after: Position,
    limit: usize,
) -> Result<Vec<FeedEntry>, StoreError> {
    let keys = parts.keys.of(partition);
    loop {
        let mut command = read_group(consumer, limit, None, 1);
        command.write_arg(keys.feed().as_bytes());
        command.write_arg_fmt(after);
        let reply = ask(parts, TAKING_BACK, &consumer.group, partition, command).await?;
        let Some(reply) = reply else {
            return Ok(Vec::new());
        };
        let unreadable = |what| UnexpectedReply::form("XREADGROUP", what).refused(TAKING_BACK);
        let stream = wire::array(reply).map_err(unreadable)?.pop();
        let Some(stream) = stream else {
            return Ok(Vec::new());
        };
        let (_, entries) = wire::stream(stream).map_err(unreadable)?;
        let last = wire::last_position(entries.clone()).map_err(unreadable)?;
        let entries = existing(entries).map_err(unreadable)?;
        let entries = wire::feed_entries(partition, entries).map_err(unreadable)?;
        match last {
            // All of these were deleted.
            Some(last) if entries.is_empty() => after = last,
            _ => return Ok(entries),
        }
    }
}

/// The entries of a reply that were not deleted meanwhile: of those there is only the position.
fn existing(entries: Value) -> Result<Value, Unreadable> {
    let mut entries = wire::array(entries)?;
    entries.retain(|entry| match entry {
        Value::Array(parts) => parts.get(1).is_some_and(|fields| *fields != Value::Nil),
        _ => false,
    });
    Ok(Value::Array(entries))
}

/// The beginning of a command that reads so many streams for a consumer.
fn read_group(consumer: &Consumer, count: usize, wait: Option<Duration>, streams: usize) -> Cmd {
    let mut command = Cmd::with_capacity(9 + 2 * streams, 128 + 96 * streams);
    command.write_arg(b"XREADGROUP");
    command.write_arg(b"GROUP");
    command.write_arg_fmt(&consumer.group);
    command.write_arg(consumer.instance.as_bytes());
    command.write_arg(b"COUNT");
    command.write_arg_fmt(count.max(1));
    if let Some(wait) = wait {
        command.write_arg(b"BLOCK");
        command.write_arg_fmt(wait.as_millis().max(1));
    }
    command.write_arg(b"STREAMS");
    command
}

/// Makes pending for a consumer what nobody has kept alive.
pub(crate) async fn claim(
    parts: &Parts,
    consumer: &Consumer,
    partition: &Partition,
    idle: Duration,
    limit: usize,
) -> Result<Vec<FeedEntry>, StoreError> {
    let keys = parts.keys.of(partition);
    let unreadable = |what| UnexpectedReply::form("XAUTOCLAIM", what).refused(CLAIMING);
    let mut cursor = Position::START;
    let mut claimed = Vec::new();
    // The server looks at some pending entries at a time, and says where it has stopped.
    while claimed.len() < limit {
        let mut command = Cmd::with_capacity(8, 256);
        command.write_arg(b"XAUTOCLAIM");
        command.write_arg(keys.feed().as_bytes());
        command.write_arg_fmt(&consumer.group);
        command.write_arg(consumer.instance.as_bytes());
        command.write_arg_fmt(idle.as_millis());
        command.write_arg_fmt(cursor);
        command.write_arg(b"COUNT");
        command.write_arg_fmt((limit - claimed.len()).min(CHUNK));
        let reply = ask(parts, CLAIMING, &consumer.group, partition, command).await?;
        let Some(reply) = reply else {
            break;
        };
        let mut values = wire::array(reply).map_err(unreadable)?.into_iter();
        let (Some(next), Some(entries)) = (values.next(), values.next()) else {
            return Err(unreadable("too few parts"));
        };
        let entries = existing(entries).map_err(unreadable)?;
        claimed.extend(wire::feed_entries(partition, entries).map_err(unreadable)?);
        cursor = wire::slice(&next)
            .and_then(wire::position)
            .map_err(unreadable)?;
        if cursor == Position::START {
            break;
        }
    }
    Ok(claimed)
}

/// Says that a consumer still works on entries.
pub(crate) async fn keep_alive(
    parts: &Parts,
    consumer: &Consumer,
    partition: &Partition,
    positions: &[Position],
) -> Result<(), StoreError> {
    touch(
        parts,
        KEEPING,
        consumer,
        partition,
        positions,
        Duration::ZERO,
    )
    .await
}

/// Gives entries up.
pub(crate) async fn let_go(
    parts: &Parts,
    consumer: &Consumer,
    partition: &Partition,
    positions: &[Position],
) -> Result<(), StoreError> {
    touch(parts, LETTING_GO, consumer, partition, positions, LONG_AGO).await
}

async fn touch(
    parts: &Parts,
    operation: &'static str,
    consumer: &Consumer,
    partition: &Partition,
    positions: &[Position],
    idle: Duration,
) -> Result<(), StoreError> {
    if positions.is_empty() {
        return Ok(());
    }
    let mut command = TOUCH.call(1, 3 + positions.len(), 256 + positions.len() * 24);
    command.write_arg(parts.keys.of(partition).feed().as_bytes());
    command.write_arg_fmt(&consumer.group);
    command.write_arg(consumer.instance.as_bytes());
    command.write_arg_fmt(idle.as_millis());
    for position in positions {
        command.write_arg_fmt(position);
    }
    call(parts, operation, &command, &TOUCH).await?;
    Ok(())
}

/// Stores what has come of entries.
pub(crate) async fn finish(
    parts: &Parts,
    couriers: &Couriers,
    consumer: &Consumer,
    partition: &Partition,
    finish: &Finish,
) -> Result<Finished, FinishError> {
    let origin = Origin {
        couriers,
        group: &consumer.group.group,
        partition,
    };
    let mut attempts = Attempts::new(FINISHING, parts.patience);
    loop {
        let runs = finish.emitted.iter().map(|emits| emits.appends.as_slice());
        let emissions = Emissions::new(parts, FINISHING, origin, runs)
            .map_err(|refused| FinishError::Refused { refused })?;
        if !emissions.meet(parts).await? {
            continue;
        }
        let command = encode(parts, consumer, partition, finish, &emissions)?;
        let is_stored = |status| status == finish_status::STORED;
        let reply = match emissions.ask(parts, command, &FINISH, is_stored).await {
            Ok(reply) => reply,
            Err(error @ StoreError::Refused { .. }) => {
                return Err(match emissions.blame(parts, error).await {
                    Ok(refused) => FinishError::Refused { refused },
                    Err(error) => error.into(),
                });
            }
            Err(error) => return Err(error.into()),
        };

        let unreadable =
            |what| UnexpectedReply::form("EVALSHA finish.lua", what).refused(FINISHING);
        let status = emissions::status(&reply).ok_or_else(|| unreadable("no status"))?;
        let values = wire::array(reply).map_err(unreadable)?;
        match status {
            finish_status::STORED => {
                let (dead_letters, mut stored) =
                    finished(finish, &emissions, &values).map_err(unreadable)?;
                emissions.settle(parts);
                // After a repetition, too, since whoever was told of the first may be gone.
                emissions.send();
                if finish.wants_places {
                    emissions.find(parts, &mut stored).await;
                }
                return Ok(Finished {
                    emitted: stored.runs,
                    dead_letters,
                });
            }
            finish_status::REFUSED => {
                return Err(FinishError::Refused {
                    refused: emissions.refused(&values[1..]).map_err(unreadable)?,
                });
            }
            // It is settled now, so that this happens once for each category.
            finish_status::PARTITIONS => {
                let (category, count) = emissions.partitions(&values[1..]).map_err(unreadable)?;
                parts.keys.settle(&category, count);
            }
            finish_status::FULL => {
                emissions.wait_for_room(&values[1..], &mut attempts).await?;
            }
            finish_status::NO_GROUP => {
                heal(parts, &consumer.group, partition).await?;
                let what = "the group is lost, again and again".to_owned();
                let error = (redis::ErrorKind::Io, "no group", what);
                attempts.pause(RedisError::from(error)).await?;
            }
            _ => return Err(unreadable("an unknown status").into()),
        }
    }
}

/// The call of the script: what its keys and arguments are, it says itself.
fn encode(
    parts: &Parts,
    consumer: &Consumer,
    partition: &Partition,
    finish: &Finish,
    emissions: &Emissions<'_>,
) -> Result<Cmd, StoreError> {
    let keys = parts.keys.of(partition);
    let of_group = keys.group(&consumer.group.group);
    let position_count = finish.done.len() + finish.emitted.len();
    let argument_count = 7 + position_count + finish.parked.len() * 3 + emissions.argument_count();
    let bytes = 1024 + position_count * 24 + finish.parked.len() * 512 + emissions.bytes();
    let mut command = FINISH.call(5 + emissions.key_count(), argument_count, bytes);
    for key in [
        keys.parallel(&consumer.group).as_str(),
        keys.feed(),
        &of_group.dead,
        &of_group.dead_order,
        &of_group.dead_raw,
    ] {
        command.write_arg(key.as_bytes());
    }
    emissions.write_keys(&mut command);

    command.write_arg_fmt(&consumer.group);
    command.write_arg(consumer.instance.as_bytes());
    for count in [
        finish.done.len(),
        finish.emitted.len(),
        finish.parked.len(),
        emissions.target_count(),
        emissions.append_count(),
    ] {
        command.write_arg_fmt(count);
    }
    for position in &finish.done {
        command.write_arg_fmt(position);
    }
    for emits in &finish.emitted {
        command.write_arg_fmt(emits.position);
    }
    for letter in &finish.parked {
        let id = letter.id();
        command.write_arg_fmt(&id);
        command.write_arg_fmt(Ordered(&id));
        command.write_arg(&to_json(FINISHING, letter)?);
    }
    emissions.write_arguments(&mut command);
    Ok(command)
}

fn finished(
    finish: &Finish,
    emissions: &Emissions<'_>,
    values: &[Value],
) -> Result<(usize, Stored), Unreadable> {
    let [_, letters, failure, own, places @ ..] = values else {
        return Err("too few parts");
    };
    let failure = wire::text(failure)?;
    if !failure.is_empty() {
        tracing::warn!(%failure, "an event was emitted, but not published");
    }
    let mut stored = emissions.stored(finish.emitted.len(), places)?;
    for (stored, own) in stored.runs.iter_mut().zip(wire::slice(own)?) {
        if *own == b'0' {
            *stored = None;
        }
    }
    let letters = usize::try_from(wire::count(letters)?).map_err(|_| "too large a number")?;
    Ok((letters, stored))
}

/// Whether every entry of a range was delivered and is pending for nobody.
pub(crate) async fn is_finished(
    parts: &Parts,
    group: &ParallelGroup,
    partition: &Partition,
    positions: RangeInclusive<Position>,
) -> Result<bool, StoreError> {
    let mut command = IS_FINISHED.call(1, 3, 256);
    command.write_arg(parts.keys.of(partition).feed().as_bytes());
    command.write_arg_fmt(group);
    command.write_arg_fmt(positions.start());
    command.write_arg_fmt(positions.end());
    let reply = call(parts, LOOKING, &command, &IS_FINISHED).await?;
    let reply = wire::integer(&reply)
        .map_err(|what| UnexpectedReply::form("EVALSHA is_finished.lua", what).refused(LOOKING))?;
    if reply < 0 {
        heal(parts, group, partition).await?;
    }
    Ok(reply == 1)
}

/// Forgets a consumer, unless something is pending for it.
pub(crate) async fn leave(
    parts: &Parts,
    consumer: &Consumer,
    partition: &Partition,
) -> Result<(), StoreError> {
    let (group, instance) = (&consumer.group, &consumer.instance);
    forget(parts, LEAVING, group, partition, Duration::ZERO, instance).await?;
    Ok(())
}

/// Forgets consumers that have done nothing for long and for which nothing is pending.
pub(crate) async fn remove_consumers(
    parts: &Parts,
    group: &ParallelGroup,
    partition: &Partition,
    idle: Duration,
) -> Result<usize, StoreError> {
    forget(parts, REMOVING, group, partition, idle, "").await
}

async fn forget(
    parts: &Parts,
    operation: &'static str,
    group: &ParallelGroup,
    partition: &Partition,
    idle: Duration,
    consumer: &str,
) -> Result<usize, StoreError> {
    let mut command = REMOVE_CONSUMERS.call(1, 3, 256);
    command.write_arg(parts.keys.of(partition).feed().as_bytes());
    command.write_arg_fmt(group);
    command.write_arg_fmt(idle.as_millis());
    command.write_arg(consumer.as_bytes());
    let reply = call(parts, operation, &command, &REMOVE_CONSUMERS).await?;
    wire::count(&reply)
        .and_then(|count| usize::try_from(count).map_err(|_| "too large a number"))
        .map_err(|what| {
            UnexpectedReply::form("EVALSHA remove_consumers.lua", what).refused(operation)
        })
}

/// What a reader is told of its connection, so that it can have the server answer at once.
struct Blocked {
    links: Arc<Links>,
    /// The number by which the server knows the connection.
    id: Option<i64>,
}

type Taking = Pin<Box<dyn Future<Output = (Option<Live>, Result<Taken, StoreError>)> + Send>>;

/// Partitions of one slot.
type Reads = Arc<[(Partition, Arc<FeedKeys>)]>;

/// Takes entries for a consumer, over a connection of its own; in a cluster over one for each slot.
pub(crate) struct RedisParallelReader {
    sides: Vec<Side>,
    /// Which of the sides takes a partition.
    side_of: HashMap<Partition, usize>,
    left_out: HashSet<Partition>,
    /// What was taken over some connections, while the caller waits for others.
    taken: Taken,
}

/// What is taken over one connection.
struct Side {
    source: Arc<Source>,
    live: Option<Live>,
    /// What goes on, also where a caller has not waited for it, and for which partitions.
    taking: Option<(Taking, Reads)>,
}

/// Where entries are taken from.
struct Source {
    parts: Arc<Parts>,
    consumer: Consumer,
    /// In a cluster, the slot that all of them lie in.
    slot: Option<u16>,
    partitions: Reads,
    blocked: Mutex<Option<Blocked>>,
}

impl RedisParallelReader {
    pub(crate) fn new(parts: &Arc<Parts>, consumer: &Consumer, partitions: &[Partition]) -> Self {
        let mut by_slot: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for partition in partitions {
            let keys = parts.keys.of(partition);
            let slot = parts.connections.slot(keys.feed());
            let of_slot = by_slot.entry(slot).or_default();
            of_slot.push((partition.clone(), keys));
        }
        let side = |(slot, partitions): (_, Vec<_>)| Side {
            source: Arc::new(Source {
                parts: Arc::clone(parts),
                consumer: consumer.clone(),
                slot,
                partitions: partitions.into(),
                blocked: Mutex::new(None),
            }),
            live: None,
            taking: None,
        };
        let sides: Vec<_> = by_slot.into_iter().map(side).collect();
        let mut side_of = HashMap::new();
        for (index, side) in sides.iter().enumerate() {
            for (partition, _) in &*side.source.partitions {
                side_of.insert(partition.clone(), index);
            }
        }
        Self {
            sides,
            side_of,
            left_out: HashSet::new(),
            taken: Taken::default(),
        }
    }

    /// Notes what has come of one side. Another one that does not answer must not keep it back.
    fn take_in(
        &mut self,
        index: usize,
        reads: &Reads,
        taken: Result<Taken, StoreError>,
    ) -> Result<(), StoreError> {
        match taken {
            Ok(taken) => {
                self.taken.entries.extend(taken.entries);
                self.taken.torn.extend(taken.torn);
                Ok(())
            }
            Err(error) if self.sides.len() > 1 => {
                let slot = self.sides[index].source.slot;
                tracing::error!(?slot, %error, "a part of the entries cannot be taken; trying again");
                let torn = reads.iter().map(|(partition, _)| partition.clone());
                self.taken.torn.extend(torn);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl Side {
    fn begin(&mut self, limit: usize, wait: Duration, left_out: &HashSet<Partition>) {
        if self.taking.is_some() {
            return;
        }
        let source = &self.source;
        let is_left_out = |(partition, _): &(Partition, _)| left_out.contains(partition);
        let reads: Reads = if source.partitions.iter().any(is_left_out) {
            let partitions = source.partitions.iter();
            partitions
                .filter(|read| !is_left_out(read))
                .cloned()
                .collect()
        } else {
            Arc::clone(&source.partitions)
        };
        if reads.is_empty() {
            return;
        }
        let live = self.live.take();
        let taking = Arc::clone(source).take(live, Arc::clone(&reads), limit, wait);
        self.taking = Some((Box::pin(taking), reads));
    }

    /// What it has taken, if it has come to an end, and for which partitions.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(Reads, Result<Taken, StoreError>)> {
        let Some((taking, _)) = &mut self.taking else {
            return Poll::Pending;
        };
        let (live, taken) = ready!(taking.as_mut().poll(context));
        self.live = live;
        match self.taking.take() {
            Some((_, reads)) => Poll::Ready((reads, taken)),
            None => Poll::Pending,
        }
    }

    async fn close(&mut self) -> Result<Taken, StoreError> {
        if self.taking.is_none() {
            return Ok(Taken::default());
        }
        let source = Arc::clone(&self.source);
        let unblock = async {
            let blocked = source.blocked().take();
            if let Some(Blocked { links, id }) = blocked {
                unblock(&links, TAKING, id).await;
            }
        };
        tokio::select! {
            biased;
            (_, end) = poll_fn(|context| self.poll(context)) => end,
            // It is still blocked, or not connected. What comes nevertheless is claimed by others.
            () = unblock => {
                self.taking = None;
                Ok(Taken::default())
            }
        }
    }
}

#[async_trait]
impl ParallelReader for RedisParallelReader {
    async fn take(&mut self, limit: usize, wait: Duration) -> Result<Taken, ReadError> {
        if limit > 0 {
            for side in &mut self.sides {
                side.begin(limit, wait, &self.left_out);
            }
        }
        poll_fn(|context| {
            let mut is_over = false;
            for index in 0..self.sides.len() {
                if let Poll::Ready((reads, taken)) = self.sides[index].poll(context) {
                    is_over = true;
                    self.take_in(index, &reads, taken)?;
                }
            }
            let is_idle = self.sides.iter().all(|side| side.taking.is_none());
            // Who does not want to wait wants to know of all of them.
            match is_idle || is_over && !wait.is_zero() {
                true => Poll::Ready(Ok(std::mem::take(&mut self.taken))),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn is_taking(&self, partition: &Partition) -> bool {
        let is_read = |side: &Side| match &side.taking {
            Some((_, reads)) => reads.iter().any(|(read, _)| read == partition),
            None => false,
        };
        let side = self.side_of.get(partition);
        let mut given = self.taken.entries.iter();
        side.is_some_and(|index| is_read(&self.sides[*index]))
            || given.any(|(given, _)| given == partition)
    }

    fn leave_out(&mut self, partitions: &[Partition]) {
        self.left_out = partitions.iter().cloned().collect();
    }

    async fn close(&mut self) -> Result<Taken, ReadError> {
        let mut failure = None;
        for closed in join_all(self.sides.iter_mut().map(Side::close)).await {
            match closed {
                Ok(taken) => self.taken.entries.extend(taken.entries),
                // What others have given is not lost for that.
                Err(error) => {
                    tracing::debug!(%error, "what was taken last over one connection did not arrive");
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if self.taken.entries.is_empty() => Err(error.into()),
            _ => Ok(std::mem::take(&mut self.taken)),
        }
    }
}

impl Source {
    fn blocked(&self) -> MutexGuard<'_, Option<Blocked>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes until the server has answered once.
    async fn take(
        self: Arc<Self>,
        mut live: Option<Live>,
        reads: Reads,
        limit: usize,
        wait: Duration,
    ) -> (Option<Live>, Result<Taken, StoreError>) {
        let mut attempts = Attempts::new(TAKING, self.parts.patience);
        let mut healing = pauses();
        let mut is_torn = false;
        let mut moving_to = None;
        loop {
            let asked = self.ask(&mut live, moving_to.take(), &reads, limit, wait);
            let error = match asked.await {
                Ok(reply) => {
                    let taken = taken(&reads, is_torn, reply)
                        .map_err(|what| UnexpectedReply::form("XREADGROUP", what).refused(TAKING));
                    return (live, taken);
                }
                Err(error) => error,
            };
            if error.code() == Some(NO_GROUP) {
                // Not all of them may be lost; what is there is left as it is.
                for (partition, _) in &*reads {
                    let group = &self.consumer.group;
                    if let Err(error) = heal(&self.parts, group, partition).await {
                        return (live, Err(error));
                    }
                }
                sleep(next_pause(&mut healing)).await;
                continue;
            }
            live = None;
            *self.blocked() = None;
            let connections = &self.parts.connections;
            let again = match remedy(&error) {
                Remedy::Nothing => return (live, Err(refused(TAKING, error))),
                Remedy::AskElsewhere => {
                    moving_to = connections.moving_to(&error);
                    if moving_to.is_none() {
                        connections.learn(&error);
                    }
                    attempts.again(error).await
                }
                _ => {
                    tracing::debug!(operation = TAKING, %error, "cannot read; trying again");
                    // The server may have given entries whose reply is lost.
                    is_torn = true;
                    connections.learn(&error);
                    attempts.pause(error).await
                }
            };
            if let Err(error) = again {
                return (live, Err(error));
            }
        }
    }

    async fn ask(
        &self,
        live: &mut Option<Live>,
        moving_to: Option<Arc<Links>>,
        reads: &Reads,
        limit: usize,
        wait: Duration,
    ) -> Result<Reply, RedisError> {
        let live = match live {
            Some(live) => live,
            none => {
                let connections = &self.parts.connections;
                none.insert(Live::connect(connections, self.slot, moving_to).await?)
            }
        };
        *self.blocked() = Some(Blocked {
            links: Arc::clone(&live.links),
            id: live.id,
        });
        let wait = (!wait.is_zero()).then(|| wait.min(BLOCK));
        let mut command = read_group(&self.consumer, limit, wait, reads.len());
        for (_, keys) in &**reads {
            command.write_arg(keys.feed().as_bytes());
        }
        for _ in &**reads {
            command.write_arg(b">");
        }
        live.read(&command).await
    }
}

fn taken(reads: &Reads, is_torn: bool, reply: Reply) -> Result<Taken, Unreadable> {
    let mut taken = Taken::default();
    // The server replies in the order in which it was asked, and leaves out what has nothing.
    let mut partitions = reads.iter();
    wire::each_stream(reply, |key, entries| {
        let (partition, _) = partitions
            .find(|(_, keys)| keys.feed().as_bytes() == key)
            .ok_or("an unknown stream")?;
        let entries = entries.decode(partition)?;
        taken.entries.push((partition.clone(), entries));
        Ok(())
    })?;
    if is_torn {
        taken.torn = reads
            .iter()
            .map(|(partition, _)| partition.clone())
            .collect();
    }
    Ok(taken)
}
