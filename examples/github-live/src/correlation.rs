//! Events by correlation: everything that one first event has led to.
//!
//! Feeds are ordered by time, and not by correlation. So there are two ways to find what belongs together:
//!
//! - Without an index, the newest [`SCANNED`] events are read back, and no more. That costs nothing until
//!   somebody asks, and what is older is not found: the answer says so.
//! - With the [index](CorrelationIndex), a projection knows where the events of each correlation lie. That
//!   costs memory and work with each event, for ever.

mod index;
mod scan;

use std::sync::Arc;

use event_core::projection::ProjectionView;
use event_core::{Backend, Category, ProjectionError, ReadError, RecordedEvent};

pub use index::CorrelationIndex;

/// How many events are looked at without an index: the newest of all categories.
pub const SCANNED: usize = 100_000;

/// How many events of a correlation are given at most.
const MOST: usize = 1_000;

/// Finds the events of a correlation. A clone is the same.
#[derive(Clone)]
pub struct Correlations {
    store: Arc<dyn Backend>,
    categories: Arc<[Category]>,
    index: Option<ProjectionView>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Correlated {
    /// The events, in the order of their causes: the oldest first.
    pub events: Vec<RecordedEvent>,
    /// Whether these are all there are, as far as is known.
    pub complete: bool,
    /// How many events were read to find them.
    pub read: usize,
    /// Whether an index said where they are.
    pub indexed: bool,
}

/// Events that could not be looked for.
#[derive(Debug, thiserror::Error)]
pub enum CorrelationError {
    /// A feed cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] ProjectionError),
}

impl Correlations {
    /// In these categories of a store, with an index or without.
    pub fn new(
        store: Arc<dyn Backend>,
        categories: impl Into<Arc<[Category]>>,
        index: Option<ProjectionView>,
    ) -> Self {
        Self {
            store,
            categories: categories.into(),
            index,
        }
    }

    /// Whether an index says where they are.
    pub fn is_indexed(&self) -> bool {
        self.index.is_some()
    }

    /// The events of a correlation.
    ///
    /// # Errors
    /// [`CorrelationError`] where the store does not answer.
    pub async fn find(&self, correlation_id: &str) -> Result<Correlated, CorrelationError> {
        let mut found = match &self.index {
            Some(index) => {
                index::find(&*self.store, index, &self.categories, correlation_id).await?
            }
            None => scan::find(&*self.store, &self.categories, correlation_id).await?,
        };
        found
            .events
            .sort_by_cached_key(|event| (event.position(), event.metadata().timestamp));
        if found.events.len() > MOST {
            found.events.truncate(MOST);
            found.complete = false;
        }
        Ok(found)
    }
}
