//! Projections: states made for reading, which are filled from feeds and can be made anew at any time.
//!
//! - [`Projection`], [`projection`](macro@crate::projection): which events lead to which [`Writes`]
//! - [`ProjectionView`]: what is read, and waiting for what one has written oneself
//! - [`Rebuild`]: a new version fills beside the old one, and takes its place in one step
//! - [`ProjectionSink`]: the same for a database of one's own

mod definition;
mod error;
mod fill;
mod inline;
mod rebuild;
mod runner;
mod sink;
mod view;
mod writes;

use std::sync::Arc;

pub use definition::{ProjectionMethod, ProjectionOutput};
pub use error::{ProjectionError, ProjectionFailure, ProjectionStopped, WaitError};
pub use rebuild::{Rebuild, RebuildProgress, Rebuilt};
pub use runner::{ProjectionHealth, ProjectionPartition};
pub use sink::{ProjectionSink, SinkBatch};
pub use view::ProjectionView;
pub use writes::{FieldWrite, KeyWrites, MAX_COUNT, NotJson, ProjectionWrites, Writes};

pub(crate) use definition::ProjectionDefinition;
pub(crate) use fill::{FillError, Kind as TargetKind, Target};
pub(crate) use inline::{InlineProjection, InlineStore};
pub(crate) use runner::{ProjectionRunner, Registered};
pub(crate) use view::{LONGEST_PAUSE, pauses};
pub(crate) use writes::{NotACount, incremented};

/// A named state that is made for reading, and what events change in it. The attribute
/// [`#[projection]`](macro@crate::projection) implements it; this is how it looks by hand.
///
/// # Contract
/// What a method writes depends on the event alone (and on what the projection is made with): it reads
/// nothing. Then a state that is made anew from the same events is the same. A method that changes what it
/// writes needs a new [`VERSION`](Self::VERSION), and a [rebuild](crate::Service::rebuild).
///
/// ```
/// use event_core::prelude::*;
/// use event_core::projection::{Projection, ProjectionMethod, Writes};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Serialize, Deserialize, Event)]
/// # #[event("github.push", key = repository)]
/// # struct GithubPush { repository: String, commits: i64 }
///
/// struct Pushes;
///
/// impl Projection for Pushes {
///     const NAME: &'static str = "pushes";
///     const VERSION: u32 = 1;
///
///     fn methods() -> Vec<ProjectionMethod<Self>> {
///         let count = |_: &Self, push: GithubPush, writes: &mut Writes| {
///             writes.increment(push.repository, "commits", push.commits);
///         };
///         vec![ProjectionMethod::new("count", count).on("github.push")]
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let service = Service::builder("show").store(MemoryStore::new()).projection(Pushes).build()?;
/// let push = GithubPush { repository: "octo/hello".into(), commits: 2 };
/// let token = service.publish(push).await?.token();
///
/// // `run_until` fills it while the service runs, and this in tests:
/// service.run_until_idle().await?;
/// let pushes = service.projection("pushes")?;
/// assert_eq!(pushes.count("octo/hello", "commits").await?, 2);
/// # Ok(())
/// # }
/// ```
pub trait Projection: Send + Sync + 'static {
    /// Its name: letters, digits, `_`, `-` and `.`, with a letter at the beginning.
    const NAME: &'static str;

    /// The version of what its methods write.
    const VERSION: u32;

    /// Its methods, each with the events that it takes.
    fn methods() -> Vec<ProjectionMethod<Self>>
    where
        Self: Sized;
}

/// How a projection is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// By a task that follows the feeds.
    Behind,
    /// With the appends of the service.
    Inline,
}

/// A projection that is registered with a service.
pub(crate) type SharedDefinition = Arc<ProjectionDefinition>;
