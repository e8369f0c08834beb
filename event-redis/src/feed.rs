//! Reading feeds, and following them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use event_core::{Category, FeedEntry, FeedReader, Position, ReadError, StoreError};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, RedisWrite, Value};
use tokio::sync::mpsc;

use crate::connection::{AbortOnDrop, Attempts, Connector, Request};
use crate::error::{Remedy, UnexpectedReply, refused, remedy};
use crate::keys::FeedKeys;
use crate::store::Parts;
use crate::wire;

const READ: &str = "read_feed";
const HEAD: &str = "head";
const FOLLOW: &str = "follow";

/// Entries that are read at once.
const CHUNK: usize = 1_000;

/// How long the server holds back its reply where there is nothing to read. Nothing else can be
/// asked on that connection meanwhile, so it is short enough to notice a dead one.
const BLOCK: Duration = Duration::from_secs(5);

/// How much longer than [`BLOCK`] a reply may take, before the connection is thought to be dead.
const GRACE: Duration = Duration::from_secs(3);

/// Reads at most `limit` entries that lie after `after`.
pub(crate) async fn read(
    parts: &Parts,
    category: &Category,
    mut after: Position,
    limit: usize,
) -> Result<Vec<FeedEntry>, StoreError> {
    let keys = parts.keys.of(category);
    let mut entries = Vec::new();
    // The server refuses to read after the last position there can be.
    while entries.len() < limit && after < Position::END {
        let count = (limit - entries.len()).min(CHUNK);
        let mut command = Cmd::with_capacity(6, 128);
        command.write_arg(b"XRANGE");
        command.write_arg(keys.feed().as_bytes());
        command.write_arg_fmt(format_args!("({after}"));
        command.write_arg(b"+");
        command.write_arg(b"COUNT");
        command.write_arg_fmt(count);
        let request = Request::Command(&command);
        let reply = parts.connections.ask(READ, request, None).await?;
        let read = wire::feed_entries(category, reply)
            .map_err(|what| UnexpectedReply::form("XRANGE", what).refused(READ))?;
        let is_full = read.len() == count;
        if let Some(last) = read.last() {
            after = last.position();
        }
        if entries.is_empty() {
            entries = read;
        } else {
            entries.extend(read);
        }
        if !is_full {
            break;
        }
    }
    Ok(entries)
}

/// The position of the newest entry, also where it is trimmed away.
pub(crate) async fn head(parts: &Parts, category: &Category) -> Result<Position, StoreError> {
    let keys = parts.keys.of(category);
    let unreadable = |command, what| UnexpectedReply::form(command, what).refused(HEAD);
    let mut command = redis::cmd("XREVRANGE");
    command
        .arg(keys.feed())
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1);
    let request = Request::Command(&command);
    let reply = parts.connections.ask(HEAD, request, None).await?;
    let newest = wire::array(reply).map_err(|what| unreadable("XREVRANGE", what))?;
    if let Some(entry) = newest.into_iter().next() {
        return wire::array(entry)
            .and_then(|entry| wire::position(wire::slice(entry.first().ok_or("no id")?)?))
            .map_err(|what| unreadable("XREVRANGE", what));
    }

    // Nothing is there: but something may have been.
    let mut command = redis::cmd("EXISTS");
    command.arg(keys.feed());
    let request = Request::Command(&command);
    if let Value::Int(0) = parts.connections.ask(HEAD, request, None).await? {
        return Ok(Position::START);
    }
    let mut command = redis::cmd("XINFO");
    command.arg("STREAM").arg(keys.feed());
    let request = Request::Command(&command);
    let reply = parts.connections.ask(HEAD, request, None).await?;
    last_generated(reply).map_err(|what| unreadable("XINFO STREAM", what))
}

fn last_generated(info: Value) -> Result<Position, wire::Unreadable> {
    let mut values = wire::array(info)?.into_iter();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        if wire::slice(&name)? == b"last-generated-id" {
            return wire::position(wire::slice(&value)?);
        }
    }
    Err("no last-generated-id")
}

/// Follows a feed, one batch ahead of its caller.
pub(crate) struct RedisFeedReader {
    source: Source,
    /// Everything up to here has been handed out.
    after: Position,
    /// What the caller took at once last time.
    limit: Arc<AtomicUsize>,
    /// What is left of a batch that was larger than the caller asked for.
    rest: Vec<FeedEntry>,
    ahead: Option<Ahead>,
}

/// Where batches come from.
#[derive(Clone)]
struct Source {
    connector: Connector,
    keys: Arc<FeedKeys>,
    category: Category,
    patience: Duration,
}

/// A task that reads ahead.
struct Ahead {
    batches: mpsc::Receiver<Result<Vec<FeedEntry>, StoreError>>,
    _task: AbortOnDrop,
}

impl RedisFeedReader {
    pub(crate) fn new(parts: &Parts, category: &Category, after: Position) -> Self {
        Self {
            source: Source {
                connector: parts.connector.clone(),
                keys: parts.keys.of(category),
                category: category.clone(),
                patience: parts.patience,
            },
            after,
            limit: Arc::new(AtomicUsize::new(1)),
            rest: Vec::new(),
            ahead: None,
        }
    }

    /// Hands out the beginning of `batch` and keeps the rest.
    fn hand_out(&mut self, mut batch: Vec<FeedEntry>, limit: usize) -> Vec<FeedEntry> {
        if batch.len() > limit {
            self.rest = batch.split_off(limit);
        }
        if let Some(last) = batch.last() {
            self.after = last.position();
        }
        batch
    }
}

#[async_trait]
impl FeedReader for RedisFeedReader {
    async fn next_batch(&mut self, limit: usize) -> Result<Vec<FeedEntry>, ReadError> {
        let limit = limit.max(1);
        self.limit.store(limit, Ordering::Relaxed);
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Ok(self.hand_out(rest, limit));
        }
        loop {
            let ahead = match &mut self.ahead {
                Some(ahead) => ahead,
                None => {
                    let (sender, batches) = mpsc::channel(1);
                    let limit = Arc::clone(&self.limit);
                    let task = read_ahead(self.source.clone(), self.after, limit, sender);
                    self.ahead.insert(Ahead {
                        batches,
                        _task: AbortOnDrop(tokio::spawn(task)),
                    })
                }
            };
            // Nothing is taken from the channel where this future is dropped.
            match ahead.batches.recv().await {
                Some(Ok(batch)) => return Ok(self.hand_out(batch, limit)),
                Some(Err(error)) => return Err(error.into()),
                None => {
                    tracing::error!(
                        feed = self.source.keys.feed(),
                        "the task that reads ahead has ended; starting another"
                    );
                    self.ahead = None;
                    // If it ends again and again, then not in a busy loop.
                    tokio::time::sleep(GRACE).await;
                }
            }
        }
    }
}

/// Reads one batch after the other, each when the one before has been taken.
async fn read_ahead(
    source: Source,
    mut after: Position,
    limit: Arc<AtomicUsize>,
    batches: mpsc::Sender<Result<Vec<FeedEntry>, StoreError>>,
) {
    let mut connection = None;
    let mut attempts = Attempts::new(FOLLOW, source.patience);
    while let Ok(place) = batches.reserve().await {
        let outcome = loop {
            let count = limit.load(Ordering::Relaxed).min(CHUNK);
            match source.read(&mut connection, after, count).await {
                Ok(entries) => match entries.last() {
                    Some(last) => {
                        after = last.position();
                        break Ok(entries);
                    }
                    None => attempts = Attempts::new(FOLLOW, source.patience),
                },
                Err(ReadFailure::Reply(error)) => break Err(error),
                Err(ReadFailure::Redis(error)) => {
                    connection = None;
                    if remedy(&error) == Remedy::Nothing {
                        break Err(refused(FOLLOW, error));
                    }
                    tracing::debug!(feed = source.keys.feed(), %error, "cannot read; trying again");
                    if let Err(error) = attempts.pause(error).await {
                        break Err(error);
                    }
                }
            }
        };
        attempts = Attempts::new(FOLLOW, source.patience);
        place.send(outcome);
    }
}

enum ReadFailure {
    Redis(RedisError),
    Reply(StoreError),
}

impl Source {
    /// Reads what lies after `after`; nothing where nothing has come in time.
    async fn read(
        &self,
        connection: &mut Option<MultiplexedConnection>,
        after: Position,
        count: usize,
    ) -> Result<Vec<FeedEntry>, ReadFailure> {
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let made = self.connector.connect(BLOCK + GRACE).await;
                connection.insert(made.map_err(ReadFailure::Redis)?)
            }
        };
        let mut command = Cmd::with_capacity(8, 128);
        command.write_arg(b"XREAD");
        command.write_arg(b"COUNT");
        command.write_arg_fmt(count);
        command.write_arg(b"BLOCK");
        command.write_arg_fmt(BLOCK.as_millis());
        command.write_arg(b"STREAMS");
        command.write_arg(self.keys.feed().as_bytes());
        command.write_arg_fmt(after);
        let reply = match connection.send_packed_command(&command).await {
            Ok(Value::ServerError(error)) => Err(ReadFailure::Redis(error.into())),
            Ok(reply) => Ok(reply),
            Err(error) => Err(ReadFailure::Redis(error)),
        }?;
        wire::read_entries(&self.category, reply).map_err(|what| {
            ReadFailure::Reply(UnexpectedReply::form("XREAD", what).refused(FOLLOW))
        })
    }
}
