//! The gate: how much of a group's work may run at once, how fast it may begin, and whether it may at
//! all.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// How many events a group may begin to handle in a second, in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// So many in each second, evenly spread.
    pub per_second: NonZeroU32,
    /// So many at once after a pause.
    pub burst: NonZeroU32,
}

/// When a group stops trying for a while, because too much of what it tries fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CircuitBreaker {
    /// It opens when so large a part of the newest attempts has failed; 0.5 by default.
    pub failure_ratio: f64,
    /// The newest attempts that are looked at, and without so many it does not open; 20 by default.
    pub attempts: u32,
    /// How long it stays open before one attempt may show whether things are better; 10 s by default.
    pub open_for: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_ratio: 0.5,
            attempts: 20,
            open_for: Duration::from_secs(10),
        }
    }
}

/// What a circuit breaker does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CircuitState {
    /// Everything may begin.
    #[default]
    Closed,
    /// Nothing may begin, and nothing is read.
    Open,
    /// One attempt shows whether it closes again.
    HalfOpen,
}

/// Lets work begin.
pub(crate) struct Gate {
    permits: Arc<Semaphore>,
    limiter: Option<RateLimiter<NotKeyed, InMemoryState, DefaultClock>>,
    breaker: Option<Breaker>,
}

/// The right to run. Gives itself back.
pub(super) struct Permit {
    _place: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new(
        concurrency: usize,
        limit: Option<RateLimit>,
        breaker: Option<CircuitBreaker>,
    ) -> Self {
        let quota = |limit: RateLimit| {
            RateLimiter::direct(Quota::per_second(limit.per_second).allow_burst(limit.burst))
        };
        Self {
            permits: Arc::new(Semaphore::new(concurrency.max(1))),
            limiter: limit.map(quota),
            breaker: breaker.map(Breaker::new),
        }
    }

    /// Lets something begin at once, if it may.
    pub(super) fn try_enter(&self) -> Option<Permit> {
        let place = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        if let Some(limiter) = &self.limiter
            && limiter.check().is_err()
        {
            return None;
        }
        // Asked last: the attempt that it lets through while it is half open must be made.
        if let Some(breaker) = &self.breaker
            && breaker.try_begin(Instant::now()).is_err()
        {
            return None;
        }
        Some(Permit { _place: place })
    }

    /// Lets something begin as soon as it may.
    pub(super) async fn enter(&self) -> Permit {
        let place = loop {
            // The semaphore is never closed.
            if let Ok(place) = Arc::clone(&self.permits).acquire_owned().await {
                break place;
            }
        };
        if let Some(limiter) = &self.limiter {
            limiter.until_ready().await;
        }
        if let Some(breaker) = &self.breaker {
            while let Err(until) = breaker.try_begin(Instant::now()) {
                sleep_until(until).await;
            }
        }
        Permit { _place: place }
    }

    /// Notes how an attempt has ended.
    pub(super) fn ended(&self, succeeded: bool) {
        if let Some(breaker) = &self.breaker {
            breaker.ended(succeeded, Instant::now());
        }
    }

    /// Until when nothing may be read, if so.
    pub(super) fn closed_until(&self) -> Option<Instant> {
        self.breaker
            .as_ref()
            .and_then(|breaker| breaker.open_until(Instant::now()))
    }

    /// What the circuit breaker does now.
    pub(super) fn circuit(&self) -> CircuitState {
        self.breaker
            .as_ref()
            .map_or(CircuitState::Closed, |breaker| breaker.state().phase())
    }
}

/// The circuit breaker: a few lines over one window, which no kept library offers without a runtime
/// or a call style of its own.
struct Breaker {
    settings: CircuitBreaker,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The newest attempts, as a ring: whether each failed.
    newest: Vec<bool>,
    next: usize,
    failures: u32,
    open_until: Option<Instant>,
    /// Whether the attempt that shows whether things are better is on its way.
    probing: bool,
}

impl State {
    fn phase(&self) -> CircuitState {
        match (self.open_until, self.probing) {
            (None, _) => CircuitState::Closed,
            (Some(_), true) => CircuitState::HalfOpen,
            (Some(_), false) => CircuitState::Open,
        }
    }
}

impl Breaker {
    fn new(settings: CircuitBreaker) -> Self {
        Self {
            settings,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an attempt may begin; if not, when to ask again.
    fn try_begin(&self, now: Instant) -> Result<(), Instant> {
        let mut state = self.state();
        match state.open_until {
            None => Ok(()),
            Some(until) if now < until => Err(until),
            // A probe that never ends must not keep it open for ever: after the same time again,
            // there may be another.
            Some(_) if state.probing => {
                state.probing = false;
                let until = now + self.settings.open_for;
                state.open_until = Some(until);
                Err(until)
            }
            Some(_) => {
                state.probing = true;
                state.open_until = Some(now + self.settings.open_for);
                Ok(())
            }
        }
    }

    fn ended(&self, succeeded: bool, now: Instant) {
        let mut state = self.state();
        if state.open_until.is_some() {
            if state.probing {
                *state = State::default();
                if !succeeded {
                    state.open_until = Some(now + self.settings.open_for);
                }
            }
            return;
        }
        let size = self.settings.attempts.max(1) as usize;
        let failed = !succeeded;
        if state.newest.len() < size {
            state.newest.push(failed);
        } else {
            let next = state.next;
            if std::mem::replace(&mut state.newest[next], failed) {
                state.failures -= 1;
            }
            state.next = (next + 1) % size;
        }
        state.failures += u32::from(failed);
        let ratio = f64::from(state.failures) / size as f64;
        if state.newest.len() == size && ratio >= self.settings.failure_ratio {
            tracing::warn!(open_for = ?self.settings.open_for, "too much fails: the circuit breaker opens");
            *state = State::default();
            state.open_until = Some(now + self.settings.open_for);
        }
    }

    fn open_until(&self, now: Instant) -> Option<Instant> {
        self.state().open_until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_tries_once_and_closes() {
        let breaker = Breaker::new(CircuitBreaker {
            failure_ratio: 0.5,
            attempts: 4,
            open_for: Duration::from_secs(10),
        });
        let now = Instant::now();
        for succeeded in [false, true, true] {
            breaker.ended(succeeded, now);
        }
        assert!(breaker.try_begin(now).is_ok(), "not enough is known");
        breaker.ended(false, now);
        assert_eq!(breaker.state().phase(), CircuitState::Open);
        assert_eq!(breaker.try_begin(now), Err(now + Duration::from_secs(10)));

        let later = now + Duration::from_secs(11);
        assert!(breaker.try_begin(later).is_ok());
        assert_eq!(breaker.state().phase(), CircuitState::HalfOpen);
        assert!(breaker.try_begin(later).is_err(), "one probe at a time");
        breaker.ended(false, later);
        assert_eq!(breaker.state().phase(), CircuitState::Open);

        let much_later = later + Duration::from_secs(11);
        assert!(breaker.try_begin(much_later).is_ok());
        breaker.ended(true, much_later);
        assert_eq!(breaker.state().phase(), CircuitState::Closed);
        assert!(breaker.try_begin(much_later).is_ok());
    }
}
