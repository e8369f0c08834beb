//! Stores to test on, and events to test with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_core::prelude::*;
use event_core::{Append, Backend, Category, Codec, Partition, ServiceBuilder};
use event_graphql::{
    BridgeBuilder, BridgeError, Cursor, Edge, EventStream, EventSubscriptionBridge, Listening,
};
use event_redis::RedisStore;
use event_tests::RedisServer;
use futures::StreamExt;
use serde::{Deserialize, Deserializer, Serialize};

/// How long to wait for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a `Counted` was decoded.
pub(crate) static DECODED: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("counter.moved", key = lane)]
pub(crate) struct Moved {
    pub(crate) lane: String,
    pub(crate) number: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("counter.reset", key = lane)]
pub(crate) struct WasReset {
    pub(crate) lane: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("other.moved")]
pub(crate) struct OtherMoved {
    pub(crate) number: u64,
}

#[derive(Clone, Debug, Serialize, Event)]
#[event("counter.counted")]
pub(crate) struct Counted {
    pub(crate) number: u64,
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plain {
            number: u64,
        }
        DECODED.fetch_add(1, Ordering::SeqCst);
        Plain::deserialize(deserializer).map(|plain| Self {
            number: plain.number,
        })
    }
}

/// A store, and what it runs on.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Backend>,
    pub(crate) server: Option<RedisServer>,
    builder: Box<dyn Fn() -> BridgeBuilder + Send + Sync>,
    services: Box<dyn Fn() -> ServiceBuilder + Send + Sync>,
}

impl World {
    pub(crate) async fn memory(partitions: u32) -> Self {
        let store = MemoryStore::new().partitions(counter(), partitions);
        Self::of(store, None)
    }

    pub(crate) async fn redis(partitions: u32) -> Self {
        let server = RedisServer::start().unwrap();
        let store = RedisStore::builder(server.url());
        let store = store.partitions(counter(), partitions).connect().await;
        Self::of(store.unwrap(), Some(server))
    }

    fn of(store: impl Backend + Clone, server: Option<RedisServer>) -> Self {
        let (cloned, of_services) = (store.clone(), store.clone());
        Self {
            store: Arc::new(store),
            server,
            builder: Box::new(move || EventSubscriptionBridge::builder(cloned.clone())),
            services: Box::new(move || {
                let service = Service::builder("first").without_discovered_handlers();
                service.store(of_services.clone())
            }),
        }
    }

    pub(crate) fn bridge(&self) -> EventSubscriptionBridge {
        self.builder().build()
    }

    pub(crate) fn builder(&self) -> BridgeBuilder {
        (self.builder)()
    }

    /// A service on the store, without handlers.
    pub(crate) fn service(&self) -> ServiceBuilder {
        (self.services)()
    }

    /// Has the bridge read the feed of counters from now on.
    pub(crate) async fn reading(&self, bridge: &EventSubscriptionBridge) -> Listening {
        bridge.listen([counter()], |_| {}).await.unwrap()
    }

    /// Waits until the bridge has everything in memory that is stored now.
    pub(crate) async fn until_read(&self, bridge: &EventSubscriptionBridge) {
        let partition = Partition::new(counter(), 0);
        let head = self.store.head(&partition).await.unwrap();
        let read = || {
            bridge
                .positions()
                .iter()
                .any(|(_, position)| position >= head)
        };
        until("the feed is read", read).await;
    }

    pub(crate) async fn publish<E: Event>(&self, events: &[E]) {
        let codec = Codec::default();
        for event in events {
            let new = codec.encode(event).unwrap();
            let append = Append::to_feed(Category::of(new.event_type()).unwrap(), vec![new]);
            self.store.append(&append).await.unwrap();
        }
    }

    /// Moves a lane to each of these numbers.
    pub(crate) async fn move_to(&self, lane: &str, numbers: std::ops::Range<u64>) {
        let codec = Codec::default();
        let numbers: Vec<_> = numbers.collect();
        for some in numbers.chunks(50) {
            let new = some
                .iter()
                .map(|number| codec.encode(&moved(lane, *number)).unwrap());
            let append = Append::to_feed(counter(), new.collect());
            self.store.append(&append).await.unwrap();
        }
    }
}

pub(crate) fn counter() -> Category {
    Category::new("counter").unwrap()
}

pub(crate) fn moved(lane: &str, number: u64) -> Moved {
    Moved {
        lane: lane.to_owned(),
        number,
    }
}

/// What comes next; fails where nothing does.
pub(crate) async fn next<E>(stream: &mut EventStream<E>) -> Option<async_graphql::Result<Edge<E>>> {
    tokio::time::timeout(PATIENCE, stream.next()).await.unwrap()
}

/// The event that comes next.
pub(crate) async fn event<E>(stream: &mut EventStream<E>) -> Edge<E> {
    next(stream).await.unwrap().unwrap()
}

/// The numbers of what comes next, and the last cursor.
pub(crate) async fn numbers(
    stream: &mut EventStream<Moved>,
    count: usize,
) -> (Vec<u64>, Option<Cursor>) {
    let (mut numbers, mut cursor) = (Vec::new(), None);
    while numbers.len() < count {
        let edge = event(stream).await;
        numbers.push(edge.event().number);
        cursor = Some(edge.cursor_behind().clone());
    }
    (numbers, cursor)
}

/// The code of an error, as clients see it.
pub(crate) fn code(error: &async_graphql::Error) -> String {
    let known = BridgeError::of(error).unwrap().code();
    let shown = error.extensions.as_ref().unwrap().get("code").unwrap();
    assert_eq!(shown, &async_graphql::Value::from(known));
    known.to_owned()
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} has not come to pass");
}

/// Numbers that look random, the same ones each time.
pub(crate) fn fastrand(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        // A linear congruential generator; its high bits will do.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    }
}

/// Each of these on both stores.
macro_rules! on_both_stores {
    ($($(#[$partitions:ident($count:literal)])? $name:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::harness::World::memory(1 $(+ $count - 1)?).await).await;
                }
            )*
        }

        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::harness::World::redis(1 $(+ $count - 1)?).await).await;
                }
            )*
        }
    };
}

pub(crate) use on_both_stores;
