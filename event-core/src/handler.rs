//! Handlers: what a service does when something has happened.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::BoxError;
use crate::codec::{Codec, CodecError};
use crate::dependencies::{Dependencies, DependencyType, Dependent, MissingDependency};
use crate::emit::{Emission, Emit, Emits, Origin};
use crate::event::{Declared, Event, PastEvent};
use crate::failure::{Classifier, Classify, OnExhausted, Policy, Retry, class_of, class_of_any};
use crate::partition::Partition;
use crate::recorded::{Position, RecordedEvent};

/// Something that reacts to events. The attribute `#[event_handler]` implements it; by hand it is
/// handed to [`HandlerDefinition::new`].
///
/// # Contract
/// It is called at least once for each event, and for the events of one key one after the other, unless
/// its [delivery](Delivery) is parallel. It may be called again for the same event, after a crash for
/// example.
///
/// ```
/// use async_trait::async_trait;
/// use event_core::prelude::*;
/// use event_core::{Emission, Handler, HandlerDefinition, HandlerError};
///
/// /// Writes every event of a feed to the log.
/// struct Log;
///
/// #[async_trait]
/// impl Handler for Log {
///     async fn handle(
///         &self,
///         event: &RecordedEvent,
///         context: &Context,
///     ) -> Result<Vec<Emission>, HandlerError> {
///         println!("{}: {} {}", context.group(), event.event_type(), event.payload());
///         Ok(Vec::new())
///     }
/// }
///
/// let service = Service::builder("audit")
///     .store(MemoryStore::new())
///     .handler(HandlerDefinition::new("log", Log).on("github.*"))
///     .build()?;
/// # Ok::<(), event_core::BuildError>(())
/// ```
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Reacts to an event; what it returns is published.
    ///
    /// # Errors
    /// Whatever went wrong: it is called again.
    async fn handle(
        &self,
        event: &RecordedEvent,
        context: &Context,
    ) -> Result<Vec<Emission>, HandlerError>;
}

/// What a handler is told beside the event.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) handler: Arc<str>,
    pub(crate) group: Arc<str>,
    /// `None` for a realtime event.
    pub(crate) partition: Option<Partition>,
    pub(crate) event: RecordedEvent,
    pub(crate) attempt: u32,
    /// Which part of an event it is whose type was split, counted from 0.
    pub(crate) part: usize,
    pub(crate) is_replay: bool,
    pub(crate) codec: Codec,
}

impl Context {
    /// The name of the handler.
    pub fn handler(&self) -> &str {
        &self.handler
    }

    /// The group that it runs in.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The event as it is recorded; of one whose type was split, the part that is handled.
    pub fn event(&self) -> &RecordedEvent {
        &self.event
    }

    /// The partition that the event lies in, in which its position is; `None` for a realtime event, which
    /// lies nowhere.
    pub fn partition(&self) -> Option<&Partition> {
        self.partition.as_ref()
    }

    /// The id of the event.
    pub fn event_id(&self) -> Uuid {
        self.event.metadata().event_id
    }

    /// The correlation id of the event, which everything that is emitted carries on.
    pub fn correlation_id(&self) -> &str {
        &self.event.metadata().correlation_id
    }

    /// The number of this attempt, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the event is handled once more, by [`Service::replay`](crate::Service::replay): what the
    /// handler returns is not published then.
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// Encodes what a handler returns.
    fn emissions<T: Emit>(&self, output: T) -> Result<Vec<Emission>, HandlerError> {
        let origin = Origin {
            group: &self.group,
            handler: &self.handler,
            event_id: self.event_id(),
            part: self.part,
        };
        let _station = tracing::debug_span!("codec").entered();
        let mut emits = Emits::of(&self.codec, origin);
        output.emit(&mut emits).map_err(HandlerError::Emit)?;
        Ok(emits.into_emissions())
    }
}

/// What a handler can take: an event type, or [`RecordedEvent`] for any.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "a handler takes an event",
    note = "add `#[derive(Event)]` to `{Self}`, or take `&RecordedEvent` for events of any type"
)]
pub trait HandlerEvent: Sized + Send + Sync {
    /// The event types that it can be.
    const COVERS: Declared;

    /// Reads it.
    ///
    /// # Errors
    /// [`CodecError`] where the event does not fit.
    fn from_recorded(event: &RecordedEvent) -> Result<Self, CodecError>;

    /// Types of stored events that are read as other events.
    const PAST: &'static [PastEvent] = &[];

    /// What an event of such a type is read as.
    ///
    /// # Errors
    /// [`CodecError`] where the event does not fit.
    fn split(event: &RecordedEvent) -> Result<Vec<RecordedEvent>, CodecError> {
        Ok(vec![event.clone()])
    }
}

impl<E: Event> HandlerEvent for E {
    const COVERS: Declared = Declared::Types(E::DEFINITIONS);

    const PAST: &'static [PastEvent] = E::PAST;

    fn split(event: &RecordedEvent) -> Result<Vec<RecordedEvent>, CodecError> {
        let events = event.decode_all::<E>()?;
        events.iter().map(|part| event.restated(part)).collect()
    }

    fn from_recorded(event: &RecordedEvent) -> Result<Self, CodecError> {
        event.decode()
    }
}

impl HandlerEvent for RecordedEvent {
    const COVERS: Declared = Declared::Anything;

    fn from_recorded(event: &RecordedEvent) -> Result<Self, CodecError> {
        Ok(event.clone())
    }
}

/// What a handler can return: what can be published ([`Emit`]), or a `Result` of it.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "neither events nor a `Result` of events",
    note = "return `()`, an event, `Option`, `Vec` or a tuple of events, `To<Aggregate>`, or a `Result` of one of these",
    note = "the error of a `Result` must become a `BoxError`: an error type that is `Send` and `Sync`, or a text"
)]
pub trait HandlerOutput: Send {
    /// The event types that can come out.
    const DECLARES: Declared;

    /// Encodes the events, or passes the error on.
    ///
    /// # Errors
    /// The handler's own error, or [`HandlerError::Emit`].
    fn into_emissions(self, context: &Context) -> Result<Vec<Emission>, HandlerError>;
}

impl<T: Emit> HandlerOutput for T {
    const DECLARES: Declared = T::DECLARES;

    fn into_emissions(self, context: &Context) -> Result<Vec<Emission>, HandlerError> {
        context.emissions(self)
    }
}

impl<T: Emit, E: Into<BoxError> + Send> HandlerOutput for Result<T, E> {
    const DECLARES: Declared = T::DECLARES;

    fn into_emissions(self, context: &Context) -> Result<Vec<Emission>, HandlerError> {
        match self {
            Ok(output) => context.emissions(output),
            Err(error) => Err(HandlerError::Failed(error.into())),
        }
    }
}

/// A handler that did not get through.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Its own error.
    #[error("the handler failed: {0}")]
    Failed(#[source] BoxError),
    /// It panicked.
    #[error("the handler panicked: {0}")]
    Panicked(String),
    /// It took longer than its policy allows.
    #[error("the handler took longer than {0:?} and was broken off")]
    TimedOut(Duration),
    /// The event does not fit what the handler takes. Calling it again would not help.
    #[error("the event cannot be read by the handler: {0}")]
    Unreadable(#[from] CodecError),
    /// What it returned cannot be encoded.
    #[error("what the handler returned cannot be encoded: {0}")]
    Emit(#[source] CodecError),
    /// It returned an event of a type that it does not declare.
    #[error("the handler returned `{event_type}`, which it does not declare; add it to its emits")]
    Undeclared {
        /// The event's type.
        event_type: String,
    },
    /// What it returned could not be published.
    #[error("what the handler returned could not be published: {0}")]
    Publish(#[source] BoxError),
}

/// Where a group that is new begins to read.
///
/// ```
/// use event_core::{Position, Start};
///
/// // Behind an event whose position is known:
/// let start = Start::After("1763900000000-3".parse()?);
/// // What the store has taken in since a time:
/// let start = Start::since("2025-11-23T12:00:00Z".parse()?);
/// # assert!(matches!(start, Start::After(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first event of the feed. Where that was trimmed away, the group does not begin, and its
    /// service says from where on the feed is whole.
    #[default]
    Beginning,
    /// At the events that come after it was first run.
    Now,
    /// At the first event that lies after this position, in every partition of the feed. A partition
    /// that has not come so far yet begins as with [`Now`](Start::Now). What was trimmed away must not lie
    /// behind it.
    After(Position),
}

impl Start {
    /// At the first event that the store took in at this time or later. Positions begin with
    /// milliseconds of the store's clock, so this is a position like any other.
    pub fn since(time: DateTime<Utc>) -> Self {
        let milliseconds = u64::try_from(time.timestamp_millis()).unwrap_or_default();
        Start::After(Position::new(milliseconds, 0).before())
    }

    /// At this position.
    pub fn at(position: Position) -> Self {
        Start::After(position.before())
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Beginning => f.write_str("at the beginning"),
            Start::Now => f.write_str("now"),
            Start::After(position) => write!(f, "after {position}"),
        }
    }
}

/// How the events of a feed reach a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Those of one key (an aggregate, else the event's `key`) one after the other, in order.
    #[default]
    Ordered,
    /// In any order, many at once, by whichever instance is free. A handler that takes long is left its
    /// event, as long as it does not block its thread: block in `tokio::task::spawn_blocking`.
    /// Dead letters have no key, and nothing waits behind them.
    Parallel,
}

/// The part of a [`Policy`] that a handler declares itself. The rest is the service's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeclaredPolicy {
    pub(crate) retry: Option<Retry>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) on_exhausted: Option<OnExhausted>,
}

impl DeclaredPolicy {
    pub(crate) fn or(self, service: Policy) -> Policy {
        Policy {
            retry: self.retry.unwrap_or(service.retry),
            timeout: self.timeout.or(service.timeout),
            on_exhausted: self.on_exhausted.unwrap_or(service.on_exhausted),
        }
    }
}

/// What a call of a handler method gives.
pub type HandlerFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<Emission>, HandlerError>> + Send + 'a>>;

/// How `#[event_handler]` calls a method.
pub type MethodCall<D> = for<'a> fn(&'a D, &'a RecordedEvent, &'a Context) -> HandlerFuture<'a>;

/// How a handler reads events whose types were split.
#[derive(Clone, Copy)]
pub(crate) struct Past {
    events: &'static [PastEvent],
    split: fn(&RecordedEvent) -> Result<Vec<RecordedEvent>, CodecError>,
}

impl Past {
    pub(crate) fn of<E: HandlerEvent>() -> Self {
        Self {
            events: E::PAST,
            split: E::split,
        }
    }

    /// Whether what covers these types and reacts to some takes events that are stored under this one: those
    /// that it is, or was called before, and those that are read as what it takes.
    pub(crate) fn takes(
        &self,
        covers: &Declared,
        event_type: &str,
        reacts_to: impl Fn(&str) -> bool,
    ) -> bool {
        if covers.matches(event_type) && reacts_to(event_type) {
            return true;
        }
        let is_split = self.is_split(event_type);
        let mut takes = false;
        covers.for_each(&mut |definition, _| {
            takes |= (is_split || definition.former_names().contains(&event_type))
                && reacts_to(definition.name());
        });
        takes
    }

    /// Whether events of this type are read as others.
    pub(crate) fn is_split(&self, event_type: &str) -> bool {
        let is_it = |past: &PastEvent| past.is_split() && past.name() == event_type;
        self.events.iter().any(is_it)
    }

    pub(crate) fn split(&self, event: &RecordedEvent) -> Result<Vec<RecordedEvent>, CodecError> {
        (self.split)(event)
    }
}

type Make = Arc<dyn Fn(&Dependencies) -> Result<Arc<dyn Handler>, MissingDependency> + Send + Sync>;

/// A handler and what a service must know of it: its name, what it reacts to, what it emits.
///
/// ```
/// use event_core::prelude::*;
/// use event_core::HandlerDefinition;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("github.push")]
/// # struct GithubPush { repository: String }
///
/// let definition = HandlerDefinition::function("greet", |push: GithubPush, _: Context| async move {
///     println!("{} was pushed to", push.repository);
/// })
/// .on("github.push");
/// # let service = Service::builder("doc").store(MemoryStore::new()).handler(definition).build();
/// # assert!(service.is_ok());
/// ```
#[derive(Clone)]
pub struct HandlerDefinition {
    pub(crate) name: String,
    pub(crate) location: Option<&'static str>,
    pub(crate) group: Option<String>,
    pub(crate) start: Start,
    pub(crate) realtime: bool,
    pub(crate) delivery: Delivery,
    pub(crate) allows_replay: bool,
    pub(crate) policy: DeclaredPolicy,
    pub(crate) classifier: Classifier,
    pub(crate) on: Vec<String>,
    pub(crate) emits: Vec<String>,
    pub(crate) covers: Declared,
    pub(crate) past: Past,
    pub(crate) declares: Declared,
    pub(crate) dependencies: Vec<DependencyType>,
    make: Make,
}

impl HandlerDefinition {
    /// A handler that is implemented by hand, for events of any type.
    pub fn new(name: impl Into<String>, handler: impl Handler) -> Self {
        let handler: Arc<dyn Handler> = Arc::new(handler);
        Self::made_by(
            name.into(),
            Arc::new(move |_| Ok(Arc::clone(&handler))),
            Vec::new(),
            (Declared::Anything, Past::of::<RecordedEvent>()),
            Declared::Anything,
        )
    }

    /// A handler from a closure that takes a typed event (or [`RecordedEvent`]) and the context.
    pub fn function<E, O, F, Fut>(name: impl Into<String>, function: F) -> Self
    where
        E: HandlerEvent + 'static,
        O: HandlerOutput + 'static,
        F: Fn(E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = O> + Send + 'static,
    {
        let handler: Arc<dyn Handler> = Arc::new(FunctionHandler {
            call: Box::new(move |event, context| {
                let called = E::from_recorded(event).map(|event| function(event, context.clone()));
                Box::pin(async move { called?.await.into_emissions(context) })
            }),
        });
        Self::made_by(
            name.into(),
            Arc::new(move |_| Ok(Arc::clone(&handler))),
            Vec::new(),
            (E::COVERS, Past::of::<E>()),
            O::DECLARES,
        )
    }

    /// A handler that is a method of `D` (`()` for a plain function), which takes `E` and returns
    /// `O`. `call` must read the event as `E` and encode the output.
    pub fn method<D: Dependent, E: HandlerEvent, O: HandlerOutput>(
        name: &'static str,
        call: MethodCall<D>,
    ) -> Self {
        Self::made_by(
            name.to_owned(),
            Arc::new(move |dependencies| {
                let this = dependencies.instance::<D>()?;
                Ok(Arc::new(MethodHandler { this, call }) as Arc<dyn Handler>)
            }),
            D::dependencies(),
            (E::COVERS, Past::of::<E>()),
            O::DECLARES,
        )
    }

    fn made_by(
        name: String,
        make: Make,
        dependencies: Vec<DependencyType>,
        (covers, past): (Declared, Past),
        declares: Declared,
    ) -> Self {
        Self {
            name,
            location: None,
            group: None,
            start: Start::default(),
            realtime: false,
            delivery: Delivery::default(),
            allows_replay: false,
            policy: DeclaredPolicy::default(),
            classifier: class_of_any,
            on: Vec::new(),
            emits: Vec::new(),
            covers,
            past,
            declares,
            dependencies,
            make,
        }
    }

    /// Reacts to this event type or pattern, too.
    pub fn on(mut self, pattern: impl Into<String>) -> Self {
        self.on.push(pattern.into());
        self
    }

    /// May emit events of this type.
    pub fn emits(mut self, event_type: impl Into<String>) -> Self {
        self.emits.push(event_type.into());
        self
    }

    /// Runs only in services of this group.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Where a new group begins to read.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Reacts to what is sent by Pub/Sub, in every instance of the service, at most once.
    pub fn realtime(mut self) -> Self {
        self.realtime = true;
        self
    }

    /// How its events are delivered; in order by default.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// Allows that it is given events again that it has handled, by
    /// [`Service::replay`](crate::Service::replay).
    pub fn allow_replay(mut self) -> Self {
        self.allows_replay = true;
        self
    }

    /// How it is called again when it has failed.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.policy.retry = Some(retry);
        self
    }

    /// How long one call may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.policy.timeout = Some(timeout);
        self
    }

    /// What becomes of an event after the last attempt.
    pub fn on_exhausted(mut self, on_exhausted: OnExhausted) -> Self {
        self.policy.on_exhausted = Some(on_exhausted);
        self
    }

    /// Asks its errors, where they are an `E`, what they mean for the event. The attribute does so
    /// by itself.
    pub fn classify<E: Classify>(self) -> Self {
        self.classified_by(class_of::<E>)
    }

    /// As [`classify`](Self::classify), for generated code.
    #[doc(hidden)]
    pub fn classified_by(mut self, classifier: Classifier) -> Self {
        self.classifier = classifier;
        self
    }

    /// Says where it is written: `file:line`.
    pub fn at(mut self, location: &'static str) -> Self {
        self.location = Some(location);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn make(
        &self,
        dependencies: &Dependencies,
    ) -> Result<Arc<dyn Handler>, MissingDependency> {
        (self.make)(dependencies)
    }
}

impl fmt::Debug for HandlerDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerDefinition")
            .field("name", &self.name)
            .field("on", &self.on)
            .field("emits", &self.emits)
            .finish_non_exhaustive()
    }
}

struct MethodHandler<D> {
    this: Arc<D>,
    call: MethodCall<D>,
}

#[async_trait]
impl<D: Dependent> Handler for MethodHandler<D> {
    async fn handle(
        &self,
        event: &RecordedEvent,
        context: &Context,
    ) -> Result<Vec<Emission>, HandlerError> {
        (self.call)(&self.this, event, context).await
    }
}

type FunctionCall =
    Box<dyn for<'a> Fn(&RecordedEvent, &'a Context) -> HandlerFuture<'a> + Send + Sync>;

struct FunctionHandler {
    call: FunctionCall,
}

#[async_trait]
impl Handler for FunctionHandler {
    async fn handle(
        &self,
        event: &RecordedEvent,
        context: &Context,
    ) -> Result<Vec<Emission>, HandlerError> {
        (self.call)(event, context).await
    }
}

/// A handler that `#[event_handler]` reports to every service of the program.
#[derive(Debug)]
pub struct HandlerRegistration {
    define: fn() -> HandlerDefinition,
}

impl HandlerRegistration {
    /// Reports what `define` makes.
    pub const fn new(define: fn() -> HandlerDefinition) -> Self {
        Self { define }
    }

    /// The definitions of all handlers that are linked into this program, by name.
    pub fn all() -> Vec<HandlerDefinition> {
        let mut found: Vec<_> = inventory::iter::<HandlerRegistration>
            .into_iter()
            .map(|registration| (registration.define)())
            .collect();
        // The order in which the linker left them is not defined.
        found.sort_by(|a, b| (a.name(), a.location).cmp(&(b.name(), b.location)));
        found
    }
}

inventory::collect!(HandlerRegistration);
