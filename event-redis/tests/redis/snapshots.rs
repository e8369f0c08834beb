//! States that are kept, on a server that loses something, or has something of others.

use event_core::prelude::*;
use event_core::{RepositoryError, SnapshotPolicy};
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};

use crate::support::{server, store};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
enum CounterEvent {
    #[event("counter.raised")]
    Raised { by: u64 },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counter {
    total: u64,
}

impl Aggregate for Counter {
    const TYPE: &'static str = "counter";
    const SNAPSHOTS: SnapshotPolicy<Self> = SnapshotPolicy::every(2);
    type Event = CounterEvent;
    type Command = u64;
    type Error = std::convert::Infallible;

    fn apply(&mut self, CounterEvent::Raised { by }: &CounterEvent) {
        self.total += by;
    }

    fn handle(&self, by: u64) -> Result<Vec<CounterEvent>, Self::Error> {
        Ok(vec![CounterEvent::Raised { by }])
    }
}

const HISTORY: &str = "{events:counter}:history:counter:visits";
const SNAPSHOT: &str = "{events:counter}:snapshot:counter:visits";

async fn counters(server: &RedisServer) -> Repository<Counter> {
    Repository::new(store(server).await)
}

async fn raise(counters: &Repository<Counter>, by: &[u64]) {
    for by in by {
        counters.execute("visits", *by).await.unwrap();
        counters.finish_snapshots().await;
    }
}

#[tokio::test]
async fn a_snapshot_is_a_hash_that_anybody_can_read() {
    let server = server();
    raise(&counters(&server).await, &[1, 2, 3]).await;
    let kept = server.command(&["HMGET", SNAPSHOT, "version", "stateVersion", "state"]);
    assert_eq!(kept.unwrap(), "2\n1\n{\"total\":3}");
}

#[tokio::test]
async fn no_state_outlives_its_history() {
    let server = server();
    let cached = counters(&server).await.with_cache(1 << 20);
    let plain = counters(&server).await;
    raise(&cached, &[1, 2, 3, 4]).await;

    // The last two events are lost, as after a failover.
    server.command(&["LTRIM", HISTORY, "0", "1"]).unwrap();
    for counters in [&cached, &plain] {
        let loaded = counters.load("visits").await.unwrap();
        assert_eq!((loaded.state.total, loaded.version), (3, 2));
    }
    // Others come in their place, up to where the lost ones were.
    raise(&plain, &[30, 40]).await;
    for counters in [&cached, &plain] {
        let loaded = counters.load("visits").await.unwrap();
        assert_eq!((loaded.state.total, loaded.version), (73, 4));
    }
    raise(&cached, &[5]).await;

    server.command(&["DEL", HISTORY]).unwrap();
    for counters in [&cached, &plain] {
        let loaded = counters.load("visits").await;
        assert!(
            matches!(loaded, Err(RepositoryError::NotFound { .. })),
            "{loaded:?}"
        );
    }
    let executed = cached.execute("visits", 6).await.unwrap();
    assert_eq!((executed.state.total, executed.version), (6, 1));
}

#[tokio::test]
async fn a_snapshot_in_another_form_is_passed_over() {
    let server = server();
    let counters = counters(&server).await;
    raise(&counters, &[1, 2, 3]).await;
    for (field, value) in [
        ("version", "two"),
        ("event", "?"),
        ("stateVersion", "-1"),
        ("state", "{"),
    ] {
        let kept = server.command(&["HGET", SNAPSHOT, field]).unwrap();
        server.command(&["HSET", SNAPSHOT, field, value]).unwrap();
        let loaded = counters.load("visits").await.unwrap();
        assert_eq!((loaded.state.total, loaded.version), (6, 3), "{field}");
        server.command(&["HSET", SNAPSHOT, field, &kept]).unwrap();
    }
    // What is not even a hash is an error of the server's, which names what it cannot do.
    server.command(&["SET", SNAPSHOT, "text"]).unwrap();
    let error = counters.load("visits").await.unwrap_err();
    assert!(format!("{error:?}").contains("WRONGTYPE"), "{error:?}");
}
