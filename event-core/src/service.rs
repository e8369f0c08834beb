//! The service: the handlers of one group, checked and run.

mod builder;
mod graph;
mod health;
mod observer;
mod projections;
mod realtime_runner;
mod trimmer;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span};
use uuid::Uuid;

pub use builder::ServiceBuilder;
pub use graph::{BuildError, Mistake, Warning};
pub use health::{Health, ServiceState};

use crate::aggregate::Aggregate;
use crate::codec::Codec;
use crate::dispatcher::HandlerFailure;
use crate::emit::Emit;
use crate::event::Event;
use crate::projection::{FillError, ProjectionError, ProjectionRunner};
use crate::publisher::{AggregateEvents, PublishError, Published, Publisher};
use crate::recorded::RecordedEvent;
use crate::replay::{Replay, ReplayError, ReplayReport};
use crate::repository::Repository;
use crate::store::{Backend, EventStore, ReadError, Reset, ResetError, StoreError};
use crate::subscription::{Expected, IdleError, Stopped, Subscription};
use health::StateCell;
use observer::Observer;
use realtime_runner::RealtimeRunner;
use trimmer::Trimmer;

/// How long a handler that is broken off may take to notice.
const BREAK_OFF: Duration = Duration::from_secs(1);

/// Runs the handlers of one group on one store. Clones share everything.
///
/// Any number of instances of a group may run: they share its partitions evenly, and when one ends,
/// the others take over from its last commit.
///
/// ```standalone_crate
/// use event_core::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
/// #[event("github.push", key = repository)]
/// struct GithubPush { repository: String, commits: u32 }
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
/// #[event("repository.analyzed", key = repository)]
/// struct RepositoryAnalyzed { repository: String, findings: u32 }
///
/// #[event_handler]
/// struct RepositoryEventHandler;
///
/// #[event_handler(group = "repo-agent")]
/// impl RepositoryEventHandler {
///     #[on("github.push")]
///     #[emits("repository.analyzed")]
///     async fn handle_push(&self, event: GithubPush) -> RepositoryAnalyzed {
///         RepositoryAnalyzed { repository: event.repository, findings: event.commits }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = Service::builder("repo-agent").store(MemoryStore::new()).build()?;
/// let push = GithubPush { repository: "octo/hello".into(), commits: 2 };
/// let done = service.dispatch(push).await?;
/// assert_eq!(done.emitted[0].event_type(), "repository.analyzed");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    handlers: Vec<String>,
    emits: BTreeSet<String>,
    warnings: Vec<Warning>,
    backend: Arc<dyn Backend>,
    /// Where its own appends go: to the backend, with its inline projections.
    store: Arc<dyn EventStore>,
    projections: Arc<ProjectionRunner>,
    codec: Codec,
    publisher: Publisher,
    aggregates: AggregateEvents,
    subscription: Arc<Subscription>,
    realtime: Option<Arc<RealtimeRunner>>,
    trimmer: Option<Arc<Trimmer>>,
    shutdown_deadline: Duration,
    state: StateCell,
    observer: Arc<Observer>,
}

impl Service {
    /// Begins to build a service. Its name is its group, unless another is given.
    pub fn builder(name: impl Into<String>) -> ServiceBuilder {
        ServiceBuilder::new(name.into())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The names of its handlers, sorted.
    pub fn handlers(&self) -> &[String] {
        &self.inner.handlers
    }

    /// The group that it works in.
    pub(crate) fn group(&self) -> &str {
        self.inner.subscription.group()
    }

    /// The event types that its handlers say they emit.
    pub(crate) fn declared_emits(&self) -> &BTreeSet<String> {
        &self.inner.emits
    }

    /// What was suspicious when it was built, but no mistake.
    pub fn warnings(&self) -> &[Warning] {
        &self.inner.warnings
    }

    /// What publishes its events.
    pub fn publisher(&self) -> &Publisher {
        &self.inner.publisher
    }

    /// A repository on its store.
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        let inner = &self.inner;
        inner.aggregates.add(A::TYPE, A::Event::DEFINITIONS);
        Repository::with_codec(Arc::clone(&inner.store), inner.codec.clone())
    }

    /// What it does now, and how far behind it is. Asks the store about every partition of its group;
    /// a new group has its start fixed by that, as by publishing.
    ///
    /// # Errors
    /// [`ServiceError::Read`] where the store does not answer.
    pub async fn health(&self) -> Result<Health, ServiceError> {
        let inner = &self.inner;
        let subscription = &inner.subscription;
        Ok(Health {
            service: inner.name.clone(),
            group: subscription.group().to_owned(),
            instance: subscription.instance().to_owned(),
            state: inner.state.get(),
            partitions: subscription.health().await?,
            parallel: subscription.parallel_health().await?,
            circuit: subscription.circuit(),
            handlers: inner.handlers.clone(),
            projections: inner.projections.health().await?,
        })
    }

    /// Resets its group in all categories of its handlers; see [`reset_group`](crate::reset_group). No
    /// instance of the group may run meanwhile.
    ///
    /// # Errors
    /// [`ServiceError::Reset`].
    ///
    /// ```
    /// use event_core::prelude::*;
    /// use event_core::Reset;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
    /// # #[event("github.push")]
    /// # struct GithubPush { commits: u32 }
    ///
    /// #[event_handler(on = "github.push", group = "recount")]
    /// async fn recount(push: GithubPush) {}
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let service = Service::builder("recount").store(MemoryStore::new()).build()?;
    /// service.publish(GithubPush { commits: 2 }).await?;
    /// assert_eq!(service.run_until_idle().await?.entries, 1);
    /// service.reset(Reset::Forget).await?;
    /// assert_eq!(service.run_until_idle().await?.entries, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reset(&self, reset: Reset) -> Result<(), ServiceError> {
        Ok(self.inner.subscription.reset(reset).await?)
    }

    /// Gives events of the past to chosen handlers once more: those of the group that say
    /// `replay = allow`, in the order of their keys, as [`Replay`] says. It is as if they were handled for
    /// the first time, with their upcasts, and as often as the handler's policy says where it fails; but
    /// nothing that is returned is published, and the group's checkpoints and dead letters stay as they
    /// are. The service may run meanwhile.
    ///
    /// What a handler does by itself it does again: a command that it executes, an event that it publishes,
    /// a mail that it sends. It may ask [`Context::is_replay`](crate::Context::is_replay).
    ///
    /// Where a handler fails for good, it is not given later events of that key.
    ///
    /// # Errors
    /// [`ReplayError`]; nothing is handled where it says that a handler is not there, or does not allow it.
    ///
    /// ```
    /// use event_core::prelude::*;
    /// use event_core::Replay;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
    /// # #[event("github.push")]
    /// # struct GithubPush { commits: u32 }
    ///
    /// #[event_handler(on = "github.push", group = "counts", replay = allow)]
    /// async fn count_again(push: GithubPush, context: &Context) {
    ///     println!("{} commits{}", push.commits, if context.is_replay() { ", again" } else { "" });
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let service = Service::builder("counts").store(MemoryStore::new()).build()?;
    /// service.dispatch(GithubPush { commits: 2 }).await?;
    /// let report = service.replay(Replay::all()).await?;
    /// assert_eq!(report.handled["count_again"], 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn replay(&self, replay: Replay) -> Result<ReplayReport, ReplayError> {
        self.replay_until(replay, std::future::pending()).await
    }

    /// As [`replay`](Self::replay), until `stop` is ready: then nothing more begins, what runs is finished,
    /// and the report says where to [go on](Replay::going_on).
    ///
    /// # Errors
    /// As there.
    pub async fn replay_until(
        &self,
        replay: Replay,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<ReplayReport, ReplayError> {
        let stopping = CancellationToken::new();
        let replaying = self.inner.subscription.replay(replay, stopping.clone());
        tokio::pin!(replaying);
        tokio::select! {
            ended = &mut replaying => ended,
            () = stop => {
                stopping.cancel();
                replaying.await
            }
        }
    }

    /// Publishes events, and returns when they are stored (or sent, for realtime events).
    ///
    /// # Errors
    /// [`ServiceError::Publish`].
    pub async fn publish(&self, events: impl Emit) -> Result<Published, ServiceError> {
        self.begin().await?;
        Ok(self.inner.publisher.publish(events).await?)
    }

    /// Publishes events, and returns when the handlers of this service that take them are through,
    /// with what those emitted. A handler that runs anyway (see [`run_until`](Self::run_until)) is
    /// waited for; none runs twice. What is emitted is not waited for in turn.
    ///
    /// Not for use inside a handler: it would wait for a turn that comes only when that handler is
    /// through. A handler returns what it emits, or has a [`Publisher`] among its dependencies.
    ///
    /// # Errors
    /// [`ServiceError::Publish`] where an event is not published; [`ServiceError::Handler`] where it
    /// is, but a handler failed as often as its policy allows.
    pub async fn dispatch(&self, events: impl Emit) -> Result<Dispatched, ServiceError> {
        self.begin().await?;
        let dispatched = self.dispatch_begun(events).await;
        if self.inner.state.get() != ServiceState::Running {
            self.inner.observer.publish_errors().await;
        }
        dispatched
    }

    async fn dispatch_begun(&self, events: impl Emit) -> Result<Dispatched, ServiceError> {
        let emissions = self.inner.publisher.encode(events)?;
        let mut outcomes = Outcomes::new(&self.inner.subscription);
        for emission in &emissions {
            let event = emission.event();
            let event_id = event.metadata().event_id;
            if event.is_realtime() {
                if let Some(realtime) = &self.inner.realtime {
                    realtime.expect(event_id);
                }
                continue;
            }
            if self.inner.subscription.takes(event.event_type()) {
                outcomes.expect(event.event_type(), event_id);
            }
        }
        let published = self.inner.publisher.send(emissions).await?;
        let mut emitted = Vec::new();
        for published in &published.events {
            let event = &published.event;
            let event_id = event.metadata().event_id;
            if let Some(outcome) = outcomes.take(event_id) {
                if published.repeated {
                    // Handled when it was stored first, or about to be: not on this call's behalf.
                    continue;
                }
                emitted.extend(self.inner.subscription.drive(event, outcome).await?);
            } else if let Some(realtime) = &self.inner.realtime
                && realtime.takes(event.event_type())
            {
                emitted.extend(
                    realtime
                        .handle(event)
                        .await
                        .map_err(ServiceError::Handler)?,
                );
            }
        }
        Ok(Dispatched { published, emitted })
    }

    /// Handles everything there is now, and what is emitted meanwhile, until there is nothing left.
    /// What tests and one-shot programs use.
    ///
    /// # Errors
    /// [`ServiceError::Handler`] where a handler failed as often as its policy allows, with everything
    /// else handled; [`ServiceError::Running`] while [`run_until`](Self::run_until) runs.
    pub async fn run_until_idle(&self) -> Result<Handled, ServiceError> {
        self.begin().await?;
        let mut handled = Handled::default();
        loop {
            let now = self.handle_now().await;
            // Handlers of this service may be there for what has gone wrong, too.
            let published = self.inner.observer.publish_errors().await;
            match now? {
                0 if published == 0 => return Ok(handled),
                now => handled.entries += now,
            }
        }
    }

    async fn handle_now(&self) -> Result<usize, ServiceError> {
        let mut now = self.inner.subscription.run_until_idle().await?;
        if let Some(realtime) = &self.inner.realtime {
            now += realtime.run_until_idle().await?;
        }
        now += self.inner.projections.run_until_idle().await?;
        Ok(now)
    }

    /// Handles events as they come, until `shutdown` is ready: then what runs is finished (see
    /// [`ServiceBuilder::shutdown_deadline`]), everything is committed, and the partitions are given
    /// back. Lost connections are tried again without end.
    ///
    /// # Errors
    /// [`ServiceError::Stopped`] where a handler's policy or error stops the group;
    /// [`ServiceError::Read`] where the group is new, and would begin in a part of a feed that was
    /// trimmed away; [`ServiceError::TaskEnded`] where a part of the service ended by itself (nothing is lost);
    /// [`ServiceError::ShutdownDeadline`] where a handler did not finish in time.
    pub async fn run_until(
        &self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServiceError> {
        let span = info_span!("service", name = self.name());
        self.run_in_span(shutdown).instrument(span).await
    }

    async fn run_in_span(
        &self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServiceError> {
        let (stopping, breaking) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        {
            let subscription = Arc::clone(&self.inner.subscription);
            let stopping = stopping.clone();
            let breaking = breaking.clone();
            tasks
                .spawn(async move { subscription.run(stopping, breaking).await }.in_current_span());
        }
        if let Some(realtime) = &self.inner.realtime {
            let (realtime, stopping) = (Arc::clone(realtime), stopping.clone());
            tasks.spawn(
                async move {
                    realtime.run(stopping).await;
                    Ok(())
                }
                .in_current_span(),
            );
        }
        if let Some(trimmer) = &self.inner.trimmer {
            let (trimmer, stopping) = (Arc::clone(trimmer), stopping.clone());
            tasks.spawn(
                async move {
                    trimmer.run(stopping).await;
                    Ok(())
                }
                .in_current_span(),
            );
        }
        if !self.inner.projections.projections.is_empty() {
            let (projections, stopping) = (Arc::clone(&self.inner.projections), stopping.clone());
            tasks.spawn(
                async move {
                    projections.run(stopping).await;
                    Ok(())
                }
                .in_current_span(),
            );
        }
        self.inner.state.set(ServiceState::Running);
        let mut observing = JoinSet::new();
        {
            let (observer, stopping) = (Arc::clone(&self.inner.observer), stopping.clone());
            observing.spawn(async move { observer.run(stopping).await }.in_current_span());
        }
        info!(handlers = ?self.inner.handlers, "the service runs");
        let ended_early = tokio::select! {
            () = shutdown => None,
            Some(ended) = tasks.join_next() => Some(ended),
        };
        // In this order: who reads that it stops may rely on nothing more being begun.
        stopping.cancel();
        self.inner.state.set(ServiceState::Stopping);
        let deadline = self.inner.shutdown_deadline;
        let finished = tokio::time::timeout(deadline, async {
            let mut failure = None;
            while let Some(ended) = tasks.join_next().await {
                if let Some(error) = end_of(ended) {
                    failure = Some(error);
                }
            }
            failure
        })
        .await;
        if finished.is_err() {
            // Broken off at its next await; a handler that blocks its thread has none.
            breaking.cancel();
            let broken_off = async { while tasks.join_next().await.is_some() {} };
            if tokio::time::timeout(BREAK_OFF, broken_off).await.is_err() {
                tasks.abort_all();
            }
        }
        let result = match (ended_early, finished) {
            (Some(ended), _) => {
                Err(end_of(ended).unwrap_or(ServiceError::TaskEnded { reason: None }))
            }
            (None, Err(_)) => Err(ServiceError::ShutdownDeadline { deadline }),
            (None, Ok(Some(error))) => Err(error),
            (None, Ok(None)) => Ok(()),
        };
        self.inner.state.set(match &result {
            Ok(()) => ServiceState::Stopped,
            Err(_) => ServiceState::Failed,
        });
        if let Some(Err(error)) = observing.join_next().await {
            tracing::error!(%error, "what tells how the service is doing has ended by itself");
        }
        let error = result.as_ref().err().map(ToString::to_string);
        self.inner.observer.stopped(error).await;
        result
    }

    /// Before anything is published: realtime handlers listen, and groups that start now have their
    /// start.
    async fn begin(&self) -> Result<(), ServiceError> {
        self.inner.subscription.begin().await?;
        if let Some(realtime) = &self.inner.realtime {
            realtime.begin().await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.inner.name)
            .field("handlers", &self.inner.handlers)
            .finish_non_exhaustive()
    }
}

/// Why a part of a service has ended, where that is an error.
fn end_of(ended: Result<Result<(), Stopped>, tokio::task::JoinError>) -> Option<ServiceError> {
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(Stopped::Failed(failure))) => Some(ServiceError::Stopped(failure)),
        Ok(Err(Stopped::Trimmed(error))) => Some(ServiceError::Read(error)),
        Err(error) => Some(ServiceError::TaskEnded {
            reason: Some(error.to_string()),
        }),
    }
}

/// The outcomes that a dispatch waits for. Forgets them with the dispatch.
struct Outcomes<'a> {
    subscription: &'a Subscription,
    expected: Vec<(Uuid, Option<Expected>)>,
}

impl<'a> Outcomes<'a> {
    fn new(subscription: &'a Subscription) -> Self {
        Self {
            subscription,
            expected: Vec::new(),
        }
    }

    fn expect(&mut self, event_type: &str, event_id: Uuid) {
        let outcome = self.subscription.outcome_of(event_type, event_id);
        self.expected.push((event_id, Some(outcome)));
    }

    fn take(&mut self, event_id: Uuid) -> Option<Expected> {
        let (_, outcome) = self.expected.iter_mut().find(|(id, _)| *id == event_id)?;
        outcome.take()
    }
}

impl Drop for Outcomes<'_> {
    fn drop(&mut self) {
        for (event_id, _) in &self.expected {
            self.subscription.forget(*event_id);
        }
    }
}

/// What a dispatch has led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dispatched {
    /// What was published.
    pub published: Published,
    /// What the handlers of this service emitted for it.
    pub emitted: Vec<RecordedEvent>,
}

/// What was handled until a service was idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// How many entries of feeds and realtime events were looked at, those of other types included.
    pub entries: usize,
}

/// A service that could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// An event could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A handler failed as often as it may. What became of the event, its policy says: by default it
    /// is a dead letter now.
    #[error(transparent)]
    Handler(Arc<HandlerFailure>),
    /// The group has stopped, because a handler's policy or its error wants that. The event is still to
    /// be handled.
    #[error("the group has stopped: {0}; mend the cause and start the service again")]
    Stopped(Arc<HandlerFailure>),
    /// A feed could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A projection goes no further.
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    /// The group could not be reset.
    #[error(transparent)]
    Reset(#[from] ResetError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service runs on its own.
    #[error("the service runs already, so it is never idle; stop it first, or use `dispatch`")]
    Running,
    /// A part of the service ended by itself.
    #[error("a part of the service ended by itself ({}); start the service again, nothing is lost", reason.as_deref().unwrap_or("without a reason"))]
    TaskEnded {
        /// What it said.
        reason: Option<String>,
    },
    /// A handler did not finish in time.
    #[error(
        "a handler did not finish within {deadline:?} of the shutdown and was broken off; its event will be handled again"
    )]
    ShutdownDeadline {
        /// The time it had.
        deadline: Duration,
    },
}

impl From<FillError> for ServiceError {
    fn from(error: FillError) -> Self {
        ServiceError::Projection(error.into())
    }
}

impl From<IdleError> for ServiceError {
    fn from(error: IdleError) -> Self {
        match error {
            IdleError::Failed(failure) => ServiceError::Handler(failure),
            IdleError::Read(error) => ServiceError::Read(error),
            IdleError::Running | IdleError::Passed => ServiceError::Running,
        }
    }
}

/// Ready when the process is asked to stop: by Ctrl-C or, on Unix, by SIGTERM. Where the system does
/// not allow to listen for these, it is never ready, and says so in the log.
pub async fn shutdown_signal() {
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "Ctrl-C cannot be listened for");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::error!(%error, "SIGTERM cannot be listened for");
                std::future::pending::<()>().await;
            }
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
    }
}
