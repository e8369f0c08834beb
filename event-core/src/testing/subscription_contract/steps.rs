//! Steps that many rules have in common.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::orders::{Placed, shop};
use crate::emit::Emit;
use crate::event::Category;
use crate::failure::Retry;
use crate::handler::{Context, HandlerDefinition, Start};
use crate::partition::Partition;
use crate::recorded::{Position, RecordedEvent};
use crate::service::{Service, ServiceBuilder, ServiceError};
use crate::store::{Backend, DeadLetter, Progress};
use crate::testing::store_contract::steps::{events, within};

/// A lease that does not end while a rule runs: what is not given back is missed.
const LONG: Duration = Duration::from_secs(600);

/// A lease that ends soon, for instances that vanish.
pub(super) const SHORT: Duration = Duration::from_millis(200);

/// How long a condition is left alone before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A service that has only the handlers that a rule adds, and does not wait long between attempts.
pub(super) fn service(store: &impl CloneBackend, group: &str) -> ServiceBuilder {
    Service::builder(group)
        .without_discovered_handlers()
        .store(store.clone())
        .lease(LONG)
        .retry(quick(3))
}

/// So many attempts, without long pauses.
pub(super) fn quick(max: u32) -> Retry {
    Retry {
        max,
        base: Duration::from_millis(1),
        max_delay: Duration::from_millis(2),
    }
}

/// What a harness's store is.
pub(super) trait CloneBackend: Backend + Clone {}

impl<T: Backend + Clone> CloneBackend for T {}

/// A service without handlers, through which a rule publishes.
pub(super) struct Shop(Service);

impl Shop {
    pub(super) fn on(store: &impl CloneBackend) -> Self {
        Self(build(service(store, "the-shop-itself")))
    }

    pub(super) async fn publish(&self, events: impl Emit) -> Vec<RecordedEvent> {
        match self.0.publish(events).await {
            Ok(published) => published.events.into_iter().map(|p| p.event).collect(),
            Err(error) => panic!("events must be published: {error}"),
        }
    }
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
        Self::of(&build(builder))
    }

    pub(super) fn of(service: &Service) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let service = service.clone();
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
        let _ = self.stop.send(());
        let ended = within("a service that is stopped ends", self.task).await;
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
        let ended = within("a service ends by itself", self.task).await;
        ended.expect("a service must not panic")
    }

    /// Ends it without giving it a chance to say goodbye, as a process that is killed.
    pub(super) async fn vanish(self) {
        self.task.abort();
        let _ = within("an aborted service is gone", self.task).await;
    }
}

/// A call of a handler.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    /// Who was called, as the rule has named it.
    pub(super) by: Arc<str>,
    pub(super) order: String,
    pub(super) number: u64,
}

/// The calls of handlers, in order.
#[derive(Clone, Debug)]
pub(super) struct Seen(Arc<watch::Sender<Vec<Call>>>);

impl Seen {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }

    pub(super) fn note(&self, by: &Arc<str>, order: impl Into<String>, number: u64) {
        let call = Call {
            by: Arc::clone(by),
            order: order.into(),
            number,
        };
        self.0.send_modify(|calls| calls.push(call));
    }

    pub(super) fn all(&self) -> Vec<Call> {
        self.0.borrow().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// The numbers of one order, as they were seen.
    pub(super) fn of(&self, order: &str) -> Vec<u64> {
        self.0
            .borrow()
            .iter()
            .filter(|call| call.order == order)
            .map(|call| call.number)
            .collect()
    }

    /// The numbers of all orders, as they were seen, by who saw them.
    pub(super) fn by(&self, by: &str) -> Vec<u64> {
        self.0
            .borrow()
            .iter()
            .filter(|call| &*call.by == by)
            .map(|call| call.number)
            .collect()
    }

    /// The numbers as they were seen, of each order.
    pub(super) fn by_order(&self) -> BTreeMap<String, Vec<u64>> {
        let mut orders: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for call in &*self.0.borrow() {
            orders
                .entry(call.order.clone())
                .or_default()
                .push(call.number);
        }
        orders
    }

    /// Waits for so many calls.
    pub(super) async fn wait(&self, count: usize) {
        self.wait_until(&format!("{count} calls of handlers"), |calls| {
            calls.len() >= count
        })
        .await;
    }

    pub(super) async fn wait_until(&self, what: &str, condition: impl Fn(&[Call]) -> bool) {
        let mut calls = self.0.subscribe();
        let waited = within(what, calls.wait_for(|calls| condition(calls))).await;
        assert!(waited.is_ok(), "the calls are kept");
    }
}

/// Notes every order that was placed.
pub(super) fn notes(name: &str, seen: &Seen) -> HandlerDefinition {
    notes_as(name, name, seen)
}

/// Notes every order that was placed, under another name than its own.
pub(super) fn notes_as(name: &str, by: &str, seen: &Seen) -> HandlerDefinition {
    let (seen, by) = (seen.clone(), Arc::from(by));
    HandlerDefinition::function(name, move |event: Placed, _: Context| {
        seen.note(&by, event.order, event.number);
        async {}
    })
    .on("shop.order.placed")
}

/// Waits until a condition holds that must be asked for.
pub(super) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
}

/// How far a group has handled the only partition of the shop.
pub(super) async fn progress(store: &impl CloneBackend, group: &str) -> Progress {
    match store.open(group, &shop().into(), Start::Beginning).await {
        Ok(progress) => progress,
        Err(error) => panic!("the progress of `{group}` must be readable: {error}"),
    }
}

/// Waits until a group has committed that it is through with everything up to a position.
pub(super) async fn committed(store: &impl CloneBackend, group: &str, position: Position) {
    eventually("what was handled is committed", || async {
        progress(store, group).await.checkpoint >= position
    })
    .await;
}

/// All dead letters of a group in the only partition of the shop.
pub(super) async fn dead_letters(store: &impl CloneBackend, group: &str) -> Vec<DeadLetter> {
    match store
        .list_dead_letters(group, &shop().into(), None, usize::MAX)
        .await
    {
        Ok(letters) => letters,
        Err(error) => panic!("the dead letters of `{group}` must be listed: {error}"),
    }
}

/// Waits until a group has so many dead letters, and gives them.
pub(super) async fn dead_letters_of(
    store: &impl CloneBackend,
    group: &str,
    count: usize,
) -> Vec<DeadLetter> {
    dead_letters_once(
        store,
        group,
        &format!("there are {count} dead letters"),
        |letters| letters.len() == count,
    )
    .await
}

/// Waits until the dead letters of a group are so, and gives them.
pub(super) async fn dead_letters_once(
    store: &impl CloneBackend,
    group: &str,
    what: &str,
    condition: impl Fn(&[DeadLetter]) -> bool,
) -> Vec<DeadLetter> {
    within(what, async {
        loop {
            let letters = dead_letters(store, group).await;
            if condition(&letters) {
                return letters;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await
}

/// All events of a category, by partition.
pub(super) async fn all_events(
    store: &impl CloneBackend,
    category: &Category,
) -> Vec<RecordedEvent> {
    let count = match store.partitions(category).await {
        Ok(count) => count,
        Err(error) => panic!("the partitions of `{category}` must be known: {error}"),
    };
    let mut found = Vec::new();
    for number in 0..count {
        let partition = Partition::new(category.clone(), number);
        match store
            .read_feed(&partition, Position::START, usize::MAX)
            .await
        {
            Ok(entries) => found.extend(events(entries)),
            Err(error) => panic!("`{partition}` must be readable: {error}"),
        }
    }
    found
}
