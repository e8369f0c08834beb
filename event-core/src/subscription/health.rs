//! The health of a subscription: what becomes of each of its partitions now.

use serde::{Deserialize, Serialize};

use super::parallel::ParallelHandler;
use super::{CircuitState, Subscription};
use crate::metrics::{self, Gauge};
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{DeadLetter, ParallelLag, ReadError, StoreError};

/// How many dead letters are counted at once where another instance owns the partition.
const PAGE: usize = 1_000;

/// How a group is doing in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionHealth {
    /// The partition, as it is printed: `sdlc`, or `sdlc:3`.
    pub partition: String,
    /// Whose it is.
    pub owner: Owner,
    /// Everything up to here is handled.
    pub checkpoint: Position,
    /// How many events the group is behind the newest one.
    pub lag: u64,
    /// How many entries this instance has read that are not behind the checkpoint yet. 0 where it does
    /// not own the partition.
    pub in_flight: usize,
    /// How many dead letters there are.
    pub dead_letters: usize,
    /// Why nothing is read, if so.
    pub paused: Option<Pause>,
}

/// How a handler with parallel delivery is doing in one partition, in all instances of its group together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParallelHealth {
    /// The handler.
    pub handler: String,
    /// The partition, as it is printed: `sdlc`, or `sdlc:3`.
    pub partition: String,
    /// How many events it has yet to finish, the pending ones among them.
    pub lag: u64,
    /// How many of these an instance has taken.
    pub pending: u64,
    /// How many dead letters of the partition are this handler's.
    pub dead_letters: usize,
}

/// Who owns a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// This instance.
    Ours,
    /// Another instance of the group.
    Elsewhere,
    /// No instance: nobody handles it until one comes.
    Nobody,
}

/// Why nothing is read of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pause {
    /// It has as many dead letters as it may have; redrive some, or discard them.
    DeadLettersFull,
    /// Too much has failed in this instance: its circuit breaker is open.
    CircuitOpen,
}

impl Subscription {
    pub(crate) fn group(&self) -> &str {
        &self.shared.group
    }

    pub(crate) fn instance(&self) -> &str {
        &self.settings.instance
    }

    /// What its circuit breaker does now.
    pub(crate) fn circuit(&self) -> CircuitState {
        self.shared.gate.circuit()
    }

    /// The partitions that this instance owns, and of which nothing is read now. Asks no store.
    pub(crate) fn paused(&self) -> Vec<(Partition, Pause)> {
        self.owned()
            .iter()
            .filter_map(|(partition, load)| {
                let pause = self.pause(true, load.is_full())?;
                Some((partition.clone(), pause))
            })
            .collect()
    }

    fn pause(&self, is_ours: bool, is_full: bool) -> Option<Pause> {
        if is_full {
            Some(Pause::DeadLettersFull)
        } else if is_ours && self.shared.gate.closed_until().is_some() {
            Some(Pause::CircuitOpen)
        } else {
            None
        }
    }

    /// Tells the lag of each partition that this instance owns, as a metric.
    pub(crate) async fn measure_lag(&self) -> Result<(), StoreError> {
        let owned: Vec<_> = self.owned().keys().cloned().collect();
        for partition in owned {
            let backend = &self.shared.backend;
            if self.reads(partition.category()) {
                let lag = backend.lag(&self.shared.group, &partition).await?;
                // It may have gone meanwhile, and then another instance tells it.
                if let Some(load) = self.owned().get(&partition) {
                    load.metrics.lag.set(lag as f64);
                }
            }
            for (number, handler) in self.parallel_of(&partition).enumerate() {
                let lag = backend.parallel_lag(handler.group(), &partition).await?.lag;
                if let Some(load) = self.owned().get(&partition) {
                    load.parallel_lags[number].set(lag as f64);
                }
            }
        }
        Ok(())
    }

    /// The handlers with parallel delivery that read a partition.
    fn parallel_of(&self, partition: &Partition) -> impl Iterator<Item = &ParallelHandler> {
        let handlers = self.parallel.iter().map(|handler| &**handler);
        let category = partition.category().clone();
        handlers.filter(move |handler| handler.reads(&category))
    }

    /// The metrics of their lags.
    pub(super) fn parallel_lags(&self, partition: &Partition) -> Vec<Gauge> {
        let handlers = self.parallel_of(partition);
        handlers
            .map(|handler| metrics::lag(&handler.group().to_string(), partition))
            .collect()
    }

    /// How the group is doing in each of its partitions.
    pub(crate) async fn health(&self) -> Result<Vec<PartitionHealth>, ReadError> {
        let mut health = Vec::new();
        for partition in &*self.begin().await? {
            health.push(self.health_of(partition).await?);
        }
        Ok(health)
    }

    async fn health_of(&self, partition: &Partition) -> Result<PartitionHealth, StoreError> {
        let (backend, group) = (&self.shared.backend, &self.shared.group);
        let lag = match self.reads(partition.category()) {
            true => backend.lag(group, partition).await?,
            // Owned for redrives only.
            false => 0,
        };
        let load = self.owned().get(partition).cloned();
        let (owner, checkpoint, in_flight, dead_letters) = match &load {
            Some(load) => (
                Owner::Ours,
                load.progress().checkpoint,
                load.in_flight(),
                load.dead_letters(),
            ),
            None => {
                let owner = match backend.owner(group, partition).await? {
                    // Given back already, or not adopted yet.
                    Some(owner) if owner == *self.settings.instance => Owner::Ours,
                    Some(_) => Owner::Elsewhere,
                    None => Owner::Nobody,
                };
                let checkpoint = self.progress(partition).await?.checkpoint;
                (
                    owner,
                    checkpoint,
                    0,
                    self.count_dead_letters(partition, |_| true).await?,
                )
            }
        };
        let is_full = dead_letters >= self.settings.dead_letter_limit;
        Ok(PartitionHealth {
            partition: partition.to_string(),
            owner,
            checkpoint,
            lag,
            in_flight,
            dead_letters,
            paused: self.pause(load.is_some(), is_full),
        })
    }

    /// How each handler with parallel delivery is doing in each of its partitions.
    pub(crate) async fn parallel_health(&self) -> Result<Vec<ParallelHealth>, ReadError> {
        let mut health = Vec::new();
        for handler in &self.parallel {
            let group = handler.group();
            for partition in &*handler.begin().await? {
                let backend = &self.shared.backend;
                let ParallelLag { lag, pending } = backend.parallel_lag(group, partition).await?;
                let is_its = |letter: &DeadLetter| *letter.handler == *group.handler;
                health.push(ParallelHealth {
                    handler: group.handler.to_string(),
                    partition: partition.to_string(),
                    lag,
                    pending,
                    dead_letters: self.count_dead_letters(partition, is_its).await?,
                });
            }
        }
        Ok(health)
    }

    async fn count_dead_letters(
        &self,
        partition: &Partition,
        is_meant: impl Fn(&DeadLetter) -> bool,
    ) -> Result<usize, StoreError> {
        let mut count = 0;
        let mut after = None;
        loop {
            let page = self
                .shared
                .backend
                .list_dead_letters(&self.shared.group, partition, after.as_ref(), PAGE)
                .await?;
            count += page.iter().filter(|letter| is_meant(letter)).count();
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.id()),
                _ => return Ok(count),
            }
        }
    }
}
