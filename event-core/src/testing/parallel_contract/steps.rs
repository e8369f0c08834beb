//! What the rules of parallel delivery have in common: two events, services, and what handlers have
//! seen.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::event::{Category, Event, EventDefinition};
use crate::failure::Retry;
use crate::handler::{Context, Delivery, HandlerDefinition};
use crate::partition::Partition;
use crate::recorded::{Position, RecordedEvent};
use crate::service::{Service, ServiceBuilder, ServiceError};
use crate::store::{
    Backend, Consumer, FeedEntry, Limits, ParallelGroup, ParallelGroups, ParallelReader,
};
use crate::testing::store_contract::StoreHarness;

/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A lease that does not end while a rule runs.
pub(super) const LONG: Duration = Duration::from_secs(600);

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

pub(super) async fn fresh<H: StoreHarness>(harness: &H) -> H::Store {
    harness.store(Limits::default()).await
}

/// Waits for what must happen.
pub(super) async fn within<T>(what: &str, happening: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happening).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("this has not happened for {PATIENCE:?}: {what}"),
    }
}

/// Looks at a condition until it holds.
pub(super) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
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

/// A service that has only the handlers that a rule adds, and does not wait long between attempts.
pub(super) fn service(store: &(impl Backend + Clone)) -> ServiceBuilder {
    Service::builder(GROUP)
        .without_discovered_handlers()
        .store(store.clone())
        .lease(LONG)
        .retry(Retry {
            max: 3,
            base: Duration::from_millis(1),
            max_delay: Duration::from_millis(2),
        })
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

pub(super) fn build(builder: ServiceBuilder) -> Service {
    match builder.build() {
        Ok(service) => service,
        Err(error) => panic!("a service of the suite must be built: {error}"),
    }
}

/// A service that runs until the rule says so.
pub(super) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServiceError>>,
}

impl Running {
    pub(super) fn start(builder: ServiceBuilder) -> Self {
        let service = build(builder);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            service
                .run_until(async {
                    if stopped.await.is_err() {
                        // Nobody says so any more.
                        std::future::pending().await
                    }
                })
                .await
        });
        Self { stop, task }
    }

    /// Asks it to stop, and waits until it has. It must end well.
    pub(super) async fn stop(self) {
        let ended = within("a service that is stopped ends", self.ask_to_stop()).await;
        if let Err(error) = ended.expect("a service must not panic") {
            panic!("a service that is stopped must end well: {error}");
        }
    }

    /// Asks it to stop, and does not wait.
    pub(super) fn ask_to_stop(self) -> JoinHandle<Result<(), ServiceError>> {
        let _ = self.stop.send(());
        self.task
    }

    /// Waits until it ends by itself.
    pub(super) async fn end(self) -> Result<(), ServiceError> {
        let Self { stop, task } = self;
        let ended = within("a service ends by itself", task).await;
        drop(stop);
        ended.expect("a service must not panic")
    }

    /// Ends it without giving it a chance to say goodbye, as a process that is killed.
    pub(super) async fn vanish(self) {
        self.task.abort();
        let _ = within("an aborted service is gone", self.task).await;
    }
}
