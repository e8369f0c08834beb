//! Reading the history of an aggregate, in chunks.

use std::ops::ControlFlow;
use std::sync::Arc;

use event_core::codec::history::HistoryEntry;
use event_core::{
    AggregateId, CodecError, Direction, Partition, ReadError, StoreError, Version, Versions,
};
use futures::future::maybe_done;
use futures::poll;
use redis::{Cmd, RedisWrite, Value};

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::keys::FeedKeys;
use crate::store::Parts;
use crate::{partitions, wire};

const OPERATION: &str = "replay";

/// Elements that are read at once: enough that a round trip does not count, few enough that a long
/// history is folded while the rest of it is on its way. Two chunks are in memory at most.
const CHUNK: u64 = 1_000;

/// What gets the elements.
pub(crate) type Visit<'v> = dyn for<'a> FnMut(HistoryEntry<'a>) -> ControlFlow<()> + Send + 'v;

/// Hands the events of an aggregate to `visit`, until it breaks off.
pub(crate) async fn replay(
    parts: &Parts,
    aggregate: &AggregateId,
    versions: &Versions,
    visit: &mut Visit<'_>,
) -> Result<(), ReadError> {
    let count = partitions::count(parts, aggregate.category()).await?;
    let mut history = History {
        parts,
        aggregate,
        keys: parts.keys.of(&Partition::of_aggregate(aggregate, count)),
        dropped: 0,
    };
    let Some((low, high)) = versions.within(Version::MAX) else {
        return history.must_exist().await;
    };
    match versions.direction() {
        Direction::Forwards => history.forwards(low, high, visit).await,
        Direction::Backwards if high == Version::MAX => {
            // Counted from the end, since where that is, is not known yet.
            let asked = (high - low).saturating_add(1).min(CHUNK);
            let newest = history.range(-signed(asked), -1).await?;
            let Some(last) = newest.last() else {
                return Err(history.not_found());
            };
            let highest = version(last)?;
            let Some((low, high)) = versions.within(highest) else {
                return Ok(());
            };
            let first = (high + 1).saturating_sub(newest.len() as u64);
            expect_version(&newest[0], first)?;
            let surplus = usize::try_from(low.saturating_sub(first)).unwrap_or(usize::MAX);
            let newest = newest.get(surplus..).unwrap_or_default();
            if hand_out(newest.iter().rev(), visit)?.is_break() || first <= low {
                return Ok(());
            }
            history.backwards(low, first - 1, visit).await
        }
        Direction::Backwards => {
            let highest = history.highest().await?;
            match versions.within(highest) {
                None => Ok(()),
                Some((low, high)) => history.backwards(low, high, visit).await,
            }
        }
    }
}

struct History<'h> {
    parts: &'h Parts,
    aggregate: &'h AggregateId,
    /// Those of the partition that it lies in.
    keys: Arc<FeedKeys>,
    /// How many of its events were dropped behind a snapshot, as far as is known.
    dropped: Version,
}

impl History<'_> {
    /// From `low` up to `high`, or to where the history ends.
    async fn forwards(
        &mut self,
        low: Version,
        high: Version,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError> {
        let end_of = |start: Version| start.saturating_add(CHUNK - 1).min(high);
        let mut start = low;
        let mut elements = self.versions(start, end_of(start)).await?;
        while !elements.is_empty() {
            let end = end_of(start);
            let is_full = elements.len() as u64 == end - start + 1;
            if !is_full || end == high {
                // Broken off or come to the end: both are what the caller wanted.
                let _ = hand_out(elements.iter(), visit)?;
                return Ok(());
            }
            start = end + 1;
            let next = maybe_done(self.versions(start, end_of(start)));
            tokio::pin!(next);
            // Asked for now, so that it comes while these are folded.
            let _ = poll!(next.as_mut());
            if hand_out(elements.iter(), visit)?.is_break() {
                return Ok(());
            }
            next.as_mut().await;
            elements = next.take_output().unwrap_or_else(|| Ok(Vec::new()))?;
        }
        Ok(())
    }

    /// From `high` down to `low`, both of which exist, or did before they were dropped.
    async fn backwards(
        &mut self,
        mut low: Version,
        high: Version,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError> {
        let mut end = high;
        let mut trimmed = None;
        loop {
            let start = end.saturating_sub(CHUNK - 1).max(low);
            let elements = match self.versions(start, end).await {
                // What is there is handed out before it is said that it is not all.
                Err(error @ ReadError::HistoryTrimmed { .. })
                    if trimmed.is_none() && end > self.dropped =>
                {
                    low = self.dropped + 1;
                    trimmed = Some(error);
                    continue;
                }
                elements => elements?,
            };
            if elements.is_empty() || hand_out(elements.iter().rev(), visit)?.is_break() {
                return Ok(());
            }
            if start == low {
                return trimmed.map_or(Ok(()), Err);
            }
            end = start - 1;
        }
    }

    /// The elements of some versions, the first of which is `from`; none where that does not exist yet.
    /// What was dropped is looked for only where they do not lie where they would lie without.
    async fn versions(&mut self, from: Version, to: Version) -> Result<Vec<Value>, ReadError> {
        loop {
            let index = |version: Version| signed(version - 1 - self.dropped);
            let elements = self.range(index(from), index(to)).await?;
            let first = elements.first().map(version).transpose()?;
            if first == Some(from) {
                return Ok(elements);
            }
            if first.is_none() && from == 1 {
                return Err(self.not_found());
            }
            let dropped = self.version_at("0").await?.saturating_sub(1);
            if from <= dropped {
                self.dropped = dropped;
                return Err(ReadError::HistoryTrimmed {
                    aggregate: self.aggregate.clone(),
                    first_available: dropped + 1,
                });
            }
            if dropped == self.dropped {
                return match elements.first() {
                    None => Ok(elements),
                    Some(first) => expect_version(first, from).map(|()| elements),
                };
            }
            // It was compacted, or made anew, meanwhile.
            self.dropped = dropped;
        }
    }

    /// The elements at some indexes; negative ones count from the end.
    async fn range(&self, from: i64, to: i64) -> Result<Vec<Value>, StoreError> {
        let mut command = self.command("LRANGE");
        command.write_arg_fmt(from);
        command.write_arg_fmt(to);
        let reply = self.ask(&command).await?;
        wire::array(reply).map_err(|what| UnexpectedReply::form("LRANGE", what).refused(OPERATION))
    }

    /// The version of the newest event.
    async fn highest(&self) -> Result<Version, ReadError> {
        self.version_at("-1").await
    }

    /// The version of the element at an index.
    async fn version_at(&self, index: &str) -> Result<Version, ReadError> {
        let mut command = self.command("LINDEX");
        command.write_arg(index.as_bytes());
        match self.ask(&command).await? {
            Value::Nil => Err(self.not_found()),
            last => version(&last),
        }
    }

    async fn must_exist(&self) -> Result<(), ReadError> {
        match self.ask(&self.command("EXISTS")).await? {
            Value::Int(0) => Err(self.not_found()),
            _ => Ok(()),
        }
    }

    fn command(&self, name: &str) -> Cmd {
        let mut command = Cmd::with_capacity(4, 160);
        command.write_arg(name.as_bytes());
        self.keys.write_history(&mut command, self.aggregate);
        command
    }

    async fn ask(&self, command: &Cmd) -> Result<Value, StoreError> {
        let request = Request::Command(command);
        self.parts.connections.ask(OPERATION, request, None).await
    }

    fn not_found(&self) -> ReadError {
        ReadError::NotFound {
            aggregate: self.aggregate.clone(),
        }
    }
}

fn hand_out<'a>(
    mut elements: impl Iterator<Item = &'a Value>,
    visit: &mut Visit<'_>,
) -> Result<ControlFlow<()>, ReadError> {
    let broken = elements.try_for_each(|element| match wire::slice(element) {
        Ok(bytes) => match visit(HistoryEntry::new(bytes)) {
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
            ControlFlow::Break(()) => ControlFlow::Break(None),
        },
        Err(what) => ControlFlow::Break(Some(what)),
    });
    match broken {
        ControlFlow::Continue(()) => Ok(ControlFlow::Continue(())),
        ControlFlow::Break(None) => Ok(ControlFlow::Break(())),
        ControlFlow::Break(Some(what)) => Err(UnexpectedReply::form("LRANGE", what)
            .refused(OPERATION)
            .into()),
    }
}

fn version(element: &Value) -> Result<Version, ReadError> {
    let bytes = wire::slice(element)
        .map_err(|what| UnexpectedReply::form("LRANGE", what).refused(OPERATION))?;
    Ok(HistoryEntry::new(bytes).version()?)
}

/// Versions follow one another without holes, so that the first of a chunk tells for all of it.
fn expect_version(element: &Value, expected: Version) -> Result<(), ReadError> {
    let found = version(element)?;
    if found == expected {
        return Ok(());
    }
    Err(CodecError::Malformed {
        reason: format!("a history has version {found} where version {expected} should be"),
    }
    .into())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
