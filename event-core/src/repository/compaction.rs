//! Compaction: the beginning of a history is dropped behind a snapshot, and loads go on from that.

use std::ops::ControlFlow;
use std::time::Duration;

use chrono::Utc;

use super::fold::Fold;
use super::{Repository, RepositoryError};
use crate::aggregate::Aggregate;
use crate::codec::history::HistoryEntry;
use crate::recorded::{AggregateId, Version};
use crate::store::{CompactError, Compacted, ReadError, Versions};

/// A load begins anew so often at most where the history is compacted while it reads.
const COMPACTED_MEANWHILE: usize = 3;

/// So many of the newest events stay when a history is compacted, however old they are.
const KEPT_EVENTS: u64 = 100;

/// What is younger stays, too, unless the repository says otherwise.
pub(super) const EVENTS_KEPT_FOR: Duration = Duration::from_secs(10 * 60);

impl<A: Aggregate> Repository<A> {
    /// For how long [`compact`](Self::compact) keeps what was appended, by this machine's clock; 10 minutes
    /// by default. An append whose reply was lost is recognised by the events that it has stored, so this is
    /// to be longer than any append is sent again.
    pub fn with_events_kept_for(mut self, kept_for: Duration) -> Self {
        self.events_kept_for = kept_for;
        self
    }

    /// Drops the beginning of an aggregate's history, behind a snapshot of its newest state, which is
    /// stored in the same step. Its newest hundred events stay, and those of the last 10 minutes, so that an
    /// append that is sent again is recognised: see [`with_events_kept_for`](Self::with_events_kept_for). Its
    /// version stays what it is, and so does the feed.
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
        let first_kept = self.first_young(&aggregate, first_kept).await?;
        let compacted = self.store.compact(&aggregate, &snapshot, first_kept).await;
        Ok(compacted?)
    }

    /// The first version, up to `before`, from which on no event is older than what is kept.
    async fn first_young(
        &self,
        aggregate: &AggregateId,
        before: Version,
    ) -> Result<Version, RepositoryError> {
        if self.events_kept_for.is_zero() || before <= 1 {
            return Ok(before);
        }
        let now = u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default();
        let kept_for = u64::try_from(self.events_kept_for.as_millis()).unwrap_or(u64::MAX);
        let oldest = now.saturating_sub(kept_for);
        let (mut first, mut failure) = (before, None);
        let versions = Versions::from(1).to(before - 1).backwards();
        let mut visit = |entry: HistoryEntry<'_>| {
            match (entry.version(), entry.position()) {
                (Ok(version), Ok(position)) if position.milliseconds() >= oldest => {
                    first = version;
                    return ControlFlow::Continue(());
                }
                (Ok(_), Ok(_)) => {}
                (Err(error), _) | (_, Err(error)) => failure = Some(error),
            }
            ControlFlow::Break(())
        };
        match self.store.replay(aggregate, &versions, &mut visit).await {
            // All that is left is young.
            Err(ReadError::HistoryTrimmed { .. }) => {}
            read => read?,
        }
        match failure {
            None => Ok(first),
            Some(error) => Err(ReadError::from(error).into()),
        }
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
