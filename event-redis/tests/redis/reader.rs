//! Following several partitions for a group, over one connection.

use std::collections::BTreeMap;
use std::time::Duration;

use event_core::{
    Append, Category, EventStore, FeedEntry, GroupReader, Groups, Partition, Position, ReadError,
    StoreError, Wanted,
};
use event_redis::RedisStore;

use crate::support::{builder, event_as, id, server, soon, store, until};

fn category(name: &str) -> Category {
    Category::new(name.to_owned()).unwrap()
}

fn wanted(name: &str, after: Position, limit: usize) -> Wanted {
    Wanted {
        partition: category(name).into(),
        after,
        limit,
    }
}

/// Appends events whose payloads are numbers; gives the position of the last.
async fn append(
    store: &RedisStore,
    name: &str,
    numbers: std::ops::RangeInclusive<u32>,
) -> Position {
    let events = numbers
        .map(|n| {
            event_as(
                event_core::Ids::random().next(),
                &format!("{name}.thing.done"),
                &n.to_string(),
            )
        })
        .collect();
    let append = Append::to_feed(category(name), events);
    store.append(&append).await.unwrap().position()
}

fn payload(entry: &FeedEntry) -> u32 {
    match entry {
        FeedEntry::Event(event) => event.payload().parse().unwrap(),
        FeedEntry::Undecodable { position, error } => panic!("{position}: {error}"),
    }
}

/// Reads as the owner of some partitions does: each from where it has come to.
struct Owner {
    reader: Box<dyn GroupReader>,
    at: BTreeMap<Partition, Position>,
    found: BTreeMap<Partition, Vec<u32>>,
}

impl Owner {
    async fn new(store: &RedisStore, names: &[&str]) -> Self {
        let start = |name: &&str| (category(name).into(), Position::START);
        Self {
            reader: store.group_reader("g").await.unwrap(),
            at: names.iter().map(start).collect(),
            found: BTreeMap::new(),
        }
    }

    fn wanted(&self, limit: usize) -> Vec<Wanted> {
        let wanted = |(partition, after): (&Partition, &Position)| Wanted {
            partition: partition.clone(),
            after: *after,
            limit,
        };
        self.at.iter().map(wanted).collect()
    }

    async fn read(&mut self, limit: usize) -> bool {
        let wanted = self.wanted(limit);
        let batch = soon("a batch", self.reader.next(&wanted)).await.unwrap();
        self.note(batch.entries, limit);
        batch.changed
    }

    fn note(&mut self, entries: Vec<(Partition, Vec<FeedEntry>)>, limit: usize) {
        for (partition, entries) in entries {
            assert!(!entries.is_empty() && entries.len() <= limit);
            let at = self.at.get_mut(&partition).unwrap();
            for entry in &entries {
                assert!(entry.position() > *at);
                *at = entry.position();
            }
            let found = self.found.entry(partition).or_default();
            found.extend(entries.iter().map(payload));
        }
    }

    fn found(&self, name: &str) -> Vec<u32> {
        let found = self.found.get(&Partition::from(category(name)));
        found.cloned().unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.found.values().map(Vec::len).sum()
    }
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<u32> {
    range.collect()
}

#[tokio::test]
async fn all_partitions_are_read_over_one_connection() {
    let server = server();
    let store = store(&server).await;
    append(&store, "a", 1..=900).await;
    append(&store, "b", 1..=5).await;
    let connections = || {
        let clients = server
            .command(&["CLIENT", "LIST", "TYPE", "normal"])
            .unwrap();
        clients.lines().count()
    };
    let before = connections();
    let mut owner = Owner::new(&store, &["a", "b", "c"]).await;
    while owner.count() < 905 {
        assert!(!owner.read(100).await);
    }
    assert_eq!(connections(), before + 1);
    assert_eq!(owner.found("a"), numbers(1..=900));
    assert_eq!(owner.found("b"), numbers(1..=5));
    for n in 1..=20 {
        append(&store, "c", n..=n).await;
        append(&store, "a", 900 + n..=900 + n).await;
        while owner.count() < 905 + 2 * usize::try_from(n).unwrap() {
            owner.read(100).await;
        }
    }
    assert_eq!(owner.found("a"), numbers(1..=920));
    assert_eq!(owner.found("c"), numbers(1..=20));
}

#[tokio::test]
async fn whatever_is_asked_for_nothing_is_left_out_or_comes_twice() {
    let server = server();
    let store = store(&server).await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..300 {
                let from = n * 5 + 1;
                append(&store, if n % 3 == 0 { "a" } else { "b" }, from..=from + 4).await;
            }
        }
    });
    let mut owner = Owner::new(&store, &["a", "b"]).await;
    let mut turn = 0_u32;
    soon("everything", async {
        while owner.count() < 1_500 {
            turn += 1;
            // Limits that change, partitions that pause, and futures that are dropped.
            let mut wanted = owner.wanted(1);
            for (wish, factor) in wanted.iter_mut().zip([7, 11]) {
                wish.limit = (turn * factor % 23) as usize;
            }
            if turn.is_multiple_of(5) {
                wanted.remove((turn % 2) as usize);
            }
            let wait = Duration::from_micros(u64::from(turn % 7) * 200);
            if let Ok(batch) = tokio::time::timeout(wait, owner.reader.next(&wanted)).await {
                let batch = batch.unwrap();
                for (partition, entries) in &batch.entries {
                    let wish = wanted.iter().find(|wish| wish.partition == *partition);
                    assert!(entries.len() <= wish.unwrap().limit);
                }
                owner.note(batch.entries, usize::MAX);
            }
        }
    })
    .await;
    writer.await.unwrap();
    let of = |third: bool| -> Vec<u32> {
        (1..=1_500)
            .filter(|n| ((n - 1) / 5 % 3 == 0) == third)
            .collect()
    };
    assert_eq!(owner.found("a"), of(true));
    assert_eq!(owner.found("b"), of(false));
}

/// Wants something while the server holds its reply back for seconds. So often that all of it takes
/// far too long where each of them is waited for.
async fn change_the_wish(reader: &mut dyn GroupReader) {
    let empty = [wanted("a", Position::START, 10)];
    let both = [
        wanted("a", Position::START, 10),
        wanted("b", Position::START, 10),
    ];
    soon("every new wish", async {
        for turn in 0..20 {
            // Before the server has the question, and after.
            let wait = Duration::from_millis(5 * (turn % 3));
            let waiting = tokio::time::timeout(wait, reader.next(&empty));
            assert!(waiting.await.is_err());
            let batch = reader.next(&both).await.unwrap();
            assert_eq!(batch.entries.len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_wish_is_served_at_once() {
    let server = server();
    let store = store(&server).await;
    append(&store, "b", 1..=1).await;
    let mut reader = store.group_reader("g").await.unwrap();
    let connections = || {
        let stats = server.command(&["INFO", "stats"]).unwrap();
        let line = stats
            .lines()
            .find(|line| line.starts_with("total_connections_received"));
        let (_, count) = line.unwrap().trim().split_once(':').unwrap();
        count.parse::<usize>().unwrap()
    };
    let before = connections();
    change_the_wish(&mut *reader).await;
    // The reader's own, and the one that asks now: none was given up.
    assert_eq!(connections(), before + 2);
}

#[tokio::test]
async fn who_may_not_unblock_connects_again() {
    let server = server();
    for rule in ["-client|unblock", "-client|id"] {
        let rules = [
            "ACL", "SETUSER", "app", "reset", "on", "nopass", "~*", "&*", "+@all", rule,
        ];
        server.command(&rules).unwrap();
        let url = server.url().replace("redis://", "redis://app:x@");
        let store = RedisStore::connect(url).await.unwrap();
        append(&store, "b", 1..=1).await;
        let mut reader = store.group_reader("g").await.unwrap();
        change_the_wish(&mut *reader).await;
    }
}

#[tokio::test]
async fn a_position_may_go_back() {
    let server = server();
    let store = store(&server).await;
    append(&store, "a", 1..=10).await;
    let mut reader = store.group_reader("g").await.unwrap();
    let mut read = async |after, limit| {
        let wanted = [wanted("a", after, limit)];
        let batch = soon("a batch", reader.next(&wanted)).await.unwrap();
        let entries = &batch.entries[0].1;
        let payloads: Vec<u32> = entries.iter().map(payload).collect();
        (payloads, entries.last().unwrap().position())
    };
    let (first, third) = read(Position::START, 3).await;
    assert_eq!(first, numbers(1..=3));
    assert_eq!(read(Position::START, 3).await.0, numbers(1..=3));
    let (next, fifth) = read(third, 2).await;
    assert_eq!(next, numbers(4..=5));
    assert_eq!(read(third, 1).await.0, numbers(4..=4));
    // And on, past some.
    assert_eq!(read(fifth, 100).await.0, numbers(6..=10));
    assert_eq!(read(Position::START, 100).await.0, numbers(1..=10));
}

#[tokio::test]
async fn changes_come_between_events_and_are_not_lost() {
    let server = server();
    let store = store(&server).await;
    store.leave("g", "long ago").await.unwrap();
    append(&store, "a", 1..=3).await;
    let mut owner = Owner::new(&store, &["a"]).await;
    // What was before is not told.
    assert!(!owner.read(10).await);
    let lease = Duration::from_secs(60);
    store.join("g", "x", lease).await.unwrap();
    let changed = soon("a change", async {
        while !owner.read(10).await {}
        true
    });
    assert!(changed.await);
    assert_eq!(owner.found("a"), numbers(1..=3));

    // A future that is dropped takes no change with it.
    for n in 0..20_u64 {
        store.leave("g", "x").await.unwrap();
        let mut changed = false;
        let mut turn = 0;
        soon("a change", async {
            while !changed {
                turn += 1;
                let wanted = owner.wanted(10);
                let wait = Duration::from_micros((n * 50 + turn) % 2_000);
                let next = tokio::time::timeout(wait, owner.reader.next(&wanted));
                changed = next.await.is_ok_and(|batch| batch.unwrap().changed);
            }
        })
        .await;
    }
    // Changes of another group are none.
    store.leave("h", "x").await.unwrap();
    append(&store, "a", 4..=4).await;
    assert!(!owner.read(10).await);
}

#[tokio::test]
async fn nothing_wanted_waits_for_a_change() {
    let server = server();
    let store = store(&server).await;
    append(&store, "a", 1..=3).await;
    let mut reader = store.group_reader("g").await.unwrap();
    let waiting = tokio::spawn(async move {
        let nothing = [wanted("a", Position::START, 0)];
        let batch = soon("a change", reader.next(&nothing)).await.unwrap();
        assert!(batch.changed && batch.entries.is_empty());
    });
    until("a blocked reader", || {
        let clients = server.command(&["INFO", "clients"]).unwrap();
        clients.contains("blocked_clients:1")
    })
    .await;
    store.leave("g", "x").await.unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_group_reader_survives_the_server() {
    let mut server = server();
    let store = store(&server).await;
    append(&store, "a", 1..=10).await;
    let mut owner = Owner::new(&store, &["a", "b"]).await;
    owner.read(4).await;
    server.kill();
    let reading = tokio::spawn(async move {
        while owner.count() < 20 {
            owner.read(4).await;
        }
        owner
    });
    server.restart().unwrap();
    soon("an append", append(&store, "b", 1..=10)).await;
    let mut owner = soon("the rest", reading).await.unwrap();
    assert_eq!(owner.found("a"), numbers(1..=10));
    assert_eq!(owner.found("b"), numbers(1..=10));
    // Where it was in the changes, it knows, too.
    store.leave("g", "x").await.unwrap();
    soon("a change", async { while !owner.read(4).await {} }).await;
}

#[tokio::test]
async fn a_group_reader_says_when_the_server_does_not_answer() {
    let mut server = server();
    let store = builder(&server)
        .patience(Duration::from_millis(200))
        .connect()
        .await
        .unwrap();
    append(&store, "a", 1..=1).await;
    let mut owner = Owner::new(&store, &["a"]).await;
    owner.read(1).await;
    server.kill();
    let wanted = owner.wanted(1);
    let error = soon("an error", owner.reader.next(&wanted))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ReadError::Store(StoreError::Unavailable { .. })),
        "{error:?}"
    );
    server.restart().unwrap();
    soon("a change", async {
        while store.leave("g", "x").await.is_err() {}
        loop {
            match owner.reader.next(&wanted).await {
                Ok(batch) => break assert!(batch.changed),
                Err(ReadError::Store(StoreError::Unavailable { .. })) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_of_another_type_is_refused_and_the_others_go_on() {
    let server = server();
    let store = store(&server).await;
    append(&store, "a", 1..=1).await;
    server.command(&["SET", "events:b", "x"]).unwrap();
    let mut reader = store.group_reader("g").await.unwrap();
    let both = [
        wanted("a", Position::START, 1),
        wanted("b", Position::START, 1),
    ];
    let error = soon("an error", reader.next(&both)).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Store(StoreError::Refused { .. })),
        "{error:?}"
    );
    let batch = soon("an event", reader.next(&both[..1])).await.unwrap();
    assert_eq!(batch.entries.len(), 1);
}

#[tokio::test]
async fn an_event_of_one_partition_does_not_wait_for_the_others() {
    let server = server();
    let store = builder(&server)
        .partitions(category("a"), 16)
        .connect()
        .await
        .unwrap();
    let mut owner = Owner::new(&store, &[]).await;
    for number in 0..16 {
        let partition = Partition::new(category("a"), number);
        owner.at.insert(partition, Position::START);
    }
    for n in 1..=100_u32 {
        let event = event_as(id(n), "a.thing.done", &n.to_string());
        let append = Append::to_feed(category("a"), vec![event]);
        store.append(&append).await.unwrap();
        while owner.count() < n as usize {
            owner.read(10).await;
        }
    }
    let mut found: Vec<u32> = owner.found.values().flatten().copied().collect();
    found.sort_unstable();
    assert_eq!(found, numbers(1..=100));
    assert!(owner.found.len() > 8);
}
