//! Readers of groups: several partitions at once, old then new, and what has changed in the group.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::StoreHarness;
use super::bank::{bank, category, deposits, event_of};
use super::commits::letter;
use super::partitions::{key_of_each, keyed, partitions};
use super::steps::{
    Chance, LONG, acquire, append_to_feed, assert_ordered, commit, events, fresh, head, new_ids,
    partition_events, poll_and_drop, recorded_ids, send, within,
};
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{
    Append, Chosen, Commit, DeadLetters, EventStore, FeedEntry, GroupBatch, GroupReader, Groups,
    Wanted,
};

/// A reader that remembers how far it has come.
struct Reading {
    reader: Box<dyn GroupReader>,
    found: BTreeMap<Partition, Vec<FeedEntry>>,
    limit: usize,
}

impl Reading {
    async fn of(store: &impl Groups, limit: usize) -> Self {
        let reader = match store.group_reader("g").await {
            Ok(reader) => reader,
            Err(error) => panic!("a reader must be given: {error}"),
        };
        Self {
            reader,
            found: BTreeMap::new(),
            limit,
        }
    }

    fn after(&self, partition: &Partition) -> Position {
        self.found
            .get(partition)
            .and_then(|found| found.last())
            .map_or(Position::START, FeedEntry::position)
    }

    fn wanted(&self, partitions: &[Partition]) -> Vec<Wanted> {
        partitions
            .iter()
            .map(|partition| Wanted {
                partition: partition.clone(),
                after: self.after(partition),
                limit: self.limit,
            })
            .collect()
    }

    /// Takes in a batch that was wanted from these; says whether something has changed.
    fn take_in(&mut self, partitions: &[Partition], batch: GroupBatch) -> bool {
        assert!(
            batch.changed || !batch.entries.is_empty(),
            "a reader must wait until there is something"
        );
        for (partition, entries) in batch.entries {
            assert!(
                partitions.contains(&partition),
                "`{partition}` is not wanted"
            );
            assert!(
                (1..=self.limit).contains(&entries.len()),
                "at most {} of `{partition}` are wanted, and {} came",
                self.limit,
                entries.len()
            );
            assert_ordered(&entries, self.after(&partition));
            self.found.entry(partition).or_default().extend(entries);
        }
        batch.changed
    }

    async fn next(&mut self, partitions: &[Partition]) -> bool {
        let wanted = self.wanted(partitions);
        let batch = within("a reader gets what there is", self.reader.next(&wanted)).await;
        match batch {
            Ok(batch) => self.take_in(partitions, batch),
            Err(error) => panic!("a reader must go on: {error}"),
        }
    }

    fn count(&self, partition: &Partition) -> usize {
        self.found.get(partition).map_or(0, Vec::len)
    }

    async fn until(&mut self, partitions: &[Partition], count: usize) {
        while self.found.values().map(Vec::len).sum::<usize>() < count {
            self.next(partitions).await;
        }
    }

    /// What was found in a partition must be all there is.
    async fn assert_complete(&mut self, store: &impl EventStore, partition: &Partition) {
        let found = self.found.remove(partition).unwrap_or_default();
        assert_eq!(
            recorded_ids(&events(found)),
            recorded_ids(&partition_events(store, partition).await),
            "`{partition}`: nothing left out, nothing twice, in order"
        );
    }
}

/// A reader gets what lies in several partitions, of several categories, and then what comes there,
/// of each in order.
pub async fn several_partitions_are_read_at_once<H: StoreHarness>(harness: &H) {
    let store = harness.partitioned(&bank(), 4).await;
    let keys = key_of_each();
    let shop = category("shop");
    let mut all = partitions();
    all.push(shop.clone().into());
    for limit in [1, 7, 1_000] {
        let mut reading = Reading::of(&store, limit).await;
        let mut count = 0;
        for partition in &all {
            count += partition_events(&store, partition).await.len();
        }
        for round in 0..20 {
            for key in &keys {
                send(&store, &Append::to_feed(bank(), vec![keyed(key)])).await;
            }
            append_to_feed(&store, &shop, vec![event_of(&shop), event_of(&shop)]).await;
            count += 6;
            if round % 3 == 0 {
                reading.until(&all, count).await;
            }
        }
        reading.until(&all, count).await;
        for partition in &all {
            reading.assert_complete(&store, partition).await;
        }
    }
}

/// A reader begins after the positions that are wanted, and gets no more than is wanted at once.
pub async fn a_reader_keeps_to_what_is_wanted<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let shop = category("shop");
    append_to_feed(&store, &bank(), deposits(5)).await;
    append_to_feed(&store, &shop, vec![event_of(&shop)]).await;
    let all = partition_events(&store, &bank().into()).await;
    let mut reader = store.group_reader("g").await.unwrap();
    for (index, event) in all[..4].iter().enumerate() {
        for limit in 1..=5 {
            let wanted = [Wanted {
                partition: bank().into(),
                after: event.position(),
                limit,
            }];
            let batch = within("what lies there is read", async {
                loop {
                    let batch = reader.next(&wanted).await.unwrap();
                    if !batch.entries.is_empty() {
                        break batch;
                    }
                }
            })
            .await;
            assert_eq!(batch.entries.len(), 1);
            let found = events(batch.entries.into_iter().flat_map(|(_, e)| e).collect());
            assert!(!found.is_empty() && found.len() <= limit);
            assert!(all[index + 1..].starts_with(&found), "after {index}");
        }
    }
}

/// Whenever a reader begins while others append, it gets every event once and in order.
pub async fn there_is_no_gap_and_nothing_twice_at_the_seam_of_a_reader<H: StoreHarness>(
    harness: &H,
) {
    let store = fresh(harness).await;
    for round in 0..200 / H::LOAD_DIVISOR as u64 {
        let all: Vec<Partition> = ["a", "b"]
            .map(|name| category(&format!("{name}{round}")).into())
            .into();
        let mut chance = Chance::new(round);
        let (appended, mut count) = watch::channel(0);
        let writer = {
            let (store, all) = (store.clone(), all.clone());
            let mut chance = Chance::new(round + 1_000_000);
            tokio::spawn(async move {
                let mut sent = 0;
                for _ in 0..8 {
                    let category = all[chance.below(2)].category();
                    let new: Vec<_> = (0..1 + chance.below(3))
                        .map(|_| event_of(category))
                        .collect();
                    sent += new.len();
                    append_to_feed(&store, category, new).await;
                    appended.send_modify(|count| *count += 1);
                    chance.pause().await;
                }
                sent
            })
        };
        let done = chance.below(9);
        let begun = within("the writer goes on", count.wait_for(|count| *count >= done))
            .await
            .is_ok();
        assert!(begun);
        chance.pause().await;
        let mut reading = Reading::of(&store, 1 + chance.below(5)).await;
        chance.pause().await;
        while !writer.is_finished() {
            let lies = all.iter().any(|partition| reading.count(partition) == 0);
            let wanted = reading.wanted(&all);
            if let Some(batch) = poll_and_drop(reading.reader.next(&wanted)) {
                reading.take_in(&all, batch.unwrap());
            } else if lies {
                tokio::task::yield_now().await;
            }
            chance.pause().await;
        }
        let sent = writer.await.unwrap();
        reading.until(&all, sent).await;
        for partition in &all {
            reading.assert_complete(&store, partition).await;
        }
    }
}

/// Waiting may be given up at any moment, and others be wanted by the next call: nothing is lost.
pub async fn a_reader_may_give_up_its_waits<H: StoreHarness>(harness: &H) {
    const EVENTS: usize = 300;
    let store = harness.partitioned(&bank(), 4).await;
    let (all, keys) = (partitions(), key_of_each());
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut chance = Chance::new(1);
            for number in 0..EVENTS {
                let new = keyed(&keys[number % 4]);
                send(&store, &Append::to_feed(bank(), vec![new])).await;
                chance.pause().await;
            }
        })
    };
    let mut reading = Reading::of(&store, 5).await;
    let mut chance = Chance::new(2);
    within("everything is read", async {
        while reading.found.values().map(Vec::len).sum::<usize>() < EVENTS {
            // Any of them, in any order.
            let from = chance.below(4);
            let mut some: Vec<_> = all[from..].to_vec();
            some.extend_from_slice(&all[..chance.below(from + 1)]);
            let wanted = reading.wanted(&some);
            let mut steps = Chance::new(chance.below(1_000) as u64);
            let batch = tokio::select! {
                biased;
                () = steps.pause() => None,
                batch = reading.reader.next(&wanted) => Some(batch),
            };
            if let Some(batch) = batch {
                reading.take_in(&some, batch.unwrap());
            }
            // A wait that is always given up at once would never get anything from a store behind a
            // network.
            if chance.below(3) == 0 && (writer.is_finished() || chance.below(2) == 0) {
                let there: usize = reading.found.values().map(Vec::len).sum();
                if there < EVENTS {
                    reading.next(&all).await;
                }
            }
        }
    })
    .await;
    writer.await.unwrap();
    for partition in &all {
        reading.assert_complete(&store, partition).await;
    }
}

/// What lies in a partition is read at once when it is wanted, though the reader waited for others
/// before.
pub async fn another_partition_is_read_as_soon_as_it_is_wanted<H: StoreHarness>(harness: &H) {
    const TIMES: usize = 30;
    let store = fresh(harness).await;
    let empty = category("empty");
    let mut partitions: Vec<Partition> = Vec::new();
    for number in 0..TIMES {
        let category = category(&format!("wanted{number}"));
        append_to_feed(&store, &category, vec![event_of(&category)]).await;
        partitions.push(category.into());
    }
    let nothing = Partition::from(&empty);
    let mut reading = Reading::of(&store, 10).await;
    // Each time it could wait until what the store was asked before comes to its end. So often, that would
    // take too long.
    within("what is wanted anew is read at once", async {
        for partition in &partitions {
            // It waits, and the store has been asked.
            let wanted = reading.wanted(std::slice::from_ref(&nothing));
            for _ in 0..20 {
                let batch = poll_and_drop(reading.reader.next(&wanted));
                assert!(batch.is_none(), "there is nothing");
                head(&store, &empty).await;
            }
            let both = [nothing.clone(), partition.clone()];
            while reading.count(partition) == 0 {
                reading.next(&both).await;
            }
        }
    })
    .await;
    // And what was wanted before is not forgotten.
    append_to_feed(&store, &empty, vec![event_of(&empty)]).await;
    partitions.push(nothing);
    reading.until(&partitions, TIMES + 1).await;
}

/// A reader is told when an instance comes or goes, when a partition is given back, and when dead
/// letters are redriven or discarded; be it that it wants nothing, or is told of entries as well.
pub async fn a_reader_is_told_of_changes<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let partition = Partition::from(bank());
    let at = append_to_feed(&store, &bank(), deposits(1))
        .await
        .position();
    let (lease, _) = acquire(&store, "g", &partition, "a", LONG).await;
    let parks = Commit {
        number: 1,
        parked: vec![letter(at, "h", Some("k"))],
        ..Commit::default()
    };
    commit(&store, &lease, &parks).await;
    let mut reading = Reading::of(&store, 10).await;
    for change in 0..5 {
        let reader = async {
            let wanted = match change % 2 {
                0 => vec![],
                _ => vec![partition.clone()],
            };
            while !reading.next(&wanted).await {}
        };
        let changes = async {
            tokio::task::yield_now().await;
            match change {
                0 => drop(other.join("g", "b", LONG).await.unwrap()),
                1 => other.leave("g", "b").await.unwrap(),
                2 => {
                    let chosen = Chosen::All;
                    let redriven = other.redrive_dead_letters("g", &partition, &chosen).await;
                    assert_eq!(redriven.unwrap(), 1);
                }
                3 => {
                    let chosen = Chosen::All;
                    let discarded = other.discard_dead_letters("g", &partition, &chosen).await;
                    assert_eq!(discarded.unwrap(), 1);
                }
                _ => store.release(&lease).await.unwrap(),
            }
        };
        let told = format!("change {change} is told");
        within(&told, futures::future::join(reader, changes)).await;
    }
}

/// What changes while a reader does not wait is told to its next wait.
pub async fn a_reader_is_told_what_has_changed_meanwhile<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let mut reading = Reading::of(&store, 10).await;
    for round in 0..5 {
        store.join("g", &format!("i{round}"), LONG).await.unwrap();
        assert!(reading.next(&[]).await, "it was told in round {round}");
        let new = deposits(1);
        append_to_feed(&other, &bank(), new.clone()).await;
        while reading.count(&bank().into()) <= round {
            reading.next(&[bank().into()]).await;
        }
        let found = reading.found[&bank().into()]
            .last()
            .map(FeedEntry::position);
        let last = partition_events(&store, &bank().into()).await;
        assert_eq!(recorded_ids(&last).last(), new_ids(&new).last());
        assert_eq!(last.last().map(|event| event.position()), found);
    }
}

/// Two readers of a group each get everything that they want.
pub async fn two_readers_each_get_what_they_want<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let all = [Partition::from(bank())];
    let mut one = Reading::of(&store, 3).await;
    let mut two = Reading::of(&other, 100).await;
    for round in 1..=10 {
        append_to_feed(&store, &bank(), deposits(5)).await;
        one.until(&all, 5 * round).await;
        if round % 2 == 0 {
            two.until(&all, 5 * round).await;
        }
    }
    one.assert_complete(&store, &all[0]).await;
    two.assert_complete(&store, &all[0]).await;
}
