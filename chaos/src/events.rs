//! What is published, and what must come of it.
//!
//! ```text
//! order.placed  --billing--> invoice.issued (none to three), audit.noted   (handler `bill`)
//!                            audit.tallied                                 (handler `tally`)
//!                            ledger.booked, of one of ten aggregates       (handler `book`)
//! invoice.issued --receipts--> receipt.issued
//! ```

use event_core::Category;
use event_core::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The group that handles orders.
pub(crate) const BILLING: &str = "billing";

/// The group that handles invoices.
pub(crate) const RECEIPTS: &str = "receipts";

/// The categories, and how many partitions each has.
pub(crate) const PARTITIONS: [(&str, u32); 5] = [
    ("order", 4),
    ("invoice", 4),
    ("audit", 1),
    ("receipt", 3),
    ("ledger", 2),
];

/// Which group handles which category.
pub(crate) const GROUPS: [(&str, &str); 2] = [(BILLING, "order"), (RECEIPTS, "invoice")];

/// The categories with their partitions, as stores want them.
pub(crate) fn partitions() -> anyhow::Result<Vec<(Category, u32)>> {
    PARTITIONS
        .iter()
        .map(|(name, count)| Ok((Category::new(*name)?, *count)))
        .collect()
}

/// What is published: the orders of a customer are numbered from 1.
#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event("order.placed", key = customer)]
pub(crate) struct OrderPlaced {
    pub(crate) customer: String,
    pub(crate) number: u32,
}

impl OrderPlaced {
    /// An id that is the same whenever this order is published.
    pub(crate) fn id(&self) -> Uuid {
        let name = format!("{}/{}", self.customer, self.number);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }
}

/// One of the events that one run of a handler has emitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Which run: no two have the same, even for the same event.
    pub(crate) run: Uuid,
    /// Which of its events, counted from 0.
    pub(crate) ordinal: u32,
    /// How many it has emitted.
    pub(crate) of: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event("invoice.issued", key = customer)]
pub(crate) struct InvoiceIssued {
    pub(crate) customer: String,
    pub(crate) number: u32,
    pub(crate) part: Part,
}

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event("audit.noted", key = customer)]
pub(crate) struct AuditNoted {
    pub(crate) customer: String,
    pub(crate) number: u32,
    pub(crate) part: Part,
}

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event("audit.tallied", key = customer)]
pub(crate) struct AuditTallied {
    pub(crate) customer: String,
    pub(crate) number: u32,
    pub(crate) part: Part,
}

/// What is booked for an order.
#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event("ledger.booked")]
pub(crate) struct LedgerBooked {
    pub(crate) customer: String,
    pub(crate) number: u32,
    pub(crate) part: Part,
}

/// An aggregate that is only emitted to.
#[derive(Debug, Default)]
pub(crate) struct Ledger;

/// Nobody commands a ledger.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NeverRefused {}

impl Aggregate for Ledger {
    const TYPE: &'static str = "ledger";
    type Event = LedgerBooked;
    type Command = LedgerBooked;
    type Error = NeverRefused;

    fn apply(&mut self, _: &LedgerBooked) {}

    fn handle(&self, booked: LedgerBooked) -> Result<Vec<LedgerBooked>, NeverRefused> {
        Ok(vec![booked])
    }
}

/// The ledger that a customer's orders are booked in, which it shares with others.
pub(crate) fn ledger_of(customer: &str) -> &str {
    &customer[customer.len().saturating_sub(1)..]
}

/// The receipt of one invoice, and so of one ordinal of its order.
#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event("receipt.issued", key = customer)]
pub(crate) struct ReceiptIssued {
    pub(crate) customer: String,
    pub(crate) number: u32,
    pub(crate) invoice: u32,
    pub(crate) part: Part,
}

/// What `bill` emits for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bill {
    Nothing,
    Invoice,
    InvoiceAndAudit,
    TwoInvoices,
    /// One to three invoices, as the run likes.
    AsTheRunLikes,
}

/// What `bill` emits for this order.
pub(crate) fn bill_of(number: u32) -> Bill {
    match number % 10 {
        0 => Bill::Nothing,
        1..=3 => Bill::Invoice,
        4 | 5 => Bill::InvoiceAndAudit,
        6 | 7 => Bill::TwoInvoices,
        _ => Bill::AsTheRunLikes,
    }
}

impl Bill {
    /// Whether a run may emit so many events.
    pub(crate) fn allows(self, count: usize) -> bool {
        match self {
            Bill::Nothing => count == 0,
            Bill::Invoice => count == 1,
            Bill::InvoiceAndAudit | Bill::TwoInvoices => count == 2,
            Bill::AsTheRunLikes => (1..=3).contains(&count),
        }
    }
}

/// Whether `tally` emits something for this order.
pub(crate) fn is_tallied(number: u32) -> bool {
    number.is_multiple_of(3)
}
