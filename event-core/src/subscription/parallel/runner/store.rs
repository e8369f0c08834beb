//! The store, as a talk asks it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{PAGE, Talk};
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{Backend, Consumer, Finish, FinishError, Finished, StoreError};
use crate::subscription::shared::pauses;

/// What of the store a talk needs.
pub(super) struct Store {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) consumer: Consumer,
    pub(super) partitions: Arc<[Partition]>,
}

impl Store {
    pub(super) async fn finish(self, finishes: Vec<(usize, Finish)>) -> Talk {
        let finished = finishes.into_iter().map(|(index, finish)| {
            let store = &self;
            async move {
                let result = store.finish_one(&store.partitions[index], &finish).await;
                (index, finish, result)
            }
        });
        Talk::Finished(join_all(finished).await)
    }

    async fn finish_one(
        &self,
        partition: &Partition,
        finish: &Finish,
    ) -> Result<Finished, FinishError> {
        let mut pauses = pauses();
        loop {
            let result = self.backend.finish(&self.consumer, partition, finish).await;
            let Err(FinishError::Store(error)) = result else {
                return result;
            };
            tracing::error!(%partition, %error, "what has come of entries is not stored; trying again");
            // The same again, without end: whoever stops the service has a deadline.
            pauses.pause(&CancellationToken::new()).await;
        }
    }

    pub(super) async fn keep_alive(&self, positions: Vec<(usize, Vec<Position>)>) {
        for (index, positions) in positions {
            let partition = &self.partitions[index];
            let kept = self
                .backend
                .keep_alive(&self.consumer, partition, &positions)
                .await;
            if let Err(error) = kept {
                tracing::warn!(%partition, %error, "entries are not kept alive; others may claim them");
            }
        }
    }

    pub(super) async fn take_back(self) -> Talk {
        let mut pending = Vec::new();
        for (index, partition) in self.partitions.iter().enumerate() {
            let mut after = Position::START;
            loop {
                let entries = self
                    .backend
                    .take_back(&self.consumer, partition, after, PAGE)
                    .await;
                let entries = match entries {
                    Ok(entries) => entries,
                    Err(error) => return Talk::NotTakenBack(error),
                };
                let Some(last) = entries.last() else {
                    break;
                };
                after = last.position();
                pending.push((index, entries));
            }
        }
        Talk::Pending(pending)
    }

    pub(super) async fn claim(self, idle: Duration, mut room: usize) -> Talk {
        let mut claimed = Vec::new();
        for (index, partition) in self.partitions.iter().enumerate() {
            if room == 0 {
                break;
            }
            let entries = self
                .backend
                .claim(&self.consumer, partition, idle, room)
                .await;
            match entries {
                Ok(entries) if entries.is_empty() => {}
                Ok(entries) => {
                    tracing::info!(%partition, count = entries.len(), "entries that nobody works on any more are handled here now");
                    room = room.saturating_sub(entries.len());
                    claimed.push((index, entries));
                }
                // There is another time.
                Err(error) => tracing::warn!(%partition, %error, "entries cannot be claimed"),
            }
        }
        Talk::Pending(claimed)
    }

    pub(super) async fn remove_consumers(self, idle: Duration) -> Talk {
        for partition in &*self.partitions {
            let group = &self.consumer.group;
            let removed: Result<usize, StoreError> =
                self.backend.remove_consumers(group, partition, idle).await;
            match removed {
                Ok(0) => {}
                Ok(count) => {
                    tracing::debug!(%partition, count, "consumers that are gone are forgotten")
                }
                Err(error) => {
                    tracing::warn!(%partition, %error, "consumers that are gone cannot be forgotten")
                }
            }
        }
        Talk::Kept
    }
}
