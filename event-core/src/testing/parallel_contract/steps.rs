//! What the rules of parallel delivery have in common: two events, services, and what handlers have
//! seen.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{Category, Event, EventDefinition};
use crate::handler::{Context, Delivery, HandlerDefinition};
use crate::partition::Partition;
use crate::recorded::{Position, RecordedEvent};
use crate::service::{Service, ServiceBuilder};
use crate::store::{Backend, Consumer, FeedEntry, ParallelGroup, ParallelGroups, ParallelReader};
use crate::testing::running;
pub(super) use crate::testing::running::{LONG, Running, build, eventually};
pub(super) use crate::testing::store_contract::steps::{fresh, within};

/// A lease that ends soon, for instances that vanish.
pub(super) const SHORT: Duration = Duration::from_millis(300);

/// The group of the services.
pub(super) const GROUP: &str = "packers";

/// An order was placed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Placed {
    pub(super) number: u64,
}

/// An order was packed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Packed {
    pub(super) number: u64,
}

const PLACED: &[EventDefinition] = &[EventDefinition::new("shop.order.placed")];
const PACKED: &[EventDefinition] = &[EventDefinition::new("packing.order.packed")];

impl Event for Placed {
    const DEFINITIONS: &'static [EventDefinition] = PLACED;

    fn definition(&self) -> &'static EventDefinition {
        &PLACED[0]
    }
}

impl Event for Packed {
    const DEFINITIONS: &'static [EventDefinition] = PACKED;

    fn definition(&self) -> &'static EventDefinition {
        &PACKED[0]
    }
}

pub(super) fn shop() -> Category {
    Category::new("shop").unwrap()
}

pub(super) fn packing() -> Category {
    Category::new("packing").unwrap()
}

/// The only partition of the shop.
pub(super) fn only() -> Partition {
    shop().into()
}

/// The group of a handler.
pub(super) fn group(handler: &str) -> ParallelGroup {
    ParallelGroup {
        group: GROUP.into(),
        handler: handler.into(),
    }
}

/// A consumer of a handler.
pub(super) fn consumer(handler: &str, instance: &str) -> Consumer {
    Consumer {
        group: group(handler),
        instance: instance.into(),
    }
}

/// A reader of the shop.
pub(super) async fn reader(
    store: &impl ParallelGroups,
    consumer: &Consumer,
) -> Box<dyn ParallelReader> {
    let reader = store.parallel_reader(consumer, &[only()]).await;
    reader.expect("a reader must be given")
}

/// Takes what there is, in one partition.
pub(super) async fn take(reader: &mut dyn ParallelReader, limit: usize) -> Vec<Position> {
    let taken = reader.take(limit, Duration::ZERO).await;
    let taken = taken.expect("entries must be given");
    let entries = taken.entries.into_iter().flat_map(|(_, entries)| entries);
    positions(entries)
}

pub(super) fn positions(entries: impl IntoIterator<Item = FeedEntry>) -> Vec<Position> {
    entries.into_iter().map(|e| e.position()).collect()
}

/// A service of the group that has only the handlers that a rule adds.
pub(super) fn service(store: &(impl Backend + Clone)) -> ServiceBuilder {
    running::service(store, GROUP)
}

/// Publishes orders with these numbers; gives where they lie.
pub(super) async fn place(
    store: &(impl Backend + Clone),
    numbers: impl IntoIterator<Item = u64>,
) -> Vec<Position> {
    let shop = Service::builder("the-shop-itself")
        .without_discovered_handlers()
        .store(store.clone());
    let shop = shop.build().expect("a service of the suite must be built");
    let placed: Vec<_> = numbers
        .into_iter()
        .map(|number| Placed { number })
        .collect();
    let published = shop.publish(placed).await.expect("orders must be placed");
    let events = published.events.into_iter();
    events.map(|published| published.event.position()).collect()
}

/// The numbers of the orders that were packed, sorted.
pub(super) async fn packed(store: &impl Backend) -> Vec<u64> {
    let entries = store
        .read_feed(&packing().into(), Position::START, usize::MAX)
        .await;
    let entries = entries.expect("the feed must be readable");
    let mut numbers: Vec<_> = entries
        .into_iter()
        .map(|entry| entry.into_event().expect("an event"))
        .map(|event: RecordedEvent| event.decode::<Packed>().expect("of this type").number)
        .collect();
    numbers.sort_unstable();
    numbers
}

/// What handlers have seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<(String, u64)>>>);

impl Seen {
    pub(super) fn note(&self, by: &str, number: u64) {
        self.0.lock().unwrap().push((by.to_owned(), number));
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The numbers that were seen by this one, sorted.
    pub(super) fn by(&self, by: &str) -> Vec<u64> {
        let seen = self.0.lock().unwrap();
        let own = seen.iter().filter(|(name, _)| name == by);
        let mut numbers: Vec<_> = own.map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// All numbers, sorted.
    pub(super) fn sorted(&self) -> Vec<u64> {
        let mut numbers: Vec<_> = self.0.lock().unwrap().iter().map(|(_, n)| *n).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// A handler with parallel delivery that notes each order under the name of its instance, after it
/// has let others have their turn.
pub(super) fn notes(handler: &str, instance: &str, seen: &Seen) -> HandlerDefinition {
    let (seen, instance) = (seen.clone(), instance.to_owned());
    HandlerDefinition::function(handler, move |placed: Placed, _: Context| {
        let (seen, instance) = (seen.clone(), instance.clone());
        async move {
            tokio::task::yield_now().await;
            seen.note(&instance, placed.number);
        }
    })
    .on("shop.order.placed")
    .delivery(Delivery::Parallel)
}

/// A handler with parallel delivery that packs each order.
pub(super) fn packs(handler: &str) -> HandlerDefinition {
    HandlerDefinition::function(handler, |placed: Placed, _: Context| async move {
        Packed {
            number: placed.number,
        }
    })
    .on("shop.order.placed")
    .emits("packing.order.packed")
    .delivery(Delivery::Parallel)
}
