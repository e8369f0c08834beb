use std::time::Duration;

use uuid::Uuid;

use crate::BoxError;
use crate::codec::CodecError;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, Version};
use crate::store::{Done, Expected, MAX_COMMAND_ID_BYTES};

/// An append that was refused, or whose end is not known.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The aggregate is not at the version that was expected: somebody else was faster. Load it
    /// again and decide anew.
    #[error(
        "aggregate `{aggregate}` is at version {actual}, and {expected} was expected; load it again and decide anew"
    )]
    Conflict {
        /// The aggregate.
        aggregate: AggregateId,
        /// What was expected.
        expected: Expected,
        /// What it is at; 0 where it has no events.
        actual: Version,
    },
    /// The command of this append has been done before: its receipt is kept still.
    #[error(
        "command `{command_id}` of `{aggregate}` has led to versions {} to {} before; read these", done.start(), done.end()
    )]
    AlreadyDone {
        /// The aggregate.
        aggregate: AggregateId,
        /// The id of the command.
        command_id: String,
        /// The versions of its events.
        done: Done,
    },
    /// The id of a command is empty or too long.
    #[error("the id of a command has {bytes} bytes; give one of 1 to {MAX_COMMAND_ID_BYTES}")]
    InvalidCommandId {
        /// Its length, in bytes.
        bytes: usize,
    },
    /// Only what goes to an aggregate can be the outcome of a command.
    #[error(
        "an append to the feed of `{category}` has a receipt; leave it out, or append to an aggregate"
    )]
    ReceiptOfFeed {
        /// The category.
        category: String,
    },
    /// There is nothing to append.
    #[error("an append needs at least one event; leave it out where there is none")]
    NoEvents,
    /// More events than one append may have.
    #[error("an append of {count} events; at most {limit} are allowed, so split it")]
    TooManyEvents {
        /// Their number.
        count: usize,
        /// The most there may be.
        limit: usize,
    },
    /// A payload is too large.
    #[error(
        "the payload of `{event_type}` has {bytes} bytes; at most {limit} are allowed, so keep large things elsewhere and name them in the event"
    )]
    PayloadTooLarge {
        /// The event's type.
        event_type: String,
        /// Its size.
        bytes: usize,
        /// The largest there may be.
        limit: usize,
    },
    /// The metadata of an event is too large.
    #[error("the metadata of `{event_type}` has {bytes} bytes; at most {limit} are allowed")]
    MetadataTooLarge {
        /// The event's type.
        event_type: String,
        /// Its size.
        bytes: usize,
        /// The largest there may be.
        limit: usize,
    },
    /// An event is not of the category that it is appended to.
    #[error("`{event_type}` does not belong in the feed of `{category}`; append it to its own")]
    OtherCategory {
        /// The event's type.
        event_type: String,
        /// The category of the append.
        category: String,
    },
    /// Events that are sent by Pub/Sub are not stored.
    #[error("`{event_type}` is a realtime event, which is kept nowhere; publish it instead")]
    NotStored {
        /// The event's type.
        event_type: String,
    },
    /// Two events of the append have the same id.
    #[error("two events of one append have the id {event_id}; give each its own")]
    RepeatedId {
        /// The id.
        event_id: Uuid,
    },
    /// An event of this id is stored already, but elsewhere in the feed: of no aggregate, or of
    /// another one.
    #[error(
        "an event of another place in the feed of `{category}` has the id {event_id}; give each event an id of its own"
    )]
    IdTaken {
        /// The category.
        category: String,
        /// The id.
        event_id: Uuid,
    },
    /// A group is too far behind, and the store holds its producers back.
    #[error(
        "group `{group}` has {lag} events of `{partition}` still to handle, and at most {limit} are allowed; append again later"
    )]
    Backlogged {
        /// The group.
        group: String,
        /// The partition.
        partition: String,
        /// How many events wait for it.
        lag: u64,
        /// How many may.
        limit: u64,
    },
    /// The events of an append to a feed lie in several partitions.
    #[error(
        "the events of one append lie in several partitions of `{category}`; append those of each key by themselves, or publish them, which does so"
    )]
    SeveralPartitions {
        /// The category.
        category: String,
    },
    /// Only an aggregate has a version to expect.
    #[error("{expected} was expected of the feed of `{category}`; only an aggregate has a version")]
    ExpectedOfFeed {
        /// The category.
        category: String,
        /// What was expected.
        expected: Expected,
    },
    /// Something is not, or cannot become, the stored form.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It is stored, but fewer replicas than promised have it. Appending the same again is safe.
    #[error(
        "stored, but only {reached} of {wanted} replicas have confirmed it; append the same events again, which stores nothing twice"
    )]
    NotReplicated {
        /// How many replicas must have it.
        wanted: u32,
        /// How many have confirmed it.
        reached: u32,
    },
    /// The events are stored, but an inline projection has not taken them in. It will, as soon as it can:
    /// there is nothing to append again.
    #[error(
        "stored at {position} of `{partition}`, but projection `{projection}` has not taken it in yet; it is stored, so do not decide anew: {source}"
    )]
    NotProjected {
        /// The projection.
        projection: String,
        /// The partition.
        partition: String,
        /// Where the last of the events lies.
        position: Position,
        /// Why not.
        source: BoxError,
    },
    /// The store does not answer, and whether the events are stored is not known. Appending the
    /// same again is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A read that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The aggregate has no events.
    #[error("there is no aggregate `{aggregate}`")]
    NotFound {
        /// The aggregate.
        aggregate: AggregateId,
    },
    /// What is to be read begins in a part of the history that was dropped behind a snapshot.
    #[error(
        "the history of `{aggregate}` begins with version {first_available}, since it was compacted; read from there, load it by its snapshot, or make it anew by `rebuild_history` where the feed is whole"
    )]
    HistoryTrimmed {
        /// The aggregate.
        aggregate: AggregateId,
        /// The version of the first event that is there.
        first_available: Version,
    },
    /// What is stored cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It has not answered for as long as the caller may wait.
    #[error(
        "the store has not answered for {waited:?} ({operation}); see whether it runs and can be reached"
    )]
    Unavailable {
        /// What was asked.
        operation: &'static str,
        /// How long.
        waited: Duration,
        /// The last thing that went wrong.
        source: BoxError,
    },
    /// It answers that it will not, and asking again would not help.
    #[error("the store refuses ({operation})")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// Its answer.
        source: BoxError,
    },
    /// The group of a handler with parallel delivery was reset while this instance worked for it. What it
    /// has begun is nobody's any more; the group is to be opened anew.
    #[error("the group was reset ({operation}); what was begun before is handled anew")]
    Forgotten {
        /// What was asked.
        operation: &'static str,
        /// Which group.
        source: BoxError,
    },
    /// What is asked for begins in a part of the feed that was trimmed away.
    #[error(
        "the beginning of `{partition}` was trimmed away, so that what lies before {first_available} cannot be read; begin with `Start::at(first_available)`, or read after `first_available.before()`"
    )]
    FeedTrimmed {
        /// The partition.
        partition: Partition,
        /// From this position on the feed is whole.
        first_available: Position,
    },
}
