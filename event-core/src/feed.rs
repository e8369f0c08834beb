//! The feed: all events of a category in order, read in batches by one group.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::{Instrument, debug_span};

use crate::event::Category;
use crate::handler::Start;
use crate::recorded::Position;
use crate::store::{Backend, FeedEntry, FeedReader, ReadError};

/// How many entries are read at once.
const BATCH: usize = 256;

/// A feed as one group reads it: from its checkpoint on.
pub(crate) struct Feed {
    backend: Arc<dyn Backend>,
    group: Arc<str>,
    category: Category,
    start: Start,
    /// Up to where everything is handled; unknown until the checkpoint is loaded.
    handled: Option<Position>,
    /// What the store remembers of it.
    saved: Option<Position>,
    reader: Option<Box<dyn FeedReader>>,
}

impl Feed {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        group: Arc<str>,
        category: Category,
        start: Start,
    ) -> Self {
        Self {
            backend,
            group,
            category,
            start,
            handled: None,
            saved: None,
            reader: None,
        }
    }

    /// The position after which to read: the checkpoint, or where a new group starts.
    async fn after(&mut self) -> Result<Position, ReadError> {
        if let Some(handled) = self.handled {
            return Ok(handled);
        }
        let saved = self
            .backend
            .load_checkpoint(&self.group, &self.category)
            .await?;
        let after = match (saved, self.start) {
            (Some(saved), _) => saved,
            (None, Start::Beginning) => Position::START,
            (None, Start::Now) => {
                let head = self.backend.head(&self.category).await?;
                // Remembered at once: what comes from here on is for this group, even if it is
                // stopped before it has handled anything.
                self.backend
                    .save_checkpoint(&self.group, &self.category, head)
                    .await?;
                head
            }
        };
        self.saved = saved;
        self.handled = Some(after);
        Ok(after)
    }

    /// Makes sure that a group that starts now has its start.
    pub(crate) async fn begin(&mut self) -> Result<(), ReadError> {
        self.after().await.map(|_| ())
    }

    /// What there is to handle now; nothing where everything is handled.
    pub(crate) async fn read(&mut self) -> Result<Vec<FeedEntry>, ReadError> {
        let after = self.after().await?;
        let span = debug_span!("feed", category = %self.category, %after);
        self.backend
            .read_feed(&self.category, after, BATCH)
            .instrument(span)
            .await
    }

    /// What there is to handle next; waits for it. `None` when the service is stopped.
    pub(crate) async fn follow(
        &mut self,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Vec<FeedEntry>>, ReadError> {
        let after = self.after().await?;
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => {
                let reader = self.backend.follow(&self.category, after).await?;
                self.reader.insert(reader)
            }
        };
        let span = debug_span!("feed", category = %self.category, %after);
        let batch = tokio::select! {
            batch = reader.next_batch(BATCH).instrument(span) => batch,
            _ = stop.wait_for(|stopped| *stopped) => return Ok(None),
        };
        if batch.is_err() {
            self.reader = None;
        }
        batch.map(Some)
    }

    /// Forgets the reader, which may be ahead of what is handled.
    pub(crate) fn rewind(&mut self) {
        self.reader = None;
    }

    /// Everything up to here is handled.
    pub(crate) fn advance(&mut self, position: Position) {
        self.handled = Some(position);
    }

    /// Lets the store remember what is handled.
    pub(crate) async fn checkpoint(&mut self) -> Result<(), ReadError> {
        if let Some(handled) = self.handled
            && self.saved.is_none_or(|saved| saved < handled)
            && handled > Position::START
        {
            self.backend
                .save_checkpoint(&self.group, &self.category, handled)
                .await?;
            self.saved = Some(handled);
        }
        Ok(())
    }
}
