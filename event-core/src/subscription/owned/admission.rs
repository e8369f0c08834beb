//! Admission: entries that were read enter the window, and the lane of their key.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{KNOWN_TYPES, Owned};
use crate::dispatcher::chain_of;
use crate::store::{DeadLetter, DeadLetterReason, FeedEntry};
use crate::subscription::window::Number;
use crate::subscription::work::Work;

impl Owned {
    /// Takes entries that were read.
    pub(super) fn take(&mut self, batch: Vec<FeedEntry>) {
        for entry in batch {
            self.admit(entry, Vec::new());
            self.proceed();
        }
        let taken = std::mem::take(&mut self.taken);
        self.load.metrics.consumed.increment(taken);
    }

    /// Lets an entry into the window, and its lane.
    pub(super) fn admit(&mut self, entry: FeedEntry, done: Vec<usize>) {
        let position = entry.position();
        match entry {
            FeedEntry::Event(event) => {
                let routes = self.routes_of(event.event_type());
                if routes.is_empty() {
                    self.window.pass(position, Some(event.metadata().event_id));
                    self.gathered.finished += 1;
                    self.leave_behind(event.payload().len());
                    return;
                }
                let mut work = Work::new(position, Some(event), routes, Arc::clone(&self.names));
                work.done = done;
                let lane = work.lane;
                work.is_running = true;
                let number = self.window.push(work);
                self.taken += 1;
                self.enter_lane(lane, number);
            }
            FeedEntry::Undecodable { error, .. } => {
                tracing::error!(
                    partition = %self.lease.partition,
                    %position,
                    %error,
                    "an entry that is no event is a dead letter now"
                );
                let now = self.shared.clock.now();
                let letter = DeadLetter {
                    position,
                    handler: String::new(),
                    key: None,
                    event_type: None,
                    event_id: None,
                    reason: DeadLetterReason::Undecodable,
                    errors: chain_of(&error),
                    attempts: 0,
                    first_failed_at: now,
                    last_failed_at: now,
                    redrive: false,
                };
                let work = Work::new(position, None, Arc::new([]), Arc::clone(&self.names));
                let number = self.window.push(work);
                self.park(number, letter);
            }
        }
    }

    fn routes_of(&mut self, event_type: &str) -> Arc<[usize]> {
        if let Some(routes) = self.routes.get(event_type) {
            return Arc::clone(routes);
        }
        let routes: Arc<[usize]> = self.dispatcher.routes_of(event_type).into();
        if self.routes.len() == KNOWN_TYPES {
            self.routes.clear();
        }
        self.routes.insert(event_type.into(), Arc::clone(&routes));
        routes
    }

    pub(super) fn enter_lane(&mut self, lane: Option<u64>, number: Number) {
        match lane {
            None => self.ready.push_back(number),
            Some(lane) => match self.lanes.get_mut(&lane) {
                Some(waiting) => waiting.push_back(number),
                None => {
                    self.lanes.insert(lane, VecDeque::new());
                    self.ready.push_back(number);
                }
            },
        }
    }

    pub(super) fn leave_lane(&mut self, lane: Option<u64>) {
        if let Some(lane) = lane
            && let Some(waiting) = self.lanes.get_mut(&lane)
        {
            match waiting.pop_front() {
                Some(next) => self.ready.push_back(next),
                None => {
                    self.lanes.remove(&lane);
                }
            }
        }
    }
}
