use super::Pages;
use crate::event::Category;
use crate::partition::Partition;
use crate::store::{FeedEntry, Maintenance, ReadError};

/// What an [`adopt`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adoption {
    /// How many events were put at the end of their histories.
    pub adopted: u64,
    /// How many events lie in another partition than their aggregate, so that no history can have them.
    /// Whoever writes them is to choose the partition of the aggregate.
    pub misplaced: u64,
    /// How many entries are no events, or name an aggregate that cannot be.
    pub unreadable: u64,
}

/// Puts events of aggregates that other programs have written to the feed alone at the end of their
/// histories, in the order of the feed, with new versions. From then on loads have them.
///
/// Each is adopted once, however often this is called, by how many callers, and wherever one is killed. It
/// may be called while others write: their versions are counted on from what was adopted. The entry in the
/// feed stays as it is.
///
/// An entry that a history should have had all along is adopted, too: make a history that is damaged
/// [anew](crate::rebuild_history) first, where the feed is whole.
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Category, adopt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let store = MemoryStore::new();
/// let sdlc = Category::new("sdlc")?;
/// // As another program does with XADD:
/// store.append_foreign(&sdlc, &[
///     ("type", "phase.changed"),
///     ("payload", r#"{"from":"plan","to":"build"}"#),
///     ("aggregate", r#"{"type":"project","id":"gothic"}"#),
/// ]);
/// assert_eq!(adopt(&store, &sdlc).await?.adopted, 1);
/// assert_eq!(adopt(&store, &sdlc).await?.adopted, 0);
///
/// let gothic = AggregateId::new(sdlc, "project", "gothic")?;
/// let history = store.read_aggregate(&gothic, &event_core::Versions::all()).await?;
/// assert_eq!(history[0].event_type(), "sdlc.phase.changed");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ReadError::Store`] where the store does not answer. What was adopted before stays adopted.
pub async fn adopt<S: Maintenance + ?Sized>(
    store: &S,
    category: &Category,
) -> Result<Adoption, ReadError> {
    let mut adoption = Adoption::default();
    let count = store.partitions(category).await?;
    for number in 0..count {
        let partition = Partition::new(category.clone(), number);
        let mut pages = Pages::new(store, &partition).await?;
        loop {
            let entries = pages.next().await?;
            if entries.is_empty() {
                break;
            }
            let mut events = Vec::new();
            for entry in entries {
                let FeedEntry::Event(event) = entry else {
                    adoption.unreadable += 1;
                    continue;
                };
                match event.aggregate_id() {
                    Ok(None) => {}
                    Err(_) => adoption.unreadable += 1,
                    Ok(Some(aggregate))
                        if Partition::of_aggregate(&aggregate, count) != partition =>
                    {
                        adoption.misplaced += 1;
                    }
                    Ok(Some(_)) => events.push(event),
                }
            }
            if !events.is_empty() {
                adoption.adopted += store.adopt_events(&partition, &events).await?;
            }
        }
    }
    Ok(adoption)
}
