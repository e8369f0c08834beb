//! Slots that move to another node while events are appended and handled.

use event_core::EventStore;

use crate::load::{COUNT, Load, PARTITIONS, assert_once, feeds, orders, partitions};
use crate::support::{Cluster, event, payloads, shop, soon, to_order};

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
async fn while_a_slot_moves_what_lies_there_is_read_from_the_one_and_the_other() {
    let cluster = Cluster::take();
    let store = cluster.builder().connect().await.unwrap();
    let partition = shop().into();
    let mut reader = store
        .follow(&partition, event_core::Position::START)
        .await
        .unwrap();
    store.append(&to_order("a", "1")).await.unwrap();
    assert_eq!(
        soon("the first", reader.next_batch(10))
            .await
            .unwrap()
            .len(),
        1
    );

    let servers = cluster.servers();
    let feed = "events:shop";
    let to = (servers.owner_of(feed).unwrap() + 1) % 3;
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let meanwhile = || {
            let read = runtime.block_on(soon("a read", payloads(&store, &partition)));
            assert_eq!(read, ["1"]);
        };
        servers.move_slot(feed, to, meanwhile).unwrap();
    });
    assert_eq!(servers.owner_of(feed).unwrap(), to);
    store.append(&to_order("a", "2")).await.unwrap();
    let append = event_core::Append::to_feed(shop(), vec![event("3")]);
    store.append(&append).await.unwrap();
    let mut got = 0;
    while got < 2 {
        got += soon("the others", reader.next_batch(10))
            .await
            .unwrap()
            .len();
    }
    assert_eq!(payloads(&store, &partition).await, ["1", "2", "3"]);
    // An append to a slot that moves waits until it has.
    drop(reader);
    assert_eq!(partitions().count(), PARTITIONS as usize);
}
