//! Repositories: aggregates loaded by replay, and commands executed on them.

use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::{DateTime, Utc};
use tracing::{Instrument, debug_span};

use crate::BoxError;
use crate::aggregate::{Aggregate, can_be_aggregate};
use crate::codec::{Codec, CodecError};
use crate::event::{Event, upcasts_are_whole};
use crate::metrics::SentMetrics;
use crate::recorded::{AggregateId, AggregateRef, InvalidAggregateId, RecordedEvent, Version};
use crate::store::{Append, AppendError, Appended, EventStore, Expected, ReadError, Versions};

/// How often a command is decided anew because another writer was faster.
const DEFAULT_CONFLICT_RETRIES: usize = 32;

/// Loads aggregates of one type by replay, and executes commands on them. See [`Aggregate`] for an
/// example.
pub struct Repository<A> {
    store: Arc<dyn EventStore>,
    codec: Codec,
    conflict_retries: usize,
    metrics: SentMetrics,
    aggregate: PhantomData<fn() -> A>,
}

/// An aggregate as it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<A> {
    /// Its state.
    pub state: A,
    /// Its version: the number of events it is made of.
    pub version: Version,
}

/// What a command has led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Executed<A> {
    /// The state afterwards.
    pub state: A,
    /// The version afterwards.
    pub version: Version,
    /// The new events; none where there was nothing to do.
    pub events: Vec<RecordedEvent>,
}

/// A point in an aggregate's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// After the event of this version.
    Version(Version),
    /// Before the first event that was made later than this.
    Time(DateTime<Utc>),
}

impl<A: Aggregate> Repository<A> {
    /// A repository on a store, with the system's clock and random ids.
    pub fn new(store: impl EventStore) -> Self {
        Self::with_codec(Arc::new(store), Codec::default())
    }

    /// A repository whose events are made by `codec`.
    pub fn with_codec(store: Arc<dyn EventStore>, codec: Codec) -> Self {
        const {
            assert!(
                can_be_aggregate(A::Event::DEFINITIONS),
                "all events of an aggregate must be stored events of one category (the first \
                 segment of their types): change their #[event(\"…\")] types"
            );
            assert!(
                upcasts_are_whole(A::Event::DEFINITIONS),
                "an event of this aggregate has a version that no upcast leads from"
            );
        }
        Self {
            store,
            codec,
            conflict_retries: DEFAULT_CONFLICT_RETRIES,
            metrics: SentMetrics::default(),
            aggregate: PhantomData,
        }
    }

    /// Decides a command anew at most so often when other writers are faster; 32 by default.
    pub fn with_conflict_retries(mut self, retries: usize) -> Self {
        self.conflict_retries = retries;
        self
    }

    /// Rebuilds an aggregate from its whole history.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`] where it has no events.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        self.load_versions(&aggregate, &Versions::all()).await
    }

    /// Rebuilds an aggregate as it was at a point in its past.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`] where it had no events by then;
    /// [`RepositoryError::NoSuchVersion`] where it has not got so far.
    pub async fn load_at(&self, id: &str, at: At) -> Result<Loaded<A>, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        let loaded = match at {
            At::Version(version) => {
                let versions = Versions::all().to(version);
                let loaded = self.load_versions(&aggregate, &versions).await?;
                if loaded.version < version {
                    return Err(RepositoryError::NoSuchVersion {
                        aggregate,
                        wanted: version,
                        highest: loaded.version,
                    });
                }
                loaded
            }
            At::Time(time) => {
                let mut fold = Fold::new(Some(time));
                self.replay(&aggregate, &Versions::all(), &mut fold).await?;
                fold.finish()?
            }
        };
        if loaded.version == 0 {
            return Err(RepositoryError::NotFound { aggregate });
        }
        Ok(loaded)
    }

    /// Appends events to an aggregate without asking it.
    ///
    /// # Errors
    /// [`RepositoryError::Append`], above all where it is not as expected.
    pub async fn append(
        &self,
        id: &str,
        expected: Expected,
        events: &[A::Event],
    ) -> Result<Appended, RepositoryError> {
        let append = self.encode(AggregateId::of::<A>(id)?, expected, events)?;
        Ok(self.send(&append).await?)
    }

    /// Loads an aggregate (or takes a new one, where it has no events), lets it decide on a command
    /// and appends what that leads to. Where another writer was faster, it takes in what is new and
    /// decides again.
    ///
    /// # Errors
    /// [`RepositoryError::Rejected`] where the aggregate refuses; [`RepositoryError::Append`] with
    /// [`AppendError::Conflict`] where others were faster again and again.
    pub async fn execute(
        &self,
        id: &str,
        command: A::Command,
    ) -> Result<Executed<A>, RepositoryError> {
        let aggregate = AggregateId::of::<A>(id)?;
        let mut fold = Fold::<A>::new(None);
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(1))
            .with_max_delay(Duration::from_millis(64))
            .with_max_times(self.conflict_retries)
            .with_jitter()
            .build();
        loop {
            let versions = Versions::from(fold.version + 1);
            match self.replay(&aggregate, &versions, &mut fold).await {
                Ok(()) | Err(RepositoryError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
            fold.check()?;
            let events =
                fold.state
                    .handle(command.clone())
                    .map_err(|reason| RepositoryError::Rejected {
                        aggregate: aggregate.clone(),
                        reason: reason.into(),
                    })?;
            if events.is_empty() {
                return Ok(Executed {
                    state: fold.state,
                    version: fold.version,
                    events: Vec::new(),
                });
            }
            let expected = Expected::Exact(fold.version);
            let append = self.encode(aggregate.clone(), expected, &events)?;
            match self.send(&append).await {
                Ok(appended) => {
                    for event in &events {
                        fold.state.apply(event);
                    }
                    return Ok(Executed {
                        state: fold.state,
                        version: appended.version(),
                        events: recorded(&append, &appended),
                    });
                }
                Err(error @ AppendError::Conflict { .. }) => match delays.next() {
                    None => return Err(error.into()),
                    Some(delay) => {
                        tracing::debug!(%error, "deciding again");
                        tokio::time::sleep(delay).await;
                    }
                },
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn encode(
        &self,
        aggregate: AggregateId,
        expected: Expected,
        events: &[A::Event],
    ) -> Result<Append, CodecError> {
        let events = events
            .iter()
            .map(|event| {
                let mut event = self.codec.encode(event)?;
                // Within an aggregate its id keeps the order.
                event.metadata_mut().key = None;
                Ok(event)
            })
            .collect::<Result<_, CodecError>>()?;
        Ok(Append::to(aggregate, expected, events))
    }

    async fn send(&self, append: &Append) -> Result<Appended, AppendError> {
        let span = debug_span!("store", aggregate = append.aggregate().map(AggregateId::id));
        let appended = self.store.append(append).instrument(span).await;
        self.metrics.appended(append, &appended);
        appended
    }

    async fn load_versions(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
    ) -> Result<Loaded<A>, RepositoryError> {
        let mut fold = Fold::new(None);
        self.replay(aggregate, versions, &mut fold).await?;
        fold.finish()
    }

    async fn replay(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
        fold: &mut Fold<A>,
    ) -> Result<(), RepositoryError> {
        self.store
            .replay(aggregate, versions, &mut |entry| fold.take(entry))
            .await
            .map_err(|error| match error {
                ReadError::NotFound { aggregate } => RepositoryError::NotFound { aggregate },
                other => RepositoryError::Read(other),
            })
    }
}

/// A state that grows event by event.
struct Fold<A> {
    state: A,
    version: Version,
    until: Option<DateTime<Utc>>,
    failure: Option<CodecError>,
}

impl<A: Aggregate> Fold<A> {
    fn new(until: Option<DateTime<Utc>>) -> Self {
        Self {
            state: A::default(),
            version: 0,
            until,
            failure: None,
        }
    }

    fn take(&mut self, entry: crate::codec::history::HistoryEntry<'_>) -> ControlFlow<()> {
        let taken = match self.until {
            None => entry.decode::<A::Event>().map(Some),
            Some(until) => match entry.timestamp_micros() {
                Ok(micros) if micros > until.timestamp_micros() => Ok(None),
                Ok(_) => entry.decode::<A::Event>().map(Some),
                Err(error) => Err(error),
            },
        };
        match taken {
            Ok(Some((version, _))) if version != self.version + 1 => {
                self.failure = Some(CodecError::malformed(format!(
                    "version {version} of a history follows version {}",
                    self.version
                )));
                ControlFlow::Break(())
            }
            Ok(Some((version, decoded))) => {
                for event in decoded {
                    self.state.apply(&event);
                }
                self.version = version;
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Break(()),
            Err(error) => {
                self.failure = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn check(&mut self) -> Result<(), RepositoryError> {
        match self.failure.take() {
            None => Ok(()),
            Some(error) => Err(RepositoryError::Read(error.into())),
        }
    }

    fn finish(mut self) -> Result<Loaded<A>, RepositoryError> {
        self.check()?;
        Ok(Loaded {
            state: self.state,
            version: self.version,
        })
    }
}

/// The events of an append, as they are recorded now.
pub(crate) fn recorded(append: &Append, appended: &Appended) -> Vec<RecordedEvent> {
    append
        .events()
        .iter()
        .zip(&appended.events)
        .map(|(event, place)| {
            let aggregate = append.aggregate().map(|aggregate| AggregateRef {
                aggregate_type: aggregate.aggregate_type().to_owned(),
                id: aggregate.id().to_owned(),
                version: place.version,
            });
            RecordedEvent::new(
                event.event_type(),
                event.payload(),
                place.position,
                aggregate,
                event.metadata().clone(),
            )
        })
        .collect()
}

/// A load or a command that failed.
#[derive(thiserror::Error)]
pub enum RepositoryError {
    /// The aggregate refuses the command.
    #[error("`{aggregate}` refuses: {reason}")]
    Rejected {
        /// The aggregate.
        aggregate: AggregateId,
        /// Its own error.
        #[source]
        reason: BoxError,
    },
    /// The aggregate has no events, or had none by then.
    #[error("there is no aggregate `{aggregate}`")]
    NotFound {
        /// The aggregate.
        aggregate: AggregateId,
    },
    /// The aggregate has not got so far.
    #[error("`{aggregate}` has no version {wanted}; its newest is {highest}")]
    NoSuchVersion {
        /// The aggregate.
        aggregate: AggregateId,
        /// The version that was asked for.
        wanted: Version,
        /// The newest there is.
        highest: Version,
    },
    /// A name that no aggregate can have.
    #[error(transparent)]
    InvalidId(#[from] InvalidAggregateId),
    /// An event could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The store did not take the events.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The history could not be read.
    #[error(transparent)]
    Read(ReadError),
}

/// As [`Display`](fmt::Display), with the sources: a `main` that returns an error, and a test that
/// unwraps one, print this, and the sentence is for those who read it there.
impl fmt::Debug for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = std::error::Error::source(self);
        if let RepositoryError::Rejected { reason, .. } = self {
            // It is in the sentence already.
            source = reason.source();
        }
        while let Some(error) = source {
            write!(f, "\n  because: {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl RepositoryError {
    /// The aggregate's own error, where it refused the command and `E` is that error's type.
    pub fn rejection<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            RepositoryError::Rejected { reason, .. } => reason.downcast_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Category;
    use crate::store::StoreError;

    fn aggregate() -> AggregateId {
        AggregateId::new(Category::new("sdlc").unwrap(), "project", "gothic").unwrap()
    }

    #[test]
    fn debug_is_the_sentence_and_its_sources() {
        let rejected = RepositoryError::Rejected {
            aggregate: aggregate(),
            reason: "it is done".into(),
        };
        assert_eq!(format!("{rejected:?}"), rejected.to_string());

        let refused = RepositoryError::from(AppendError::from(StoreError::Refused {
            operation: "append",
            source: "NOPERM no".into(),
        }));
        assert_eq!(
            format!("{refused:?}"),
            format!("{refused}\n  because: NOPERM no")
        );
    }
}
