//! Following several partitions at once, one batch ahead of the caller.
//!
//! A [`Reader`] has a task with a connection of its own, on which the server holds back its reply
//! until there is something to read. Where the caller wants something else meanwhile, the task has
//! the server answer at once, over one of the connections that are shared.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use event_core::{FeedEntry, GroupBatch, Partition, Position, StoreError, Wanted, metrics};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, RedisWrite, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::connection::{AbortOnDrop, Attempts, Connections, Connector, Request};
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
    /// What the task has been asked for and has not answered yet: from where on each partition is
    /// read.
    asked: Option<HashMap<Partition, Position>>,
    /// Counts the plans.
    number: u64,
    task: Option<Task>,
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
        Self {
            parts: Arc::clone(parts),
            operation,
            changes,
            changed: false,
            kept: HashMap::new(),
            asked: None,
            number: 0,
            task: None,
        }
    }

    /// Waits until there is something of what is wanted, or something has changed in the group.
    ///
    /// It may be dropped while it waits: what the task has read stays in its channel.
    pub(crate) async fn next(&mut self, wanted: &[Wanted]) -> Result<GroupBatch, StoreError> {
        self.keep_only(wanted);
        while let Some(news) = self
            .task
            .as_mut()
            .and_then(|task| task.news.try_recv().ok())
        {
            self.take_in(news)?;
        }
        loop {
            let batch = self.hand_out(wanted);
            self.plan(wanted);
            if batch.changed || !batch.entries.is_empty() {
                return Ok(batch);
            }
            let Some(task) = &mut self.task else {
                continue;
            };
            match task.news.recv().await {
                Some(news) => self.take_in(news)?,
                None => {
                    tracing::error!(
                        operation = self.operation,
                        "the task that reads has ended; starting another"
                    );
                    self.task = None;
                    self.asked = None;
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

    fn take_in(&mut self, news: Result<News, StoreError>) -> Result<(), StoreError> {
        let news = match news {
            Ok(news) => news,
            Err(error) => {
                self.asked = None;
                return Err(error);
            }
        };
        if news.number == self.number {
            self.asked = None;
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

    /// Asks the task for what comes next, unless that is what it reads already.
    fn plan(&mut self, wanted: &[Wanted]) {
        let mut count = 0;
        let mut missing = Vec::with_capacity(wanted.len());
        for wish in wanted {
            let kept = self.kept.get(&wish.partition);
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
            keys: self.parts.keys.of(partition),
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
        let task = self
            .task
            .get_or_insert_with(|| Task::start(&self.parts, self.operation, self.changes.clone()));
        task.plans.send_replace(Arc::new(plan));
    }
}

impl Task {
    fn start(parts: &Arc<Parts>, operation: &'static str, changes: Option<Changes>) -> Self {
        let (sender, news) = mpsc::channel(1);
        let (plans, receiver) = watch::channel(Arc::default());
        let source = Source {
            connector: parts.connector.clone(),
            connections: Arc::clone(&parts.connections),
            operation,
            patience: parts.patience,
            changes,
            live: None,
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
    connector: Connector,
    connections: Arc<Connections>,
    operation: &'static str,
    patience: Duration,
    changes: Option<Changes>,
    live: Option<Live>,
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
                    self.is_lost |= self.live.take().is_some();
                    if remedy(&error) == Remedy::Nothing {
                        return Err(refused(self.operation, error));
                    }
                    tracing::debug!(operation = self.operation, %error, "cannot read; trying again");
                    attempts.pause(error).await?;
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
                let live = Live::connect(&self.connector).await?;
                if std::mem::take(&mut self.is_lost) {
                    metrics::reconnects(&self.connector.address().to_string()).increment(1);
                }
                none.insert(live)
            }
        };
        let reply = {
            let id = live.id;
            let reading = live.read(&command);
            tokio::pin!(reading);
            let interruption = async {
                overtaken(plan, plans.clone()).await;
                unblock(&self.connections, self.operation, id).await;
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
    pub(crate) async fn connect(connector: &Connector) -> Result<Self, RedisError> {
        let (mut connection, tap) = connector.connect_for_reading(BLOCK + GRACE).await?;
        let mut command = redis::cmd("CLIENT");
        command.arg("ID");
        let id = match connection.send_packed_command(&command).await? {
            Value::Int(id) => Some(id),
            // Where the user may not ask, a blocked connection is given up instead.
            _ => None,
        };
        Ok(Self {
            connection,
            id,
            tap,
        })
    }

    /// Reads. Whoever does not wait for the reply must connect anew.
    pub(crate) async fn read(&mut self, command: &Cmd) -> Result<Reply, RedisError> {
        if let Some((tap, _)) = &self.tap {
            tap.open();
        }
        let reply = self.connection.send_packed_command(command).await;
        let raw = self.tap.as_ref().and_then(|(tap, _)| tap.take());
        match (reply?, raw) {
            (Value::ServerError(error), _) => Err(error.into()),
            (_, Some(raw)) => Ok(Reply::Raw(raw)),
            (value, None) => Ok(Reply::Parsed(value)),
        }
    }
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
pub(crate) async fn unblock(connections: &Connections, operation: &'static str, id: Option<i64>) {
    let Some(id) = id else { return };
    let deadline = Instant::now() + GRACE;
    let mut command = redis::cmd("CLIENT");
    command.arg("UNBLOCK").arg(id).arg("TIMEOUT");
    while Instant::now() < deadline {
        let request = Request::Command(&command);
        match connections.ask(operation, request, None).await {
            // It answers now, if it does.
            Ok(Value::Int(1)) => return sleep(GRACE).await,
            Ok(_) => sleep(UNBLOCK_PAUSE).await,
            Err(error) => {
                tracing::debug!(operation, %error, "cannot unblock");
                return;
            }
        }
    }
}
