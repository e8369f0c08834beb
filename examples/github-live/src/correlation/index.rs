//! The index: a projection that knows where the events of each correlation lie.

use std::time::Duration;

use event_core::projection::{NotJson, ProjectionView, Writes};
use event_core::{
    Backend, Category, FeedEntry, Partition, Position, ProjectionError, RecordedEvent, projection,
};

use super::{Correlated, CorrelationError, MOST};
use crate::feeds::heads;

/// Where the events of each correlation lie: a key for each correlation, a field for each event.
pub struct CorrelationIndex;

impl CorrelationIndex {
    /// Its name.
    pub const NAME: &'static str = "correlations";
}

#[projection(name = "correlations", version = 1)]
impl CorrelationIndex {
    #[on("ai.*")]
    #[on("codebase.*")]
    #[on("github.*")]
    #[on("package.*")]
    #[on("repository.*")]
    #[on("sdlc.*")]
    fn note(&self, event: &RecordedEvent, writes: &mut Writes) -> Result<(), NotJson> {
        let metadata = event.metadata();
        let place = (Category::of(event.event_type()).ok(), event.position());
        let (Some(category), position) = place else {
            return Ok(());
        };
        let place = (category.as_str(), position);
        writes.set_field(
            &metadata.correlation_id,
            metadata.event_id.to_string(),
            &place,
        )
    }
}

/// How long the index may take to have what is stored now.
const PATIENCE: Duration = Duration::from_millis(500);

/// Looks up where the events are, and reads them there. Where the index is too far behind, the answer is
/// not complete.
pub(super) async fn find(
    store: &dyn Backend,
    index: &ProjectionView,
    categories: &[Category],
    correlation_id: &str,
) -> Result<Correlated, CorrelationError> {
    let stored = heads(store, categories).await?;
    let is_up_to_date = match index.wait_for(&stored, PATIENCE).await {
        Ok(()) => true,
        Err(ProjectionError::Behind { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    let places = index.fields::<(String, Position)>(correlation_id).await?;
    let mut found = Correlated {
        events: Vec::with_capacity(places.len().min(MOST)),
        complete: is_up_to_date && places.len() <= MOST,
        read: 0,
        indexed: true,
    };
    for (event_id, (category, position)) in places.into_iter().take(MOST) {
        let Ok(category) = Category::new(category) else {
            continue;
        };
        match read(store, &category, position, &event_id).await? {
            Some(event) => found.events.push(event),
            // It was trimmed away since.
            None => found.complete = false,
        }
        found.read += 1;
    }
    Ok(found)
}

/// The event of this id at this position of one of a category's partitions.
async fn read(
    store: &dyn Backend,
    category: &Category,
    position: Position,
    event_id: &str,
) -> Result<Option<RecordedEvent>, CorrelationError> {
    for number in 0..store.partitions(category).await? {
        let partition = Partition::new(category.clone(), number);
        let read = store.read_feed_back(&partition, position.next(), 1).await?;
        if let Some(FeedEntry::Event(event)) = read.into_iter().next()
            && event.position() == position
            && event.metadata().event_id.to_string() == event_id
        {
            return Ok(Some(event));
        }
    }
    Ok(None)
}
