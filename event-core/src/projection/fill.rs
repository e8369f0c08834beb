//! Filling a projection: a partition is read from its checkpoint on, and what it leads to is written
//! piece by piece, while the next piece is read.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::join;

use super::definition::ProjectionDefinition;
use super::error::{ProjectionError, ProjectionFailure, ProjectionStopped};
use super::sink::{ProjectionSink, SinkBatch};
use super::writes::{NotACount, ProjectionWrites, Writes};
use crate::dispatcher::panic_message;
use crate::event::Category;
use crate::partition::Partition;
use crate::pattern::Pattern;
use crate::recorded::{Position, RecordedEvent};
use crate::store::{
    ApplyError, Backend, FeedEntry, ProjectionId, ProjectionStep, ReadError, StoreError,
};

/// So many partitions are filled at once.
pub(crate) const AT_ONCE: usize = 4;

/// How many entries are read at once in the beginning, until it is known how large they are.
const FIRST_PAGE: usize = 64;

/// How many entries are read at once, and written with one checkpoint, at most.
const PAGE: usize = 2_000;

/// Above so many bytes of payloads in one page, fewer entries are read at once.
const PAGE_BYTES: usize = 8 << 20;

/// With so many operations a piece is written, though more was read: a script takes no more than about a
/// million arguments.
const PIECE_WRITES: usize = 20_000;

/// A version of a projection, and where its state lies.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) id: ProjectionId,
    pub(crate) categories: Arc<[Category]>,
    pub(crate) kind: Kind,
}

/// Where the state lies.
#[derive(Clone)]
pub(crate) enum Kind {
    /// In the store, with its checkpoints.
    Stored(Arc<ProjectionDefinition>),
    /// In a database of the user's, which has the checkpoints. The store has them, too, a little later.
    Sink(Arc<dyn ProjectionSink>, Arc<[Pattern]>),
}

/// What is told of filling.
pub(crate) trait Progress: Send + Sync {
    /// Called before so many entries are taken in; it may wait.
    fn begin(&self, entries: usize) -> impl Future<Output = ()> + Send;
}

/// Nobody wants to know.
pub(crate) struct Silent;

impl Progress for Silent {
    async fn begin(&self, _: usize) {}
}

/// Why a projection goes no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FillError {
    #[error(transparent)]
    Stopped(#[from] ProjectionStopped),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("projection `{0}` is not there any more")]
    Unknown(ProjectionId),
}

impl From<FillError> for ProjectionError {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Stopped(stopped) => stopped.into(),
            FillError::Read(error) => error.into(),
            FillError::Store(error) => error.into(),
            FillError::Unknown(id) => crate::store::ServeError::Unknown { id }.into(),
        }
    }
}

/// What a page of entries leads to.
struct Piece {
    step: ProjectionStep,
    /// The events that a sink takes.
    events: Vec<RecordedEvent>,
    /// How many entries are in it.
    entries: usize,
    /// Whether there are more that were read.
    is_cut: bool,
    /// The entry behind it that cannot be taken in.
    failure: Option<(Position, ProjectionFailure)>,
}

/// What has come of writing a piece.
enum Applied {
    Written,
    /// Another writer was faster.
    Moved(Position),
    Failed(ProjectionFailure),
}

impl Target {
    /// All partitions of its categories.
    pub(crate) async fn partitions(&self) -> Result<Vec<Partition>, ReadError> {
        let mut partitions = Vec::new();
        for category in self.categories.iter() {
            for number in 0..self.backend.partitions(category).await? {
                partitions.push(Partition::new(category.clone(), number));
            }
        }
        Ok(partitions)
    }

    /// Up to where a partition is in the state.
    pub(crate) async fn checkpoint(&self, partition: &Partition) -> Result<Position, FillError> {
        match &self.kind {
            Kind::Stored(_) => {
                let checkpoint = self.backend.projection_checkpoint(&self.id, partition);
                Ok(checkpoint.await?)
            }
            Kind::Sink(sink, _) => sink.checkpoint(partition).await.map_err(|source| {
                StoreError::Refused {
                    operation: "checkpoint of a projection's sink",
                    source,
                }
                .into()
            }),
        }
    }

    /// Takes in everything that a partition has, or what it has up to a position at least. Gives how many
    /// entries this was, and up to where it has come. It may be dropped at any time: what is written has
    /// its checkpoint.
    pub(crate) async fn fill(
        &self,
        partition: &Partition,
        until: Position,
        progress: &impl Progress,
    ) -> Result<(usize, Position), FillError> {
        let mut from = self.checkpoint(partition).await?;
        if self.is_sink() {
            // Whoever has filled it may have been broken off before it did so.
            self.mirror(partition, from).await?;
        }
        let (mut filled, mut page) = (0, FIRST_PAGE);
        // Up to here entries are taken in one by one, to find the one that cannot be.
        let mut one_by_one = Position::START;
        let mut ahead: Option<(Vec<FeedEntry>, usize)> = None;
        while from < until {
            let (entries, asked) = match ahead.take() {
                Some(ahead) => ahead,
                None => {
                    let asked = if from < one_by_one { 1 } else { page };
                    (self.read(partition, from, asked).await?, asked)
                }
            };
            if entries.is_empty() {
                break;
            }
            let was_full = entries.len() >= asked;
            match entries.iter().map(FeedEntry::bytes).sum::<usize>() {
                bytes if bytes > PAGE_BYTES => page = (page / 2).max(1),
                bytes if bytes < PAGE_BYTES / 4 => page = (page * 2).min(PAGE),
                _ => {}
            }
            // A store in memory never waits, and others want to run, too.
            tokio::task::yield_now().await;
            let piece = self.project(from, entries);
            let is_full = was_full || piece.is_cut;
            progress.begin(piece.entries).await;
            let to = piece.step.to;
            let next = async {
                match is_full && piece.failure.is_none() && to >= one_by_one {
                    true => {
                        let entries = self.read(partition, to, page).await?;
                        Ok(Some((entries, page)))
                    }
                    false => Ok::<_, FillError>(None),
                }
            };
            let (next, applied) = join(next, self.apply(partition, &piece)).await;
            match applied? {
                Applied::Written => {
                    filled += piece.entries;
                    from = to;
                    if let Some((position, failure)) = piece.failure {
                        return Err(self.stopped(partition, position, failure).into());
                    }
                    ahead = next?;
                    if !is_full {
                        break;
                    }
                }
                Applied::Moved(checkpoint) => from = checkpoint,
                Applied::Failed(failure) if piece.entries == 1 => {
                    return Err(self.stopped(partition, to, failure).into());
                }
                Applied::Failed(_) => one_by_one = to,
            }
        }
        Ok((filled, from))
    }

    async fn read(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, FillError> {
        let read = self.backend.read_feed(partition, after, limit).await;
        read.map_err(|error| match error {
            ReadError::Store(StoreError::FeedTrimmed {
                first_available, ..
            }) => {
                let failure = ProjectionFailure::Trimmed;
                FillError::Stopped(self.stopped(partition, first_available, failure))
            }
            error => error.into(),
        })
    }

    fn stopped(
        &self,
        partition: &Partition,
        position: Position,
        failure: ProjectionFailure,
    ) -> ProjectionStopped {
        ProjectionStopped {
            id: self.id.clone(),
            partition: partition.clone(),
            position,
            failure: Arc::new(failure),
        }
    }

    /// What entries lead to, up to the first that cannot be taken in.
    fn project(&self, from: Position, entries: Vec<FeedEntry>) -> Piece {
        let (piece, rest) = self.piece(from, entries);
        match rest {
            None => piece,
            // An event has spoilt what those before it lead to: these are taken in anew.
            Some(before) => {
                let failure = piece.failure;
                let (piece, _) = self.piece(from, before);
                Piece { failure, ..piece }
            }
        }
    }

    /// As [`project`](Self::project); where the writes are of no use, the entries that are to be taken in
    /// anew.
    fn piece(&self, from: Position, entries: Vec<FeedEntry>) -> (Piece, Option<Vec<FeedEntry>>) {
        let mut piece = Piece {
            step: ProjectionStep {
                from,
                to: from,
                writes: ProjectionWrites::default(),
            },
            events: Vec::new(),
            entries: 0,
            is_cut: false,
            failure: None,
        };
        let (mut writes, mut written) = (Writes::default(), 0);
        let mut taken = Vec::new();
        for entry in entries {
            if written > PIECE_WRITES {
                piece.is_cut = true;
                break;
            }
            let position = entry.position();
            let event = match entry.into_event() {
                Ok(event) => event,
                Err(error) => {
                    piece.failure = Some((position, ProjectionFailure::Undecodable(error)));
                    break;
                }
            };
            match &self.kind {
                Kind::Stored(definition) => {
                    if let Err(failure) = definition.project(&event, &mut writes) {
                        piece.failure = Some((position, failure));
                        break;
                    }
                    written += writes.len();
                    if let Err(NotACount { key, field }) = piece.step.writes.add(&mut writes) {
                        let failure = ProjectionFailure::NotACount { key, field };
                        piece.failure = Some((position, failure));
                        return (piece, Some(taken));
                    }
                    taken.push(FeedEntry::Event(event));
                }
                Kind::Sink(_, patterns) => {
                    let is_meant = |pattern: &Pattern| pattern.matches(event.event_type());
                    if patterns.iter().any(is_meant) {
                        piece.events.push(event);
                    }
                }
            }
            piece.step.to = position;
            piece.entries += 1;
        }
        (piece, None)
    }

    async fn apply(&self, partition: &Partition, piece: &Piece) -> Result<Applied, FillError> {
        if piece.entries == 0 {
            return Ok(Applied::Written);
        }
        if let Kind::Sink(sink, _) = &self.kind {
            let batch = SinkBatch {
                partition,
                from: piece.step.from,
                to: piece.step.to,
                events: &piece.events,
            };
            match AssertUnwindSafe(sink.apply(&batch)).catch_unwind().await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    let checkpoint = self.checkpoint(partition).await?;
                    if checkpoint == batch.from {
                        let why = "it says that its position has moved, and it has not";
                        return Ok(Applied::Failed(ProjectionFailure::Sink(why.into())));
                    }
                    return Ok(Applied::Moved(checkpoint));
                }
                Ok(Err(error)) => return Ok(Applied::Failed(ProjectionFailure::Sink(error))),
                Err(panic) => {
                    let why = panic_message(&*panic);
                    return Ok(Applied::Failed(ProjectionFailure::Panicked(why)));
                }
            }
            self.mirror(partition, piece.step.to).await?;
            return Ok(Applied::Written);
        }
        let applied = self
            .backend
            .apply_projection(&self.id, partition, &piece.step);
        match applied.await {
            Ok(()) => Ok(Applied::Written),
            Err(ApplyError::Moved { checkpoint }) => Ok(Applied::Moved(checkpoint)),
            Err(ApplyError::NotACount { key, field }) => {
                let failure = ProjectionFailure::NotACount { key, field };
                Ok(Applied::Failed(failure))
            }
            Err(ApplyError::Unknown { id }) => Err(FillError::Unknown(id)),
            Err(ApplyError::Store(error)) => Err(error.into()),
        }
    }

    /// Has the store know how far a sink is, for those who wait or trim. What counts is the sink's own.
    async fn mirror(&self, partition: &Partition, to: Position) -> Result<(), FillError> {
        let checkpoint = self.backend.projection_checkpoint(&self.id, partition);
        let mut step = ProjectionStep {
            from: checkpoint.await?,
            to,
            writes: ProjectionWrites::default(),
        };
        loop {
            // Another one may have come further meanwhile.
            if step.from >= to {
                return Ok(());
            }
            let applied = self.backend.apply_projection(&self.id, partition, &step);
            match applied.await {
                Ok(()) => return Ok(()),
                Err(ApplyError::Moved { checkpoint }) => step.from = checkpoint,
                Err(ApplyError::Unknown { id }) => return Err(FillError::Unknown(id)),
                Err(ApplyError::Store(error)) => return Err(error.into()),
                // Nothing is counted here.
                Err(ApplyError::NotACount { .. }) => return Ok(()),
            }
        }
    }
}
