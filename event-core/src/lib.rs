//! Event sourcing: facts that are recorded once, state that is rebuilt from them, and handlers that
//! react to them.
//!
//! The flow, and the modules in its order:
//!
//! event → codec → store → feed → subscription → dispatcher → handler → emit
//!
//! - [`Event`], [`RecordedEvent`], [`Metadata`]: typed facts, and how they lie in a store
//! - [`Aggregate`], [`Repository`]: state that is rebuilt by replay, and decides on commands
//! - [`EventStore`], [`MemoryStore`]: where events are appended and read
//! - [`event_handler`], [`Handler`], [`Context`]: reactions to events
//! - [`Projection`], [`ProjectionView`], [`Token`]: states for reading, and reading one's own writes
//! - [`Service`]: finds the handlers, checks them and runs them
//! - [`Replay`], [`Recording`]: what has happened, again: into handlers, and in tests
//! - [`Realtime`], [`RealtimeSubscription`]: events that are sent and not kept
//! - [`metrics`], [`Health`], [`system`]: what a service tells of itself
//! - [`testing`]: scenarios, services under test, and the suite that every store must pass

extern crate self as event_core;

pub mod metrics;

mod event;
mod metadata;
mod partition;
mod pattern;
mod recorded;
#[cfg(feature = "schema")]
mod schema;
mod token;

mod cause;
mod clock;
pub mod codec;
mod trace;

pub mod store;

mod aggregate;
mod repair;
mod repository;
mod snapshot;

mod positions;
pub mod projection;
mod recording;

mod subscription;

mod dispatcher;
mod failure;

mod dependencies;
mod handler;

#[doc(hidden)]
pub mod check;
mod emit;
mod publisher;
mod realtime;

mod replay;
mod service;
pub mod system;

pub mod testing;

/// Any error, with the bounds that tasks need.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub use aggregate::Aggregate;
pub use clock::{Clock, Ids};
pub use codec::{Codec, CodecError, Decoded, NewEvent};
pub use dependencies::{Dependencies, Dependency, DependencyType, Dependent, MissingDependency};
pub use dispatcher::HandlerFailure;
pub use emit::{Emission, Emit, Emits, Envelope, To};
pub use event::{
    Category, Declared, Event, EventDefinition, EventRegistration, InvalidCategory, MissingUpcast,
    PastEvent, Upcast, is_event_type,
};
pub use event_macros::{Event, emits, event_handler, on, projection};
pub use failure::{Classifier, Classify, ErrorClass, Failure, OnExhausted, Policy, Retry};
pub use handler::{
    Context, Delivery, Handler, HandlerDefinition, HandlerError, HandlerEvent, HandlerFuture,
    HandlerOutput, HandlerRegistration, MethodCall, Start,
};
pub use metadata::{Metadata, RESERVED_KEYS};
pub use partition::Partition;
pub use pattern::{InvalidPattern, Pattern, is_pattern};
pub use positions::Positions;
pub use projection::{
    Projection, ProjectionError, ProjectionHealth, ProjectionSink, ProjectionView, Rebuild,
    WaitError, Writes,
};
pub use publisher::{PublishError, Published, PublishedEvent, Publisher};
pub use realtime::{
    DEFAULT_CAPACITY, Flush, Realtime, RealtimeItem, RealtimePublisher, RealtimeSink,
    RealtimeSubscription, encode_message_head,
};
pub use recorded::{
    AggregateId, AggregateRef, InvalidAggregateId, InvalidPosition, MAX_AGGREGATE_ID_BYTES,
    Position, RecordedEvent, Version,
};
pub use recording::{
    Recorder, Recording, RecordingError, RecordingLine, RecordingReader, Redaction,
};
pub use repair::{
    Adoption, Checks, Finding, Findings, Found, RebuildHistoryError, RebuiltHistory, adopt,
    rebuild_history, verify, verify_aggregate,
};
pub use replay::{Replay, ReplayError, ReplayFailure, ReplayReport};
pub use repository::{At, Changes, Executed, HistoryEvent, Loaded, Repository, RepositoryError};
pub use service::{
    BuildError, Dispatched, Handled, Health, Mistake, Service, ServiceBuilder, ServiceError,
    ServiceState, Warning, shutdown_signal,
};
pub use snapshot::{Snapshot, SnapshotPolicy};
pub use store::{
    Acquired, Append, AppendError, Appended, AppendedEvent, AppendedProjected, ApplyError, Backend,
    Backlogs, Backpressure, Chosen, Commit, CommitError, Committed, CompactError, Compacted,
    Consumer, DeadLetter, DeadLetterError, DeadLetterId, DeadLetterReason, DeadLetters, Direction,
    Done, EntryEmits, EventStore, Expected, FeedEntry, FeedReader, Finish, FinishError, Finished,
    GroupBatch, GroupReader, Groups, HeldBack, HistoryPage, InlineStep, InspectedDeadLetter,
    InvalidProjectionName, Lease, Limits, MAX_COMMAND_ID_BYTES, MAX_PROJECTION_NAME_BYTES,
    Maintenance, Member, MemoryStore, Open, ParallelGroup, ParallelGroups, ParallelLag,
    ParallelReader, Progress, ProjectionCheckpoint, ProjectionId, ProjectionStep,
    ProjectionVersion, ProjectionVersions, Projections, ReadError, Receipt, Reset, ResetError,
    Restore, RestoreEntry, RestoreError, ServeError, StoreError, Swapped, Taken, Target,
    TrimPolicy, Trimmed, Versions, Wanted, WhenBacklogged, is_projection_name, reset_group,
};
pub use subscription::{
    CircuitBreaker, CircuitState, Owner, ParallelHealth, PartitionHealth, Pause, RateLimit,
};
pub use token::{InvalidToken, Token};

/// What most programs need: `use event_core::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Aggregate, AggregateId, At, BoxError, Context, Emit, Envelope, Event, EventStore, Expected,
        MemoryStore, Position, Publisher, RecordedEvent, Repository, Service, To, Writes, emits,
        event_handler, on, shutdown_signal,
    };
    pub use event_macros::projection;
}

/// What generated code needs of other crates.
#[doc(hidden)]
pub mod __private {
    pub use inventory;
    pub use serde_json::{Error as JsonError, Value};

    pub use crate::failure::{ClassifierOf, OrdinaryClassifier};
    #[cfg(feature = "schema")]
    pub use crate::schema::{SchemasOf, WithoutSchemas};
}

/// The schemas of an event, for generated code.
#[cfg(feature = "schema")]
#[doc(hidden)]
#[macro_export]
macro_rules! __schemas {
    ($event:ident) => {
        ::core::option::Option::Some(|| {
            #[allow(unused_imports)]
            use $crate::__private::WithoutSchemas as _;
            $crate::__private::SchemasOf::<$event>::NEW.find()
        })
    };
}

/// There are none without the feature `schema`.
#[cfg(not(feature = "schema"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __schemas {
    ($event:ident) => {
        ::core::option::Option::None
    };
}
