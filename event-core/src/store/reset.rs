//! Resets: what a group has done is forgotten, or the group goes on from another place.

use std::time::Duration;

use crate::event::Category;
use crate::handler::Start;
use crate::partition::Partition;
use crate::store::{EventStore, Groups, ReadError, StoreError};

/// What becomes of a group that is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Everything it has done is forgotten: its progress, its dead letters, and what its handlers with
    /// parallel delivery have taken. When it runs again it is new, and begins as its
    /// [`start`](crate::ServiceBuilder::start) says.
    Forget,
    /// It goes on from there, be that behind or before where it is. Its dead letters that lie behind
    /// are removed, since their events come again; the others stay.
    MoveTo(Start),
}

/// A group that was not reset, or not everywhere.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// An instance of the group is there.
    #[error(
        "instance `{instance}` of the group `{group}` is there; stop it, or wait for {remaining:?} if it is dead, and then reset the group again"
    )]
    Alive {
        /// The group.
        group: String,
        /// The instance.
        instance: String,
        /// For how long it is there without saying so again.
        remaining: Duration,
    },
    /// An instance owns the partition.
    #[error(
        "`{owner}` owns the partition `{partition}` of the group `{group}`; stop it, or wait for {remaining:?} if it is dead, and then reset the group again"
    )]
    Owned {
        /// The group.
        group: String,
        /// The partition.
        partition: Partition,
        /// The instance.
        owner: String,
        /// For how long it owns the partition without prolonging the lease.
        remaining: Duration,
    },
    /// What the group has emitted is still on its way, and does not arrive. Nothing is reset in this
    /// partition.
    #[error(
        "what the group `{group}` has emitted from `{partition}` to `{target}` is not delivered after {waited:?}{}; see to it that `{target}` takes it, and then reset the group again", why.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
    )]
    Undelivered {
        /// The group.
        group: String,
        /// The partition that it was emitted from.
        partition: Partition,
        /// Where it is to go.
        target: Partition,
        /// For how long it was waited for.
        waited: Duration,
        /// What the last attempt to deliver it came to, where that is known.
        why: Option<String>,
    },
    /// The feeds of the group are not known.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Resets a group in all partitions of some categories. What its handlers have emitted stays: those that
/// see an event again emit again, with the same ids.
///
/// Each partition is reset in one step. A group that was reset in some of them only, because of an error,
/// may be reset again.
///
/// A service resets its own group by [`Service::reset`](crate::Service::reset), which knows the
/// categories.
///
/// # Errors
/// [`ResetError::Alive`] and [`ResetError::Owned`] while an instance of the group runs, or has not been
/// silent for long enough to be dead.
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Category, Reset, Start, reset_group};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let store = MemoryStore::new();
/// let categories = [Category::new("github")?, Category::new("sdlc")?];
/// // As if it had never been:
/// reset_group(&store, "report", &categories, Reset::Forget).await?;
/// // Once more what has come since yesterday:
/// let yesterday = Start::since("2025-11-22T00:00:00Z".parse()?);
/// reset_group(&store, "report", &categories, Reset::MoveTo(yesterday)).await?;
/// # Ok(())
/// # }
/// ```
pub async fn reset_group<S: EventStore + Groups + ?Sized>(
    store: &S,
    group: &str,
    categories: &[Category],
    reset: Reset,
) -> Result<(), ResetError> {
    nobody_is_there(store, group).await?;
    for category in categories {
        for number in 0..store.partitions(category).await? {
            let partition = Partition::new(category.clone(), number);
            store.reset(group, &partition, reset).await?;
        }
    }
    // One that came meanwhile may have begun from what is forgotten now.
    nobody_is_there(store, group).await
}

async fn nobody_is_there<S: Groups + ?Sized>(store: &S, group: &str) -> Result<(), ResetError> {
    match store.members(group).await?.into_iter().next() {
        None => Ok(()),
        Some(member) => Err(ResetError::Alive {
            group: group.to_owned(),
            instance: member.instance,
            remaining: member.remaining,
        }),
    }
}
