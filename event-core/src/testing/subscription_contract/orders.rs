//! What the rules publish: orders of a shop, their invoices, and the entries of a ledger.

use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;
use crate::event::{Category, Event, EventDefinition};
use crate::testing::store_contract::bank::category;

/// What happens to an order. Its events must stay in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Placed {
    pub(super) order: String,
    pub(super) number: u64,
}

impl Event for Placed {
    const DEFINITIONS: &'static [EventDefinition] = &[EventDefinition::new("shop.order.placed")];

    fn definition(&self) -> &'static EventDefinition {
        &Self::DEFINITIONS[0]
    }

    fn key(&self) -> Option<String> {
        Some(self.order.clone())
    }
}

/// Something of the shop that need not stay in order with anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Visited {
    pub(super) number: u64,
}

impl Event for Visited {
    const DEFINITIONS: &'static [EventDefinition] = &[EventDefinition::new("shop.visited")];

    fn definition(&self) -> &'static EventDefinition {
        &Self::DEFINITIONS[0]
    }
}

/// What is emitted for an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Invoiced {
    pub(super) order: String,
    pub(super) number: u64,
}

impl Event for Invoiced {
    const DEFINITIONS: &'static [EventDefinition] = &[EventDefinition::new("billing.invoiced")];

    fn definition(&self) -> &'static EventDefinition {
        &Self::DEFINITIONS[0]
    }

    fn key(&self) -> Option<String> {
        Some(self.order.clone())
    }
}

/// What is emitted to an aggregate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Booked {
    pub(super) order: String,
    pub(super) number: u64,
}

impl Event for Booked {
    const DEFINITIONS: &'static [EventDefinition] = &[EventDefinition::new("ledger.booked")];

    fn definition(&self) -> &'static EventDefinition {
        &Self::DEFINITIONS[0]
    }
}

/// The entries of one account.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: u64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NeverRefused {}

impl Aggregate for Ledger {
    const TYPE: &'static str = "ledger";
    type Event = Booked;
    type Command = Booked;
    type Error = NeverRefused;

    fn apply(&mut self, _: &Booked) {
        self.entries += 1;
    }

    fn handle(&self, booked: Booked) -> Result<Vec<Booked>, NeverRefused> {
        Ok(vec![booked])
    }
}

pub(super) fn placed(order: impl Into<String>, number: u64) -> Placed {
    Placed {
        order: order.into(),
        number,
    }
}

/// So many events of an order, from `first` on.
pub(super) fn orders(order: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<Placed> {
    numbers
        .into_iter()
        .map(|number| placed(order, number))
        .collect()
}

pub(super) fn shop() -> Category {
    category("shop")
}

pub(super) fn billing() -> Category {
    category("billing")
}

pub(super) fn ledger() -> Category {
    category("ledger")
}
