//! The store, as a talk about one partition asks it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{PAGE, Talk};
use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{
    Backend, Consumer, FeedEntry, Finish, FinishError, Finished, ReadError, StoreError,
};
use crate::subscription::shared::pauses;

/// What of the store a talk needs.
pub(super) struct Store {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) consumer: Consumer,
    pub(super) partition: Partition,
    /// How long it may take where it is not asked to store something.
    pub(super) patience: Duration,
    pub(super) stopping: CancellationToken,
}

impl Store {
    pub(super) async fn finish(self, finish: Finish) -> Talk {
        let finished = self.finished(&finish).await;
        Talk::Finished(finish, finished)
    }

    async fn finished(&self, finish: &Finish) -> Result<Finished, FinishError> {
        let partition = &self.partition;
        let mut pauses = pauses();
        loop {
            let result = self.backend.finish(&self.consumer, partition, finish).await;
            let Err(FinishError::Store(error)) = result else {
                return result;
            };
            let is_refused = match &error {
                StoreError::Forgotten { .. } => return Err(error.into()),
                StoreError::Refused { .. } | StoreError::FeedTrimmed { .. } => true,
                StoreError::Unavailable { .. } => false,
            };
            tracing::error!(%partition, %error, "what has come of entries is not stored; trying again");
            // The same again, without end: whoever stops the service has a deadline. But what is
            // refused is not worth waiting for then.
            if is_refused && !pauses.pause(&self.stopping).await {
                return Err(error.into());
            } else if !is_refused {
                pauses.pause(&CancellationToken::new()).await;
            }
        }
    }

    pub(super) async fn keep_alive(&self, positions: &[Position]) {
        let partition = &self.partition;
        let keeping = self
            .backend
            .keep_alive(&self.consumer, partition, positions);
        let error = match timeout(self.patience, keeping).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => self.unavailable("keep_alive"),
        };
        tracing::warn!(%partition, %error, "entries are not kept alive; others may claim them");
    }

    pub(super) async fn take_back(self) -> Talk {
        Talk::TakenBack(self.pending().await)
    }

    async fn pending(&self) -> Result<Vec<FeedEntry>, ReadError> {
        let mut pending = Vec::new();
        let mut after = Position::START;
        loop {
            let taking = self
                .backend
                .take_back(&self.consumer, &self.partition, after, PAGE);
            let entries = match timeout(self.patience, taking).await {
                Ok(entries) => entries?,
                Err(_) => return Err(self.unavailable("take_back").into()),
            };
            let Some(last) = entries.last() else {
                return Ok(pending);
            };
            after = last.position();
            pending.extend(entries);
        }
    }

    pub(super) async fn claim(self, idle: Duration, room: usize) -> Talk {
        let partition = &self.partition;
        let claiming = self.backend.claim(&self.consumer, partition, idle, room);
        let claimed = match timeout(self.patience, claiming).await {
            Ok(claimed) => claimed,
            Err(_) => Err(self.unavailable("claim").into()),
        };
        if let Ok(entries) = &claimed
            && !entries.is_empty()
        {
            tracing::info!(%partition, count = entries.len(), "entries that nobody works on any more are handled here now");
        }
        Talk::Claimed(claimed, room)
    }

    pub(super) async fn remove_consumers(self, idle: Duration) -> Talk {
        let (group, partition) = (&self.consumer.group, &self.partition);
        let removing = self.backend.remove_consumers(group, partition, idle);
        match timeout(self.patience, removing).await {
            Ok(Ok(0)) => {}
            Ok(Ok(count)) => {
                tracing::debug!(%partition, count, "consumers that are gone are forgotten");
            }
            Ok(Err(error)) => {
                tracing::warn!(%partition, %error, "consumers that are gone cannot be forgotten");
            }
            Err(_) => {
                tracing::debug!(%partition, "consumers that are gone are not forgotten in time")
            }
        }
        Talk::Kept
    }

    pub(super) async fn open(self, start: Start) -> Talk {
        let group = &self.consumer.group;
        let opening = self.backend.open_parallel(group, &self.partition, start);
        Talk::Opened(match timeout(self.patience, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(self.unavailable("open_parallel")),
        })
    }

    fn unavailable(&self, operation: &'static str) -> StoreError {
        StoreError::Unavailable {
            operation,
            waited: self.patience,
            source: "it has not answered in the time that a lease leaves".into(),
        }
    }
}
