//! Projections in a database of one's own, which keeps the checkpoints, too.

use async_trait::async_trait;

use crate::BoxError;
use crate::partition::Partition;
use crate::recorded::{Position, RecordedEvent};

/// A projection whose state lies in a database of the user's. The service reads the feeds, and hands over
/// events together with the position that they lead to: state and position are stored in one transaction,
/// and so each event is in the state exactly once.
///
/// # Contract
/// [`apply`](Self::apply) must store both, and only where the position that the database has for the
/// partition is still [`SinkBatch::from`]: two instances of a service may apply at the same time.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Mutex, PoisonError};
///
/// use async_trait::async_trait;
/// use event_core::prelude::*;
/// use event_core::Partition;
/// use event_core::projection::{ProjectionSink, SinkBatch};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Serialize, Deserialize, Event)]
/// # #[event("github.push", key = repository)]
/// # struct GithubPush { repository: String, commits: u64 }
///
/// /// As if it were a database: the state, and where it stands.
/// #[derive(Default)]
/// struct Table(Mutex<(u64, HashMap<Partition, Position>)>);
///
/// #[async_trait]
/// impl ProjectionSink for Table {
///     async fn checkpoint(&self, partition: &Partition) -> Result<Position, BoxError> {
///         let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         Ok(table.1.get(partition).copied().unwrap_or_default())
///     }
///
///     async fn apply(&self, batch: &SinkBatch<'_>) -> Result<bool, BoxError> {
///         let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         if table.1.get(batch.partition).copied().unwrap_or_default() != batch.from {
///             return Ok(false);
///         }
///         let mut commits = 0;
///         for event in batch.events {
///             commits += event.decode::<GithubPush>()?.commits;
///         }
///         // Nothing fails any more: both, or neither.
///         table.0 += commits;
///         table.1.insert(batch.partition.clone(), batch.to);
///         Ok(true)
///     }
/// }
///
/// let service = Service::builder("report")
///     .store(MemoryStore::new())
///     .projection_sink("commits", 1, ["github.push"], Table::default())
///     .build()?;
/// # Ok::<(), event_core::BuildError>(())
/// ```
#[async_trait]
pub trait ProjectionSink: Send + Sync + 'static {
    /// Up to where a partition is in the state; [`Position::START`] where nothing is.
    ///
    /// # Errors
    /// Whatever went wrong: it is asked again.
    async fn checkpoint(&self, partition: &Partition) -> Result<Position, BoxError>;

    /// Takes events in and stores the position that they lead to, in one transaction; `false`, with
    /// nothing stored, where the position is not [`SinkBatch::from`].
    ///
    /// # Errors
    /// Whatever went wrong, with nothing stored: it is tried again after a pause, event by event.
    async fn apply(&self, batch: &SinkBatch<'_>) -> Result<bool, BoxError>;
}

/// Events for a [`ProjectionSink`].
#[derive(Clone, Copy, Debug)]
pub struct SinkBatch<'a> {
    /// The partition that they lie in.
    pub partition: &'a Partition,
    /// Where the state must be.
    pub from: Position,
    /// Where it is afterwards.
    pub to: Position,
    /// The events that match the sink's patterns, in order. There may be none: the position moves on
    /// behind those that do not match.
    pub events: &'a [RecordedEvent],
}
