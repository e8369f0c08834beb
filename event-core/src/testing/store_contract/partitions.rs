//! Partitions: a feed of several parts.

use std::collections::{BTreeMap, BTreeSet};

use super::StoreHarness;
use super::bank::{account, bank, category, deposit, deposits};
use super::steps::{
    LONG, acquire, append, commit, expect_conflict, history, new_ids, next_events,
    partition_events, recorded_ids, send,
};
use crate::codec::NewEvent;
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{Append, AppendError, Commit, EventStore, Expected};

pub(super) const COUNT: u32 = 4;

pub(super) fn keyed(key: &str) -> NewEvent {
    let mut event = deposit();
    event.metadata_mut().key = Some(key.to_owned());
    event
}

pub(super) fn partitions() -> Vec<Partition> {
    (0..COUNT)
        .map(|number| Partition::new(bank(), number))
        .collect()
}

/// A key of each partition, in their order.
pub(super) fn key_of_each() -> Vec<String> {
    let mut keys = BTreeMap::new();
    let mut number = 0;
    while keys.len() < COUNT as usize {
        let key = format!("key{number}");
        let partition = Partition::of_event(bank(), &keyed(&key), COUNT);
        keys.entry(partition).or_insert(key);
        number += 1;
    }
    keys.into_values().collect()
}

/// The store says how many partitions a category has; it is 1 where nothing else was asked for.
pub async fn the_number_of_partitions_is_told<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), COUNT).await;
    let other = harness.other_client(&store).await;
    send(&store, &Append::to_feed(bank(), vec![keyed("k")])).await;
    for client in [&store, &other] {
        assert_eq!(client.partitions(&bank()).await.unwrap(), COUNT);
        assert_eq!(client.partitions(&category("shop")).await.unwrap(), 1);
    }
}

/// The events of one key, or of one aggregate, lie in one partition in order; all partitions are
/// used, and what is stored is in exactly one.
pub async fn what_belongs_together_lies_in_one_partition<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), COUNT).await;
    let other = harness.other_client(&store).await;
    let mut sent: BTreeMap<Partition, Vec<_>> = BTreeMap::new();
    for round in 0..5 {
        for number in 0..20 {
            let client = [&store, &other][(round + number) % 2];
            let new = keyed(&format!("key{number}"));
            let partition = Partition::of_event(bank(), &new, COUNT);
            sent.entry(partition)
                .or_default()
                .extend(new_ids(std::slice::from_ref(&new)));
            send(client, &Append::to_feed(bank(), vec![new])).await;

            let id = account(&format!("a{number}"));
            let new = deposits(2);
            let partition = Partition::of_aggregate(&id, COUNT);
            sent.entry(partition).or_default().extend(new_ids(&new));
            let expected = Expected::Exact(2 * round as u64);
            append(client, &id, expected, new).await;

            let new = deposit();
            let partition = Partition::of_event(bank(), &new, COUNT);
            sent.entry(partition)
                .or_default()
                .extend(new_ids(std::slice::from_ref(&new)));
            send(client, &Append::to_feed(bank(), vec![new])).await;
        }
    }
    for partition in partitions() {
        let found = partition_events(&store, &partition).await;
        assert_eq!(
            recorded_ids(&found),
            sent.remove(&partition).unwrap_or_default(),
            "`{partition}` must have what belongs there, in order"
        );
        assert!(!found.is_empty(), "`{partition}` must be used");
        let last = found.last().map(|event| event.position()).unwrap();
        assert_eq!(other.head(&partition).await.unwrap(), last);
        let mut follower = other.follow(&partition, Position::START).await.unwrap();
        assert_eq!(next_events(&mut *follower, found.len(), 7).await, found);
    }
    let beyond = partition_events(&store, &Partition::new(bank(), COUNT)).await;
    assert_eq!(beyond, []);
}

/// An append to a feed whose events lie in several partitions is refused, and stores nothing; by
/// the events of one partition it is accepted.
pub async fn an_append_to_several_partitions_is_refused<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), COUNT).await;
    let keys = key_of_each();
    let refused = Append::to_feed(
        bank(),
        vec![keyed(&keys[0]), keyed(&keys[0]), keyed(&keys[1])],
    );
    match store.append(&refused).await {
        Err(AppendError::SeveralPartitions { category }) => assert_eq!(category, "bank"),
        other => panic!("an append to several partitions must be refused, and came to {other:?}"),
    }
    for partition in partitions() {
        assert_eq!(partition_events(&store, &partition).await, []);
    }
    let accepted = Append::to_feed(bank(), vec![keyed(&keys[1]), keyed(&keys[1])]);
    send(&store, &accepted).await;
    assert_eq!(partition_events(&store, &partitions()[1]).await.len(), 2);
}

/// Aggregates know nothing of partitions: expected versions, repetitions and histories are as ever.
pub async fn aggregates_know_nothing_of_partitions<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), COUNT).await;
    let mut used = BTreeSet::new();
    for number in 0..12 {
        let id = account(&format!("a{number}"));
        used.insert(Partition::of_aggregate(&id, COUNT));
        let first = Append::to(id.clone(), Expected::NoStream, deposits(2));
        send(&store, &first).await;
        assert!(send(&store, &first).await.events[1].repeated);
        let second = Append::to(id.clone(), Expected::Any, deposits(1));
        send(&store, &second).await;
        assert!(send(&store, &second).await.events[0].repeated);
        let conflict = Append::to(id.clone(), Expected::Exact(2), deposits(1));
        match store.append(&conflict).await {
            Err(AppendError::Conflict { actual: 3, .. }) => {}
            other => panic!("it must be a conflict at version 3, and came to {other:?}"),
        }
        expect_conflict(
            &store,
            &Append::to(id.clone(), Expected::NoStream, deposits(1)),
            3,
        )
        .await;
        assert_eq!(history(&store, &id).await.len(), 3);
    }
    assert_eq!(used.len(), COUNT as usize);
}

/// Each partition has an owner and a progress of its own, and what is emitted finds its partition.
pub async fn each_partition_is_owned_by_itself<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), COUNT).await;
    let keys = key_of_each();
    for (index, partition) in partitions().iter().enumerate() {
        let instance = format!("i{index}");
        let (lease, _) = acquire(&store, "g", partition, &instance, LONG).await;
        assert_eq!((lease.epoch, &lease.partition), (1, partition));
        let (own, next) = (&keys[index], &keys[(index + 1) % keys.len()]);
        let emits = Commit {
            number: 1,
            emitted: vec![
                vec![
                    Append::to_feed(bank(), vec![keyed(next)]),
                    Append::to_feed(bank(), vec![keyed(own), keyed(own)]),
                ],
                vec![Append::to_feed(bank(), vec![keyed(next)])],
            ],
            wants_places: true,
            ..Commit::default()
        };
        commit(&store, &lease, &emits).await;
    }
    for (partition, key) in partitions().iter().zip(&keys) {
        let found = partition_events(&store, partition).await;
        assert_eq!(found.len(), 4);
        let is_own = |key: &String| found.iter().all(|e| e.metadata().key.as_ref() == Some(key));
        assert!(
            is_own(key),
            "`{partition}` has what belongs there: {found:?}"
        );
    }
}
