//! Slots that move to another node while events are appended and handled.

use event_core::{EventStore, Partition, Position};
use event_redis::RedisStore;
use event_tests::RedisCluster;

use crate::load::{COUNT, Load, PARTITIONS, assert_once, feeds, orders};
use crate::support::{Cluster, payloads, shop, soon, to_order};

#[tokio::test(flavor = "multi_thread")]
async fn a_moving_slot_loses_nothing() {
    let cluster = Cluster::take();
    let builder = cluster.builder().partitions(orders(), PARTITIONS);
    let store = builder.connect().await.unwrap();
    let mut load = Load::start(&store);
    load.handled(COUNT / 20).await;
    let mut moved = 0;
    let servers = cluster.servers();
    'moving: for shift in 1..3 {
        for feed in feeds() {
            let to = (servers.owner_of(&feed).unwrap() + shift) % 3;
            let handled = load.count();
            tokio::task::block_in_place(|| servers.move_slot(&feed, to, || {}).unwrap());
            moved += 1;
            if !load.is_appending() {
                break 'moving;
            }
            load.handled(handled + 1).await;
        }
    }
    println!("{moved} slots moved");
    assert!(moved > 1);
    assert_once(&load.finish().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_slot_moves_to_a_new_node_it_is_read_and_appends_wait() {
    let servers = RedisCluster::with_empty_node().unwrap();
    let store = RedisStore::connect(servers.url()).await.unwrap();
    let partition = Partition::from(shop());
    let mut reader = store.follow(&partition, Position::START).await.unwrap();
    store.append(&to_order("a", "1")).await.unwrap();
    let first = soon("the first", reader.next_batch(10)).await.unwrap();
    assert_eq!(first.len(), 1);

    let runtime = tokio::runtime::Handle::current();
    let mut appending = None;
    tokio::task::block_in_place(|| {
        let meanwhile = || {
            // From the one node, and then from the other.
            let read = runtime.block_on(soon("a read", payloads(&store, &partition)));
            assert_eq!(read, ["1"]);
            // A new order has no history yet, and a node of a moving slot does not know whether the
            // other has one.
            appending.get_or_insert_with(|| {
                let store = store.clone();
                runtime.spawn(async move { store.append(&to_order("b", "2")).await })
            });
        };
        servers.move_slot("events:shop", 3, meanwhile).unwrap();
    });
    assert_eq!(servers.owner_of("events:shop").unwrap(), 3);
    let appending = appending.unwrap();
    soon("the append", appending).await.unwrap().unwrap();
    store.append(&to_order("a", "3")).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 2 {
        got.extend(soon("the others", reader.next_batch(10)).await.unwrap());
    }
    assert_eq!(payloads(&store, &partition).await, ["1", "2", "3"]);
}
