//! Reading feeds, and following them.

use std::sync::Arc;

use async_trait::async_trait;
use event_core::{FeedEntry, FeedReader, Partition, Position, ReadError, StoreError, Wanted};
use redis::{Cmd, RedisWrite, Value};

use crate::connection::Request;
use crate::error::{UnexpectedReply, refused};
use crate::reader::{CHUNK, Reader};
use crate::store::Parts;
use crate::{trim, wire};

const READ: &str = "read_feed";
const HEAD: &str = "head";
const FOLLOW: &str = "follow";

/// Reads at most `limit` entries that lie after `after`.
pub(crate) async fn read(
    parts: &Parts,
    partition: &Partition,
    mut after: Position,
    limit: usize,
) -> Result<Vec<FeedEntry>, StoreError> {
    let keys = parts.keys.of(partition);
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
        // Looked at afterwards, so that nothing can be trimmed away in between.
        let [reply, trimmed] = trim::read_with_trimmed(parts, READ, &keys, command).await?;
        if let Value::ServerError(error) = reply {
            return Err(refused(READ, error.into()));
        }
        trim::expect_available(parts, READ, partition, after, trimmed).await?;
        let read = wire::feed_entries(partition, reply)
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

/// Reads at most `limit` entries that lie before `before`, the newest first.
pub(crate) async fn read_back(
    parts: &Parts,
    partition: &Partition,
    mut before: Position,
    limit: usize,
) -> Result<Vec<FeedEntry>, StoreError> {
    let keys = parts.keys.of(partition);
    let mut entries = Vec::new();
    // The server refuses to read before the first position there can be.
    while entries.len() < limit && before > Position::START {
        let count = (limit - entries.len()).min(CHUNK);
        let mut command = redis::cmd("XREVRANGE");
        command
            .arg(keys.feed())
            .arg(format!("({before}"))
            .arg("-")
            .arg("COUNT")
            .arg(count);
        let request = Request::Command(&command);
        let reply = parts.connections.ask(READ, request, None).await?;
        let read = wire::feed_entries(partition, reply)
            .map_err(|what| UnexpectedReply::form("XREVRANGE", what).refused(READ))?;
        let is_full = read.len() == count;
        if let Some(last) = read.last() {
            before = last.position();
        }
        entries.extend(read);
        if !is_full {
            break;
        }
    }
    Ok(entries)
}

/// The position of the newest entry, also where it is trimmed away.
pub(crate) async fn head(parts: &Parts, partition: &Partition) -> Result<Position, StoreError> {
    let keys = parts.keys.of(partition);
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
    let newest = wire::last_position(reply).map_err(|what| unreadable("XREVRANGE", what))?;
    if let Some(newest) = newest {
        return Ok(newest);
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

/// Follows a partition.
pub(crate) struct RedisFeedReader {
    reader: Reader,
    partition: Partition,
    /// Everything up to here has been handed out.
    after: Position,
    parts: Arc<Parts>,
}

impl RedisFeedReader {
    /// Begins to read, unless that is trimmed away already.
    pub(crate) async fn new(
        parts: &Arc<Parts>,
        partition: &Partition,
        after: Position,
    ) -> Result<Self, StoreError> {
        trim::look(parts, FOLLOW, partition, after).await?;
        Ok(Self {
            reader: Reader::new(parts, FOLLOW, None),
            partition: partition.clone(),
            after,
            parts: Arc::clone(parts),
        })
    }
}

#[async_trait]
impl FeedReader for RedisFeedReader {
    async fn next_batch(&mut self, limit: usize) -> Result<Vec<FeedEntry>, ReadError> {
        let wanted = [Wanted {
            partition: self.partition.clone(),
            after: self.after,
            limit: limit.max(1),
        }];
        loop {
            let batch = self.reader.next(&wanted).await?;
            for (_, entries) in batch.entries {
                if let Some(last) = entries.last() {
                    // What lies before these entries may have been trimmed away before they were read.
                    trim::look(&self.parts, FOLLOW, &self.partition, self.after).await?;
                    self.after = last.position();
                    return Ok(entries);
                }
            }
        }
    }
}
