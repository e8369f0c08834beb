//! Which node is asked for what, and what one node that does not answer stops.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use event_core::prelude::*;
use event_core::{
    Acquired, Append, Category, Commit, Consumer, FeedEntry, Groups, HandlerDefinition, NewEvent,
    ParallelGroup, ParallelGroups, Partition, Pattern, Progress, Realtime, Start, Wanted,
};
use event_redis::RedisStore;

use crate::load::{
    COUNT, GROUP, Load, PARTITIONS, Placed, feeds, orders, partitions, stuck_customers,
};
use crate::support::{Cluster, event, keyed, shop, soon, to_order, until};

const LEASE: Duration = Duration::from_secs(30);

/// The connections of all nodes on which the last command was this.
fn connections(cluster: &Cluster, command: &str) -> usize {
    let nodes = cluster.servers().nodes().iter();
    let clients = nodes.map(|node| node.command(&["CLIENT", "LIST"]).unwrap());
    let marker = format!(" cmd={command} ");
    clients
        .map(|clients| {
            clients
                .lines()
                .filter(|line| line.contains(&marker))
                .count()
        })
        .sum()
}

fn in_orders(number: u32) -> Partition {
    Partition::new(orders(), number)
}

async fn append_to(store: &RedisStore, partition: &Partition) {
    // Whichever key lies there.
    for n in 0.. {
        let event = orders_event(&n.to_string());
        let append = Append::to_feed(orders(), vec![event]);
        if append.partition(PARTITIONS).unwrap() == *partition {
            store.append(&append).await.unwrap();
            return;
        }
    }
}

fn orders_event(key: &str) -> NewEvent {
    keyed("orders.placed", key, "{}")
}

fn wanted(numbers: &[u32]) -> Vec<Wanted> {
    let wanted = |number: &u32| Wanted {
        partition: in_orders(*number),
        after: Position::START,
        limit: 10,
    };
    numbers.iter().map(wanted).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_one_connection_for_each_slot_it_reads() {
    let cluster = Cluster::take();
    let builder = cluster.builder().partitions(orders(), PARTITIONS);
    let store = builder.connect().await.unwrap();
    let slots: BTreeSet<_> = feeds()
        .iter()
        .map(|feed| cluster.servers().slot_of(feed).unwrap())
        .collect();
    assert_eq!(slots.len() as u32, PARTITIONS, "each in a slot of its own");
    let mut reader = store.group_reader("g").await.unwrap();
    let all: Vec<u32> = (0..PARTITIONS).collect();
    let reading = tokio::spawn(async move {
        let batch = reader.next(&wanted(&all)).await.unwrap();
        (reader, batch)
    });
    // And one for what changes in the group.
    until("all are read", || {
        connections(&cluster, "xread") == PARTITIONS as usize + 1
    })
    .await;
    append_to(&store, &in_orders(3)).await;
    let (mut reader, batch) = soon("a batch", reading).await.unwrap();
    assert_eq!(batch.entries.len(), 1);
    assert_eq!(batch.entries[0].0, in_orders(3));

    // Those of which nothing is wanted any more are given back after a while.
    let after = batch.entries[0].1[0].position();
    let mut few = wanted(&[3, 4]);
    few[0].after = after;
    soon("connections are given back", async {
        while connections(&cluster, "xread") != 3 {
            let waiting = reader.next(&few);
            let _ = tokio::time::timeout(Duration::from_millis(50), waiting).await;
        }
    })
    .await;
    append_to(&store, &in_orders(4)).await;
    let batch = soon("a batch", reader.next(&few)).await.unwrap();
    assert_eq!(batch.entries[0].0, in_orders(4));
    drop(reader);
    until("none is left", || connections(&cluster, "xread") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_has_one_connection_for_each_slot() {
    let cluster = Cluster::take();
    let builder = cluster.builder().partitions(orders(), PARTITIONS);
    let store = builder.connect().await.unwrap();
    let group = ParallelGroup {
        group: "g".into(),
        handler: "h".into(),
    };
    let all: Vec<_> = partitions().collect();
    for partition in &all {
        let opened = store.open_parallel(&group, partition, Start::Beginning);
        opened.await.unwrap();
    }
    let consumer = Consumer {
        group,
        instance: "i".into(),
    };
    let mut reader = store.parallel_reader(&consumer, &all).await.unwrap();
    let taking = tokio::spawn(async move {
        let taken = reader.take(10, Duration::from_secs(5)).await.unwrap();
        (reader, taken)
    });
    until("all are read", || {
        connections(&cluster, "xreadgroup") == PARTITIONS as usize
    })
    .await;
    append_to(&store, &in_orders(5)).await;
    let (mut reader, taken) = soon("an entry", taking).await.unwrap();
    assert_eq!(taken.entries.len(), 1);
    // It is known what may still come over the others.
    for partition in &all {
        assert_eq!(reader.is_taking(partition), *partition != in_orders(5));
    }
    // What comes over the other connections meanwhile is not lost.
    for partition in &all {
        append_to(&store, partition).await;
    }
    let mut found = BTreeSet::new();
    while found.len() < all.len() {
        // Those are waited for, though nothing new is wanted.
        let limit = if found.len() + 1 < all.len() { 0 } else { 10 };
        let taken = reader.take(limit, Duration::from_secs(5));
        let taken = soon("the others", taken).await.unwrap();
        if limit == 0 {
            assert!(taken.entries.iter().all(|(from, _)| *from != in_orders(5)));
        }
        for (partition, entries) in taken.entries {
            assert_eq!(entries.len(), 1);
            assert!(found.insert(partition), "nothing comes twice");
        }
    }
    let left = soon("the end", reader.close()).await.unwrap();
    assert!(left.entries.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_gives_what_was_given_though_one_connection_fails() {
    let cluster = Cluster::take();
    let builder = cluster.builder().partitions(orders(), PARTITIONS);
    let store = builder.connect().await.unwrap();
    let group = ParallelGroup {
        group: "g".into(),
        handler: "h".into(),
    };
    let all: Vec<_> = partitions().collect();
    for partition in &all {
        let opened = store.open_parallel(&group, partition, Start::Beginning);
        opened.await.unwrap();
    }
    let consumer = Consumer {
        group: group.clone(),
        instance: "i".into(),
    };
    let mut reader = store.parallel_reader(&consumer, &all).await.unwrap();
    let servers = cluster.servers();
    let (broken, others) = all.split_first().unwrap();
    let waiting = async {
        until("all are read", || {
            connections(&cluster, "xreadgroup") == PARTITIONS as usize
        })
        .await;
    };
    tokio::select! {
        _ = reader.take(10, Duration::from_secs(5)) => panic!("there is nothing to take"),
        () = waiting => {}
    }
    // Whoever reads makes the group again, which the server refuses now.
    let feed = format!("events:{broken}");
    let node = servers.node(servers.owner_of(&feed).unwrap());
    node.command(&["SET", &feed, "no stream"]).unwrap();
    for partition in others {
        append_to(&store, partition).await;
    }
    let taken = soon("the end", reader.close()).await.unwrap();
    assert_eq!(taken.entries.len(), others.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_frozen_node_holds_up_nothing_on_the_others() {
    let cluster = Cluster::take();
    let builder = cluster.builder().partitions(orders(), PARTITIONS);
    let store = builder.connect().await.unwrap();
    let servers = cluster.servers();
    let frozen = 1;
    let there =
        |partition: &Partition| servers.owner_of(&format!("events:{partition}")).unwrap() == frozen;
    let (stuck, flowing): (Vec<_>, Vec<_>) = partitions().partition(there);
    assert!(!stuck.is_empty() && !flowing.is_empty());
    for partition in stuck.iter().chain(&flowing) {
        append_to(&store, partition).await;
    }
    let mut reader = store.group_reader("g").await.unwrap();
    let mut at: Vec<_> = wanted(&(0..PARTITIONS).collect::<Vec<_>>());
    let mut found = 0;
    while found < PARTITIONS as usize {
        let batch = soon("a batch", reader.next(&at)).await.unwrap();
        found += advance(&mut at, batch.entries);
    }

    servers.node(frozen).freeze().unwrap();
    let waiting = {
        let (store, partition) = (store.clone(), stuck[0].clone());
        tokio::spawn(async move { append_to(&store, &partition).await })
    };
    for _ in 0..200 {
        for partition in &flowing {
            append_to(&store, partition).await;
        }
        let mut found = 0;
        while found < flowing.len() {
            let batch = soon("a batch", reader.next(&at)).await.unwrap();
            found += advance(&mut at, batch.entries);
        }
    }
    assert!(!waiting.is_finished());
    servers.node(frozen).thaw().unwrap();
    soon("the append that waited", waiting).await.unwrap();
    let batch = soon("what has waited", reader.next(&at)).await.unwrap();
    assert_eq!(batch.entries[0].0, stuck[0]);
}

/// Notes what was read; says how many entries.
fn advance(at: &mut [Wanted], entries: Vec<(Partition, Vec<FeedEntry>)>) -> usize {
    let mut count = 0;
    for (partition, entries) in entries {
        let wish = at.iter_mut().find(|wish| wish.partition == partition);
        wish.unwrap().after = entries.last().unwrap().position();
        count += entries.len();
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_goes_on_beside_a_frozen_node() {
    let cluster = Cluster::take();
    let builder = cluster.builder().partitions(orders(), PARTITIONS);
    let store = builder.connect().await.unwrap();
    let load = Load::start(&store);
    load.handled(COUNT / 20).await;
    let stuck = stuck_customers(cluster.servers(), 2);
    assert!(!stuck.is_empty());
    cluster.servers().node(2).freeze().unwrap();
    load.handled_but(&stuck).await;
    cluster.servers().node(2).thaw().unwrap();
    let _ = load.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_costs_no_lease_on_the_others() {
    let cluster = Cluster::take();
    let builder = cluster.builder().partitions(orders(), PARTITIONS);
    let store = builder.connect().await.unwrap();
    let lease = Duration::from_secs(3);
    let load = Load::with_lease(&store, lease);
    load.handled(COUNT).await;
    // That which knows the instances of the group, too.
    let servers = cluster.servers();
    let members = format!("{{group:{GROUP}}}:members");
    let frozen = servers.owner_of(&members).unwrap();
    let flowing: Vec<_> = partitions()
        .filter(|partition| {
            let feed = format!("events:{partition}");
            servers.owner_of(&feed).unwrap() != frozen
        })
        .collect();
    assert!(!flowing.is_empty());
    servers.node(frozen).freeze().unwrap();
    let begin = Instant::now();
    // Long enough for each lease to end that is not renewed.
    while begin.elapsed() < 3 * lease {
        for partition in &flowing {
            let owner = store.owner(GROUP, partition).await.unwrap();
            assert!(owner.is_some(), "{partition} after {:?}", begin.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    servers.node(frozen).thaw().unwrap();
    let _ = load.finish().await;
}

/// A service that runs on a store of its own.
async fn start(cluster: &Cluster, instance: &str, lease: Duration) -> tokio::task::JoinHandle<()> {
    let handler = HandlerDefinition::function("see", |_: Placed, _: Context| async {});
    let builder = cluster.builder().partitions(orders(), PARTITIONS);
    let service = Service::builder(GROUP)
        .lease(lease)
        .instance(instance)
        .without_discovered_handlers()
        .store(builder.connect().await.unwrap())
        .handler(handler.on("orders.placed"))
        .build()
        .unwrap();
    tokio::spawn(async move { service.run_until(std::future::pending()).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_find_another_owner_beside_a_frozen_node() {
    let cluster = Cluster::take();
    let builder = cluster.builder().partitions(orders(), PARTITIONS);
    let store = builder.connect().await.unwrap();
    let lease = Duration::from_secs(3);
    let all: Vec<_> = partitions().collect();
    let owned_by = async |instance: &str, partitions: &[Partition]| {
        let mut count = 0;
        for partition in partitions {
            let owner = store.owner(GROUP, partition).await.unwrap();
            count += usize::from(owner.as_deref() == Some(instance));
        }
        count
    };
    let first = start(&cluster, "a", lease).await;
    soon("the first owns all", async {
        while owned_by("a", &all).await < all.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let second = start(&cluster, "b", lease).await;
    soon("they share", async {
        while owned_by("b", &all).await < all.len() / 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // That which knows the instances of the group, too.
    let servers = cluster.servers();
    let members = format!("{{group:{GROUP}}}:members");
    let frozen = servers.owner_of(&members).unwrap();
    let lies_elsewhere = |partition: &Partition| {
        let feed = format!("events:{partition}");
        servers.owner_of(&feed).unwrap() != frozen
    };
    let flowing: Vec<_> = all.iter().filter(|p| lies_elsewhere(p)).cloned().collect();
    assert!(owned_by("a", &flowing).await > 0);
    servers.node(frozen).freeze().unwrap();
    first.abort();
    let begin = Instant::now();
    soon("the second owns all that answer", async {
        while owned_by("b", &flowing).await < flowing.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    println!(
        "{} partitions had owners after {:?}, with leases of {lease:?}",
        flowing.len(),
        begin.elapsed()
    );
    servers.node(frozen).thaw().unwrap();
    second.abort();
    let _ = second.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_emitted_to_a_node_that_does_not_answer_arrives_once_it_does() {
    let cluster = Cluster::take();
    let servers = cluster.servers();
    let store = cluster.builder().connect().await.unwrap();
    store.append(&to_order("a", "1")).await.unwrap();
    let partition = Partition::from(shop());
    store.open("g", &partition, Start::Beginning).await.unwrap();
    let acquired = store.acquire("g", &partition, "i", LEASE).await.unwrap();
    let Acquired::Yes { lease, .. } = acquired else {
        panic!("it is free");
    };
    let source = servers.owner_of(&format!("events:{partition}")).unwrap();
    let elsewhere = |name: &&str| {
        let owner = servers.owner_of(&format!("events:{name}")).unwrap();
        owner != source
    };
    let mut names = ["billing", "invoices", "receipts", "audits"].into_iter();
    let name = names.find(elsewhere).unwrap();
    let target = Category::new(name).unwrap();
    let to_target = |id: &str| {
        let metadata = event(id).metadata().clone();
        let event = NewEvent::from_parts(format!("{target}.noted"), "1", metadata).unwrap();
        Append::to_feed(target.clone(), vec![event])
    };
    // It is known how many partitions the target has.
    store.append(&to_target("8")).await.unwrap();

    let frozen = servers.owner_of(&format!("events:{name}")).unwrap();
    servers.node(frozen).freeze().unwrap();
    let commit = Commit {
        number: 1,
        emitted: vec![vec![to_target("9")]],
        progress: Progress::default(),
        ..Commit::default()
    };
    // It waits for nobody, and is stored once.
    store.commit(&lease, &commit).await.unwrap();
    store.commit(&lease, &commit).await.unwrap();
    servers.node(frozen).thaw().unwrap();

    let feed = Partition::from(target.clone());
    let count = async || {
        store
            .read_feed(&feed, Position::START, 10)
            .await
            .unwrap()
            .len()
    };
    soon("it is delivered", async {
        while count().await < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // What comes after it in the outbox arrives after it.
    let next = Commit {
        number: 2,
        emitted: vec![vec![to_target("10")]],
        progress: Progress::default(),
        ..Commit::default()
    };
    store.commit(&lease, &next).await.unwrap();
    soon("it is delivered", async {
        while count().await < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(count().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_by_one_node_is_heard_at_another() {
    let cluster = Cluster::take();
    let urls = cluster.servers().urls();
    let store = RedisStore::builder(urls[0].clone())
        .partitions(orders(), PARTITIONS)
        .publish_on_commit(orders())
        .connect()
        .await
        .unwrap();
    let other = RedisStore::connect(urls[1].clone()).await.unwrap();
    let pattern: Pattern = "orders.*".parse().unwrap();
    let mut heard = other.subscribe(&[pattern]).await.unwrap();
    // Each by the node that serves the partition.
    for partition in partitions() {
        append_to(&store, &partition).await;
        soon("it is heard", heard.next()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_goes_to_another_node() {
    let mut servers = event_tests::RedisCluster::start().unwrap();
    let store = RedisStore::connect(servers.url()).await.unwrap();
    let pattern: Pattern = "orders.*".parse().unwrap();
    let mut heard = store.subscribe(&[pattern]).await.unwrap();
    let is_there = |node: &event_tests::RedisServer| {
        let clients = node.command(&["CLIENT", "LIST"]).unwrap();
        clients.contains("psub=1")
    };
    let node = servers.nodes().iter().position(is_there).unwrap();
    servers.node_mut(node).kill();
    soon("it is heard again", async {
        loop {
            let events = [orders_event("k")];
            let sending = store.publish_realtime(&events);
            let _ = tokio::time::timeout(Duration::from_secs(1), sending).await;
            let waiting = tokio::time::timeout(Duration::from_millis(50), heard.next());
            if waiting.await.is_ok() {
                break;
            }
        }
    })
    .await;
}
