//! Emits: the events that a handler returns, and everything else that can be published.

use serde_json::Value;
use uuid::Uuid;

use crate::aggregate::{Aggregate, id_of};
use crate::clock::derived_id;
use crate::codec::{Codec, CodecError, NewEvent};
use crate::event::{Declared, Event};
use crate::recorded::AggregateId;

/// What can be published and what a handler may return: an event, `Option`, `Vec`, a tuple of
/// these, [`To`] an aggregate, an [`Envelope`], or `()` for nothing.
///
/// ```
/// use event_core::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("github.push")]
/// # struct GithubPush { repository: String }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let service = Service::builder("importer").store(MemoryStore::new()).build()?;
/// let push = |repository: &str| GithubPush { repository: repository.into() };
///
/// service.publish(push("octo/hello")).await?;
/// service.publish(vec![push("octo/hello"), push("octo/world")]).await?;
/// service.publish((push("octo/hello"), None::<GithubPush>)).await?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be published",
    label = "neither an event nor made of events",
    note = "publish or return an event, `Option`, `Vec` or a tuple of events, `To<Aggregate>`, or `()`",
    note = "a struct or enum becomes an event with `#[derive(Event)]`"
)]
pub trait Emit: Send {
    /// The event types that can come out.
    const DECLARES: Declared;

    /// Puts the events into `emits`, in order.
    ///
    /// # Errors
    /// [`CodecError`] where one cannot be encoded.
    fn emit(self, emits: &mut Emits<'_>) -> Result<(), CodecError>;
}

/// Collects events on their way out.
pub struct Emits<'a> {
    codec: &'a Codec,
    origin: Option<Origin<'a>>,
    collected: Vec<Emission>,
}

/// Where emits of a handler come from. Their ids are made of it, so that a handler that runs again
/// for the same event emits the same ids.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) group: &'a str,
    pub(crate) handler: &'a str,
    pub(crate) event_id: Uuid,
    /// Which part of an event it is whose type was split, counted from 0.
    pub(crate) part: usize,
}

/// One event on its way out.
#[derive(Clone, Debug)]
pub struct Emission {
    pub(crate) event: NewEvent,
    pub(crate) aggregate: Option<AggregateId>,
}

impl Emission {
    /// The event.
    pub fn event(&self) -> &NewEvent {
        &self.event
    }

    /// The aggregate it goes to, if any.
    pub fn aggregate(&self) -> Option<&AggregateId> {
        self.aggregate.as_ref()
    }
}

impl<'a> Emits<'a> {
    pub(crate) fn fresh(codec: &'a Codec) -> Self {
        Self {
            codec,
            origin: None,
            collected: Vec::new(),
        }
    }

    pub(crate) fn of(codec: &'a Codec, origin: Origin<'a>) -> Self {
        Self {
            origin: Some(origin),
            ..Self::fresh(codec)
        }
    }

    pub(crate) fn into_emissions(self) -> Vec<Emission> {
        self.collected
    }

    /// Adds an event.
    ///
    /// # Errors
    /// [`CodecError`] where it cannot be encoded.
    pub fn push<E: Event>(&mut self, event: &E) -> Result<(), CodecError> {
        self.push_to(None, event)
    }

    fn push_to<E: Event>(
        &mut self,
        aggregate: Option<AggregateId>,
        event: &E,
    ) -> Result<(), CodecError> {
        let mut event = match self.origin {
            None => self.codec.encode(event)?,
            Some(origin) => {
                let ordinal = match origin.part {
                    0 => self.collected.len().to_string(),
                    part => format!("{part}/{}", self.collected.len()),
                };
                let id = derived_id(&[
                    "emit",
                    origin.group,
                    origin.handler,
                    &origin.event_id.to_string(),
                    &ordinal,
                ]);
                self.codec.encode_as(event, id)?
            }
        };
        if aggregate.is_some() {
            event.metadata_mut().key = None;
        }
        self.collected.push(Emission { event, aggregate });
        Ok(())
    }
}

impl Emit for () {
    const DECLARES: Declared = Declared::Nothing;

    fn emit(self, _: &mut Emits<'_>) -> Result<(), CodecError> {
        Ok(())
    }
}

impl<E: Event> Emit for E {
    const DECLARES: Declared = Declared::Types(E::DEFINITIONS);

    fn emit(self, emits: &mut Emits<'_>) -> Result<(), CodecError> {
        emits.push(&self)
    }
}

impl<T: Emit> Emit for Option<T> {
    const DECLARES: Declared = T::DECLARES;

    fn emit(self, emits: &mut Emits<'_>) -> Result<(), CodecError> {
        self.map_or(Ok(()), |some| some.emit(emits))
    }
}

impl<T: Emit> Emit for Vec<T> {
    const DECLARES: Declared = T::DECLARES;

    fn emit(self, emits: &mut Emits<'_>) -> Result<(), CodecError> {
        self.into_iter().try_for_each(|each| each.emit(emits))
    }
}

macro_rules! emit_tuple {
    ($($part:ident),+) => {
        impl<$($part: Emit),+> Emit for ($($part,)+) {
            const DECLARES: Declared = Declared::Each(&[$($part::DECLARES),+]);

            fn emit(self, emits: &mut Emits<'_>) -> Result<(), CodecError> {
                #[allow(non_snake_case)] // The type parameters double as names of the parts.
                let ($($part,)+) = self;
                $($part.emit(emits)?;)+
                Ok(())
            }
        }
    };
}

emit_tuple!(A, B);
emit_tuple!(A, B, C);
emit_tuple!(A, B, C, D);
emit_tuple!(A, B, C, D, E);
emit_tuple!(A, B, C, D, E, F);

/// An event of an aggregate, to be appended there whatever the aggregate's version is. To let the
/// aggregate decide, use [`Repository::execute`](crate::Repository::execute).
pub struct To<A: Aggregate>(
    /// The aggregate's id.
    pub String,
    /// The event.
    pub A::Event,
);

impl<A: Aggregate> Emit for To<A> {
    const DECLARES: Declared = Declared::Aggregate(A::TYPE, A::Event::DEFINITIONS);

    fn emit(self, emits: &mut Emits<'_>) -> Result<(), CodecError> {
        let aggregate = id_of::<A>(&self.0)?;
        emits.push_to(Some(aggregate), &self.1)
    }
}

/// Something to publish, with an id or metadata of the user's own.
///
/// ```
/// # use event_core::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("github.push")]
/// # struct GithubPush { repository: String }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let service = Service::builder("doc").store(MemoryStore::new()).build()?;
/// let delivery = "72d3162e-cc78-11e3-81ab-4c9367dc0958".parse()?;
/// let push = GithubPush { repository: "octo/hello".into() };
///
/// // Published twice under the same id, stored once.
/// let first = service.publish(Envelope::of(push).event_id(delivery)).await?;
/// assert!(!first.events[0].repeated);
/// # let push = GithubPush { repository: "octo/hello".into() };
/// # assert!(service.publish(Envelope::of(push).event_id(delivery)).await?.events[0].repeated);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Envelope<T> {
    content: T,
    event_id: Option<Uuid>,
    correlation_id: Option<String>,
    metadata: Vec<(String, Value)>,
}

impl<T: Emit> Envelope<T> {
    /// Wraps what is to be published.
    pub fn of(content: T) -> Self {
        Self {
            content,
            event_id: None,
            correlation_id: None,
            metadata: Vec::new(),
        }
    }

    /// Gives the event this id: publishing it again under the same id stores nothing twice. Of
    /// several events the first has it, and the others ids that are made of it.
    pub fn event_id(mut self, event_id: Uuid) -> Self {
        self.event_id = Some(event_id);
        self
    }

    /// Counts the event to what has this correlation id.
    pub fn correlation_id(mut self, correlation_id: impl Into<String>) -> Self {
        self.correlation_id = Some(correlation_id.into());
        self
    }

    /// Adds something to the metadata. Names of the framework's own are refused when it is
    /// published.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }
}

impl<T: Emit> Emit for Envelope<T> {
    const DECLARES: Declared = T::DECLARES;

    fn emit(self, emits: &mut Emits<'_>) -> Result<(), CodecError> {
        let before = emits.collected.len();
        self.content.emit(emits)?;
        for (index, emission) in emits.collected[before..].iter_mut().enumerate() {
            let event = &mut emission.event;
            for (key, value) in &self.metadata {
                event.insert_metadata(key.clone(), value.clone())?;
            }
            let metadata = event.metadata_mut();
            if let Some(first) = self.event_id {
                let own = metadata.event_id.to_string();
                metadata.event_id = match index {
                    0 => first,
                    _ => derived_id(&[&first.to_string(), &index.to_string()]),
                };
                if metadata.correlation_id == own {
                    metadata.correlation_id = metadata.event_id.to_string();
                }
            }
            if let Some(correlation_id) = &self.correlation_id {
                metadata.correlation_id.clone_from(correlation_id);
            }
        }
        Ok(())
    }
}
