//! What a store keeps for projections: their states, how far each is filled, and which version is read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::event::Category;
use crate::partition::Partition;
use crate::projection::ProjectionWrites;
use crate::recorded::Position;
use crate::store::{Append, AppendError, Appended, StoreError};

/// Keeps the states of projections, each together with its checkpoints.
///
/// # Contract
/// What is written, and the checkpoint that says so, are stored in one step, and only where the checkpoint
/// is still the one that the writer went on from. So each event is in a state exactly once, however many
/// writers there are. A lease says who of them works; nothing hangs on it.
#[async_trait]
pub trait Projections: Send + Sync + 'static {
    /// Makes a version of a projection known, if it is not, and says of which categories it is made. The
    /// first version of a projection is served at once.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn open_projection(
        &self,
        id: &ProjectionId,
        categories: &[Category],
    ) -> Result<ProjectionVersions, StoreError>;

    /// As [`open_projection`](Self::open_projection), unless the version is not known and another one is
    /// read: then nothing is done.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn open_first_projection(
        &self,
        id: &ProjectionId,
        categories: &[Category],
    ) -> Result<ProjectionVersions, StoreError>;

    /// The versions of a projection; none where it is not known.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn projection_versions(&self, name: &str) -> Result<ProjectionVersions, StoreError>;

    /// The version that is read; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn served_projection(&self, name: &str) -> Result<Option<u32>, StoreError> {
        Ok(self.projection_versions(name).await?.served)
    }

    /// Has a version be the one that is read, in one step. Gives the version that was read before.
    ///
    /// # Errors
    /// [`ServeError::Unknown`] where there is no such version.
    async fn serve_projection(&self, id: &ProjectionId) -> Result<Option<u32>, ServeError>;

    /// As [`serve_projection`](Self::serve_projection), where `served` is the version that is read, and
    /// nothing is in its state that is not in this one, too; else `false`, and nothing is done. `true` also
    /// where it is the one that is read already.
    ///
    /// # Errors
    /// [`ServeError::Unknown`] where there is no such version.
    async fn switch_projection(&self, id: &ProjectionId, served: u32) -> Result<bool, ServeError>;

    /// Removes a version with all its state; `false` where there was none. May be repeated where it was
    /// broken off.
    ///
    /// # Errors
    /// [`ServeError::Served`] where it is the version that is read, and there are others.
    async fn drop_projection(&self, id: &ProjectionId) -> Result<bool, ServeError>;

    /// Makes an instance the one that fills a version for as long as `lease`, by the store's clock, or
    /// prolongs that; `false` where another instance does.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn hold_projection(
        &self,
        id: &ProjectionId,
        instance: &str,
        lease: Duration,
    ) -> Result<bool, StoreError>;

    /// Gives that back, so that others can go on at once.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn release_projection(&self, id: &ProjectionId, instance: &str)
    -> Result<(), StoreError>;

    /// Up to where a partition is in the state of a version; [`Position::START`] where nothing is.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn projection_checkpoint(
        &self,
        id: &ProjectionId,
        partition: &Partition,
    ) -> Result<Position, StoreError>;

    /// Writes what a piece of a partition leads to, and moves the checkpoint behind it: all of it or
    /// nothing.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing is written then, but for [`ApplyError::Store`], after which it is not known.
    async fn apply_projection(
        &self,
        id: &ProjectionId,
        partition: &Partition,
        step: &ProjectionStep,
    ) -> Result<(), ApplyError>;

    /// The document of a key, as JSON.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn projection_document(
        &self,
        id: &ProjectionId,
        key: &str,
    ) -> Result<Option<String>, StoreError>;

    /// A field of a key, as JSON.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn projection_field(
        &self,
        id: &ProjectionId,
        key: &str,
        field: &str,
    ) -> Result<Option<String>, StoreError>;

    /// All fields of a key, as JSON.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn projection_fields(
        &self,
        id: &ProjectionId,
        key: &str,
    ) -> Result<BTreeMap<String, String>, StoreError>;

    /// At most `limit` of the keys that have something, in the order of their bytes, from behind `after`
    /// on.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn projection_keys(
        &self,
        id: &ProjectionId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError>;

    /// Up to where a partition is in each version of each projection that is made of its category. What
    /// lies behind the lowest of them is needed still.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn projection_checkpoints(
        &self,
        partition: &Partition,
    ) -> Result<Vec<ProjectionCheckpoint>, StoreError>;

    /// How many entries of a partition lie after a position.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn entries_after(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<u64, StoreError>;

    /// Whether an append can write to projections in the same step.
    fn projects_inline(&self) -> bool;

    /// As [`append`](crate::EventStore::append), and writes in the same step what the events lead to in
    /// each of some projections: where the checkpoint is at the end of the partition, and all of the
    /// events are new.
    ///
    /// # Errors
    /// As [`append`](crate::EventStore::append).
    async fn append_projected(
        &self,
        append: &Append,
        inline: &[InlineStep],
    ) -> Result<AppendedProjected, AppendError>;
}

/// A version of a projection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectionId {
    name: Arc<str>,
    version: u32,
}

/// The longest name of a projection, in bytes.
pub const MAX_PROJECTION_NAME_BYTES: usize = 100;

/// Whether `text` is a name for a projection: letters, digits, `_`, `-` and `.`, with a letter at its
/// beginning, and no more than [`MAX_PROJECTION_NAME_BYTES`].
pub const fn is_projection_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_PROJECTION_NAME_BYTES {
        return false;
    }
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'_' | b'-' | b'.' if index > 0 => {}
            _ => return false,
        }
        index += 1;
    }
    true
}

impl ProjectionId {
    /// Names a version of a projection.
    ///
    /// # Errors
    /// [`InvalidProjectionName`] where the name is none: see [`is_projection_name`].
    ///
    /// ```
    /// use event_core::ProjectionId;
    ///
    /// let id = ProjectionId::new("orders-by-customer", 2)?;
    /// assert_eq!(id.to_string(), "orders-by-customer v2");
    /// assert!(ProjectionId::new("orders by customer", 2).is_err());
    /// # Ok::<(), event_core::InvalidProjectionName>(())
    /// ```
    pub fn new(name: impl Into<Arc<str>>, version: u32) -> Result<Self, InvalidProjectionName> {
        let name = name.into();
        match is_projection_name(&name) {
            true => Ok(Self { name, version }),
            false => Err(InvalidProjectionName {
                name: name.to_string(),
            }),
        }
    }

    /// Another version of the same projection.
    pub fn with_version(&self, version: u32) -> Self {
        Self {
            name: Arc::clone(&self.name),
            version,
        }
    }

    /// The name of the projection.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version.
    pub fn version(&self) -> u32 {
        self.version
    }
}

impl fmt::Display for ProjectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

/// A name that no projection can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is no name for a projection; write at most {MAX_PROJECTION_NAME_BYTES} letters, digits, `_`, `-` and `.`, with a letter at the beginning"
)]
pub struct InvalidProjectionName {
    /// What was given.
    pub name: String,
}

/// The versions of a projection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectionVersions {
    /// The version that is read.
    pub served: Option<u32>,
    /// Every version there is, by number.
    pub versions: BTreeMap<u32, ProjectionVersion>,
}

impl ProjectionVersions {
    /// Whether a version is there, and is or was the one that is read. Others are being rebuilt.
    pub fn is_live(&self, version: u32) -> bool {
        self.versions
            .get(&version)
            .is_some_and(|known| known.is_live)
    }
}

/// What is known of a version of a projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectionVersion {
    /// The categories of the events that it is made of.
    pub categories: Vec<Category>,
    /// Whether it is, or was, the version that is read.
    pub is_live: bool,
}

/// A piece of a partition, as it is to be written to a projection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProjectionStep {
    /// Where the checkpoint must be.
    pub from: Position,
    /// Where it is afterwards.
    pub to: Position,
    /// What the events in between lead to.
    pub writes: ProjectionWrites,
}

/// What the events of an append lead to in a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct InlineStep {
    /// The projection.
    pub id: ProjectionId,
    /// What they lead to.
    pub writes: ProjectionWrites,
}

/// An append that may have written to projections.
#[derive(Clone, Debug, PartialEq)]
pub struct AppendedProjected {
    /// What was stored.
    pub appended: Appended,
    /// Which of the projections have yet to take the events in, counted from 0. A version that nobody has
    /// opened, or that is being rebuilt, is not among them.
    pub behind: Vec<usize>,
}

/// How far a version of a projection is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectionCheckpoint {
    /// The version.
    pub id: ProjectionId,
    /// Everything up to here is in its state.
    pub position: Position,
}

/// Writes that were not done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Another writer was faster.
    #[error("the checkpoint is at {checkpoint} by now; go on from there")]
    Moved {
        /// Where it is.
        checkpoint: Position,
    },
    /// Something is to be added to a field that holds no whole number, or the sum is beyond
    /// [`MAX_COUNT`](crate::projection::MAX_COUNT).
    #[error(
        "field `{field}` of `{key}` cannot be incremented; it holds something other than a whole number, or would be larger than 2^53 - 1"
    )]
    NotACount {
        /// The key.
        key: String,
        /// The field.
        field: String,
    },
    /// There is no such version, or no longer.
    #[error("projection `{id}` is not there; register it, or rebuild it")]
    Unknown {
        /// The version.
        id: ProjectionId,
    },
    /// The store does not answer, and whether it is written is not known. The same step may be repeated.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A version that is not switched to, or not dropped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no such version.
    #[error("projection `{id}` is not there; register it, or rebuild it")]
    Unknown {
        /// The version.
        id: ProjectionId,
    },
    /// It is the version that is read, and there are others.
    #[error(
        "projection `{id}` is the version that is read; have another one be read first, or drop the others, too"
    )]
    Served {
        /// The version.
        id: ProjectionId,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
