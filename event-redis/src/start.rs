//! Where a group begins, as the scripts take it that make one known.

use event_core::{Partition, Position, Start, StoreError};
use redis::{Cmd, RedisWrite, Value};

use crate::connection::Request;
use crate::error::UnexpectedReply;
use crate::groups::number;
use crate::scripts::COUNT;
use crate::store::Parts;
use crate::wire;

/// Where a group begins, and how many entries that passes over, where that is known.
pub(crate) struct StartFrom {
    word: &'static str,
    position: Position,
    passed: Option<u64>,
    /// The position as it was asked for.
    asked: Position,
}

impl StartFrom {
    /// How many arguments it takes.
    pub(crate) const ARGUMENTS: usize = 4;

    /// Nothing is counted for this: most often the group is known already.
    pub(crate) fn new(start: Start) -> Self {
        let (word, position) = match start {
            Start::Beginning => ("beginning", Position::START),
            // Nothing can lie after the end.
            Start::Now | Start::After(Position::END) => ("now", Position::START),
            Start::After(position) => ("after", position),
        };
        Self {
            word,
            position,
            passed: None,
            asked: position,
        }
    }

    /// As a group begins that was lost on the server, and is made again.
    pub(crate) fn again() -> Self {
        Self {
            word: "again",
            ..Self::new(Start::Beginning)
        }
    }

    /// Nowhere: the group is to be forgotten.
    pub(crate) fn forget() -> Self {
        Self {
            word: "forget",
            ..Self::new(Start::Beginning)
        }
    }

    /// Counts what a group passes over that begins at a position. A script that wants that says so.
    pub(crate) async fn counted(
        self,
        parts: &Parts,
        operation: &'static str,
        partition: &Partition,
    ) -> Result<Self, StoreError> {
        let counted = count(parts, operation, partition, self.position).await?;
        Ok(Self {
            position: counted.position,
            passed: Some(counted.passed),
            ..self
        })
    }

    /// Adds it to the arguments of a script.
    pub(crate) fn write(&self, command: &mut Cmd) {
        command.write_arg(self.word.as_bytes());
        command.write_arg_fmt(self.position);
        match self.passed {
            Some(passed) => command.write_arg_fmt(passed),
            None => command.write_arg(b""),
        }
        command.write_arg_fmt(self.asked);
    }
}

/// What a feed has had, be it there or not.
pub(crate) struct Counted {
    /// The position that was asked for, or the last one where the feed has not come so far.
    position: Position,
    /// How many entries up to there.
    pub(crate) passed: u64,
    /// How many entries in all.
    pub(crate) added: u64,
}

/// Counts what a feed has had up to a position.
pub(crate) async fn count(
    parts: &Parts,
    operation: &'static str,
    partition: &Partition,
    position: Position,
) -> Result<Counted, StoreError> {
    let unreadable = |what| UnexpectedReply::form("EVALSHA count.lua", what).refused(operation);
    let keys = parts.keys.of(partition);
    let from = position.to_string();
    let mut counted = [from.clone(), "0".into(), from.clone(), "0".into()];
    loop {
        let mut command = COUNT.call(1, 5, 256);
        command.write_arg(keys.feed().as_bytes());
        command.write_arg(from.as_bytes());
        for part in &counted {
            command.write_arg(part.as_bytes());
        }
        let request = Request::Command(&command);
        let reply = parts.connections.ask(operation, request, Some(&COUNT));
        let values = wire::array(reply.await?).map_err(unreadable)?;
        match values.as_slice() {
            [Value::Int(1), position, passed, added] => {
                let position = wire::slice(position).and_then(wire::position);
                return Ok(Counted {
                    position: position.map_err(unreadable)?,
                    passed: number(passed).map_err(unreadable)?,
                    added: number(added).map_err(unreadable)?,
                });
            }
            [Value::Int(0), rest @ ..] if rest.len() == counted.len() => {
                for (part, value) in counted.iter_mut().zip(rest) {
                    *part = wire::text(value).map_err(unreadable)?.to_owned();
                }
            }
            _ => return Err(unreadable("an unknown status")),
        }
    }
}
