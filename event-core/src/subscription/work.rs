//! One entry of a partition, and what of it is still to do.

use std::sync::Arc;

use backon::ExponentialBackoff;
use chrono::{DateTime, Utc};
use crc::{CRC_64_XZ, Crc};
use uuid::Uuid;

use super::gate::Permit;
use super::window::Settling;
use crate::dispatcher::{HandlerFailure, Route};
use crate::recorded::{Position, RecordedEvent};
use crate::store::DeadLetterId;

/// An entry that is being handled.
pub(super) struct Work {
    pub(super) position: Position,
    /// `None` where the entry is no event, or is not fetched yet.
    pub(super) event: Option<RecordedEvent>,
    /// What it must wait behind, if anything.
    pub(super) lane: Option<u64>,
    /// The handlers that take it, by their number.
    pub(super) routes: Arc<[usize]>,
    /// Which of the routes is called next.
    pub(super) next: usize,
    /// Whether one is being called, or is about to be.
    pub(super) is_running: bool,
    pub(super) permit: Option<Permit>,
    /// Handlers that have failed: they are called again, or were, and what they emitted is not stored.
    pub(super) retrying: Vec<Retrying>,
    /// Handlers that are through.
    pub(super) done: Vec<usize>,
    /// What of it the next commits have to store.
    pub(super) uncommitted: usize,
    /// Whether a commit counts it as finished, or is about to.
    pub(super) is_counted: bool,
    /// Whether it is to be handled by whoever owns the partition next.
    pub(super) is_left_open: bool,
    /// Why a handler gave up.
    pub(super) failure: Option<Arc<HandlerFailure>>,
    /// The dead letter that it is, if it is handled again.
    pub(super) redriven: Option<Redriven>,
    names: Arc<[Arc<str>]>,
}

/// A dead letter that is handled again.
pub(super) struct Redriven {
    pub(super) id: DeadLetterId,
    /// Whether it is none any more when its handlers are through.
    pub(super) is_resolved: bool,
}

/// A handler that has failed and is called again.
pub(super) struct Retrying {
    pub(super) route: usize,
    pub(super) attempts: u32,
    /// Whether it is through, unless what it emitted is refused.
    pub(super) is_through: bool,
    pub(super) delays: ExponentialBackoff,
    pub(super) first_failed_at: DateTime<Utc>,
}

impl Work {
    pub(super) fn new(
        position: Position,
        event: Option<RecordedEvent>,
        routes: Arc<[usize]>,
        names: Arc<[Arc<str>]>,
    ) -> Self {
        let lane = event.as_ref().and_then(lane_of);
        Self {
            position,
            event,
            lane,
            routes,
            next: 0,
            is_running: false,
            permit: None,
            retrying: Vec::new(),
            done: Vec::new(),
            uncommitted: 0,
            is_counted: false,
            is_left_open: false,
            failure: None,
            redriven: None,
            names,
        }
    }

    /// The next handler to call, if there is one.
    pub(super) fn next_route(&mut self) -> Option<usize> {
        while let Some(route) = self.routes.get(self.next) {
            self.next += 1;
            if !self.done.contains(route) {
                return Some(*route);
            }
        }
        None
    }

    /// How often a handler has failed.
    pub(super) fn retrying(
        &mut self,
        route: &Route,
        number: usize,
        now: DateTime<Utc>,
    ) -> &mut Retrying {
        let index = match self.retrying.iter().position(|r| r.route == number) {
            Some(index) => index,
            None => {
                self.retrying.push(Retrying {
                    route: number,
                    attempts: 0,
                    is_through: false,
                    delays: route.policy.retry.delays(),
                    first_failed_at: now,
                });
                self.retrying.len() - 1
            }
        };
        &mut self.retrying[index]
    }

    /// Notes that a handler is through, but for what it emitted.
    pub(super) fn through(&mut self, route: usize) {
        for retrying in &mut self.retrying {
            if retrying.route == route {
                retrying.is_through = true;
            }
        }
    }
}

impl Settling for Work {
    fn position(&self) -> Position {
        self.position
    }

    fn event_id(&self) -> Option<Uuid> {
        self.event.as_ref().map(|event| event.metadata().event_id)
    }

    fn bytes(&self) -> usize {
        self.event.as_ref().map_or(0, |event| event.payload().len())
    }

    fn is_settled(&self) -> bool {
        self.next >= self.routes.len()
            && !self.is_running
            && !self.is_left_open
            && self.retrying.iter().all(|retrying| retrying.is_through)
    }

    fn done(&self) -> Vec<Arc<str>> {
        self.done
            .iter()
            .map(|route| Arc::clone(&self.names[*route]))
            .collect()
    }

    fn count(&mut self) -> bool {
        !std::mem::replace(&mut self.is_counted, true)
    }
}

/// Unlike the standard hashers, a checksum is the same for a text and for its parts one by one.
const CHECKSUM: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);

/// What keeps an event in order with others, as a number. Two keys of one number only wait for each
/// other without need.
fn lane_of(event: &RecordedEvent) -> Option<u64> {
    match (event.aggregate(), &event.metadata().key) {
        (Some(aggregate), _) => {
            let mut digest = CHECKSUM.digest();
            digest.update(aggregate.aggregate_type.as_bytes());
            digest.update(b":");
            digest.update(aggregate.id.as_bytes());
            Some(digest.finalize())
        }
        (None, Some(key)) => Some(lane_of_key(key)),
        (None, None) => None,
    }
}

/// The same for a key as dead letters have it.
pub(super) fn lane_of_key(key: &str) -> u64 {
    CHECKSUM.checksum(key.as_bytes())
}
