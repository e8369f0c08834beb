//! Commands that are done once.

use std::time::Duration;

use super::{Executed, Repository, RepositoryError};
use crate::aggregate::Aggregate;
use crate::partition::Partition;
use crate::recorded::{AggregateId, RecordedEvent};
use crate::store::{AppendError, Done, ReadError, Receipt, Versions};
use crate::token::Token;

impl<A: Aggregate> Repository<A> {
    /// Executes a command once: if the command of this id has led to events before, these are its outcome
    /// again, whatever the aggregate would decide today. For requests that are sent again.
    ///
    /// The receipt is stored together with the events, and kept for as long as `keep`. A command that is
    /// refused, or leads to nothing, leaves none, and is decided anew. Each aggregate has ids of its own.
    ///
    /// Where the history was [compacted](Self::compact) since, and the state of then cannot be made any more,
    /// the outcome has the newest state and its version, and of its events those that were not dropped.
    ///
    /// ```
    /// # use event_core::prelude::*;
    /// # use std::time::Duration;
    /// # async fn pay<A: Aggregate>(accounts: Repository<A>, command: A::Command) -> Result<(), BoxError> {
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// let first = accounts.execute_once("a", "request-4711", day, command.clone()).await?;
    /// let again = accounts.execute_once("a", "request-4711", day, command).await?;
    /// assert_eq!(first.events, again.events);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`execute`](Self::execute); [`RepositoryError::Append`] with [`AppendError::InvalidCommandId`]
    /// where the id is empty or too long.
    pub async fn execute_once(
        &self,
        id: &str,
        command_id: &str,
        keep: Duration,
        command: A::Command,
    ) -> Result<Executed<A>, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        if let Some(done) = self.find_receipt(&aggregate, command_id).await? {
            return self.outcome(&aggregate, done).await;
        }
        let receipt = Receipt {
            command_id: command_id.to_owned(),
            keep,
        };
        let executed = self.execute_with(id, command, Some(&receipt)).await;
        let is_decided = match &executed {
            Ok(done) => !done.events.is_empty(),
            Err(RepositoryError::Append(AppendError::NotProjected { .. })) => true,
            Err(_) => false,
        };
        if is_decided {
            return executed;
        }
        if let Err(RepositoryError::Append(AppendError::AlreadyDone { done, .. })) = executed {
            return self.outcome(&aggregate, done).await;
        }
        // It may have been done meanwhile, and be refused because of that.
        match self.find_receipt(&aggregate, command_id).await? {
            Some(done) => self.outcome(&aggregate, done).await,
            None => executed,
        }
    }

    async fn find_receipt(
        &self,
        aggregate: &AggregateId,
        command_id: &str,
    ) -> Result<Option<Done>, RepositoryError> {
        let found = self.store.find_receipt(aggregate, command_id).await;
        Ok(found.map_err(ReadError::from)?)
    }

    /// What a command has led to.
    async fn outcome(
        &self,
        aggregate: &AggregateId,
        done: Done,
    ) -> Result<Executed<A>, RepositoryError> {
        let fold = match self.at_version(aggregate, *done.end()).await {
            Err(error) if error.is_history_trimmed() => self.newest(aggregate).await?,
            fold => fold?,
        };
        let events = self.left_of(aggregate, &done).await?;
        let last = match events.last() {
            Some(last) => Some(last.clone()),
            // Whoever waits for a later one waits for these, too.
            None => {
                let newest = Versions::last(1);
                let newest = self.store.read_aggregate(aggregate, &newest).await?;
                newest.into_iter().next()
            }
        };
        let mut token = Token::default();
        if let Some(last) = last {
            let count = self.store.partitions(aggregate.category()).await?;
            token.reach(Partition::of_aggregate(aggregate, count), last.position());
        }
        Ok(Executed {
            state: fold.state,
            version: fold.version,
            events,
            token,
        })
    }

    /// The events of these versions, as far as they were not dropped.
    async fn left_of(
        &self,
        aggregate: &AggregateId,
        done: &Done,
    ) -> Result<Vec<RecordedEvent>, RepositoryError> {
        let mut first = *done.start();
        while first <= *done.end() {
            let versions = Versions::from(first).to(*done.end());
            match self.store.read_aggregate(aggregate, &versions).await {
                Err(ReadError::HistoryTrimmed {
                    first_available, ..
                }) => first = first_available.max(first + 1),
                events => return Ok(events?),
            }
        }
        Ok(Vec::new())
    }
}
