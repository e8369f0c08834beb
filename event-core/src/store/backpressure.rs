//! Backpressure: producers that wait, or are refused, while a group is too far behind.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::event::Category;
use crate::partition::Partition;
use crate::store::{AppendError, StoreError};

/// How often the lag is measured at most. In between, what was appended since is added to it.
const MEASURE_EVERY: Duration = Duration::from_millis(100);

/// How long a producer that waits does so before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Holds the producers of a category back while a group is too far behind. What handlers emit is not
/// held back: a group could wait for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backpressure {
    /// The category whose producers are held back.
    pub category: Category,
    /// The group that must keep up: with what it reads in order, and each of its handlers with parallel
    /// delivery.
    pub group: String,
    /// As many events of a partition may be waiting for it.
    pub limit: u64,
    /// What an append does then.
    pub backlogged: WhenBacklogged,
}

/// What an append does while a group is too far behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenBacklogged {
    /// It fails with [`AppendError::Backlogged`] at once.
    Fail,
    /// It waits, and fails so only after this time.
    Wait(Duration),
}

/// The backpressure of a store, with what it knows of the lags.
#[derive(Debug, Default)]
pub struct Backlogs {
    rules: HashMap<Category, Vec<Backpressure>>,
    measured: Mutex<HashMap<(String, Partition), Measured>>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    at: Instant,
    lag: u64,
}

impl Backlogs {
    /// The same rules and this one.
    pub fn with(&self, rule: Backpressure) -> Self {
        let mut rules = self.rules.clone();
        rules.entry(rule.category.clone()).or_default().push(rule);
        Self {
            rules,
            measured: Mutex::default(),
        }
    }

    /// Whether nobody is ever held back.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn measured(&self) -> MutexGuard<'_, HashMap<(String, Partition), Measured>> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an append of `count` events to a partition through, as soon as the rules allow it. `lag`
    /// measures how far a group is behind there.
    ///
    /// # Errors
    /// [`AppendError::Backlogged`], or [`AppendError::Store`] where the lag cannot be measured.
    pub async fn admit<F>(
        &self,
        partition: &Partition,
        count: usize,
        lag: impl Fn(String, Partition) -> F + Send + Sync,
    ) -> Result<(), AppendError>
    where
        F: Future<Output = Result<u64, StoreError>> + Send,
    {
        let Some(rules) = self.rules.get(partition.category()) else {
            return Ok(());
        };
        for rule in rules {
            let since = Instant::now();
            loop {
                let lag = self.lag(rule, partition, &lag).await?;
                if lag < rule.limit {
                    break;
                }
                let is_over = match rule.backlogged {
                    WhenBacklogged::Fail => true,
                    WhenBacklogged::Wait(patience) => since.elapsed() >= patience,
                };
                if is_over {
                    return Err(AppendError::Backlogged {
                        group: rule.group.clone(),
                        partition: partition.to_string(),
                        lag,
                        limit: rule.limit,
                    });
                }
                sleep(LOOK_AGAIN).await;
            }
        }
        for rule in rules {
            let key = (rule.group.clone(), partition.clone());
            if let Some(measured) = self.measured().get_mut(&key) {
                measured.lag += count as u64;
            }
        }
        Ok(())
    }

    /// How far a group is behind, as measured or as reckoned since.
    async fn lag<F>(
        &self,
        rule: &Backpressure,
        partition: &Partition,
        measure: &(impl Fn(String, Partition) -> F + Sync),
    ) -> Result<u64, StoreError>
    where
        F: Future<Output = Result<u64, StoreError>> + Send,
    {
        let key = (rule.group.clone(), partition.clone());
        let known = self.measured().get(&key).copied();
        if let Some(known) = known
            && known.at.elapsed() < MEASURE_EVERY
            && known.lag < rule.limit
        {
            return Ok(known.lag);
        }
        let lag = measure(rule.group.clone(), partition.clone()).await?;
        let at = Instant::now();
        self.measured().insert(key, Measured { at, lag });
        Ok(lag)
    }
}
