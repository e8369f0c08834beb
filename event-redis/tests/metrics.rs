//! Reconnects are counted; in a process of its own, for which the recorder is installed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use event_core::{Category, EventStore, Partition, metrics};
use event_redis::RedisStore;
use event_tests::RedisServer;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[tokio::test]
async fn a_connection_that_is_there_again_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let reconnects = || {
        let all = snapshotter.snapshot().into_vec();
        all.into_iter()
            .filter(|(key, ..)| key.key().name() == metrics::RECONNECTS.name)
            .find_map(|(_, _, _, value)| match value {
                DebugValue::Counter(count) => Some(count),
                _ => None,
            })
    };

    let mut server = RedisServer::start().unwrap();
    let store = RedisStore::connect(server.url()).await.unwrap();
    let github = Partition::from(Category::new("github").unwrap());
    store.head(&github).await.unwrap();
    assert_eq!(reconnects(), None);

    server.kill();
    server.restart().unwrap();
    tokio::time::timeout(Duration::from_secs(30), async {
        while reconnects().is_none_or(|count| count == 0) {
            // Whether it is answered does not matter.
            let _ = store.head(&github).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}
