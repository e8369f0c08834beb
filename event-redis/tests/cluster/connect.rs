//! Connecting to a cluster.

use event_core::{EventStore, Partition};
use event_redis::{ConnectError, Durability, RedisStore};
use event_tests::RedisServer;

use crate::support::{Cluster, payloads, shop, to_order, until};

#[tokio::test]
async fn any_node_is_enough() {
    let cluster = Cluster::take();
    for url in cluster.servers().urls() {
        let store = RedisStore::connect(url).await.unwrap();
        store.append(&to_order("a", "1")).await.unwrap();
    }
    let store = cluster.builder().connect().await.unwrap();
    assert_eq!(payloads(&store, &Partition::from(shop())).await, ["1"; 3]);
}

#[tokio::test]
async fn another_node_is_asked_where_the_first_does_not_answer() {
    let cluster = Cluster::take();
    let gone = RedisServer::start().unwrap();
    let url = gone.url();
    drop(gone);
    let mut builder = RedisStore::builder(url);
    for url in cluster.servers().urls() {
        builder = builder.node(url);
    }
    let store = builder.connect().await.unwrap();
    store.append(&to_order("a", "1")).await.unwrap();
}

#[tokio::test]
async fn several_urls_are_for_a_cluster() {
    let server = RedisServer::start().unwrap();
    let builder = RedisStore::builder(server.url()).node(server.url());
    let error = builder.connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::NoCluster { .. }), "{error}");
}

#[tokio::test]
async fn every_primary_must_keep_the_promise() {
    let cluster = Cluster::take();
    let last = cluster.servers().node(2);
    last.command(&["CONFIG", "SET", "appendonly", "no"])
        .unwrap();
    let builder = cluster.builder().durability(Durability::EverySecond);
    let error = builder.connect().await.unwrap_err();
    last.command(&["CONFIG", "SET", "appendonly", "yes"])
        .unwrap();
    let port = last.tcp_address().unwrap().port().to_string();
    assert!(matches!(error, ConnectError::TooWeak { .. }), "{error}");
    assert!(error.to_string().contains(&port), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_store_leaves_no_connection() {
    let cluster = Cluster::take();
    let store = cluster.builder().connections(3).connect().await.unwrap();
    for id in 0..100 {
        store.append(&to_order(&id.to_string(), "1")).await.unwrap();
    }
    until("each node has its three", || cluster.clients() >= 9).await;
    drop(store);
    until("none is left", || cluster.clients() == 0).await;
}
