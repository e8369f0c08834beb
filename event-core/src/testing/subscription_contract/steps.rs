//! Steps that many rules have in common.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::orders::{Placed, shop};
use crate::emit::Emit;
use crate::event::Category;
use crate::handler::{Context, HandlerDefinition, Start};
use crate::partition::Partition;
use crate::recorded::{Position, RecordedEvent};
use crate::service::Service;
use crate::store::{Backend, DeadLetter, Progress};
use crate::testing::running::LOOK_AGAIN;
pub(super) use crate::testing::running::{Running, build, eventually, quick, service};
use crate::testing::store_contract::steps::{events, within};

/// A lease that ends soon, for instances that vanish.
pub(super) const SHORT: Duration = Duration::from_millis(200);

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
