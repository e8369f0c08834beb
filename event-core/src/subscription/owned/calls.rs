//! Calls: the handlers of an entry are called, and what that comes to.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::{Owned, Round, Unit};
use crate::dispatcher::HandlerFailure;
use crate::handler::HandlerError;
use crate::publisher::Prepared;
use crate::recorded::RecordedEvent;
use crate::store::DeadLetter;
use crate::subscription::attempt;
use crate::subscription::gate::Permit;
use crate::subscription::retrying::Verdict;
use crate::subscription::window::{Number, Settling};

impl Owned {
    /// Goes on with whatever may.
    pub(super) fn proceed(&mut self) {
        if self.stopping.is_cancelled() {
            return;
        }
        while let Some(number) = self.ready.pop_front() {
            self.go_on(number);
        }
    }

    /// Calls the handlers of a work, one after the other, until one has to wait.
    fn go_on(&mut self, number: Number) {
        loop {
            let is_stopping = self.stopping.is_cancelled();
            let Some(work) = self.work(number) else {
                return;
            };
            let Some(event) = work.event.clone() else {
                self.fetch(number);
                return;
            };
            let Some(route) = work.next_route() else {
                work.is_running = false;
                work.permit = None;
                self.settle(number);
                return;
            };
            if is_stopping {
                // What has not begun is left to the next owner.
                work.next -= 1;
                return;
            }
            if self.must_follow(number, route, &event) {
                continue;
            }
            let Some(work) = self.work(number) else {
                return;
            };
            let permit = match work.permit.take() {
                Some(permit) => permit,
                None => match self.shared.gate.try_enter() {
                    Some(permit) => permit,
                    None => {
                        self.call_later(number, route, event, Round::First, Duration::ZERO);
                        return;
                    }
                },
            };
            let placed = (self.lease.partition.clone(), event);
            let mut attempt = attempt::attempt(&self.dispatcher, route, placed, 1);
            match attempt::begin(&mut attempt) {
                Poll::Ready(result) => self.called(number, route, Round::First, permit, result),
                Poll::Pending => {
                    self.units.spawn(async move {
                        Unit::Called {
                            number,
                            route,
                            round: Round::First,
                            permit,
                            result: attempt.await,
                        }
                    });
                    return;
                }
            }
        }
    }

    /// Calls a handler when the time has come and there is room.
    fn call_later(
        &mut self,
        number: Number,
        route: usize,
        event: RecordedEvent,
        round: Round,
        delay: Duration,
    ) {
        let attempt = match round {
            Round::First => 1,
            Round::Again(attempt) => attempt,
        };
        let placed = (self.lease.partition.clone(), event);
        let call = attempt::attempt(&self.dispatcher, route, placed, attempt);
        let shared = Arc::clone(&self.shared);
        let stopping = self.stopping.clone();
        self.units.spawn(async move {
            let Some(permit) = attempt::enter_later(&shared, &stopping, delay).await else {
                return Unit::Stopped;
            };
            Unit::Called {
                number,
                route,
                round,
                permit,
                result: call.await,
            }
        });
    }

    pub(super) fn end(&mut self, unit: Result<Unit, tokio::task::JoinError>) {
        match unit {
            Ok(Unit::Called {
                number,
                route,
                round,
                permit,
                result,
            }) => {
                self.called(number, route, round, permit, result);
                if round == Round::First {
                    self.go_on(number);
                }
            }
            Ok(Unit::Stopped) => {}
            Ok(Unit::Fetched { number, event }) => self.fetched(number, event),
            // Handlers' panics are caught where they are called; what is left is a task that was
            // cancelled with its runtime.
            Err(error) => {
                tracing::error!(partition = %self.lease.partition, %error, "the task of a handler has ended by itself");
                self.stopping.cancel();
            }
        }
    }

    /// Notes what a call of a handler has come to.
    fn called(
        &mut self,
        number: Number,
        route: usize,
        round: Round,
        permit: Permit,
        result: Result<Prepared, HandlerError>,
    ) {
        self.shared.gate.ended(result.is_ok());
        let waiting = !self.shared.waiting.is_empty();
        match result {
            Ok(mut prepared) => {
                let sent = std::mem::take(&mut prepared.sent);
                let appends = prepared.into_appends();
                let Some(work) = self.work(number) else {
                    return;
                };
                if appends.is_empty() {
                    work.retrying.retain(|(other, _)| *other != route);
                } else {
                    // Its attempts count on if what it emitted is refused.
                    work.through(route);
                }
                work.done.push(route);
                let event_id = work.event_id();
                if round == Round::First {
                    work.permit = Some(permit);
                }
                if !appends.is_empty() {
                    work.uncommitted += 1;
                    self.gathered.runs.push((number, route));
                    self.gathered.emitted.push(appends);
                    self.gathered.waiting.push(number);
                }
                if waiting && let Some(event_id) = event_id {
                    let sent = sent.events.into_iter().map(|published| published.event);
                    self.shared.waiting.note_emitted(event_id, sent);
                }
            }
            Err(error) => {
                if let Some(work) = self.work(number)
                    && round == Round::First
                {
                    work.permit = Some(permit);
                }
                self.failed(number, route, error);
            }
        }
        if round != Round::First {
            self.settle(number);
        }
    }

    /// Decides what becomes of an event whose handler has failed.
    pub(super) fn failed(&mut self, number: Number, route_number: usize, error: HandlerError) {
        let dispatcher = Arc::clone(&self.dispatcher);
        let route = &dispatcher.routes[route_number];
        let now = self.shared.clock.now();
        let Some(work) = self.work(number) else {
            return;
        };
        let Some(event) = work.event.clone() else {
            return;
        };
        let verdict = work
            .retrying(route, route_number, now)
            .fail(route, &event, error, now);
        if let Verdict::Again { attempt, delay } = verdict {
            route.metrics(&self.lease.group).retries.increment(1);
            self.call_later(number, route_number, event, Round::Again(attempt), delay);
            return;
        }
        work.retrying.retain(|(other, _)| *other != route_number);
        match verdict {
            Verdict::Again { .. } => {}
            Verdict::Stop(failure) => {
                self.shared.note_failure(&failure);
                self.stop_group(number, failure);
            }
            Verdict::GivenUp {
                failure,
                letter,
                is_left_out,
            } => {
                self.shared.note_failure(&failure);
                self.give_up(number, route_number, is_left_out, letter, failure);
            }
        }
    }

    /// Stops the group, with the event still to be handled.
    fn stop_group(&mut self, number: Number, failure: Arc<HandlerFailure>) {
        tracing::error!(%failure, "the group stops");
        if let Some(reports) = &self.shared.reports {
            reports.group_stopped(&self.lease.partition, &failure);
        }
        self.shared
            .waiting
            .tell(failure.event_id, Err(Arc::clone(&failure)));
        if let Some(work) = self.work(number) {
            work.is_left_open = true;
        }
        self.failure = Some(failure);
        self.stopping.cancel();
    }

    /// Ends the attempts of a handler for an event.
    fn give_up(
        &mut self,
        number: Number,
        route: usize,
        is_left_out: bool,
        letter: DeadLetter,
        failure: Arc<HandlerFailure>,
    ) {
        let Some(work) = self.work(number) else {
            return;
        };
        work.done.push(route);
        work.failure = Some(Arc::clone(&failure));
        if let Some(redriven) = &mut work.redriven
            && redriven.id == letter.id()
        {
            redriven.is_resolved = false;
            tracing::error!(%failure, "the event stays a dead letter");
            self.redriven_in_vain(letter);
        } else if is_left_out {
            tracing::error!(%failure, "the event was left out");
        } else {
            tracing::error!(%failure, reason = ?letter.reason, "the event is a dead letter now");
            self.park(number, letter);
        }
    }
}
