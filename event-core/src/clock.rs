//! Where times and ids come from.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// Tells the time: the system's, or one that a test sets. Clones of a set clock move together.
#[derive(Clone, Default)]
pub struct Clock {
    /// Microseconds since 1970, or the system's clock.
    set: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until it is moved.
    pub fn standing_at(time: DateTime<Utc>) -> Self {
        Self {
            set: Some(Arc::new(AtomicI64::new(time.timestamp_micros()))),
        }
    }

    /// The time now, to the microsecond.
    pub fn now(&self) -> DateTime<Utc> {
        let micros = match &self.set {
            Some(micros) => micros.load(Ordering::SeqCst),
            None => Utc::now().timestamp_micros(),
        };
        DateTime::from_timestamp_micros(micros).unwrap_or_default()
    }

    /// Moves a set clock forward, and leaves the system's alone.
    pub fn advance(&self, by: TimeDelta) {
        if let Some(micros) = &self.set {
            micros.fetch_add(by.num_microseconds().unwrap_or_default(), Ordering::SeqCst);
        }
    }

    /// Sets a set clock, be that forward or back, and leaves the system's alone.
    pub fn set(&self, time: DateTime<Utc>) {
        if let Some(micros) = &self.set {
            micros.store(time.timestamp_micros(), Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.set {
            Some(_) => write!(f, "Clock::standing_at({})", self.now()),
            None => f.write_str("Clock::system()"),
        }
    }
}

/// Makes ids of events: random ones, or ones that a test can foretell.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    next: Option<Arc<AtomicU64>>,
}

impl Ids {
    /// Uuids of version 7, which grow with time (RFC 9562).
    pub fn random() -> Self {
        Self::default()
    }

    /// The ids 1, 2, 3 …, as uuids.
    pub fn counting() -> Self {
        Self {
            next: Some(Arc::new(AtomicU64::new(1))),
        }
    }

    /// The next id.
    pub fn next(&self) -> Uuid {
        match &self.next {
            Some(next) => Uuid::from_u128(next.fetch_add(1, Ordering::SeqCst).into()),
            None => Uuid::now_v7(),
        }
    }

    /// Goes on behind this id, where it counts and is not there yet.
    pub(crate) fn skip(&self, id: Uuid) {
        if let (Some(next), Ok(id)) = (&self.next, u64::try_from(id.as_u128())) {
            next.fetch_max(id.saturating_add(1), Ordering::SeqCst);
        }
    }
}

/// The namespace of every uuid v5 that the framework makes.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f5d_1c9e_8a43_5b07_9d2e_41f7_0c86_b3a5);

/// The same id for the same parts, always.
pub(crate) fn derived_id(parts: &[&str]) -> Uuid {
    let mut name = Vec::new();
    for part in parts {
        // Lengths keep `["ab", "c"]` and `["a", "bc"]` apart.
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name)
}
