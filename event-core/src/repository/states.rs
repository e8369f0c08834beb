//! States: from the cache, from a snapshot or from the whole history, and kept for the next time.

use std::time::{Duration, Instant};

use super::fold::Fold;
use super::{Repository, RepositoryError};
use crate::aggregate::Aggregate;
use crate::metrics;
use crate::recorded::{AggregateId, Version};
use crate::store::{ReadError, Versions};

impl<A: Aggregate> Repository<A> {
    /// The newest state.
    pub(super) async fn newest(&self, aggregate: &AggregateId) -> Result<Fold<A>, RepositoryError> {
        let begun = Instant::now();
        let cached = self.cache.as_ref();
        let fold = match cached.and_then(|cache| cache.resume(aggregate.id())) {
            Some(fold) => Some(fold),
            None => self.of_snapshot(aggregate, Version::MAX).await?,
        };
        let mut fold = match fold {
            Some(fold) => self.caught_up(aggregate, fold, Version::MAX).await?,
            None => self.replayed(aggregate, Version::MAX).await?,
        };
        self.keep(aggregate, &mut fold, begun.elapsed());
        Ok(fold)
    }

    pub(super) async fn newest_or_new(
        &self,
        aggregate: &AggregateId,
    ) -> Result<Fold<A>, RepositoryError> {
        match self.newest(aggregate).await {
            Err(RepositoryError::NotFound { .. }) => Ok(Fold::new(None)),
            newest => newest,
        }
    }

    /// Takes in what has come since, up to a version, if the history is still the same; else reads it from
    /// its beginning.
    pub(super) async fn caught_up(
        &self,
        aggregate: &AggregateId,
        fold: Fold<A>,
        to: Version,
    ) -> Result<Fold<A>, RepositoryError> {
        let mut fold = fold.again();
        let versions = Versions::from(fold.first()).to(to);
        let read = self.replay(aggregate, &versions, &mut fold).await;
        match read {
            // The history was compacted behind a newer state than this.
            Err(error) if error.is_history_trimmed() => {
                self.forget(aggregate);
                return self.behind_snapshot(aggregate, to, error).await;
            }
            Err(error) => {
                if matches!(error, RepositoryError::NotFound { .. }) {
                    self.forget(aggregate);
                }
                return Err(error);
            }
            Ok(()) => {}
        }
        if fold.check().map_err(ReadError::from)? {
            return Ok(fold);
        }
        self.forget(aggregate);
        self.passed_over(
            aggregate,
            "the history has another event at its version, or none",
        );
        self.replayed(aggregate, to).await
    }

    pub(super) async fn caught_up_or_new(
        &self,
        aggregate: &AggregateId,
        fold: Fold<A>,
    ) -> Result<Fold<A>, RepositoryError> {
        if fold.version == 0 {
            return self.newest_or_new(aggregate).await;
        }
        match self.caught_up(aggregate, fold, Version::MAX).await {
            Ok(mut fold) => {
                self.keep(aggregate, &mut fold, Duration::ZERO);
                Ok(fold)
            }
            Err(RepositoryError::NotFound { .. }) => Ok(Fold::new(None)),
            Err(error) => Err(error),
        }
    }

    /// The state as the history makes it, up to a version.
    pub(super) async fn replayed(
        &self,
        aggregate: &AggregateId,
        to: Version,
    ) -> Result<Fold<A>, RepositoryError> {
        let mut fold = Fold::new(None);
        let versions = Versions::all().to(to);
        match self.replay(aggregate, &versions, &mut fold).await {
            // It was compacted since the snapshot was looked for.
            Err(error) if error.is_history_trimmed() => {
                return self.behind_snapshot(aggregate, to, error).await;
            }
            read => read?,
        }
        fold.check().map_err(ReadError::from)?;
        Ok(fold)
    }

    pub(super) async fn at_version(
        &self,
        aggregate: &AggregateId,
        version: Version,
    ) -> Result<Fold<A>, RepositoryError> {
        let fold = match self.of_snapshot(aggregate, version).await? {
            Some(fold) => self.caught_up(aggregate, fold, version).await?,
            None => self.replayed(aggregate, version).await?,
        };
        if fold.version < version {
            return Err(RepositoryError::NoSuchVersion {
                aggregate: aggregate.clone(),
                wanted: version,
                highest: fold.version,
            });
        }
        Ok(fold)
    }

    /// The state of the newest snapshot, if there is one that can be read and is not too new.
    pub(super) async fn of_snapshot(
        &self,
        aggregate: &AggregateId,
        newest: Version,
    ) -> Result<Option<Fold<A>>, RepositoryError> {
        if !self.snapshots.is_on() {
            return Ok(None);
        }
        let snapshot = match self.store.load_snapshot(aggregate).await {
            Ok(Some(snapshot)) if snapshot.version <= newest => snapshot,
            Ok(_) => return Ok(None),
            Err(ReadError::Codec(error)) => {
                self.passed_over(aggregate, &error.to_string());
                return Ok(None);
            }
            Err(error) => return Err(RepositoryError::of_read(error)),
        };
        match self.snapshots.read(&snapshot) {
            Ok(state) => {
                let (version, event_id) = (snapshot.version, snapshot.event_id);
                let fold = Fold::resume(state, version, event_id, snapshot.state.len());
                Ok(Some(fold.with_snapshot(version)))
            }
            Err(reason) => {
                self.passed_over(aggregate, &reason);
                Ok(None)
            }
        }
    }

    /// Says that a snapshot or a cached state is not used.
    pub(super) fn passed_over(&self, aggregate: &AggregateId, reason: &str) {
        tracing::warn!(%aggregate, reason, "a state that was kept is passed over; the whole history is read");
        metrics::states_passed_over(A::TYPE).increment(1);
    }

    pub(super) fn forget(&self, aggregate: &AggregateId) {
        if let Some(cache) = &self.cache {
            cache.forget(aggregate.id());
        }
    }

    /// Keeps a state for the next load, and as a snapshot if one is due.
    pub(super) fn keep(&self, aggregate: &AggregateId, fold: &mut Fold<A>, took: Duration) {
        let events = fold.version.saturating_sub(fold.snapshot);
        if self.snapshots.is_due(events, took) {
            let begun = self.snapshot_writer.begin(&self.store, aggregate, || {
                self.snapshots
                    .write(&fold.state, fold.version, fold.event_id)
            });
            if begun {
                fold.snapshot = fold.version;
            }
        }
        if let Some(cache) = &self.cache {
            cache.keep(aggregate.id(), fold);
        }
    }
}
