//! Dead letters: parked and resolved by commits, read and decided about by anyone.

use event_core::{
    Append, Chosen, Clock, Commit, DeadLetter, DeadLetterError, DeadLetterId, DeadLetterReason,
    DeadLetters, EventStore, Expected, Groups, Lease, Position, StoreError,
};
use event_redis::RedisStore;

use crate::groups::{LONG, lease};
use crate::support::{events, only, sdlc, server, soon, store, to};

const DEAD: &str = "{events:sdlc}:dead:g";
const ORDER: &str = "{events:sdlc}:dead-order:g";
const RAW: &str = "{events:sdlc}:dead-raw:g";

fn letter(position: Position, handler: &str, key: Option<&str>) -> DeadLetter {
    let now = Clock::system().now();
    DeadLetter {
        position,
        handler: handler.into(),
        key: key.map(str::to_owned),
        event_type: Some("sdlc.phase.changed".into()),
        event_id: None,
        reason: DeadLetterReason::Exhausted,
        errors: vec![],
        attempts: 3,
        first_failed_at: now,
        last_failed_at: now,
        redrive: false,
    }
}

/// Commits one after the other.
struct Owner {
    store: RedisStore,
    lease: Lease,
    number: u64,
}

impl Owner {
    async fn new(store: &RedisStore) -> Self {
        Self {
            store: store.clone(),
            lease: lease(store, "a", LONG).await,
            number: 0,
        }
    }

    async fn commit(&mut self, mut commit: Commit) -> usize {
        self.number += 1;
        commit.number = self.number;
        let committed = self.store.commit(&self.lease, &commit).await.unwrap();
        committed.dead_letters
    }

    async fn park(&mut self, parked: Vec<DeadLetter>) -> usize {
        self.commit(Commit {
            parked,
            ..Commit::default()
        })
        .await
    }
}

async fn list(store: &RedisStore) -> Vec<DeadLetter> {
    store
        .list_dead_letters("g", &only(), None, usize::MAX)
        .await
        .unwrap()
}

async fn redriven(store: &RedisStore) -> Vec<String> {
    let letters = list(store).await;
    let redriven = letters.iter().filter(|letter| letter.redrive);
    redriven.map(|letter| letter.id().to_string()).collect()
}

fn one(position: u64, handler: &str) -> Chosen {
    Chosen::One(id(position, handler))
}

fn id(position: u64, handler: &str) -> DeadLetterId {
    DeadLetterId {
        position: Position::new(position, 0),
        handler: handler.into(),
    }
}

fn at(position: u64, handler: &str, key: &str) -> DeadLetter {
    letter(Position::new(position, 0), handler, Some(key))
}

#[tokio::test]
async fn what_is_parked_is_read_as_it_was_written_and_with_its_entry() {
    let server = server();
    let store = store(&server).await;
    let mut owner = Owner::new(&store).await;
    server
        .command(&[
            "XADD",
            "events:sdlc",
            "5-1",
            "type",
            "NO TYPE",
            "",
            "x",
            "payload",
            "a\nb",
        ])
        .unwrap();
    let mut parked = letter(Position::new(5, 1), "", None);
    parked.event_type = None;
    parked.reason = DeadLetterReason::Undecodable;
    let other = DeadLetter {
        errors: vec!["it says \"redrive\":false".into(), "ü".into()],
        ..letter(Position::new(5, 1), "on_push", Some("octo/hello"))
    };
    assert_eq!(owner.park(vec![other.clone(), parked.clone()]).await, 2);
    assert_eq!(list(&store).await, [parked.clone(), other.clone()]);
    let json = server.command(&["HGET", DEAD, "5-1/on_push"]).unwrap();
    assert_eq!(json, serde_json::to_string(&other).unwrap());
    assert_eq!(
        server.command(&["ZRANGE", ORDER, "0", "-1"]).unwrap(),
        "00000000000000000005-00000000000000000001/\n00000000000000000005-00000000000000000001/on_push"
    );
    let inspect = |handler: &str| {
        let id = DeadLetterId {
            position: Position::new(5, 1),
            handler: handler.into(),
        };
        let store = store.clone();
        async move { store.inspect_dead_letter("g", &only(), &id).await.unwrap() }
    };
    let found = inspect("").await.unwrap();
    assert_eq!(found.letter, parked);
    let raw = [("type", "NO TYPE"), ("", "x"), ("payload", "a\nb")]
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    assert_eq!(found.raw, raw);
    assert!(inspect("nobody").await.is_none());

    // What was kept is kept, whatever becomes of the feed.
    server.command(&["XDEL", "events:sdlc", "5-1"]).unwrap();
    owner.park(vec![parked]).await;
    assert_eq!(inspect("").await.unwrap().raw, raw);
    // The mark is set where it belongs.
    store
        .redrive_dead_letters("g", &only(), &Chosen::All)
        .await
        .unwrap();
    let marked = inspect("on_push").await.unwrap().letter;
    assert_eq!(
        marked,
        DeadLetter {
            redrive: true,
            ..other
        }
    );

    let resolved = Commit {
        resolved: list(&store).await.iter().map(DeadLetter::id).collect(),
        ..Commit::default()
    };
    assert_eq!(owner.commit(resolved).await, 0);
    assert!(list(&store).await.is_empty());
    for key in [DEAD, ORDER, RAW] {
        assert_eq!(server.command(&["EXISTS", key]).unwrap(), "0");
    }
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages() {
    let server = server();
    let store = store(&server).await;
    let mut owner = Owner::new(&store).await;
    let mut letters: Vec<_> = (0..1_300)
        .map(|n| {
            letter(
                Position::new(n / 3 + 1, n % 3),
                &format!("h{}", n % 2),
                None,
            )
        })
        .collect();
    letters.reverse();
    assert_eq!(owner.park(letters.clone()).await, 1_300);
    letters.reverse();
    assert_eq!(list(&store).await, letters);
    for limit in [0, 1, 499, 500, 501, 1_200] {
        let mut found: Vec<DeadLetter> = Vec::new();
        loop {
            let after = found.last().map(DeadLetter::id);
            let page = store
                .list_dead_letters("g", &only(), after.as_ref(), limit)
                .await
                .unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        let expected = if limit == 0 { 0 } else { 1_300 };
        assert_eq!(found.len(), expected, "{limit}");
    }
    let other = store
        .list_dead_letters("h", &only(), None, 10)
        .await
        .unwrap();
    assert!(other.is_empty());
}

#[tokio::test]
async fn dead_letters_are_redriven_as_they_are_chosen() {
    let server = server();
    let store = store(&server).await;
    let mut owner = Owner::new(&store).await;
    owner
        .park(vec![
            at(1, "a", "x"),
            at(1, "b", "x"),
            at(2, "a", "y"),
            at(3, "a", "x"),
            at(10, "b", "x"),
            letter(Position::new(11, 0), "b", None),
            letter(Position::new(12, 0), "b", None),
        ])
        .await;
    let redrive = |chosen: Chosen| {
        let store = store.clone();
        async move { store.redrive_dead_letters("g", &only(), &chosen).await }
    };
    for (position, handler, first) in [(3, "a", "1-0/a"), (10, "b", "1-0/b")] {
        let error = redrive(one(position, handler)).await.unwrap_err();
        assert!(
            matches!(&error, DeadLetterError::NotFirst { chosen, key, first: found }
                if *chosen == id(position, handler) && key == "x" && found.to_string() == first),
            "{error:?}"
        );
    }
    assert!(redriven(&store).await.is_empty());
    assert_eq!(redrive(one(7, "a")).await.unwrap(), 0);
    // Without a key there is no order.
    assert_eq!(redrive(one(12, "b")).await.unwrap(), 1);
    assert_eq!(redrive(one(1, "b")).await.unwrap(), 1);
    assert_eq!(redriven(&store).await, ["1-0/b", "12-0/b"]);
    assert_eq!(redrive(Chosen::Handler("a".into())).await.unwrap(), 3);
    assert_eq!(redrive(Chosen::Handler("nobody".into())).await.unwrap(), 0);
    assert_eq!(
        redriven(&store).await,
        ["1-0/a", "1-0/b", "2-0/a", "3-0/a", "12-0/b"]
    );
    // Those that are marked already count, too.
    assert_eq!(redrive(Chosen::Key("x".into())).await.unwrap(), 4);
    assert_eq!(redrive(Chosen::All).await.unwrap(), 7);
    assert_eq!(redriven(&store).await.len(), 7);
}

#[tokio::test]
async fn thousands_are_redriven_and_discarded_in_one_step() {
    let server = server();
    let store = store(&server).await;
    let mut owner = Owner::new(&store).await;
    let letters = (1..=2_000).map(|n| at(n, "a", if n % 2 == 0 { "even" } else { "odd" }));
    owner.park(letters.collect()).await;
    let even = Chosen::Key("even".into());
    let redriven = store.redrive_dead_letters("g", &only(), &even).await;
    assert_eq!(redriven.unwrap(), 1_000);
    let letters = list(&store).await;
    assert!(
        letters
            .iter()
            .all(|letter| letter.redrive == (letter.key.as_deref() == Some("even")))
    );
    let discarded = store.discard_dead_letters("g", &only(), &even).await;
    assert_eq!(discarded.unwrap(), 1_000);
    assert_eq!(list(&store).await.len(), 1_000);
    let all = store.discard_dead_letters("g", &only(), &Chosen::All).await;
    assert_eq!(all.unwrap(), 1_000);
    assert_eq!(server.command(&["EXISTS", DEAD, ORDER, RAW]).unwrap(), "0");
}

#[tokio::test]
async fn what_is_discarded_is_not_brought_back() {
    let server = server();
    let store = store(&server).await;
    let appended = store
        .append(&to("gothic", Expected::Any, events(2)))
        .await
        .unwrap();
    let at = |n: usize| appended.events[n].position;
    let mut owner = Owner::new(&store).await;
    let (first, second) = (letter(at(0), "a", None), letter(at(1), "a", None));
    owner.park(vec![first.clone(), second.clone()]).await;
    let discard = Chosen::One(first.id());
    let count = store
        .discard_dead_letters("g", &only(), &discard)
        .await
        .unwrap();
    assert_eq!(count, 1);
    let again = DeadLetter {
        attempts: 4,
        ..second
    };
    let retried = Commit {
        retried: vec![
            DeadLetter {
                attempts: 4,
                ..first
            },
            again.clone(),
        ],
        ..Commit::default()
    };
    assert_eq!(owner.commit(retried).await, 1);
    assert_eq!(list(&store).await, [again]);
    assert_eq!(server.command(&["HLEN", RAW]).unwrap(), "1");
}

#[tokio::test]
async fn decisions_wake_the_readers_of_the_group() {
    let server = server();
    let store = store(&server).await;
    let mut owner = Owner::new(&store).await;
    owner.park(vec![at(1, "a", "x")]).await;
    let mut reader = store.group_reader("g").await.unwrap();
    let waiting = tokio::spawn(async move {
        let batch = soon("a change", reader.next(&[])).await.unwrap();
        (batch, reader)
    });
    store
        .redrive_dead_letters("g", &only(), &Chosen::All)
        .await
        .unwrap();
    let (batch, mut reader) = waiting.await.unwrap();
    assert!(batch.changed && batch.entries.is_empty());
    store
        .discard_dead_letters("g", &only(), &Chosen::All)
        .await
        .unwrap();
    assert!(soon("a change", reader.next(&[])).await.unwrap().changed);
}

#[tokio::test]
async fn a_letter_that_is_none_is_named() {
    let server = server();
    let store = store(&server).await;
    let mut owner = Owner::new(&store).await;
    owner.park(vec![at(1, "a", "x"), at(2, "a", "x")]).await;
    server
        .command(&["HSET", DEAD, "1-0/a", "nonsense"])
        .unwrap();
    let error = store
        .list_dead_letters("g", &only(), None, 10)
        .await
        .unwrap_err();
    let StoreError::Refused { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("`nonsense`"), "{source}");
    // It can be got rid of, and stands in nobody's way.
    let x = Chosen::Key("x".into());
    let redriven = store.redrive_dead_letters("g", &only(), &x).await.unwrap();
    assert_eq!(redriven, 1);
    let discarded = store
        .discard_dead_letters("g", &only(), &one(1, "a"))
        .await
        .unwrap();
    assert_eq!(discarded, 1);
    assert_eq!(list(&store).await.len(), 1);
}

#[tokio::test]
async fn a_key_of_another_type_leaves_nothing_written() {
    for key in [DEAD, ORDER, RAW] {
        let server = server();
        let store = store(&server).await;
        let lease = lease(&store, "a", LONG).await;
        server.command(&["SET", key, "x"]).unwrap();
        let commit = Commit {
            number: 1,
            parked: vec![at(1, "a", "x")],
            emitted: vec![vec![Append::to_feed(sdlc(), events(1))]],
            ..Commit::default()
        };
        let error = store.commit(&lease, &commit).await.unwrap_err();
        assert!(error.to_string().contains("refuses"), "{error:?}");
        assert_eq!(server.command(&["EXISTS", "events:sdlc"]).unwrap(), "0");
        assert_eq!(server.command(&["EXISTS", DEAD, ORDER, RAW]).unwrap(), "1");
    }
}
