//! A sales report in SQLite that is filled from the feed of orders, each order exactly once.

mod report;

use std::time::Duration;

use event_core::store::Backend;
use event_core::{BuildError, Event, Service};
use serde::{Deserialize, Serialize};

pub use report::{Line, Report};

/// An order was placed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("order.placed", key = customer)]
pub struct OrderPlaced {
    /// Who ordered.
    pub customer: String,
    /// For how much, in cents.
    pub cents: i64,
}

/// The service that fills the report. Of several processes one works; if it is killed, another one goes on
/// after `lease`.
///
/// # Errors
/// [`BuildError`] where something is wrong with it.
pub fn service(
    store: impl Backend,
    report: Report,
    lease: Duration,
) -> Result<Service, BuildError> {
    Service::builder("sqlite-report")
        .store(store)
        .lease(lease)
        .projection_sink("sales", 1, ["order.placed"], report)
        .build()
}
