//! Following several partitions at once, one batch ahead of the caller.
//!
//! A [`Reader`] has a task with a connection of its own, on which the server holds back its reply
//! until there is something to read. Where the caller wants something else meanwhile, the task has
//! the server answer at once, over one of the connections that are shared. In a cluster there is one
//! such task for each slot, since no command may ask for more than one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use event_core::{FeedEntry, GroupBatch, Partition, Position, StoreError, Wanted, metrics};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisWrite, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::{AbortOnDrop, Attempts, Connections, Links, Request};
use crate::error::{Remedy, UnexpectedReply, refused, remedy};
use crate::keys::FeedKeys;
use crate::store::Parts;
use crate::tap::{Reply, Tap};
use crate::wire::{self, Unreadable};

/// Entries of a partition that are read at once.
pub(crate) const CHUNK: usize = 1_000;

/// How long the server holds back its reply where there is nothing to read. Nothing else can be
/// asked on that connection meanwhile, so it is short enough to notice a dead one.
pub(crate) const BLOCK: Duration = Duration::from_secs(5);

/// How much longer than [`BLOCK`] a reply may take, before the connection is thought to be dead.
const GRACE: Duration = Duration::from_secs(3);

/// How long entries are kept for a partition that nobody wants.
const KEEP: Duration = Duration::from_secs(5);

/// The pause before the server is told again to answer at once: it may be told before it has got the
/// question.
const UNBLOCK_PAUSE: Duration = Duration::from_millis(1);

/// Follows partitions, and a group's changes where it is of a group.
pub(crate) struct Reader {
    parts: Arc<Parts>,
    operation: &'static str,
    changes: Option<Changes>,
    /// Something has changed, and the caller does not know yet.
    changed: bool,
    kept: HashMap<Partition, Kept>,
    /// The only one; in a cluster one for each slot that something is wanted of.
    sides: Vec<Side>,
}

/// What is read over one connection.
struct Side {
    /// In a cluster, the slot.
    slot: Option<u16>,
    /// Whether the group's changes are read here.
    has_changes: bool,
    /// What the task has been asked for and has not answered yet: from where on each partition is
    /// read.
    asked: Option<HashMap<Partition, Position>>,
    /// Counts the plans.
    number: u64,
    task: Option<Task>,
    wanted_at: Instant,
}

/// The stream of a group's changes.
#[derive(Clone)]
pub(crate) struct Changes {
    pub(crate) key: String,
    /// Those up to here are known.
    pub(crate) after: Position,
}

/// What was read of a partition and not handed out yet: everything that lies behind `after`, up to
/// the last entry.
struct Kept {
    after: Position,
    entries: VecDeque<FeedEntry>,
    wanted_at: Instant,
}

impl Kept {
    fn end(&self) -> Position {
        self.entries.back().map_or(self.after, FeedEntry::position)
    }
}

/// What the task is to read.
#[derive(Default)]
struct Plan {
    number: u64,
    reads: Vec<Read>,
    count: usize,
}

struct Read {
    partition: Partition,
    keys: Arc<FeedKeys>,
    after: Position,
}

/// What the task has read for a plan.
struct News {
    number: u64,
    /// From each partition that has some: after which position, and the entries.
    entries: Vec<(Partition, Position, Vec<FeedEntry>)>,
    /// The newest of the group's changes, where there are new ones.
    changes: Option<Position>,
}

/// The task that reads.
struct Task {
    plans: watch::Sender<Arc<Plan>>,
    news: mpsc::Receiver<Result<News, StoreError>>,
    _task: AbortOnDrop,
}

impl Reader {
    pub(crate) fn new(
        parts: &Arc<Parts>,
        operation: &'static str,
        changes: Option<Changes>,
    ) -> Self {
        let mut reader = Self {
            parts: Arc::clone(parts),
            operation,
            changed: false,
            kept: HashMap::new(),
            sides: Vec::new(),
            changes,
        };
        if let Some(changes) = &reader.changes {
            let slot = parts.connections.slot(&changes.key);
            reader.sides.push(Side::new(slot, true));
        } else if !parts.connections.is_cluster() {
            reader.sides.push(Side::new(None, false));
        }
        reader
    }

    /// Waits until there is something of what is wanted, or something has changed in the group.
    ///
    /// It may be dropped while it waits: what the tasks have read stays in their channels.
    pub(crate) async fn next(&mut self, wanted: &[Wanted]) -> Result<GroupBatch, StoreError> {
        self.keep_only(wanted);
        for index in 0..self.sides.len() {
            while let Some(news) = self.sides[index]
                .task
                .as_mut()
                .and_then(|task| task.news.try_recv().ok())
            {
                self.take_in(index, news)?;
            }
        }
        loop {
            let batch = self.hand_out(wanted);
            self.plan(wanted);
            if batch.changed || !batch.entries.is_empty() {
                return Ok(batch);
            }
            match news(&mut self.sides).await {
                (index, Some(news)) => self.take_in(index, news)?,
                (index, None) => {
                    tracing::error!(
                        operation = self.operation,
                        "the task that reads has ended; starting another"
                    );
                    self.sides[index].task = None;
                    self.sides[index].asked = None;
                    // If it ends again and again, then not in a busy loop.
                    sleep(GRACE).await;
                }
            }
        }
    }

    /// Forgets what was read of partitions that nobody has wanted for some time. One whose reader has
    /// only paused is not read twice.
    fn keep_only(&mut self, wanted: &[Wanted]) {
        let now = Instant::now();
        for Wanted { partition, .. } in wanted {
            if let Some(kept) = self.kept.get_mut(partition) {
                kept.wanted_at = now;
            }
        }
        self.kept
            .retain(|_, kept| now.duration_since(kept.wanted_at) < KEEP);
    }

    fn take_in(&mut self, index: usize, news: Result<News, StoreError>) -> Result<(), StoreError> {
        let is_one_of_several = self.sides.len() > 1;
        let side = &mut self.sides[index];
        let news = match news {
            Ok(news) => news,
            Err(error) => {
                side.asked = None;
                // One node that does not answer must not stop what is read from the others.
                if is_one_of_several && matches!(error, StoreError::Unavailable { .. }) {
                    tracing::error!(%error, "a part of the feeds cannot be read; trying again");
                    return Ok(());
                }
                return Err(error);
            }
        };
        if news.number == side.number {
            side.asked = None;
        }
        if let (Some(changes), Some(newest)) = (&mut self.changes, news.changes) {
            changes.after = newest;
            self.changed = true;
        }
        for (partition, after, entries) in news.entries {
            match self.kept.get_mut(&partition) {
                None => {
                    let kept = Kept {
                        after,
                        entries: entries.into(),
                        wanted_at: Instant::now(),
                    };
                    self.kept.insert(partition, kept);
                }
                // What was asked for later may overlap with what was asked for before.
                Some(kept) if after <= kept.end() => {
                    let end = kept.end();
                    let new = entries.into_iter().filter(|entry| entry.position() > end);
                    kept.entries.extend(new);
                }
                // There is a gap between the two.
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The beginning of what is there of each partition.
    fn hand_out(&mut self, wanted: &[Wanted]) -> GroupBatch {
        let mut batch = GroupBatch {
            entries: Vec::new(),
            changed: std::mem::take(&mut self.changed),
        };
        for wish in wanted {
            let Some(kept) = self.kept.get_mut(&wish.partition) else {
                continue;
            };
            if !(kept.after..=kept.end()).contains(&wish.after) {
                self.kept.remove(&wish.partition);
                continue;
            }
            while kept
                .entries
                .front()
                .is_some_and(|entry| entry.position() <= wish.after)
            {
                kept.entries.pop_front();
            }
            kept.after = wish.after;
            let entries: Vec<FeedEntry> = if kept.entries.len() <= wish.limit {
                std::mem::take(&mut kept.entries).into()
            } else {
                kept.entries.drain(..wish.limit).collect()
            };
            if let Some(last) = entries.last() {
                kept.after = last.position();
                batch.entries.push((wish.partition.clone(), entries));
            }
        }
        batch
    }

    /// Asks for what comes next.
    fn plan(&mut self, wanted: &[Wanted]) {
        if let [only @ Side { slot: None, .. }] = self.sides.as_mut_slice() {
            only.plan(
                &self.parts,
                self.operation,
                &self.changes,
                &self.kept,
                wanted.iter(),
            );
            return;
        }
        let now = Instant::now();
        let mut by_slot: BTreeMap<_, Vec<&Wanted>> = BTreeMap::new();
        for wish in wanted {
            let keys = self.parts.keys.of(&wish.partition);
            let slot = self.parts.connections.slot(keys.feed());
            by_slot.entry(slot).or_default().push(wish);
        }
        // A slot whose reader has only paused keeps its connection.
        self.sides.retain(|side| {
            side.has_changes
                || by_slot.contains_key(&side.slot)
                || now.duration_since(side.wanted_at) < KEEP
        });
        for slot in by_slot.keys() {
            if !self.sides.iter().any(|side| side.slot == *slot) {
                self.sides.push(Side::new(*slot, false));
            }
        }
        for side in &mut self.sides {
            let wanted = by_slot.remove(&side.slot).unwrap_or_default();
            if !wanted.is_empty() {
                side.wanted_at = now;
            }
            if !wanted.is_empty() || side.has_changes {
                let wanted = wanted.into_iter();
                side.plan(
                    &self.parts,
                    self.operation,
                    &self.changes,
                    &self.kept,
                    wanted,
                );
            }
        }
    }
}

/// What the first of the tasks has to say, and which it is; nothing where it has ended.
async fn news(sides: &mut [Side]) -> (usize, Option<Result<News, StoreError>>) {
    poll_fn(|context| {
        for (index, side) in sides.iter_mut().enumerate() {
            if let Some(task) = &mut side.task
                && let Poll::Ready(news) = task.news.poll_recv(context)
            {
                return Poll::Ready((index, news));
            }
        }
        Poll::Pending
    })
    .await
}

impl Side {
    fn new(slot: Option<u16>, has_changes: bool) -> Self {
        Self {
            slot,
            has_changes,
            asked: None,
            number: 0,
            task: None,
            wanted_at: Instant::now(),
        }
    }

    /// Asks the task for what comes next, unless that is what it reads already.
    fn plan<'w>(
        &mut self,
        parts: &Arc<Parts>,
        operation: &'static str,
        changes: &Option<Changes>,
        kept: &HashMap<Partition, Kept>,
        wanted: impl ExactSizeIterator<Item = &'w Wanted>,
    ) {
        let mut count = 0;
        let mut missing = Vec::with_capacity(wanted.len());
        for wish in wanted {
            let kept = kept.get(&wish.partition);
            let is_enough = kept.map_or(0, |kept| kept.entries.len()) >= wish.limit;
            if !is_enough {
                missing.push((&wish.partition, kept.map_or(wish.after, Kept::end)));
                count = count.max(wish.limit);
            }
        }
        let is_asked = self.asked.as_ref().is_some_and(|asked| {
            missing
                .iter()
                .all(|(partition, after)| asked.get(partition).is_some_and(|from| from <= after))
        });
        if is_asked && self.task.is_some() {
            return;
        }

        self.number += 1;
        let read = |(partition, after): &(&Partition, Position)| Read {
            partition: (*partition).clone(),
            keys: parts.keys.of(partition),
            after: *after,
        };
        let plan = Plan {
            number: self.number,
            reads: missing.iter().map(read).collect(),
            count: count.clamp(1, CHUNK),
        };
        let asked = missing
            .iter()
            .map(|(partition, after)| ((*partition).clone(), *after));
        self.asked = Some(asked.collect());
        let task = self.task.get_or_insert_with(|| {
            let changes = if self.has_changes {
                changes.clone()
            } else {
                None
            };
            Task::start(parts, operation, self.slot, changes)
        });
        task.plans.send_replace(Arc::new(plan));
    }
}

impl Task {
    fn start(
        parts: &Arc<Parts>,
        operation: &'static str,
        slot: Option<u16>,
        changes: Option<Changes>,
    ) -> Self {
        let (sender, news) = mpsc::channel(1);
        let (plans, receiver) = watch::channel(Arc::default());
        let source = Source {
            connections: Arc::clone(&parts.connections),
            slot,
            operation,
            patience: parts.patience,
            changes,
            live: None,
            moving_to: None,
            is_lost: false,
        };
        let task = tokio::spawn(source.follow(receiver, sender));
        Self {
            plans,
            news,
            _task: AbortOnDrop(task),
        }
    }
}

/// Where news come from.
struct Source {
    connections: Arc<Connections>,
    /// In a cluster, the slot that everything lies in.
    slot: Option<u16>,
    operation: &'static str,
    patience: Duration,
    changes: Option<Changes>,
    live: Option<Live>,
    /// Where to connect next, while the slot is moving there.
    moving_to: Option<Arc<Links>>,
    /// Whether there was one before, which broke.
    is_lost: bool,
}

/// The connection on which the server holds back its replies.
pub(crate) struct Live {
    connection: MultiplexedConnection,
    /// By which the server knows it; `None` where it does not say.
    pub(crate) id: Option<i64>,
    /// Keeps replies as they came, and what drives the connection then.
    tap: Option<(Tap, AbortOnDrop)>,
    /// Other connections to the same server.
    pub(crate) links: Arc<Links>,
    /// Whether the server does not own the slot yet, and has to be told that it is meant.
    is_asking: bool,
    connections: Arc<Connections>,
    slot: Option<u16>,
}

impl Source {
    /// Answers one plan after the other, each when the answer before has been taken.
    async fn follow(
        mut self,
        mut plans: watch::Receiver<Arc<Plan>>,
        news: mpsc::Sender<Result<News, StoreError>>,
    ) {
        let mut answered = 0;
        while let Ok(place) = news.reserve().await {
            let plan = match plans.wait_for(|plan| plan.number > answered).await {
                Ok(plan) => Arc::clone(&plan),
                Err(_) => return,
            };
            answered = plan.number;
            if let Some(outcome) = self.answer(&plan, &plans).await.transpose() {
                place.send(outcome);
            }
        }
    }

    /// Reads until there is something; `None` where another plan has come before.
    async fn answer(
        &mut self,
        plan: &Plan,
        plans: &watch::Receiver<Arc<Plan>>,
    ) -> Result<Option<News>, StoreError> {
        let mut attempts = Attempts::new(self.operation, self.patience);
        loop {
            match self.read(plan, plans).await {
                Ok(reply) => {
                    attempts = Attempts::new(self.operation, self.patience);
                    let news = self.news(plan, reply).map_err(|what| {
                        UnexpectedReply::form("XREAD", what).refused(self.operation)
                    })?;
                    if news.changes.is_some() || !news.entries.is_empty() {
                        return Ok(Some(news));
                    }
                }
                Err(error) => {
                    let was_live = self.live.take().is_some();
                    match remedy(&error) {
                        Remedy::Nothing => return Err(refused(self.operation, error)),
                        Remedy::AskElsewhere => {
                            self.moving_to = self.connections.moving_to(&error);
                            if self.moving_to.is_none() {
                                self.connections.learn(&error);
                            }
                            attempts.again(error).await?;
                        }
                        _ => {
                            self.is_lost |= was_live;
                            tracing::debug!(operation = self.operation, %error, "cannot read; trying again");
                            self.connections.learn(&error);
                            attempts.pause(error).await?;
                        }
                    }
                }
            }
            if plans.borrow().number > plan.number {
                return Ok(None);
            }
        }
    }

    /// Asks once; nil where nothing has come in time, or another plan has come.
    async fn read(
        &mut self,
        plan: &Plan,
        plans: &watch::Receiver<Arc<Plan>>,
    ) -> Result<Reply, RedisError> {
        if plan.reads.is_empty() && self.changes.is_none() {
            // There is nothing to ask for.
            overtaken(plan, plans.clone()).await;
            return Ok(Reply::Parsed(Value::Nil));
        }
        let command = self.command(plan);
        let live = match &mut self.live {
            Some(live) => live,
            none => {
                let moving_to = self.moving_to.take();
                let live = Live::connect(&self.connections, self.slot, moving_to).await?;
                if std::mem::take(&mut self.is_lost) {
                    let address = live.links.connector().address().to_string();
                    metrics::reconnects(&address).increment(1);
                }
                none.insert(live)
            }
        };
        let reply = {
            let (links, id) = (Arc::clone(&live.links), live.id);
            let reading = live.read(&command);
            tokio::pin!(reading);
            let interruption = async {
                overtaken(plan, plans.clone()).await;
                unblock(&links, self.operation, id).await;
            };
            tokio::select! {
                biased;
                reply = &mut reading => Some(reply?),
                () = interruption => None,
            }
        };
        match reply {
            Some(reply) => Ok(reply),
            None => {
                // It is still blocked. With a new one nobody waits for it.
                tracing::debug!(
                    operation = self.operation,
                    "cannot unblock; connecting again"
                );
                self.live = None;
                Ok(Reply::Parsed(Value::Nil))
            }
        }
    }

    fn command(&self, plan: &Plan) -> Cmd {
        let streams = plan.reads.len() + usize::from(self.changes.is_some());
        let mut command = Cmd::with_capacity(6 + 2 * streams, 64 + 96 * streams);
        command.write_arg(b"XREAD");
        command.write_arg(b"COUNT");
        command.write_arg_fmt(plan.count);
        command.write_arg(b"BLOCK");
        command.write_arg_fmt(BLOCK.as_millis());
        command.write_arg(b"STREAMS");
        for read in &plan.reads {
            command.write_arg(read.keys.feed().as_bytes());
        }
        if let Some(changes) = &self.changes {
            command.write_arg(changes.key.as_bytes());
        }
        for read in &plan.reads {
            command.write_arg_fmt(read.after);
        }
        if let Some(changes) = &self.changes {
            command.write_arg_fmt(changes.after);
        }
        command
    }

    fn news(&mut self, plan: &Plan, reply: Reply) -> Result<News, Unreadable> {
        let mut news = News {
            number: plan.number,
            entries: Vec::new(),
            changes: None,
        };
        // The server replies in the order in which it was asked, and leaves out what has nothing.
        let mut reads = plan.reads.iter();
        wire::each_stream(reply, |key, entries| {
            match reads.find(|read| read.keys.feed().as_bytes() == key) {
                Some(read) => {
                    let entries = entries.decode(&read.partition)?;
                    let partition = read.partition.clone();
                    news.entries.push((partition, read.after, entries));
                }
                None => {
                    let changes = self.changes.as_mut().ok_or("an unknown stream")?;
                    changes.after = entries.last_position()?.ok_or("an empty stream")?;
                    news.changes = Some(changes.after);
                }
            }
            Ok(())
        })?;
        Ok(news)
    }
}

impl Live {
    /// Connects to the server that serves a slot, or the one that it is moving to.
    pub(crate) async fn connect(
        connections: &Arc<Connections>,
        slot: Option<u16>,
        moving_to: Option<Arc<Links>>,
    ) -> Result<Self, RedisError> {
        let is_asking = moving_to.is_some();
        let links = match moving_to {
            Some(links) => links,
            None => connections.serving(slot)?,
        };
        let connecting = async {
            let connector = links.connector();
            let (mut connection, tap) = connector.connect_for_reading(BLOCK + GRACE).await?;
            let mut command = redis::cmd("CLIENT");
            command.arg("ID");
            let id = match connection.send_packed_command(&command).await? {
                Value::Int(id) => Some(id),
                // Where the user may not ask, a blocked connection is given up instead.
                _ => None,
            };
            Ok::<_, RedisError>((connection, id, tap))
        };
        let (connection, id, tap) = tokio::select! {
            biased;
            connected = connecting => connected?,
            () = connections.left(slot, &links), if !is_asking => return Err(left()),
        };
        Ok(Self {
            connection,
            id,
            tap,
            links,
            is_asking,
            connections: Arc::clone(connections),
            slot,
        })
    }

    /// Reads. Whoever does not wait for the reply must connect anew.
    pub(crate) async fn read(&mut self, command: &Cmd) -> Result<Reply, RedisError> {
        if self.is_asking {
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("ASKING").add_command(command.clone());
            let replies = self.connection.send_packed_commands(&pipeline, 0, 2);
            return match replies.await?.pop().unwrap_or(Value::Nil) {
                Value::ServerError(error) => Err(error.into()),
                value => Ok(Reply::Parsed(value)),
            };
        }
        if let Some((tap, _)) = &self.tap {
            tap.open();
        }
        let reply = tokio::select! {
            biased;
            reply = self.connection.send_packed_command(command) => reply,
            () = self.connections.left(self.slot, &self.links) => Err(left()),
        };
        let raw = self.tap.as_ref().and_then(|(tap, _)| tap.take());
        match (reply?, raw) {
            (Value::ServerError(error), _) => Err(error.into()),
            (_, Some(raw)) => Ok(Reply::Raw(raw)),
            (value, None) => Ok(Reply::Parsed(value)),
        }
    }
}

/// Where a server has been replaced, it may never answer.
fn left() -> RedisError {
    (ErrorKind::Io, "the slot is served by another node now").into()
}

/// Waits until another plan has come.
async fn overtaken(plan: &Plan, mut plans: watch::Receiver<Arc<Plan>>) {
    if plans
        .wait_for(|newest| newest.number > plan.number)
        .await
        .is_err()
    {
        // Nobody waits any more, and the task is about to be ended.
        std::future::pending().await
    }
}

/// Has the server answer on a blocked connection; comes to an end where that does not help.
pub(crate) async fn unblock(links: &Links, operation: &'static str, id: Option<i64>) {
    let Some(id) = id else { return };
    let deadline = Instant::now() + GRACE;
    let mut command = redis::cmd("CLIENT");
    command.arg("UNBLOCK").arg(id).arg("TIMEOUT");
    while Instant::now() < deadline {
        let request = Request::Command(&command);
        match timeout_at(deadline, links.ask(operation, request, None)).await {
            // It answers now, if it does.
            Ok(Ok(Value::Int(1))) => return sleep(GRACE).await,
            Ok(Ok(_)) => sleep(UNBLOCK_PAUSE).await,
            Err(_) => return,
            Ok(Err(error)) => {
                tracing::debug!(operation, %error, "cannot unblock");
                return;
            }
        }
    }
}
