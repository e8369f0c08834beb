//! Replay: events of the past are given to chosen handlers once more.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::dispatcher::HandlerFailure;
use crate::partition::Partition;
use crate::pattern::Pattern;
use crate::positions::Positions;
use crate::recorded::{Position, RecordedEvent};
use crate::store::ReadError;
use crate::subscription::RateLimit;

/// How many failures a report tells of one by one.
const TOLD_FAILURES: usize = 1_000;

/// What is given to handlers once more, and to which: see [`Service::replay`](crate::Service::replay).
///
/// ```
/// use event_core::{Positions, Replay};
///
/// let yesterday = Positions::since("2025-11-22T00:00:00Z".parse()?).until("2025-11-23T00:00:00Z".parse()?);
/// let replay = Replay::of(["RepositoryEventHandler::handle_push"])
///     .positions(yesterday)
///     .matching("github.push".parse()?);
/// # Ok::<(), event_core::BoxError>(())
/// ```
#[derive(Clone)]
#[must_use = "it does nothing before `Service::replay`"]
pub struct Replay {
    /// `None` for all that allow it.
    pub(crate) handlers: Option<Vec<String>>,
    pub(crate) positions: Positions,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) concurrency: Option<usize>,
    /// Where partitions begin that were read before.
    pub(crate) reached: BTreeMap<Partition, Position>,
}

type Filter = Arc<dyn Fn(&RecordedEvent) -> bool + Send + Sync>;

impl Replay {
    /// Into these handlers, each of which must allow it.
    pub fn of<N: Into<String>>(handlers: impl IntoIterator<Item = N>) -> Self {
        Self {
            handlers: Some(handlers.into_iter().map(Into::into).collect()),
            ..Self::all()
        }
    }

    /// Into all handlers of the group that allow it. The others are left out, and named in the report.
    pub fn all() -> Self {
        Self {
            handlers: None,
            positions: Positions::all(),
            patterns: Vec::new(),
            filters: Vec::new(),
            rate_limit: None,
            concurrency: None,
            reached: BTreeMap::new(),
        }
    }

    /// Only what lies there. What is appended once it has begun is not among it in any case.
    pub fn positions(mut self, positions: Positions) -> Self {
        self.positions = positions;
        self
    }

    /// Only events whose types match this pattern, or another that is given so.
    pub fn matching(mut self, pattern: Pattern) -> Self {
        self.patterns.push(pattern);
        self
    }

    /// Only events for which `is_wanted` returns true.
    pub fn filter(
        mut self,
        is_wanted: impl Fn(&RecordedEvent) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.filters.push(Arc::new(is_wanted));
        self
    }

    /// Begins no more than so many events in a second.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
        self
    }

    /// How many handlers may run at once; as many as of the service by default.
    pub fn concurrency(mut self, count: usize) -> Self {
        self.concurrency = Some(count);
        self
    }

    /// Goes on from where an earlier replay has come to.
    pub fn going_on(mut self, from: &ReplayReport) -> Self {
        self.reached.clone_from(&from.reached);
        self
    }

    pub(crate) fn is_wanted(&self, event: &RecordedEvent) -> bool {
        let mut patterns = self.patterns.iter();
        (self.patterns.is_empty() || patterns.any(|pattern| pattern.matches(event.event_type())))
            && self.filters.iter().all(|is_wanted| is_wanted(event))
    }

    /// Where a partition begins.
    pub(crate) fn begin(&self, partition: &Partition) -> Position {
        let reached = self.reached.get(partition).copied();
        reached.unwrap_or_default().max(self.positions.begin())
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("handlers", &self.handlers)
            .field("positions", &self.positions)
            .field("patterns", &self.patterns)
            .finish_non_exhaustive()
    }
}

/// What a replay has done.
#[derive(Debug, Default)]
pub struct ReplayReport {
    /// How many entries of feeds were read, those that no chosen handler takes included.
    pub read: u64,
    /// How many events each of the chosen handlers has got through.
    pub handled: BTreeMap<String, u64>,
    /// The handlers of the group that were left out, since they do not allow it; sorted.
    pub left_out: Vec<String>,
    /// How many events the handlers have returned, which were not published.
    pub dropped: u64,
    /// How many entries were passed over, since they are no events.
    pub undecodable: u64,
    /// How often a handler has failed on an event for good.
    pub failed: u64,
    /// The first 1,000 of these failures in each partition.
    pub failures: Vec<ReplayFailure>,
    /// How often a handler was not given an event, since it had failed on an earlier one of its key.
    pub held_back: u64,
    /// Up to where each partition is through.
    pub reached: BTreeMap<Partition, Position>,
    /// Whether it was stopped before it was through.
    pub is_stopped: bool,
}

/// An event that a handler has failed on.
#[derive(Clone, Debug)]
pub struct ReplayFailure {
    /// The partition that the event lies in.
    pub partition: Partition,
    /// Where it lies there.
    pub position: Position,
    /// Which handler it was, and why.
    pub failure: Arc<HandlerFailure>,
}

impl fmt::Display for ReplayFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            position,
            failure,
        } = self;
        write!(f, "{failure}, at {position} of `{partition}`")
    }
}

impl ReplayReport {
    pub(crate) fn note_failure(&mut self, failure: ReplayFailure) {
        self.failed += 1;
        if self.failures.len() < TOLD_FAILURES {
            self.failures.push(failure);
        }
    }

    /// Adds what was done in another partition.
    pub(crate) fn add(&mut self, other: Self) {
        self.read += other.read;
        for (handler, count) in other.handled {
            *self.handled.entry(handler).or_default() += count;
        }
        self.dropped += other.dropped;
        self.undecodable += other.undecodable;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.held_back += other.held_back;
        self.reached.extend(other.reached);
        self.is_stopped |= other.is_stopped;
    }
}

/// A replay that was refused, or that could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The group has no such handler of stored events.
    #[error(
        "`{handler}` is no handler of the group `{group}`; there are {}",
        listed(there_are)
    )]
    UnknownHandler {
        /// What was asked for.
        handler: String,
        /// The group.
        group: String,
        /// Its handlers of stored events.
        there_are: Vec<String>,
    },
    /// A handler that was asked for does not allow it.
    #[error(
        "handler `{handler}` does not allow to be given events again; see that nothing it does is wrong the second time, and write `replay = allow` in its `#[on]`"
    )]
    NotAllowed {
        /// The handler.
        handler: String,
    },
    /// No handler of the group allows it.
    #[error(
        "no handler of the group `{group}` allows to be given events again; write `replay = allow` in the `#[on]` of those that may"
    )]
    NoneAllows {
        /// The group.
        group: String,
    },
    /// A handler's policy or its error wants that nothing goes on.
    #[error("the replay has stopped: {failure}; mend the cause, and go on from the report")]
    Stopped {
        /// The failure.
        failure: ReplayFailure,
        /// What was done before.
        report: Box<ReplayReport>,
    },
    /// Handlers have failed on so many keys of a partition as it may have dead letters.
    #[error(
        "the replay has stopped: handlers have failed on events of {limit} keys in `{partition}`; see the failures in the report"
    )]
    TooManyFailures {
        /// The partition.
        partition: Partition,
        /// How many there may be.
        limit: usize,
        /// What was done before.
        report: Box<ReplayReport>,
    },
    /// A feed could not be read.
    #[error("the replay has stopped: {source}; mend the cause, and go on from the report")]
    Read {
        /// Why not.
        source: ReadError,
        /// What was done before.
        report: Box<ReplayReport>,
    },
    /// A part of it ended by itself.
    #[error("a part of the replay ended by itself ({reason}); replay again, nothing is lost")]
    TaskEnded {
        /// What it said.
        reason: String,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
