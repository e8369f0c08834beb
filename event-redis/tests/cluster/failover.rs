//! A primary that is gone, and its replica in its place.

use event_redis::{Durability, RedisStore};
use event_tests::RedisCluster;

use crate::load::{COUNT, Load, PARTITIONS, assert_in_order, feeds, orders};

async fn store(cluster: &RedisCluster) -> RedisStore {
    RedisStore::builder(cluster.url())
        .node(cluster.node(1).url())
        .durability(Durability::Replicated(1))
        .partitions(orders(), PARTITIONS)
        .connect()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_has_confirmed_survives_a_failover() {
    let mut cluster = RedisCluster::with_replicas().unwrap();
    let store = store(&cluster).await;
    let load = Load::start(&store);
    load.handled(COUNT / 10).await;
    let killed = cluster.owner_of(&feeds()[0]).unwrap();
    assert!(killed < 3);
    cluster.node_mut(killed).kill();
    let before = load.count();
    tokio::task::block_in_place(|| {
        cluster.wait_for_owner(&feeds()[0], killed + 3).unwrap();
        // It comes back as a replica, without which nothing could be confirmed.
        cluster.node_mut(killed).restart().unwrap();
    });
    println!("{before} of {COUNT} were handled when it was killed");
    assert_in_order(&load.finish().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_that_comes_back_gives_way_to_its_replica() {
    let cluster = RedisCluster::with_replicas().unwrap();
    let store = store(&cluster).await;
    let load = Load::start(&store);
    load.handled(COUNT / 10).await;
    let frozen = cluster.owner_of(&feeds()[0]).unwrap();
    cluster.node(frozen).freeze().unwrap();
    tokio::task::block_in_place(|| cluster.wait_for_owner(&feeds()[0], frozen + 3).unwrap());
    let before = load.count();
    // It believes for a moment that it still is the primary.
    cluster.node(frozen).thaw().unwrap();
    println!("{before} of {COUNT} were handled when it was replaced");
    assert_in_order(&load.finish().await);
}
