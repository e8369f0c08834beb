//! The names of the repositories that are known: a projection, as the store finds an aggregate by its
//! name, and has no list of them.

use event_core::projection::{NotJson, Writes};
use event_core::{RecordedEvent, projection};

/// The names of the repositories that are known, as its keys.
pub struct RepositoryNames;

impl RepositoryNames {
    /// Its name.
    pub const NAME: &'static str = "repository-names";
}

#[projection(name = "repository-names", version = 1)]
impl RepositoryNames {
    #[on("codebase.*")]
    fn note(&self, event: &RecordedEvent, writes: &mut Writes) -> Result<(), NotJson> {
        match event.aggregate() {
            Some(aggregate) => writes.set(&aggregate.id, &event.metadata().timestamp),
            None => Ok(()),
        }
    }
}
