//! Clusters for tests, and what several tests need.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use event_core::testing::store_contract::StoreHarness;
use event_core::{
    AggregateId, Append, Category, Clock, EventStore, Expected, FeedEntry, Ids, Limits, Metadata,
    NewEvent, Partition, Position,
};
use event_redis::{RedisStore, RedisStoreBuilder};
use event_tests::RedisCluster;

/// Clusters that no test uses at the moment. To start one takes seconds, so they are used again.
static IDLE: Mutex<Vec<RedisCluster>> = Mutex::new(Vec::new());

/// A cluster that one test has for itself.
pub(crate) struct Cluster {
    cluster: Option<RedisCluster>,
}

impl Cluster {
    pub(crate) fn take() -> Self {
        let idle = IDLE.lock().unwrap().pop();
        let cluster = idle.unwrap_or_else(|| RedisCluster::start().unwrap());
        cluster.on_primaries(&["FLUSHALL"]).unwrap();
        let cluster = Self {
            cluster: Some(cluster),
        };
        cluster.let_messages_arrive();
        cluster
    }

    /// Returns when each node hears what is published by each other one, and everything that was
    /// published before has been heard: the nodes pass messages on in order, one after the other.
    fn let_messages_arrive(&self) {
        const CHANNEL: &str = "arrived";
        let nodes = self.servers().nodes();
        let listen = |url: String| {
            let client = redis::Client::open(url).unwrap();
            let connection = client.get_connection().unwrap();
            connection
                .set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            connection
        };
        let mut listening: Vec<_> = self.servers().urls().into_iter().map(listen).collect();
        for connection in &mut listening {
            let mut listener = connection.as_pubsub();
            listener.subscribe(CHANNEL).unwrap();
            for (number, node) in nodes.iter().enumerate() {
                let mark = number.to_string();
                let is_heard = (0..100).any(|_| {
                    node.command(&["PUBLISH", CHANNEL, &mark]).unwrap();
                    std::iter::from_fn(|| listener.get_message().ok())
                        .any(|message| message.get_payload_bytes() == mark.as_bytes())
                });
                assert!(is_heard, "the nodes do not hear each other");
            }
        }
    }

    pub(crate) fn servers(&self) -> &RedisCluster {
        self.cluster.as_ref().unwrap()
    }

    pub(crate) fn builder(&self) -> RedisStoreBuilder {
        RedisStore::builder(self.servers().url())
    }

    /// How many connections there are to its nodes, of those that do not belong to the nodes.
    pub(crate) fn clients(&self) -> usize {
        let nodes = self.servers().nodes().iter();
        let clients =
            nodes.map(|node| node.command(&["CLIENT", "LIST", "TYPE", "normal"]).unwrap());
        // One is that which asks.
        clients.map(|clients| clients.lines().count() - 1).sum()
    }

    async fn fresh(&self, builder: RedisStoreBuilder) -> RedisStore {
        self.servers().on_primaries(&["FLUSHALL"]).unwrap();
        self.let_messages_arrive();
        builder.connect().await.unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // One in which a test has failed may be in any state.
        if !std::thread::panicking() {
            IDLE.lock().unwrap().extend(self.cluster.take());
        }
    }
}

impl StoreHarness for Cluster {
    type Store = RedisStore;

    async fn store(&self, limits: Limits) -> RedisStore {
        self.fresh(self.builder().limits(limits)).await
    }

    async fn other_client(&self, _: &RedisStore) -> RedisStore {
        // Whichever node it asks first.
        let url = self.servers().urls().pop().unwrap();
        RedisStore::connect(url).await.unwrap()
    }

    async fn partitioned(&self, category: &Category, count: u32) -> RedisStore {
        let builder = self.builder().partitions(category.clone(), count);
        self.fresh(builder).await
    }

    // Each round trip takes its time, and so does each connection.
    const LOAD_DIVISOR: usize = 2;

    async fn append_foreign(
        &self,
        _: &RedisStore,
        category: &Category,
        fields: &[(&str, &str)],
    ) -> Position {
        let feed = format!("events:{category}");
        let mut command = vec!["XADD", &feed, "*"];
        command.extend(fields.iter().flat_map(|(name, value)| [*name, *value]));
        let owner = self.servers().owner_of(&feed).unwrap();
        let id = self.servers().node(owner).command(&command).unwrap();
        id.trim().parse().unwrap()
    }
}

pub(crate) fn shop() -> Category {
    Category::new("shop").unwrap()
}

pub(crate) fn event(payload: &str) -> NewEvent {
    let metadata = Metadata::new(Ids::random().next(), Clock::system().now());
    NewEvent::from_parts("shop.order.paid", payload, metadata).unwrap()
}

/// An event that must stay in order with those of the same key.
pub(crate) fn keyed(event_type: &str, key: &str, payload: &str) -> NewEvent {
    let mut metadata = Metadata::new(Ids::random().next(), Clock::system().now());
    metadata.key = Some(key.to_owned());
    NewEvent::from_parts(event_type, payload, metadata).unwrap()
}

pub(crate) fn order(id: &str) -> AggregateId {
    AggregateId::new(shop(), "order", id).unwrap()
}

pub(crate) fn to_order(id: &str, payload: &str) -> Append {
    Append::to(order(id), Expected::Any, vec![event(payload)])
}

/// A limit for what must not take long, so that a test that hangs says where.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("never: {what}"),
    }
}

/// Looks at a condition until it holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// All payloads of a partition, in order.
pub(crate) async fn payloads(store: &RedisStore, partition: &Partition) -> Vec<String> {
    let entries = store.read_feed(partition, Position::START, usize::MAX);
    let entries = entries.await.unwrap().into_iter();
    entries
        .map(|entry| match entry {
            FeedEntry::Event(event) => event.payload().to_owned(),
            FeedEntry::Undecodable { position, error } => panic!("{position}: {error}"),
        })
        .collect()
}
