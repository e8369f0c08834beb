//! The publisher: events on their way out of a program.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use tracing::{Instrument, debug_span};

use crate::codec::{Codec, CodecError, NewEvent};
use crate::emit::{Emission, Emit, Emits};
use crate::event::{Category, EventDefinition, InvalidCategory};
use crate::metrics::SentMetrics;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, RecordedEvent};
use crate::repository::recorded;
use crate::store::{Append, AppendError, Backend, EventStore, Expected, ReadError, StoreError};
use crate::token::Token;

/// Publishes events: a stored event is appended to its feed, a realtime event is sent. Handlers may
/// have it as a dependency. Clones share everything.
#[derive(Clone)]
pub struct Publisher {
    backend: Arc<dyn Backend>,
    /// Where appends go.
    store: Arc<dyn EventStore>,
    codec: Codec,
    aggregates: AggregateEvents,
    metrics: Arc<SentMetrics>,
}

impl Publisher {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        store: Arc<dyn EventStore>,
        codec: Codec,
        aggregates: AggregateEvents,
    ) -> Self {
        Self {
            backend,
            store,
            codec,
            aggregates,
            metrics: Arc::default(),
        }
    }

    pub(crate) fn metrics(&self) -> &SentMetrics {
        &self.metrics
    }

    /// Publishes an event, or several in their order. Those of one category (or of one aggregate)
    /// that follow each other are stored together or not at all.
    ///
    /// # Errors
    /// [`PublishError`]; of several events those before the refused one may be published.
    pub async fn publish(&self, events: impl Emit) -> Result<Published, PublishError> {
        self.send(self.encode(events)?).await
    }

    pub(crate) fn encode(&self, events: impl Emit) -> Result<Vec<Emission>, PublishError> {
        let _station = debug_span!("codec").entered();
        let mut emits = Emits::fresh(&self.codec);
        events.emit(&mut emits)?;
        Ok(emits.into_emissions())
    }

    /// Sends and stores what was encoded.
    pub(crate) async fn send(&self, emissions: Vec<Emission>) -> Result<Published, PublishError> {
        let prepared = self.prepare(emissions).await?;
        let mut published = Published::default();
        for part in prepared.parts {
            match part {
                Part::Realtime(events) => self.send_events(events, &mut published).await?,
                Part::Append(append) => self.append(append, &mut published).await?,
            }
        }
        Ok(published)
    }

    /// Sends the realtime events of what a handler has emitted, and leaves the others.
    pub(crate) async fn send_realtime(&self, prepared: &mut Prepared) -> Result<(), PublishError> {
        let mut stored = Vec::with_capacity(prepared.parts.len());
        for part in std::mem::take(&mut prepared.parts) {
            match part {
                Part::Realtime(events) => {
                    self.send_events(events, &mut prepared.sent).await?;
                }
                part @ Part::Append(_) => stored.push(part),
            }
        }
        prepared.parts = stored;
        Ok(())
    }

    /// Looks where each event goes, and puts together what is stored together: what follows each
    /// other and lies in one partition, or belongs to one aggregate.
    pub(crate) async fn prepare(&self, emissions: Vec<Emission>) -> Result<Prepared, PublishError> {
        // All are looked at before the first is stored.
        for emission in &emissions {
            if emission.aggregate.is_none()
                && let Some(aggregate_type) = self.aggregates.owner(emission.event.event_type())
            {
                return Err(PublishError::BelongsToAggregate {
                    event_type: emission.event.event_type().to_owned(),
                    aggregate_type,
                });
            }
        }
        let mut prepared = Prepared::default();
        let mut rest = Vec::with_capacity(emissions.len());
        for emission in emissions {
            rest.push((self.route_of(&emission).await?, emission.event));
        }
        let mut rest = rest.into_iter().peekable();
        while let Some((route, first)) = rest.next() {
            let mut events = vec![first];
            while let Some((_, next)) = rest.next_if(|(other, _)| *other == route) {
                events.push(next);
            }
            prepared.parts.push(match route {
                Route::Realtime => Part::Realtime(events),
                Route::Feed(partition) => {
                    Part::Append(Append::to_feed(partition.category().clone(), events))
                }
                Route::Aggregate(aggregate) => {
                    Part::Append(Append::to(aggregate, Expected::Any, events))
                }
            });
        }
        Ok(prepared)
    }

    async fn route_of(&self, emission: &Emission) -> Result<Route, PublishError> {
        let event = &emission.event;
        Ok(match (&emission.aggregate, event.is_realtime()) {
            (Some(aggregate), _) => Route::Aggregate(aggregate.clone()),
            (None, true) => Route::Realtime,
            (None, false) => {
                let category = Category::of(event.event_type())?;
                let count = self.backend.partitions(&category).await?;
                Route::Feed(Partition::of_event(category, event, count))
            }
        })
    }

    async fn send_events(
        &self,
        events: Vec<NewEvent>,
        published: &mut Published,
    ) -> Result<(), PublishError> {
        let span = debug_span!("store", realtime = events.len());
        self.backend
            .publish_realtime(&events)
            .instrument(span)
            .await?;
        for event in events {
            let category = event.event_type().split('.').next().unwrap_or_default();
            self.metrics.sent(category, 1);
            published.push(
                RecordedEvent::new(
                    event.event_type(),
                    event.payload(),
                    Position::START,
                    None,
                    event.metadata().clone(),
                ),
                false,
            );
        }
        Ok(())
    }

    async fn append(&self, append: Append, published: &mut Published) -> Result<(), PublishError> {
        let span = debug_span!("store", category = %append.target().category());
        let appended = self.store.append(&append).instrument(span).await;
        self.metrics.appended(&append, &appended);
        let appended = appended?;
        for (event, place) in recorded(&append, &appended)
            .into_iter()
            .zip(&appended.events)
        {
            published.push(event, place.repeated);
        }
        published.token.merge(&appended.token());
        Ok(())
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}

/// Where an emission goes.
#[derive(PartialEq)]
enum Route {
    Realtime,
    Feed(Partition),
    Aggregate(AggregateId),
}

/// Events on their way out, by where they go.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    parts: Vec<Part>,
    /// The realtime events that were sent already.
    pub(crate) sent: Published,
}

#[derive(Debug)]
enum Part {
    Realtime(Vec<NewEvent>),
    Append(Append),
}

impl Prepared {
    /// What is to be stored.
    pub(crate) fn into_appends(self) -> Vec<Append> {
        self.parts
            .into_iter()
            .filter_map(|part| match part {
                Part::Realtime(_) => None,
                Part::Append(append) => Some(append),
            })
            .collect()
    }
}

/// Which event types belong to which aggregate type, as far as this service knows.
#[derive(Clone, Default)]
pub(crate) struct AggregateEvents {
    owners: Arc<RwLock<HashMap<&'static str, &'static str>>>,
}

impl AggregateEvents {
    pub(crate) fn add(
        &self,
        aggregate_type: &'static str,
        definitions: &'static [EventDefinition],
    ) {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        for definition in definitions {
            owners.insert(definition.name(), aggregate_type);
        }
    }

    pub(crate) fn owner(&self, event_type: &str) -> Option<&'static str> {
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        owners.get(event_type).copied()
    }
}

/// What was published, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// Each of the events.
    pub events: Vec<PublishedEvent>,
    token: Token,
}

/// An event that was published.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedEvent {
    /// The event as it is recorded now.
    pub event: RecordedEvent,
    /// Whether an event of this id was stored before, and nothing was stored now.
    pub repeated: bool,
}

impl Published {
    /// What must be reached to know of the stored events.
    pub fn token(&self) -> Token {
        self.token.clone()
    }

    fn push(&mut self, event: RecordedEvent, repeated: bool) {
        self.events.push(PublishedEvent { event, repeated });
    }
}

/// Events that could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// An aggregate's event without its aggregate.
    #[error(
        "`{event_type}` belongs to the aggregate `{aggregate_type}`; execute a command on it, or publish `To(id, event)`"
    )]
    BelongsToAggregate {
        /// The event's type.
        event_type: String,
        /// The aggregate's type.
        aggregate_type: &'static str,
    },
    /// An event could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// An event of no category.
    #[error(transparent)]
    Category(#[from] InvalidCategory),
    /// The store did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// How the feed is partitioned could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A realtime event could not be sent.
    #[error(transparent)]
    Realtime(#[from] StoreError),
}
