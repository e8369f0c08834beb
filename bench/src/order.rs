//! What is stored: orders, whose events have about 200 bytes of payload each.

use std::sync::Arc;

use anyhow::Context;
use event_core::prelude::*;
use event_core::{Append, Codec, NewEvent};
use event_redis::RedisStore;
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};

use crate::rounds;

/// The feed of all orders, without a prefix.
pub(crate) const FEED: &str = "events:order";

/// Appends that are under way at once while a store is filled.
const FILLING_TASKS: usize = 64;

/// Events of one append while a store is filled.
const FILLING_EVENTS: usize = 500;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
pub(crate) enum OrderEvent {
    #[event("order.placed")]
    Placed(Placed),
    #[event("order.item_added")]
    ItemAdded(ItemAdded),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Placed {
    customer: String,
    street: String,
    city: String,
    country: String,
    currency: String,
    express: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ItemAdded {
    sku: String,
    title: String,
    supplier: String,
    quantity: u32,
    price_cents: u64,
    note: String,
}

impl ItemAdded {
    /// The number of the article.
    pub(crate) fn sku(&self) -> &str {
        &self.sku
    }
}

/// State as small as it may be: what is measured is the way to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    customer: String,
    items: u32,
    total_cents: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the order is not placed yet")]
pub(crate) struct NotPlaced;

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Event = OrderEvent;
    type Command = ItemAdded;
    type Error = NotPlaced;

    fn apply(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed(placed) => self.customer.clone_from(&placed.customer),
            OrderEvent::ItemAdded(item) => {
                self.items += item.quantity;
                self.total_cents += item.price_cents * u64::from(item.quantity);
            }
        }
    }

    fn handle(&self, item: ItemAdded) -> Result<Vec<OrderEvent>, NotPlaced> {
        if self.customer.is_empty() {
            return Err(NotPlaced);
        }
        Ok(vec![OrderEvent::ItemAdded(item)])
    }
}

/// The id of an order.
pub(crate) fn id(number: usize) -> String {
    format!("order-{number:06}")
}

/// The event of a version of an order: at first it is placed, and then items are added.
pub(crate) fn event(number: usize, version: usize) -> OrderEvent {
    if version == 1 {
        OrderEvent::Placed(Placed {
            customer: format!("customer-{number:06}"),
            street: "Lange Strasse 117, rear building, third floor".into(),
            city: "Hamburg-Altona".into(),
            country: "Germany".into(),
            currency: "EUR".into(),
            express: number.is_multiple_of(2),
        })
    } else {
        OrderEvent::ItemAdded(item(number, version))
    }
}

/// An item that is added to an order.
pub(crate) fn item(number: usize, version: usize) -> ItemAdded {
    ItemAdded {
        sku: format!("SKU-{:07}", number * 31 + version),
        title: "Enamelled steel kettle, 1.7 litres, matt black".into(),
        supplier: "Nordic Kitchen GmbH".into(),
        quantity: 1 + u32::from(version.is_multiple_of(3)),
        price_cents: 3_499,
        note: "wrap as a gift, no invoice inside the parcel".into(),
    }
}

/// An event on its way, with the metadata that every event has: id, time and correlation.
pub(crate) fn encoded(codec: &Codec, number: usize, version: usize) -> anyhow::Result<NewEvent> {
    Ok(codec.encode(&event(number, version))?)
}

/// A store as a program has it, with everything as it is by default.
pub(crate) async fn store(server: &RedisServer, prefix: &str) -> anyhow::Result<RedisStore> {
    let url = server.unix_url().context("the server has no unix socket")?;
    let store = RedisStore::builder(url).prefix(prefix).connect().await;
    store.context("cannot connect the store")
}

/// Stores the first versions of orders, whose numbers count from 0.
pub(crate) async fn fill(store: &RedisStore, orders: usize, versions: usize) -> anyhow::Result<()> {
    let codec = Arc::new(Codec::default());
    let tasks = FILLING_TASKS.min(orders);
    let tasks = (0..tasks).map(|task| {
        let (store, codec) = (store.clone(), Arc::clone(&codec));
        async move {
            for number in (task..orders).step_by(tasks) {
                let aggregate = AggregateId::of::<Order>(&id(number))?;
                for before in (0..versions).step_by(FILLING_EVENTS) {
                    let last = versions.min(before + FILLING_EVENTS);
                    let events = (before + 1..=last)
                        .map(|version| encoded(&codec, number, version))
                        .collect::<anyhow::Result<_>>()?;
                    let expected = Expected::Exact(before as u64);
                    let append = Append::to(aggregate.clone(), expected, events);
                    store.append(&append).await?;
                }
            }
            Ok(())
        }
    });
    rounds::time(tasks).await.context("filling the store")?;
    Ok(())
}
