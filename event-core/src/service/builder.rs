use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use uuid::Uuid;

use super::graph::{BuildError, Graph, Mistake, Warning};
use super::health::StateCell;
use super::observer::Observer;
use super::projections::{self, INLINE_TIMEOUT, Registration};
use super::realtime_runner::RealtimeRunner;
use super::trimmer::Trimmer;
use super::{Inner, Service};
use crate::aggregate::Aggregate;
use crate::clock::{Clock, Ids};
use crate::codec::Codec;
use crate::dependencies::Dependencies;
use crate::dispatcher::{Dispatcher, Route};
use crate::event::{Category, Event};
use crate::failure::{Policy, Retry};
use crate::handler::{Delivery, HandlerDefinition, HandlerRegistration, Start};
use crate::pattern::Pattern;
use crate::publisher::{AggregateEvents, Publisher};
use crate::store::{Backend, MemoryStore, TrimPolicy};
use crate::subscription::{
    CategoryHandlers, CircuitBreaker, ParallelDefinition, RateLimit, Settings, Subscription,
};
use crate::system::{self, Origin, Reports};

/// Puts a [`Service`] together. [`build`](ServiceBuilder::build) reports everything that is wrong at
/// once.
pub struct ServiceBuilder {
    name: String,
    group: Option<String>,
    backend: Option<Arc<dyn Backend>>,
    dependencies: Dependencies,
    handlers: Vec<HandlerDefinition>,
    discovery: Discovery,
    expected_handlers: Option<Vec<String>>,
    published_elsewhere: Option<Vec<String>>,
    aggregates: AggregateEvents,
    clock: Clock,
    ids: Ids,
    policy: Policy,
    policies: BTreeMap<String, Policy>,
    instance: Option<String>,
    lease: Duration,
    concurrency: usize,
    dead_letter_limit: usize,
    rate_limit: Option<RateLimit>,
    circuit_breaker: Option<CircuitBreaker>,
    start: Option<Start>,
    shutdown_deadline: Duration,
    system_events: bool,
    trimmed: BTreeMap<Category, TrimPolicy>,
    trim_every: Duration,
    pub(super) projections: Vec<Registration>,
    pub(super) inline_timeout: Duration,
    mistakes: Vec<Mistake>,
}

/// How long a lease lasts.
const LEASE: Duration = Duration::from_secs(10);

/// How often feeds are trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// How many handlers may run at once.
const CONCURRENCY: usize = 64;

/// How many dead letters a partition may have.
const DEAD_LETTER_LIMIT: usize = 10_000;

/// Whether the handlers that are linked into the program are taken.
#[derive(PartialEq)]
enum Discovery {
    On,
    Off,
}

impl ServiceBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            group: None,
            backend: None,
            dependencies: Dependencies::default(),
            handlers: Vec::new(),
            discovery: Discovery::On,
            expected_handlers: None,
            published_elsewhere: None,
            aggregates: AggregateEvents::default(),
            clock: Clock::system(),
            ids: Ids::random(),
            policy: Policy::default(),
            policies: BTreeMap::new(),
            instance: None,
            lease: LEASE,
            concurrency: CONCURRENCY,
            dead_letter_limit: DEAD_LETTER_LIMIT,
            rate_limit: None,
            circuit_breaker: None,
            start: None,
            shutdown_deadline: Duration::from_secs(30),
            system_events: false,
            trimmed: BTreeMap::new(),
            trim_every: TRIM_EVERY,
            projections: Vec::new(),
            inline_timeout: INLINE_TIMEOUT,
            mistakes: Vec::new(),
        }
    }

    /// The store: [`MemoryStore`](crate::MemoryStore), or another. Needed.
    pub fn store(self, store: impl Backend) -> Self {
        self.shared_store(Arc::new(store))
    }

    pub(crate) fn shared_store(mut self, store: Arc<dyn Backend>) -> Self {
        self.backend = Some(store);
        self
    }

    /// Runs the handlers of this group instead of the one named as the service. Instances of a
    /// group share its checkpoints.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Provides a dependency, which handlers find by its type. The store (`Arc<dyn EventStore>`),
    /// the [`Publisher`], [`Repository`](crate::Repository) of any aggregate and the [`Clock`] are
    /// there already.
    pub fn provide<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        if !self.dependencies.insert(value) {
            self.mistakes.push(Mistake::ProvidedTwice {
                dependency: std::any::type_name::<T>(),
            });
        }
        self
    }

    /// Adds a handler by hand.
    pub fn handler(mut self, handler: HandlerDefinition) -> Self {
        self.handlers.push(handler);
        self
    }

    /// Leaves out the handlers that `#[event_handler]` reported: only those added by hand run.
    pub fn without_discovered_handlers(mut self) -> Self {
        self.discovery = Discovery::Off;
        self
    }

    /// Makes it a mistake when the service has other handlers than these. A crate that nobody names
    /// in code is not linked, and its handlers are not found: `use my_handlers as _;` links it.
    pub fn expect_handlers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.expected_handlers = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Makes it a mistake when a handler reacts to a type that no handler of this service emits and
    /// that is not listed here, as published by others (or by the service's own code).
    pub fn expect_publishers<N: Into<String>>(
        mut self,
        published_elsewhere: impl IntoIterator<Item = N>,
    ) -> Self {
        self.published_elsewhere = Some(published_elsewhere.into_iter().map(Into::into).collect());
        self
    }

    /// Makes known that the events of `A` belong to an aggregate. Not needed where a handler has a
    /// [`Repository`](crate::Repository) of it or emits [`To`](crate::To) it.
    pub fn aggregate<A: Aggregate>(self) -> Self {
        self.aggregates.add(A::TYPE, A::Event::DEFINITIONS);
        self
    }

    /// Uses another clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Uses other ids for events.
    pub fn ids(mut self, ids: Ids) -> Self {
        self.ids = ids;
        self
    }

    /// How handlers that failed are called again, where they do not say so themselves.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.policy.retry = retry;
        self
    }

    /// What failures lead to, where handlers do not say so themselves.
    pub fn default_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// What the failures of one handler lead to, whatever it says itself.
    pub fn policy(mut self, handler: impl Into<String>, policy: Policy) -> Self {
        self.policies.insert(handler.into(), policy);
        self
    }

    /// Names this instance of the service; a random name by default. Each instance of a group that
    /// runs at the same time needs a name of its own.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// For how long a partition is this instance's own without news from it; 10 s by default. If the
    /// process is killed, others take over after this time.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How many handlers may run at once; 64 by default. Events of one key still run one after the
    /// other.
    pub fn concurrency(mut self, count: usize) -> Self {
        self.concurrency = count.max(1);
        self
    }

    /// How many dead letters a partition may have before nothing more is read of it; 10,000 by default.
    pub fn dead_letter_limit(mut self, count: usize) -> Self {
        self.dead_letter_limit = count.max(1);
        self
    }

    /// Begins no more than so many events in a second.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
        self
    }

    /// Stops trying for a while when too much fails. Nothing is read meanwhile, and nothing is lost.
    pub fn circuit_breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.circuit_breaker = Some(breaker);
        self
    }

    /// Where the group begins to read where it is new, whatever its handlers say. Without this each
    /// handler says so itself, and begins at the beginning where it does not.
    ///
    /// ```
    /// use event_core::prelude::*;
    /// use event_core::Start;
    ///
    /// let yesterday = "2025-11-22T00:00:00Z".parse()?;
    /// let service = Service::builder("report")
    ///     .store(MemoryStore::new())
    ///     .start(Start::since(yesterday))
    ///     .build()?;
    /// # Ok::<(), BoxError>(())
    /// ```
    pub fn start(mut self, start: Start) -> Self {
        self.start = Some(start);
        self
    }

    /// How long handlers may take to finish when the service is stopped; 30 s by default.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.shutdown_deadline = deadline;
        self
    }

    /// Trims the feed of a category while the service [runs](Service::run_until): what the policy allows and
    /// nobody needs goes. It may be any category; several services may trim the same. See
    /// [`Maintenance`](crate::Maintenance::trim_partition).
    ///
    /// ```
    /// use std::time::Duration;
    /// use event_core::prelude::*;
    /// use event_core::{Category, TrimPolicy};
    ///
    /// let month = Duration::from_secs(30 * 24 * 60 * 60);
    /// let service = Service::builder("report")
    ///     .store(MemoryStore::new())
    ///     .trim(Category::new("github")?, TrimPolicy::new().max_age(month))
    ///     .build()?;
    /// # Ok::<(), BoxError>(())
    /// ```
    pub fn trim(mut self, category: Category, policy: TrimPolicy) -> Self {
        self.trimmed.insert(category, policy);
        self
    }

    /// How often feeds are [trimmed](Self::trim); once a minute by default.
    pub fn trim_every(mut self, pause: Duration) -> Self {
        self.trim_every = pause;
        self
    }

    /// Publishes [events of the service itself](crate::system): that it has started or stopped, that
    /// it reads less than it should, that an event is a dead letter now. Off by default.
    pub fn system_events(mut self) -> Self {
        self.system_events = true;
        self
    }

    /// Checks everything and makes the service. Connects to nothing yet. What may be meant, but looks
    /// as if it were not, is logged, and is among the [warnings](Service::warnings).
    ///
    /// # Errors
    /// [`BuildError`] with all mistakes there are.
    pub fn build(mut self) -> Result<Service, BuildError> {
        let group = self.group.take().unwrap_or_else(|| self.name.clone());
        let mut definitions = std::mem::take(&mut self.handlers);
        if self.discovery == Discovery::On {
            definitions.extend(HandlerRegistration::all());
        }
        let mut other_groups = BTreeSet::new();
        definitions.retain(|handler| match &handler.group {
            Some(other) if *other != group => {
                other_groups.insert(other.clone());
                false
            }
            _ => true,
        });
        if let Some(start) = self.start {
            for definition in &mut definitions {
                definition.start = start;
            }
        }
        // Equal names stay in the order of their files, so that reports are the same every time.
        definitions.sort_by(|a, b| (&a.name, a.location).cmp(&(&b.name, b.location)));

        let codec = Codec::new(self.clock.clone(), self.ids.clone()).with_source(&self.name);
        let mut mistakes = std::mem::take(&mut self.mistakes);
        let backend = self.backend.take().unwrap_or_else(|| {
            mistakes.insert(0, Mistake::NoStore);
            // So that everything else is checked as well.
            Arc::new(MemoryStore::new())
        });
        let instance = self
            .instance
            .take()
            .unwrap_or_else(|| format!("{}-{}", self.name, Uuid::now_v7().simple()));
        let projections = projections::build(
            std::mem::take(&mut self.projections),
            &backend,
            &instance,
            self.lease,
            &mut mistakes,
        );
        let store = projections::appending(&projections, &backend, self.inline_timeout);
        let publisher = Publisher::new(
            backend.clone(),
            Arc::clone(&store),
            codec.clone(),
            self.aggregates.clone(),
        );
        self.dependencies.insert(Arc::clone(&store));
        self.dependencies.insert(codec.clone());
        self.dependencies.insert(self.clock.clone());
        self.dependencies.insert(publisher.clone());

        if self.system_events
            && let Some(elsewhere) = &mut self.published_elsewhere
        {
            elsewhere.extend(system::types());
        }
        let graph = Graph {
            definitions: &definitions,
            dependencies: &self.dependencies,
            aggregates: &self.aggregates,
            expected_handlers: self.expected_handlers.as_deref(),
            published_elsewhere: self.published_elsewhere.as_deref(),
        };
        let checked = graph.check();
        mistakes.extend(checked.mistakes);
        let mut routes = Vec::new();
        for definition in &definitions {
            // What is missing is among the mistakes already, with the handler's name.
            if let Ok(handler) = definition.make(&self.dependencies) {
                routes.push((
                    definition,
                    Route {
                        name: definition.name.as_str().into(),
                        patterns: patterns(definition),
                        covers: definition.covers,
                        past: definition.past,
                        emits: definition.emits.clone(),
                        handler,
                        delivery: definition.delivery,
                        allows_replay: definition.allows_replay,
                        policy: self
                            .policies
                            .get(&definition.name)
                            .copied()
                            .unwrap_or_else(|| definition.policy.or(self.policy)),
                        classifier: definition.classifier,
                        metrics: OnceLock::new(),
                    },
                ));
            }
        }
        if !mistakes.is_empty() {
            return Err(BuildError::new(self.name, mistakes));
        }
        let mut warnings = checked.warnings;
        if definitions.is_empty() && !other_groups.is_empty() {
            warnings.push(Warning::NoHandlers {
                group: group.clone(),
                other_groups: other_groups.into_iter().collect(),
            });
        }
        for warning in &warnings {
            tracing::warn!(service = self.name, %warning);
        }

        let group: Arc<str> = group.into();
        let dispatcher = |routes: Vec<Route>| Dispatcher {
            group: Arc::clone(&group),
            routes,
            codec: codec.clone(),
            publisher: publisher.clone(),
        };
        let mut realtime = Vec::new();
        let mut feeds: BTreeMap<Category, (Option<Start>, Vec<Route>)> = BTreeMap::new();
        let mut parallel = Vec::new();
        for (definition, route) in routes {
            if definition.realtime {
                realtime.push(route);
                continue;
            }
            let mut by_category: BTreeMap<Category, Vec<Pattern>> = BTreeMap::new();
            for pattern in &route.patterns {
                if let Some(category) = pattern.category() {
                    by_category
                        .entry(category)
                        .or_default()
                        .push(pattern.clone());
                }
            }
            let categories = by_category.keys().cloned().collect();
            for (category, patterns) in by_category {
                let (start, routes) = feeds.entry(category).or_default();
                if route.delivery == Delivery::Ordered {
                    start.get_or_insert(definition.start);
                }
                routes.push(Route {
                    patterns,
                    ..route.clone()
                });
            }
            if route.delivery == Delivery::Parallel {
                parallel.push(ParallelDefinition {
                    start: definition.start,
                    categories,
                    parks_undecodable: BTreeSet::new(),
                    dispatcher: Arc::new(dispatcher(vec![route])),
                });
            }
        }
        // What is no event is a dead letter once for the group: of those who read it in order, if there
        // are some, else of the first of the others.
        for (category, (start, _)) in &feeds {
            let mut readers = parallel.iter_mut();
            if start.is_none()
                && let Some(first) = readers.find(|reader| reader.categories.contains(category))
            {
                first.parks_undecodable.insert(category.clone());
            }
        }
        let categories = feeds
            .into_iter()
            .map(|(category, (start, routes))| {
                let dispatcher = Arc::new(dispatcher(routes));
                (category, CategoryHandlers { start, dispatcher })
            })
            .collect();
        let origin = Origin {
            service: self.name.clone(),
            group: group.to_string(),
            instance: instance.clone(),
        };
        let reports = self
            .system_events
            .then(|| Arc::new(Reports::new(origin.clone())));
        let subscription = Arc::new(Subscription::new(
            Arc::clone(&backend),
            Arc::clone(&group),
            self.clock.clone(),
            Settings {
                instance: instance.into(),
                lease: self.lease,
                concurrency: self.concurrency,
                dead_letter_limit: self.dead_letter_limit,
                rate_limit: self.rate_limit,
                circuit_breaker: self.circuit_breaker,
                reports: reports.clone(),
            },
            categories,
            parallel,
        ));
        let realtime = (!realtime.is_empty()).then(|| {
            Arc::new(RealtimeRunner::new(
                Arc::clone(&backend),
                dispatcher(realtime),
            ))
        });
        let trimmer = (!self.trimmed.is_empty()).then(|| {
            Arc::new(Trimmer::new(
                Arc::clone(&backend),
                self.trimmed,
                self.trim_every,
            ))
        });
        let emits = definitions.iter().flat_map(|handler| &handler.emits);
        let emits = emits.cloned().collect();
        let handlers: Vec<String> = definitions
            .into_iter()
            .map(|handler| handler.name)
            .collect();
        let observer = Observer::new(
            Arc::clone(&subscription),
            publisher.clone(),
            origin,
            handlers.clone(),
            reports,
        );
        Ok(Service {
            inner: Arc::new(Inner {
                name: self.name,
                handlers,
                emits,
                warnings,
                backend,
                store,
                projections: Arc::new(projections),
                codec: codec.clone(),
                publisher: publisher.clone(),
                aggregates: self.aggregates,
                subscription,
                realtime,
                trimmer,
                shutdown_deadline: self.shutdown_deadline,
                state: StateCell::default(),
                observer: Arc::new(observer),
            }),
        })
    }
}

/// The patterns of a handler that are patterns: the others are among the mistakes.
fn patterns(definition: &HandlerDefinition) -> Vec<Pattern> {
    definition
        .on
        .iter()
        .filter_map(|pattern| pattern.parse().ok())
        .collect()
}

impl fmt::Debug for ServiceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceBuilder")
            .field("name", &self.name)
            .field("handlers", &self.handlers)
            .finish_non_exhaustive()
    }
}
