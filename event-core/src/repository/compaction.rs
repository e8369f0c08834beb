//! Compaction: the beginning of a history is dropped behind a snapshot, and loads go on from that.

use super::fold::Fold;
use super::{Repository, RepositoryError};
use crate::aggregate::Aggregate;
use crate::recorded::{AggregateId, Version};
use crate::store::{CompactError, Compacted, ReadError, Versions};

/// A load begins anew so often at most where the history is compacted while it reads.
const COMPACTED_MEANWHILE: usize = 3;

/// So many of the newest events stay when a history is compacted.
const KEPT_EVENTS: u64 = 100;

impl<A: Aggregate> Repository<A> {
    /// Drops the beginning of an aggregate's history, behind a snapshot of its newest state, which is
    /// stored in the same step. Its newest hundred events stay, so that an append that is sent again is
    /// recognised; its version stays what it is, and so does the feed.
    ///
    /// From then on the state can be had by the snapshot alone: a program that cannot read it, since it
    /// has another [`state_version`](crate::SnapshotPolicy::state_version) or none, gets
    /// [`ReadError::HistoryTrimmed`], and so does whoever asks for an earlier state or event. Where the
    /// feed still has all events, [`rebuild_history`](crate::rebuild_history) brings them back.
    ///
    /// # Errors
    /// [`RepositoryError::WithoutSnapshots`] where the repository keeps none; [`RepositoryError::Compact`]
    /// where nothing was dropped.
    pub async fn compact(&self, id: &str) -> Result<Compacted, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        let fold = self.newest(&aggregate).await?;
        let written = self
            .snapshots
            .write(&fold.state, fold.version, fold.event_id);
        let snapshot = match written {
            None => return Err(RepositoryError::WithoutSnapshots { aggregate }),
            Some(Err(source)) => return Err(RepositoryError::State { aggregate, source }),
            Some(Ok(snapshot)) => snapshot,
        };
        let first_kept = (snapshot.version + 1).saturating_sub(KEPT_EVENTS).max(1);
        let compacted = self.store.compact(&aggregate, &snapshot, first_kept).await;
        Ok(compacted?)
    }

    /// The state as the snapshot and what has come since make it, where the history before that was
    /// dropped.
    ///
    /// # Errors
    /// `error`, where there is no such snapshot.
    pub(super) async fn behind_snapshot(
        &self,
        aggregate: &AggregateId,
        to: Version,
        mut error: RepositoryError,
    ) -> Result<Fold<A>, RepositoryError> {
        for _ in 0..COMPACTED_MEANWHILE {
            let Some(mut fold) = self.of_snapshot(aggregate, to).await? else {
                return Err(error);
            };
            let versions = Versions::from(fold.first()).to(to);
            match self.replay(aggregate, &versions, &mut fold).await {
                // And once more.
                Err(again) if again.is_history_trimmed() => {
                    error = again;
                    continue;
                }
                read => read?,
            }
            return match fold.check().map_err(ReadError::from)? {
                true => Ok(fold),
                false => Err(error),
            };
        }
        Err(error)
    }
}

impl From<CompactError> for RepositoryError {
    fn from(error: CompactError) -> Self {
        match error {
            CompactError::NotFound { aggregate } => Self::NotFound { aggregate },
            other => Self::Compact(other),
        }
    }
}
