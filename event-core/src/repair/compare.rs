//! Comparing an event of a history with its entry in the feed.

use crate::partition::Partition;
use crate::recorded::{AggregateRef, RecordedEvent};
use crate::store::{FeedEntry, Maintenance, ReadError, StoreError};

/// What is wrong with an event of a history.
pub(super) enum Wrong {
    MissingInFeed,
    Different(String),
    /// Nothing, but that its entry is trimmed away.
    Trimmed,
}

/// Compares an event of a history with its entry in the feed.
pub(super) async fn compare<S: Maintenance + ?Sized>(
    store: &S,
    partition: &Partition,
    event: &RecordedEvent,
    is_adopted: bool,
) -> Result<Option<Wrong>, ReadError> {
    let position = event.position();
    let mut read = match store.read_feed(partition, position.before(), 1).await {
        Ok(read) => read,
        Err(ReadError::Store(StoreError::FeedTrimmed { .. })) => return Ok(Some(Wrong::Trimmed)),
        Err(error) => return Err(error),
    };
    match read.pop() {
        Some(FeedEntry::Event(entry)) if entry.position() == position => {
            Ok(difference(event, &entry, is_adopted).map(Wrong::Different))
        }
        Some(FeedEntry::Undecodable {
            position: at,
            error,
        }) if at == position => Ok(Some(Wrong::Different(error.to_string()))),
        // What others have trimmed away is not told by the read.
        _ if position < store.first_available(partition).await? => Ok(Some(Wrong::Trimmed)),
        _ => Ok(Some(Wrong::MissingInFeed)),
    }
}

/// In what an event of a history and its entry differ. The version of an entry that was adopted is the
/// history's alone.
fn difference(event: &RecordedEvent, entry: &RecordedEvent, is_adopted: bool) -> Option<String> {
    let (own, other) = (event.metadata(), entry.metadata());
    let (of, of_entry) = (event.aggregate(), entry.aggregate());
    let same_aggregate = match (of, of_entry) {
        (Some(of), Some(of_entry)) => {
            of.aggregate_type == of_entry.aggregate_type && of.id == of_entry.id
        }
        _ => false,
    };
    let version = |of: Option<&AggregateRef>| of.map(|of| of.version);
    let micros = |event: &RecordedEvent| event.metadata().timestamp.timestamp_micros();
    let same = [
        ("the type", event.event_type() == entry.event_type()),
        ("the payload", event.payload() == entry.payload()),
        ("the aggregate", same_aggregate),
        (
            "the version",
            is_adopted || version(of) == version(of_entry),
        ),
        ("the event id", own.event_id == other.event_id),
        ("the time", micros(event) == micros(entry)),
        (
            "the correlation id",
            own.correlation_id == other.correlation_id,
        ),
        ("the causation id", own.causation_id == other.causation_id),
        ("the source", own.source == other.source),
        (
            "the schema version",
            own.schema_version == other.schema_version,
        ),
        ("the trace context", own.traceparent == other.traceparent),
        ("the key", own.key == other.key),
        ("the user's own metadata", own.extra == other.extra),
    ];
    let differing: Vec<_> = same
        .iter()
        .filter(|(_, is_same)| !is_same)
        .map(|(what, _)| *what)
        .collect();
    match differing.is_empty() {
        true => None,
        false => Some(format!("{} differs from the feed", differing.join(", "))),
    }
}
