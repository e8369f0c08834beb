//! Calls: the handler is called for an entry, and what that comes to.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use super::{ParallelRunner, SLICE, Unit};
use crate::handler::HandlerError;
use crate::publisher::Prepared;
use crate::subscription::attempt;
use crate::subscription::gate::Permit;
use crate::subscription::parallel::work::Place;
use crate::subscription::retrying::{Retrying, Verdict};

impl ParallelRunner<'_> {
    /// Calls the handler for what is ready.
    pub(super) fn proceed(&mut self) {
        let mut slice = None;
        while !self.stopping.is_cancelled()
            && let Some(place) = self.ready.pop_front()
        {
            self.call(place);
            let begun = *slice.get_or_insert_with(Instant::now);
            if begun.elapsed() >= SLICE {
                break;
            }
        }
    }

    fn call(&mut self, place: Place) {
        let shared = &self.handler.shared;
        let Some(event) = self.works.get(&place).and_then(|work| work.event.clone()) else {
            return;
        };
        let Some(permit) = shared.gate.try_enter() else {
            self.call_later(place, 1, Duration::ZERO);
            return;
        };
        let placed = (self.partitions[place.partition].clone(), event);
        let mut attempt = attempt::attempt(&self.handler.definition.dispatcher, 0, placed, 1);
        match attempt::begin(&mut attempt) {
            Poll::Ready(result) => self.called(place, permit, result),
            Poll::Pending => {
                let opened = self.parts[place.partition].opened;
                let call = async move {
                    Unit::Called {
                        place,
                        opened,
                        permit,
                        result: attempt.await,
                    }
                };
                self.units.spawn(call.in_current_span());
            }
        }
    }

    /// Calls the handler when the time has come and there is room.
    fn call_later(&mut self, place: Place, number: u32, delay: Duration) {
        let Some(event) = self.works.get(&place).and_then(|work| work.event.clone()) else {
            return;
        };
        let placed = (self.partitions[place.partition].clone(), event);
        let call = attempt::attempt(&self.handler.definition.dispatcher, 0, placed, number);
        let shared = Arc::clone(&self.handler.shared);
        let stopping = self.stopping.clone();
        let opened = self.parts[place.partition].opened;
        let call = async move {
            match attempt::enter_later(&shared, &stopping, delay).await {
                None => Unit::Stopped,
                Some(permit) => Unit::Called {
                    place,
                    opened,
                    permit,
                    result: call.await,
                },
            }
        };
        self.units.spawn(call.in_current_span());
    }

    pub(super) fn end_units(&mut self, first: Result<Unit, tokio::task::JoinError>) {
        let mut next = Some(first);
        while let Some(unit) = next {
            match unit {
                Ok(Unit::Called {
                    place,
                    opened,
                    permit,
                    result,
                }) => {
                    if opened == self.parts[place.partition].opened {
                        self.called(place, permit, result);
                    } else {
                        // It was called for a group that is no more.
                        self.handler.shared.gate.ended(result.is_ok());
                    }
                }
                Ok(Unit::Stopped) => {}
                // Handlers' panics are caught where they are called; what is left is a task that was
                // cancelled with its runtime.
                Err(error) => {
                    tracing::error!(handler = %self.handler.consumer.group, %error, "the task of a handler has ended by itself");
                    self.stopping.cancel();
                }
            }
            next = self.units.try_join_next();
        }
    }

    /// Notes what a call of the handler has come to.
    fn called(&mut self, place: Place, permit: Permit, result: Result<Prepared, HandlerError>) {
        self.handler.shared.gate.ended(result.is_ok());
        drop(permit);
        let mut prepared = match result {
            Ok(prepared) => prepared,
            Err(error) => return self.failed(place, error),
        };
        let Some(work) = self.works.get_mut(&place) else {
            return;
        };
        let sent = std::mem::take(&mut prepared.sent);
        if !self.handler.waiting.is_empty() {
            let sent = sent.events.into_iter().map(|published| published.event);
            work.emitted.extend(sent);
        }
        let appends = prepared.into_appends();
        if appends.is_empty() {
            self.gathered(place).add_done(place.position);
        } else {
            self.gathered(place).add_emitted(place.position, appends);
        }
    }

    /// Decides what becomes of an entry whose handler has failed.
    pub(super) fn failed(&mut self, place: Place, error: HandlerError) {
        let handler = self.handler;
        let now = handler.shared.clock.now();
        let Some(work) = self.works.get_mut(&place) else {
            return;
        };
        let Some(event) = &work.event else {
            return;
        };
        let retrying = work
            .retrying
            .get_or_insert_with(|| Retrying::new(handler.route(), now));
        match retrying.fail(handler.route(), event, error, now) {
            Verdict::Again { attempt, delay } => {
                let metrics = handler.route().metrics(&handler.shared.group);
                metrics.retries.increment(1);
                self.call_later(place, attempt, delay);
            }
            Verdict::Stop(failure) => {
                tracing::error!(%failure, "the group stops");
                if let Some(reports) = &handler.shared.reports {
                    reports.group_stopped(&self.partitions[place.partition], &failure);
                }
                let outcome = Err(Arc::clone(&failure));
                handler.waiting.tell(failure.event_id, outcome);
                self.failure.get_or_insert(failure);
                self.stopping.cancel();
            }
            Verdict::GivenUp {
                failure,
                letter,
                is_left_out,
            } => {
                self.given_up.get_or_insert_with(|| Arc::clone(&failure));
                work.failure = Some(Arc::clone(&failure));
                if is_left_out {
                    tracing::error!(%failure, "the event was left out");
                    self.gathered(place).add_done(place.position);
                } else {
                    tracing::error!(%failure, reason = ?letter.reason, "the event is a dead letter now");
                    self.gathered(place).add_parked(letter);
                }
            }
        }
    }
}
