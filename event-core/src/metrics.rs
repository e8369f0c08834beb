//! Metrics: what is counted and measured, through the [`metrics`](https://docs.rs/metrics) facade.
//!
//! Every name, unit and description is here, and in `docs/reference/metrics.md`. Names and labels are
//! those of OpenTelemetry's [conventions for messaging][conventions] where these have one, and begin
//! with `event.` otherwise.
//!
//! A program that wants them installs a recorder (an exporter to Prometheus, say) **before** it
//! connects to its store and runs its service: handles are resolved once for each group, partition or
//! handler, not for each event, and one that was resolved before there was a recorder stays silent.
//! Without a recorder nothing is recorded.
//!
//! ```
//! // After the recorder is installed:
//! event_core::metrics::describe();
//! ```
//!
//! [conventions]: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

pub use ::metrics::Counter;
pub(crate) use ::metrics::Gauge;
use ::metrics::{Histogram, Label, Unit};

use crate::event::Category;
use crate::handler::HandlerError;
use crate::partition::Partition;
use crate::store::{Append, AppendError, Appended};

/// One metric: what it is called, and what it tells.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// What it counts or measures in.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub description: &'static str,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It is as it was set last.
    Gauge,
    /// It has a distribution.
    Histogram,
}

impl MetricKind {
    /// As it is called in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

const SYSTEM: &str = "messaging.system";
const OPERATION: &str = "messaging.operation.name";
const CATEGORY: &str = "messaging.destination.name";
const PARTITION: &str = "messaging.destination.partition.id";
const GROUP: &str = "messaging.consumer.group.name";
const ERROR: &str = "error.type";
const SERVER: &str = "server.address";
const HANDLER: &str = "event.handler";
const CHANGE: &str = "event.lease.change";
const TYPE: &str = "event.type";
const AGGREGATE: &str = "event.aggregate.type";
const CACHE: &str = "event.cache";

/// What stands for this framework in the label that OpenTelemetry wants for messages.
const THIS_SYSTEM: &str = "event";

/// Events that were stored or, if they are realtime events, sent; repetitions left out.
pub const SENT: Metric = Metric {
    name: "messaging.client.sent.messages",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[SYSTEM, OPERATION, CATEGORY],
    description: "Events that were stored or sent: published, emitted by handlers, or decided by aggregates",
};

/// Events that were read for a handler.
pub const CONSUMED: Metric = Metric {
    name: "messaging.client.consumed.messages",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[SYSTEM, OPERATION, CATEGORY, PARTITION, GROUP],
    description: "Events that were read and that at least one handler of the group takes; realtime events have no partition",
};

/// How long a call of a handler took.
pub const PROCESS_DURATION: Metric = Metric {
    name: "messaging.process.duration",
    kind: MetricKind::Histogram,
    unit: Unit::Seconds,
    labels: &[SYSTEM, OPERATION, GROUP, HANDLER, ERROR],
    description: "How long a call of a handler took; with an error's type where it failed",
};

/// How far a group is behind the newest event.
pub const LAG: Metric = Metric {
    name: "event.lag",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    labels: &[CATEGORY, PARTITION, GROUP],
    description: "Events of a partition that the group has yet to finish, and those that each of its handlers with parallel delivery has; told by the instance that owns the partition, every few seconds, and 0 once it owns it no more",
};

/// Calls of a handler that are repeated.
pub const RETRIES: Metric = Metric {
    name: "event.retries",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[GROUP, HANDLER],
    description: "Failed calls of a handler after which it is called again",
};

/// Dead letters that there are.
pub const DEAD_LETTERS: Metric = Metric {
    name: "event.dead_letters",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    labels: &[CATEGORY, PARTITION, GROUP],
    description: "Dead letters that a partition has now; told by the instance that owns it, and 0 once it owns it no more",
};

/// Events that became dead letters.
pub const PARKED: Metric = Metric {
    name: "event.parked",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[CATEGORY, PARTITION, GROUP],
    description: "Events that became dead letters, those that only follow another of their key included",
};

/// Appends to an aggregate that was not as expected.
pub const APPEND_CONFLICTS: Metric = Metric {
    name: "event.append.conflicts",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[CATEGORY],
    description: "Appends that were refused because another writer was faster",
};

/// Connections that had been lost and are there again.
pub const RECONNECTS: Metric = Metric {
    name: "event.reconnects",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[SERVER],
    description: "Connections to the store's server that had been lost and are there again",
};

/// Partitions that came or went.
pub const LEASE_CHANGES: Metric = Metric {
    name: "event.lease.changes",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[CATEGORY, PARTITION, GROUP, CHANGE],
    description: "Times that this instance came to own a partition (`acquired`), gave it back (`released`) or lost it (`lost`)",
};

/// Commits that were stored.
pub const COMMITS: Metric = Metric {
    name: "event.commits",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[CATEGORY, PARTITION, GROUP],
    description: "Times that the progress of a partition was stored, with what was emitted",
};

/// Stored events that are passed over, since their type is retired.
pub const RETIRED: Metric = Metric {
    name: "event.retired",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[TYPE],
    description: "Times that a stored event was passed over, since its type is retired",
};

/// Snapshots and cached states that could not be used.
pub const STATES_PASSED_OVER: Metric = Metric {
    name: "event.states.passed_over",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[AGGREGATE],
    description: "Snapshots and cached states that could not be used, so that a whole history was read",
};

/// Values that a cache had.
pub const CACHE_HITS: Metric = Metric {
    name: "event.cache.hits",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[CACHE],
    description: "Times that a shared cache was asked for a value and had it",
};

/// Values that a cache had not.
pub const CACHE_MISSES: Metric = Metric {
    name: "event.cache.misses",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[CACHE],
    description: "Times that a shared cache was asked for a value and had none",
};

/// Values that were removed from a cache.
pub const CACHE_INVALIDATED: Metric = Metric {
    name: "event.cache.invalidated",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[CACHE],
    description: "Values that were removed from a shared cache, by events or by hand",
};

/// All metrics there are.
pub const ALL: [Metric; 16] = [
    SENT,
    CONSUMED,
    PROCESS_DURATION,
    LAG,
    RETRIES,
    DEAD_LETTERS,
    PARKED,
    APPEND_CONFLICTS,
    RECONNECTS,
    LEASE_CHANGES,
    COMMITS,
    RETIRED,
    STATES_PASSED_OVER,
    CACHE_HITS,
    CACHE_MISSES,
    CACHE_INVALIDATED,
];

/// Tells the recorder of the program the units and descriptions of all metrics. To be called once,
/// after it is installed.
pub fn describe() {
    for metric in ALL {
        let Metric {
            name,
            unit,
            description,
            ..
        } = metric;
        match metric.kind {
            MetricKind::Counter => ::metrics::describe_counter!(name, unit, description),
            MetricKind::Gauge => ::metrics::describe_gauge!(name, unit, description),
            MetricKind::Histogram => ::metrics::describe_histogram!(name, unit, description),
        }
    }
}

/// Counts the [reconnects](RECONNECTS) to a server; for stores.
pub fn reconnects(server: &str) -> Counter {
    counter(&RECONNECTS, &[(SERVER, server)])
}

/// Counts what a shared cache was asked for: the [hits](CACHE_HITS) and the [misses](CACHE_MISSES); for stores.
pub fn cache_lookups(cache: &str) -> (Counter, Counter) {
    let labels = [(CACHE, cache)];
    (
        counter(&CACHE_HITS, &labels),
        counter(&CACHE_MISSES, &labels),
    )
}

/// Counts the values that are [removed](CACHE_INVALIDATED) from a shared cache; for stores.
pub fn cache_invalidated(cache: &str) -> Counter {
    counter(&CACHE_INVALIDATED, &[(CACHE, cache)])
}

/// Counts events that are passed over, since their type is [retired](RETIRED).
pub(crate) fn retired(event_type: &str) -> Counter {
    counter(&RETIRED, &[(TYPE, event_type)])
}

/// Counts the states of aggregates that are [passed over](STATES_PASSED_OVER).
pub(crate) fn states_passed_over(aggregate_type: &str) -> Counter {
    counter(&STATES_PASSED_OVER, &[(AGGREGATE, aggregate_type)])
}

fn labels(pairs: &[(&'static str, &str)]) -> Vec<Label> {
    pairs
        .iter()
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect()
}

fn counter(metric: &Metric, pairs: &[(&'static str, &str)]) -> Counter {
    ::metrics::counter!(metric.name, labels(pairs))
}

fn gauge(metric: &Metric, pairs: &[(&'static str, &str)]) -> Gauge {
    ::metrics::gauge!(metric.name, labels(pairs))
}

fn histogram(metric: &Metric, pairs: &[(&'static str, &str)]) -> Histogram {
    ::metrics::histogram!(metric.name, labels(pairs))
}

/// What is counted of the events that one program sends, by category.
#[derive(Debug, Default)]
pub(crate) struct SentMetrics {
    by_category: RwLock<HashMap<String, CategoryMetrics>>,
}

#[derive(Clone, Debug)]
struct CategoryMetrics {
    sent: Counter,
    conflicts: Counter,
}

impl SentMetrics {
    /// Counts events that were stored or sent.
    pub(crate) fn sent(&self, category: &str, count: usize) {
        self.of(category).sent.increment(count as u64);
    }

    /// Counts what has come of an append.
    pub(crate) fn appended(&self, append: &Append, appended: &Result<Appended, AppendError>) {
        let category = append.target().category().as_str();
        match appended {
            Ok(appended) => {
                let is_new = |place: &&crate::store::AppendedEvent| !place.repeated;
                self.sent(category, appended.events.iter().filter(is_new).count());
            }
            Err(AppendError::Conflict { .. }) => self.of(category).conflicts.increment(1),
            Err(_) => {}
        }
    }

    /// Counts what handlers have emitted, with one look for each run of the same category.
    pub(crate) fn emitted<'a>(&self, appends: impl Iterator<Item = &'a Append>) {
        let mut run: Option<(&Category, usize)> = None;
        for append in appends {
            let category = append.target().category();
            let count = append.events().len();
            run = match run {
                Some((same, so_far)) if same == category => Some((same, so_far + count)),
                Some((other, so_far)) => {
                    self.sent(other.as_str(), so_far);
                    Some((category, count))
                }
                None => Some((category, count)),
            };
        }
        if let Some((category, count)) = run {
            self.sent(category.as_str(), count);
        }
    }

    fn of(&self, category: &str) -> CategoryMetrics {
        let known = self
            .by_category
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = known.get(category) {
            return metrics.clone();
        }
        drop(known);
        let mut known = self
            .by_category
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        known
            .entry(category.to_owned())
            .or_insert_with(|| CategoryMetrics {
                sent: counter(
                    &SENT,
                    &[
                        (SYSTEM, THIS_SYSTEM),
                        (OPERATION, "publish"),
                        (CATEGORY, category),
                    ],
                ),
                conflicts: counter(&APPEND_CONFLICTS, &[(CATEGORY, category)]),
            })
            .clone()
    }
}

/// What is counted and measured of a partition that is owned.
#[derive(Debug)]
pub(crate) struct PartitionMetrics {
    pub(crate) consumed: Counter,
    pub(crate) commits: Counter,
    pub(crate) parked: Counter,
    pub(crate) lag: Gauge,
    pub(crate) dead_letters: Gauge,
    pub(crate) acquired: Counter,
    pub(crate) released: Counter,
    pub(crate) lost: Counter,
}

impl PartitionMetrics {
    pub(crate) fn new(group: &str, partition: &Partition) -> Self {
        let number = partition.number().to_string();
        let place = [
            (CATEGORY, partition.category().as_str()),
            (PARTITION, &number),
            (GROUP, group),
        ];
        let change = |change| {
            let [category, number, group] = place;
            counter(&LEASE_CHANGES, &[category, number, group, (CHANGE, change)])
        };
        let [category, number, of_group] = place;
        Self {
            consumed: counter(
                &CONSUMED,
                &[
                    (SYSTEM, THIS_SYSTEM),
                    (OPERATION, "receive"),
                    category,
                    number,
                    of_group,
                ],
            ),
            commits: counter(&COMMITS, &place),
            parked: counter(&PARKED, &place),
            lag: lag(group, partition),
            dead_letters: gauge(&DEAD_LETTERS, &place),
            acquired: change("acquired"),
            released: change("released"),
            lost: change("lost"),
        }
    }
}

/// How far a group is behind in a partition.
pub(crate) fn lag(group: &str, partition: &Partition) -> Gauge {
    let number = partition.number().to_string();
    gauge(
        &LAG,
        &[
            (CATEGORY, partition.category().as_str()),
            (PARTITION, &number),
            (GROUP, group),
        ],
    )
}

/// Counts a realtime event that a group has received. Not as cheap as the others: it looks the counter
/// up each time.
pub(crate) fn received_realtime(group: &str, event_type: &str) {
    let category = event_type.split('.').next().unwrap_or_default();
    counter(
        &CONSUMED,
        &[
            (SYSTEM, THIS_SYSTEM),
            (OPERATION, "receive"),
            (CATEGORY, category),
            (GROUP, group),
        ],
    )
    .increment(1);
}

/// What is counted and measured of a handler.
#[derive(Clone, Debug)]
pub(crate) struct HandlerMetrics {
    process: Histogram,
    pub(crate) retries: Counter,
}

impl HandlerMetrics {
    pub(crate) fn new(group: &str, handler: &str) -> Self {
        Self {
            process: process(group, handler, None),
            retries: counter(&RETRIES, &[(GROUP, group), (HANDLER, handler)]),
        }
    }

    pub(crate) fn succeeded(&self, took: Duration) {
        self.process.record(took);
    }
}

/// Measures a call that has failed. It looks the histogram up each time: failures are rare, and cost
/// more than that.
pub(crate) fn failed(group: &str, handler: &str, error: &HandlerError, took: Duration) {
    let error = match error {
        HandlerError::Failed(_) => "failed",
        HandlerError::Panicked(_) => "panicked",
        HandlerError::TimedOut(_) => "timed_out",
        HandlerError::Unreadable(_) => "unreadable",
        HandlerError::Emit(_) => "emit",
        HandlerError::Undeclared { .. } => "undeclared",
        HandlerError::Publish(_) => "publish",
    };
    process(group, handler, Some(error)).record(took);
}

fn process(group: &str, handler: &str, error: Option<&str>) -> Histogram {
    let mut pairs = vec![
        (SYSTEM, THIS_SYSTEM),
        (OPERATION, "process"),
        (GROUP, group),
        (HANDLER, handler),
    ];
    pairs.extend(error.map(|error| (ERROR, error)));
    histogram(&PROCESS_DURATION, &pairs)
}
