//! What caches have and have not is counted; in a process of its own, for which the recorder is installed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use event_core::{BoxError, metrics};
use event_redis::{AsOf, RedisStore};
use event_tests::RedisServer;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[tokio::test]
async fn hits_misses_and_what_is_invalidated_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let server = RedisServer::start().unwrap();
    let store = RedisStore::connect(server.url()).await.unwrap();
    let pages = store.cache("pages").unwrap();
    for _ in 0..3 {
        let load = async || Ok::<_, BoxError>(1);
        assert_eq!(pages.get_or_load("a", load).await.unwrap(), 1);
    }
    assert_eq!(pages.get::<u32>("b").await.unwrap(), None);
    pages.set("b", &1, AsOf::default()).await.unwrap();
    pages.set("c", &1, AsOf::default()).await.unwrap();
    assert!(pages.remove("b").await.unwrap());
    assert!(!pages.remove("b").await.unwrap());
    assert_eq!(pages.remove_matching("*").await.unwrap(), 2);

    let counted = snapshotter.snapshot().into_vec();
    let count = |metric: metrics::Metric| {
        counted.iter().find_map(|(key, _, _, value)| {
            let key = key.key();
            let mut labels = key.labels();
            let is_of_pages =
                labels.any(|one| one.key() == "event.cache" && one.value() == "pages");
            match value {
                DebugValue::Counter(count) if key.name() == metric.name && is_of_pages => {
                    Some(*count)
                }
                _ => None,
            }
        })
    };
    assert_eq!(count(metrics::CACHE_HITS), Some(2));
    assert_eq!(count(metrics::CACHE_MISSES), Some(2));
    assert_eq!(count(metrics::CACHE_INVALIDATED), Some(3));
}
