//! Emits to other slots: recorded with the progress, delivered once.

use std::ops::RangeInclusive;
use std::time::Duration;

use event_core::prelude::*;
use event_core::{
    AggregateId, Append, AppendError, Category, CodecError, Commit, CommitError, Committed,
    Consumer, EntryEmits, EventStore, Expected, Finish, Groups, HandlerDefinition, Lease, NewEvent,
    ParallelGroup, ParallelGroups, Partition, Position, Realtime, RealtimeItem, Reset, ResetError,
    Start, StoreError, Versions,
};
use event_redis::{ConnectError, Durability, RedisStore, RedisStoreBuilder};
use event_tests::RedisServer;
use event_tests::redis_server::Aof;
use serde::{Deserialize, Serialize};

use crate::groups::{LONG, lease};
use crate::support::{event_as, id, numbered, only, server, soon, to, until};

const PROGRESS: &str = "{events:sdlc}:group:g";
const NUMBERS: &str = "{events:sdlc}:outboxes:g";
const OUTBOX: &str = "{events:sdlc}:outbox:g:events:post";
const MARKS: &str = "{events:post}:delivered";
const FROM: &str = "g/events:sdlc";
const BLOCKED: &str = "{events:post}:history:parcel:blocked";

fn builder(server: &RedisServer) -> RedisStoreBuilder {
    crate::support::builder(server).without_shared_slots()
}

async fn store(server: &RedisServer) -> RedisStore {
    builder(server).connect().await.unwrap()
}

fn post() -> Category {
    Category::new("post").unwrap()
}

fn parcel(id: &str) -> AggregateId {
    AggregateId::new(post(), "parcel", id).unwrap()
}

/// An event whose payload is its number.
fn posted(number: u32) -> NewEvent {
    event_as(id(number), "post.parcel.sent", &number.to_string())
}

fn sends(number: u32) -> Append {
    Append::to_feed(post(), vec![posted(number)])
}

fn sends_to(parcel_id: &str, number: u32) -> Append {
    Append::to(parcel(parcel_id), Expected::Any, vec![posted(number)])
}

fn emitting(number: u64, emitted: Vec<Vec<Append>>) -> Commit {
    Commit {
        number,
        emitted,
        ..Commit::default()
    }
}

async fn commit(store: &RedisStore, lease: &Lease, number: u64, appends: Vec<Append>) -> Committed {
    let commit = emitting(number, vec![appends]);
    soon("a commit", store.commit(lease, &commit))
        .await
        .unwrap()
}

fn ask(server: &RedisServer, command: &[&str]) -> String {
    server.command(command).unwrap()
}

/// Numbers that a process of the server gives out first are a multiple of this, and 1.
const AT_ONCE: u64 = 16_384;

/// A number, counted from where the process of the server has begun.
fn counted(number: &str) -> String {
    let number = number.split(' ').next().unwrap_or_default();
    let number: u64 = number.parse().unwrap();
    (number % AT_ONCE).to_string()
}

fn mark(server: &RedisServer) -> String {
    counted(&ask(server, &["HGET", MARKS, FROM]))
}

fn number(server: &RedisServer) -> String {
    counted(&ask(server, &["HGET", NUMBERS, "events:post"]))
}

fn recorded(server: &RedisServer) -> usize {
    ask(server, &["XLEN", OUTBOX]).parse().unwrap()
}

/// Waits until everything that was recorded is delivered.
async fn empty(server: &RedisServer) {
    until("an empty outbox", || {
        ask(server, &["EXISTS", OUTBOX]) == "0"
    })
    .await;
}

/// The payloads of a feed, in order.
async fn payloads(store: &RedisStore, partition: &Partition) -> Vec<u32> {
    let entries = store.read_feed(partition, Position::START, usize::MAX);
    let entries = entries.await.unwrap().into_iter();
    let payload = |entry: event_core::FeedEntry| entry.into_event().unwrap().payload().parse();
    entries.map(|entry| payload(entry).unwrap()).collect()
}

async fn sent(store: &RedisStore) -> Vec<u32> {
    payloads(store, &post().into()).await
}

/// Records what its target refuses from now on, and what comes behind it: the next commit has the
/// number 3, and one event is delivered.
async fn block(server: &RedisServer, store: &RedisStore, lease: &Lease) {
    commit(store, lease, 1, vec![sends(1)]).await;
    empty(server).await;
    ask(server, &["SET", BLOCKED, "x"]);
    commit(store, lease, 2, vec![sends_to("blocked", 2)]).await;
}

fn unblock(server: &RedisServer) {
    ask(server, &["DEL", BLOCKED]);
}

#[tokio::test]
async fn what_goes_elsewhere_is_recorded_with_the_progress_and_delivered() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    let appends = vec![
        to("gothic", Expected::Any, numbered(&[9])),
        sends(1),
        sends_to("p", 2),
        Append::to(parcel("p"), Expected::Exact(7), vec![posted(3), posted(4)]),
    ];
    let committed = commit(&store, &owner, 1, appends).await;
    // What lies in the same slot has a place at once.
    let places: Vec<_> = committed.emitted[0]
        .iter()
        .map(|appended| appended.events.len())
        .collect();
    assert_eq!(places, [1, 0, 0, 0]);
    assert_eq!(number(&server), "3");
    empty(&server).await;
    assert_eq!(mark(&server), "3");
    assert_eq!(sent(&store).await, [1, 2, 3, 4]);
    assert_eq!(payloads(&store, &only()).await, [9]);
    let history = store.read_aggregate(&parcel("p"), &Versions::all()).await;
    let entries = store.read_feed(&post().into(), Position::START, 9).await;
    let of_parcel: Vec<_> = entries.unwrap().into_iter().skip(1).collect();
    let of_parcel: Vec<_> = of_parcel
        .into_iter()
        .map(|entry| entry.into_event().unwrap())
        .collect();
    assert_eq!(history.unwrap(), of_parcel);
    assert_eq!(ask(&server, &["GET", "{events:post}:format"]), "1");
    // That is settled, too, since the place of what is recorded depends on it.
    let other = builder(&server).partitions(post(), 2).connect().await;
    assert!(matches!(
        other,
        Err(ConnectError::Partitions { found: 1, .. })
    ));
}

#[tokio::test]
async fn a_repeated_commit_records_nothing_whatever_it_emits() {
    let server = server();
    let (store, other) = (store(&server).await, store(&server).await);
    let owner = lease(&store, "a", LONG).await;
    commit(&store, &owner, 1, vec![sends(1), sends(2)]).await;
    for client in [&store, &other] {
        let again = commit(client, &owner, 1, vec![sends(3)]).await;
        assert_eq!(again, Committed::default());
    }
    empty(&server).await;
    assert_eq!(mark(&server), "2");
    assert_eq!(sent(&store).await, [1, 2]);
    // Who has lost the partition records nothing either.
    store.release(&owner).await.unwrap();
    lease(&other, "b", LONG).await;
    let late = emitting(2, vec![vec![sends(4)]]);
    let error = store.commit(&owner, &late).await.unwrap_err();
    assert!(matches!(error, CommitError::LeaseLost { .. }), "{error}");
    assert_eq!(number(&server), "2");
}

#[tokio::test]
async fn what_an_owner_has_left_is_delivered_once_by_the_next() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    block(&server, &store, &owner).await;
    commit(&store, &owner, 3, vec![sends(3), sends_to("p", 4)]).await;
    drop(store);
    assert_eq!(recorded(&server), 3);
    unblock(&server);
    ask(&server, &["HSET", PROGRESS, "until", "1"]);
    // It commits nothing.
    let next = self::store(&server).await;
    lease(&next, "b", LONG).await;
    empty(&server).await;
    assert_eq!(sent(&next).await, [1, 2, 3, 4]);
    assert_eq!(mark(&server), "4");
}

fn consumer(instance: &str) -> Consumer {
    Consumer {
        group: ParallelGroup {
            group: "g".into(),
            handler: "pack".into(),
        },
        instance: instance.into(),
    }
}

/// Takes so many entries.
async fn take(store: &RedisStore, consumer: &Consumer, count: usize) -> Vec<Position> {
    let reader = store.parallel_reader(consumer, &[only()]).await;
    let taken = soon("entries", reader.unwrap().take(count, LONG)).await;
    let entries = taken.unwrap().entries.into_iter();
    entries
        .flat_map(|(_, entries)| entries)
        .map(|entry| entry.position())
        .collect()
}

#[tokio::test]
async fn what_a_consumer_has_left_is_delivered_once_by_others() {
    let server = server();
    let store = store(&server).await;
    let (a, b) = (consumer("a"), consumer("b"));
    look(&store).await;
    let there = to("gothic", Expected::Any, numbered(&[21, 22, 23, 24]));
    store.append(&there).await.unwrap();
    let at = take(&store, &a, 4).await;
    let finish = |of: usize, append: Append| Finish {
        emitted: vec![EntryEmits {
            position: at[of],
            appends: vec![append],
        }],
        ..Finish::default()
    };
    let other = self::store(&server).await;
    for (n, step) in [(0, &store), (1, &other)] {
        let first = finish(n, sends(n as u32));
        step.finish(&a, &only(), &first).await.unwrap();
        // Once more: it is pending no more.
        let again = step.finish(&a, &only(), &first).await.unwrap();
        assert_eq!(again.emitted, [None]);
        empty(&server).await;
    }
    ask(&server, &["SET", BLOCKED, "x"]);
    let blocked = finish(2, sends_to("blocked", 2));
    store.finish(&a, &only(), &blocked).await.unwrap();
    let behind = finish(3, sends(3));
    store.finish(&a, &only(), &behind).await.unwrap();
    drop(store);
    assert_eq!(recorded(&server), 2);
    unblock(&server);
    // There is nothing to claim, and nothing is emitted any more.
    let claimed = other.claim(&b, &only(), LONG, 10).await.unwrap();
    assert!(claimed.is_empty());
    empty(&server).await;
    assert_eq!(sent(&other).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn two_couriers_deliver_once() {
    const COUNT: u32 = 2_000;

    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    block(&server, &store, &owner).await;
    let appends = (3..=COUNT).map(sends).collect();
    commit(&store, &owner, 3, appends).await;
    let others = [self::store(&server).await, self::store(&server).await];
    unblock(&server);
    for other in &others {
        look(other).await;
    }
    empty(&server).await;
    assert_eq!(sent(&store).await, (1..=COUNT).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lost_reply_is_no_second_delivery() {
    const COUNT: u32 = 150;

    let mut server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    for n in 1..=COUNT {
        let appends = vec![sends(2 * n - 1), sends_to("p", 2 * n)];
        commit(&store, &owner, n.into(), appends).await;
        ask(
            &server,
            &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
        );
        if n == COUNT / 2 {
            server.kill();
            server.restart().unwrap();
        }
    }
    empty(&server).await;
    assert_eq!(sent(&store).await, (1..=2 * COUNT).collect::<Vec<_>>());
    let history = store.read_aggregate(&parcel("p"), &Versions::all()).await;
    assert_eq!(history.unwrap().len(), COUNT as usize);
}

/// Puts records back that were delivered: as though whoever has delivered them had not come to drop
/// them.
fn put_back(server: &RedisServer, records: &[(u32, u32)]) {
    let last = ask(server, &["HGET", MARKS, FROM]);
    let base = last.parse::<u64>().unwrap() / AT_ONCE * AT_ONCE;
    for (number, payload) in records {
        let number = format!("{}-0", base + u64::from(*number));
        let payload = payload.to_string();
        let metadata = format!(r#"{{"eventId":"{}"}}"#, id(payload.parse().unwrap()));
        let record = [
            "XADD",
            OUTBOX,
            &number,
            "type",
            "post.parcel.sent",
            "payload",
            &payload,
            "metadata",
            &metadata,
        ];
        ask(server, &record);
    }
}

/// Has what lies in the outbox delivered.
async fn look(store: &RedisStore) {
    let (group, source) = (consumer("b").group, only());
    let open = store.open_parallel(&group, &source, Start::Now);
    open.await.unwrap();
}

#[tokio::test]
async fn what_was_delivered_is_not_delivered_again() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    commit(&store, &owner, 1, vec![sends(1), sends(2), sends(3)]).await;
    empty(&server).await;
    put_back(&server, &[(2, 2), (3, 3), (4, 4)]);
    look(&store).await;
    empty(&server).await;
    assert_eq!(sent(&store).await, [1, 2, 3, 4]);
    assert_eq!(mark(&server), "4");
    // The planted fault does what it says.
    let faulty = builder(&server).without_delivery_marks().connect().await;
    let faulty = faulty.unwrap();
    put_back(&server, &[(4, 4)]);
    look(&faulty).await;
    empty(&server).await;
    assert_eq!(sent(&store).await, [1, 2, 3, 4, 4]);
}

#[tokio::test]
async fn a_mark_that_is_lost_stops_nothing() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    let appends = (1..=5).map(sends).collect();
    commit(&store, &owner, 1, appends).await;
    empty(&server).await;
    ask(&server, &["DEL", MARKS, "events:post"]);
    commit(&store, &owner, 2, vec![sends(6), sends(7)]).await;
    empty(&server).await;
    assert_eq!(sent(&store).await, [6, 7]);
    assert_eq!(mark(&server), "7");
}

#[tokio::test]
async fn records_that_somebody_has_removed_stop_nothing() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    commit(&store, &owner, 1, vec![sends(1), sends(2)]).await;
    empty(&server).await;
    put_back(&server, &[(3, 3), (6, 6)]);
    look(&store).await;
    empty(&server).await;
    assert_eq!(sent(&store).await, [1, 2, 3, 6]);
    assert_eq!(mark(&server), "6");
}

#[tokio::test]
async fn no_number_that_the_target_knows_is_given_out_again() {
    let server = server();
    let (store, other) = (store(&server).await, store(&server).await);
    let owner = lease(&store, "a", LONG).await;
    commit(&store, &owner, 1, vec![sends(1)]).await;
    empty(&server).await;
    let before = ask(&server, &["HGET", NUMBERS, "events:post"]);
    let (before, _) = before.split_once(' ').unwrap();
    ask(&server, &["HSET", PROGRESS, "until", "1"]);
    let next = lease(&other, "b", LONG).await;
    commit(&other, &next, 1, vec![sends(2), sends(3)]).await;
    empty(&server).await;
    // A replica takes over which has seen nothing of the second owner. The first one is met already, and
    // so does not ask the target what it has.
    for number in [Some(format!("{before} 0123")), None] {
        let epoch = owner.epoch.to_string();
        let owned = [
            "HSET", PROGRESS, "owner", "a", "epoch", &epoch, "commit", "1",
        ];
        ask(&server, &owned);
        match number {
            Some(number) => ask(&server, &["HSET", NUMBERS, "events:post", &number]),
            None => ask(&server, &["DEL", NUMBERS]),
        };
        commit(&store, &owner, 2, vec![sends(4), sends(5)]).await;
        empty(&server).await;
    }
    assert_eq!(sent(&store).await, [1, 2, 3, 4, 5, 4, 5]);
}

/// What the server replies to the script that delivers one record of this number.
fn deliver(server: &RedisServer, number: &str, accepted: &str) -> String {
    let script = concat!(
        include_str!("../../src/scripts/publish.lua"),
        include_str!("../../src/scripts/emit.lua"),
        include_str!("../../src/scripts/deliver.lua")
    );
    let call = ["EVAL", script, "2", MARKS, "events:post", FROM];
    let record = [number, accepted, "", "1", "", "0", "1", "", "1"];
    let event = ["post.parcel.sent", number, "{}"];
    let command = [&call[..], &record, &event].concat();
    ask(server, &command)
        .lines()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test]
async fn a_gap_is_refused_unless_it_is_accepted_as_it_is() {
    let server = server();
    let store = store(&server).await;
    assert_eq!(deliver(&server, "1", ""), "0 1");
    for number in ["3", "4", "9"] {
        assert_eq!(deliver(&server, number, ""), "1 1");
    }
    // Somebody was here since the mark was looked at.
    for accepted in ["0", "2"] {
        assert_eq!(deliver(&server, "3", accepted), "1 1");
    }
    assert_eq!(sent(&store).await, [1]);
    assert_eq!(deliver(&server, "3", "1"), "0 3");
    // What is late is passed over, whatever is accepted.
    for (number, accepted) in [("2", ""), ("3", ""), ("2", "3"), ("1", "3")] {
        assert_eq!(deliver(&server, number, accepted), "0 3");
    }
    assert_eq!(deliver(&server, "4", ""), "0 4");
    assert_eq!(sent(&store).await, [1, 3, 4]);
}

#[tokio::test]
async fn a_source_that_is_lost_begins_behind_what_was_delivered() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    let appends = (1..=5).map(sends).collect();
    commit(&store, &owner, 1, appends).await;
    empty(&server).await;
    for next in [store, self::store(&server).await] {
        ask(&server, &["DEL", "{events:sdlc}:group:g", NUMBERS]);
        let before = sent(&next).await.len();
        let owner = lease(&next, "b", LONG).await;
        commit(&next, &owner, 1, vec![sends(6), sends(7)]).await;
        empty(&server).await;
        assert_eq!(sent(&next).await.len(), before + 2);
    }
}

#[tokio::test]
async fn what_is_left_is_delivered_before_a_group_is_reset() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    block(&server, &store, &owner).await;
    commit(&store, &owner, 3, vec![sends(3)]).await;
    drop(store);
    ask(&server, &["HSET", PROGRESS, "until", "1"]);
    let next = self::store(&server).await;
    match next.reset("g", &only(), Reset::Forget).await {
        Err(ResetError::Undelivered { target, why, .. }) => {
            assert_eq!(target, post().into());
            assert!(why.is_some_and(|why| why.contains("WRONGTYPE")));
        }
        other => panic!("something is left, and it came to {other:?}"),
    }
    assert_eq!(recorded(&server), 2);
    unblock(&server);
    drop(next);
    let next = self::store(&server).await;
    next.reset("g", &only(), Reset::Forget).await.unwrap();
    assert_eq!(ask(&server, &["EXISTS", OUTBOX]), "0");
    assert_eq!(sent(&next).await, [1, 2, 3]);
    // Numbers go on, since the target knows these.
    assert_eq!((number(&server), mark(&server)), ("3".into(), "3".into()));
    let owner = lease(&next, "a", LONG).await;
    commit(&next, &owner, 1, vec![sends(4)]).await;
    empty(&server).await;
    assert_eq!(sent(&next).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_named_and_may_be_removed() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    commit(&store, &owner, 1, vec![sends(1)]).await;
    empty(&server).await;
    store.release(&owner).await.unwrap();
    let last = ask(&server, &["HGET", NUMBERS, "events:post"]);
    let (last, run) = last.split_once(' ').unwrap();
    let number = last.parse::<u64>().unwrap() + 1;
    let id = format!("{number}-0");
    ask(&server, &["XADD", OUTBOX, &id, "nonsense", "x"]);
    let given = format!("{number} {run}");
    ask(&server, &["HSET", NUMBERS, "events:post", &given]);
    match store.reset("g", &only(), Reset::MoveTo(Start::Now)).await {
        Err(ResetError::Undelivered { why, .. }) => {
            let why = why.unwrap_or_default();
            assert!(why.contains(&id) && why.contains("cannot be read"), "{why}");
        }
        other => panic!("something is left, and it came to {other:?}"),
    }
    ask(&server, &["XDEL", OUTBOX, &id]);
    let other = self::store(&server).await;
    let reset = Reset::MoveTo(Start::Now);
    other.reset("g", &only(), reset).await.unwrap();
    let owner = lease(&other, "a", LONG).await;
    commit(&other, &owner, 1, vec![sends(3)]).await;
    empty(&server).await;
    assert_eq!(sent(&other).await, [1, 3]);
}

fn has_no_room(error: &CommitError) -> bool {
    matches!(error, CommitError::Store(StoreError::Unavailable { source, .. })
        if source.to_string().contains("no room"))
}

/// Fills an outbox until there is no room, which must be with so many records; and sees that nothing
/// more is stored until there is.
async fn is_bounded(commits: impl Fn(u32) -> Vec<Vec<Append>>, by: RangeInclusive<usize>) {
    let server = server();
    let patience = Duration::from_millis(300);
    let store = builder(&server).patience(patience).connect().await.unwrap();
    let owner = lease(&store, "a", LONG).await;
    block(&server, &store, &owner).await;
    let mut number = 3;
    loop {
        let next = emitting(number.into(), commits(number));
        match store.commit(&owner, &next).await {
            Ok(_) => number += 1,
            Err(error) if has_no_room(&error) => break,
            // A slow server.
            Err(error) => assert!(matches!(error, CommitError::Store(_)), "{error}"),
        }
    }
    let number = u64::from(number);
    let all = recorded(&server);
    assert!(by.contains(&all), "{all} records");
    let apart = event_as(id(5), "other.thing.done", "5");
    let apart = Append::to_feed(Category::new("other").unwrap(), vec![apart]);
    let next = emitting(number, vec![vec![sends(3)], vec![apart.clone()]]);
    let error = store.commit(&owner, &next).await.unwrap_err();
    assert!(has_no_room(&error), "{error:?}");
    assert_eq!(recorded(&server), all);
    assert_eq!(ask(&server, &["EXISTS", "events:other"]), "0");
    // What goes elsewhere has room.
    commit(&store, &owner, number, vec![apart]).await;

    // It goes on as soon as something is delivered.
    let next = emitting(number + 1, vec![vec![sends(3)]]);
    let committing = tokio::spawn({
        let (store, owner) = (store.clone(), owner.clone());
        async move {
            while let Err(error) = store.commit(&owner, &next).await {
                assert!(matches!(error, CommitError::Store(_)), "{error}");
            }
        }
    });
    unblock(&server);
    soon("a commit", committing).await.unwrap();
    empty(&server).await;
    let there = ask(&server, &["XLEN", "events:post"]);
    assert_eq!(there, (all + 2).to_string());
}

#[tokio::test]
async fn an_outbox_has_so_many_records_at_most() {
    let commits = |_| (0..2_500).map(|n| vec![sends(n)]).collect();
    is_bounded(commits, 10_000..=12_500).await;
}

#[tokio::test]
async fn an_outbox_has_so_many_bytes_at_most() {
    let large = format!(r#""{}""#, "x".repeat(1_000_000));
    let commits = |n| {
        let event = event_as(id(n), "post.parcel.sent", &large);
        vec![vec![Append::to_feed(post(), vec![event])]]
    };
    is_bounded(commits, 14..=19).await;
}

#[tokio::test]
async fn a_target_that_refuses_holds_back_nothing_else() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    block(&server, &store, &owner).await;
    let other = Category::new("other").unwrap();
    let events = [4, 5].map(|n| event_as(id(n), "other.thing.done", &n.to_string()));
    let appends = vec![
        sends(3),
        Append::to_feed(other.clone(), events.to_vec()),
        to("gothic", Expected::Any, numbered(&[6])),
    ];
    commit(&store, &owner, 3, appends).await;
    until("the other", || {
        ask(&server, &["XLEN", "events:other"]) == "2"
    })
    .await;
    assert_eq!(payloads(&store, &other.into()).await, [4, 5]);
    assert_eq!(payloads(&store, &only()).await, [6]);
    assert_eq!(sent(&store).await, [1]);
    assert_eq!(recorded(&server), 2);
    unblock(&server);
    empty(&server).await;
    assert_eq!(sent(&store).await, [1, 2, 3]);
}

#[tokio::test]
async fn versions_have_no_holes_beside_appends() {
    const EACH: u32 = 100;

    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..EACH {
                store.append(&sends_to("p", 10_000 + n)).await.unwrap();
            }
        }
    });
    for n in 1..=EACH {
        let appends = vec![sends_to("p", 2 * n - 1), sends_to("p", 2 * n)];
        commit(&store, &owner, n.into(), appends).await;
    }
    soon("the writer", writer).await.unwrap();
    empty(&server).await;
    // That versions have no holes is looked at where a history is read.
    let history = store.read_aggregate(&parcel("p"), &Versions::all()).await;
    let history = history.unwrap();
    assert_eq!(history.len(), 3 * EACH as usize);
    let emitted: Vec<u32> = history
        .iter()
        .map(|event| event.payload().parse().unwrap())
        .filter(|n| *n < 10_000)
        .collect();
    assert_eq!(emitted, (1..=2 * EACH).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_can_be_refused_is_refused_before_it_is_recorded() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    for command in [
        ["RPUSH", "{events:post}:history:parcel:bad", "nonsense"],
        ["SET", "events:taken", "x"],
        ["SET", "{events:newer}:format", "2"],
    ] {
        ask(&server, &command);
    }
    let to_category = |name: &str| {
        let event = event_as(id(1), &format!("{name}.thing.done"), "1");
        Append::to_feed(Category::new(name.to_owned()).unwrap(), vec![event])
    };
    let all = |number| {
        emitting(
            number,
            vec![
                vec![sends(1)],
                vec![sends(2), sends_to("bad", 3)],
                vec![to_category("taken"), to_category("newer")],
                vec![sends_to("good", 4)],
                vec![to_category("newer")],
            ],
        )
    };
    let refused = |result: Result<Committed, CommitError>| match result {
        Err(CommitError::Refused { refused }) => refused,
        other => panic!("{other:?}"),
    };
    let found = refused(store.commit(&owner, &all(1)).await);
    let runs: Vec<_> = found.iter().map(|(run, _)| *run).collect();
    assert_eq!(runs, [1, 2, 4]);
    assert!(
        matches!(&found[0].1, AppendError::Codec(CodecError::Malformed { reason })
            if reason.contains("nonsense")),
        "{found:?}"
    );
    let source = |error: &AppendError| match error {
        AppendError::Store(StoreError::Refused { source, .. }) => source.to_string(),
        error => panic!("{error:?}"),
    };
    assert!(source(&found[1].1).contains("WRONGTYPE"), "{found:?}");
    assert!(source(&found[2].1).contains("format 2"), "{found:?}");
    assert_eq!(ask(&server, &["EXISTS", NUMBERS, OUTBOX]), "0");
    // Without them it is stored, under the same number.
    let mut rest = all(1);
    for run in runs {
        rest.emitted[run].clear();
    }
    store.commit(&owner, &rest).await.unwrap();
    empty(&server).await;
    assert_eq!(sent(&store).await, [1, 4]);

    // What is refused later is looked at before anything more is recorded.
    ask(&server, &["SET", BLOCKED, "x"]);
    commit(&store, &owner, 2, vec![sends_to("blocked", 2)]).await;
    until("a refusal", || ask(&server, &["XLEN", OUTBOX]) == "1").await;
    let mut number = 3;
    soon("a refusal", async {
        loop {
            let blocked = emitting(number, vec![vec![sends_to("blocked", 5)]]);
            match store.commit(&owner, &blocked).await {
                Ok(_) => number += 1,
                error => break refused(error),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_user_may_not_write_elsewhere_is_refused() {
    let server = server();
    let rules = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        "nopass",
        "&*",
        "+@all",
        "~*sdlc*",
        "~*post*",
        "%R~*other*",
    ];
    ask(&server, &rules);
    let url = server.url().replace("redis://", "redis://app:x@");
    let builder = RedisStore::builder(url).without_shared_slots();
    let store = builder.connect().await.unwrap();
    let owner = lease(&store, "a", LONG).await;
    let other = event_as(id(1), "other.thing.done", "1");
    let other = Append::to_feed(Category::new("other").unwrap(), vec![other]);
    let both = emitting(1, vec![vec![sends(2)], vec![other]]);
    match store.commit(&owner, &both).await {
        Err(CommitError::Refused { refused }) => assert!(
            matches!(&refused[..], [(1, AppendError::Store(StoreError::Refused { source, .. }))]
                if source.to_string().contains("NOPERM")),
            "{refused:?}"
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(ask(&server, &["EXISTS", NUMBERS]), "0");
    commit(&store, &owner, 1, vec![sends(2)]).await;
    empty(&server).await;
}

#[tokio::test]
async fn emits_find_the_partitions_of_their_keys() {
    let server = server();
    builder(&server)
        .partitions(post(), 4)
        .connect()
        .await
        .unwrap();
    // It does not know how many there are.
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    let appends = (0..40).map(|n| sends_to(&format!("p{n}"), n)).collect();
    commit(&store, &owner, 1, appends).await;
    store.release(&owner).await.unwrap();
    let mut found = Vec::new();
    for number in 0..4 {
        let partition = Partition::new(post(), number);
        let here = payloads(&store, &partition).await;
        assert!(!here.is_empty());
        for n in &here {
            let of = Partition::of_aggregate(&parcel(&format!("p{n}")), 4);
            assert_eq!(of, partition);
        }
        found.extend(here);
    }
    found.sort_unstable();
    assert_eq!(found, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_release_waits_for_what_is_on_its_way() {
    let server = server();
    let store = store(&server).await;
    for round in 0..10 {
        let owner = lease(&store, "a", LONG).await;
        let appends = (0..200).map(|n| sends(round * 200 + n)).collect();
        commit(&store, &owner, 1, appends).await;
        store.release(&owner).await.unwrap();
        let there = (round + 1) * 200;
        assert_eq!(ask(&server, &["XLEN", "events:post"]), there.to_string());
    }
    // But for no longer than something goes on.
    let owner = lease(&store, "a", LONG).await;
    block(&server, &store, &owner).await;
    soon("a release", store.release(&owner)).await.unwrap();
    assert_eq!(recorded(&server), 1);
}

#[tokio::test]
async fn places_are_told_where_they_are_wanted() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    store.append(&sends_to("p", 1)).await.unwrap();
    let appends = vec![
        sends(2),
        to("gothic", Expected::Any, numbered(&[3])),
        Append::to(parcel("p"), Expected::Any, vec![posted(4), posted(5)]),
    ];
    let wanted = Commit {
        wants_places: true,
        ..emitting(1, vec![vec![], appends])
    };
    let committed = store.commit(&owner, &wanted).await.unwrap();
    let versions: Vec<Vec<u64>> = committed.emitted[1]
        .iter()
        .map(|appended| appended.events.iter().map(|event| event.version).collect())
        .collect();
    assert_eq!(versions, [vec![0], vec![1], vec![2, 3]]);
    let entries = store.read_feed(&post().into(), Position::START, 9).await;
    let positions: Vec<_> = entries.unwrap().iter().map(|e| e.position()).collect();
    let told = |index: usize| committed.emitted[1][index].events.iter();
    let told: Vec<_> = told(0).chain(told(2)).map(|event| event.position).collect();
    assert_eq!(told, positions[1..]);

    // What cannot be delivered has none, and holds the commit up for no longer than that is known.
    ask(&server, &["SET", BLOCKED, "x"]);
    let wanted = Commit {
        wants_places: true,
        ..emitting(2, vec![vec![sends_to("blocked", 6)]])
    };
    let committed = soon("a commit", store.commit(&owner, &wanted)).await;
    assert!(committed.unwrap().emitted[0][0].events.is_empty());
}

#[tokio::test]
async fn large_appends_are_several_records() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    let events: Vec<_> = (1..=1_000).map(posted).collect();
    let appends = vec![
        Append::to_feed(post(), events.clone()),
        Append::to(parcel("p"), Expected::Any, events[..501].to_vec()),
    ];
    commit(&store, &owner, 1, appends).await;
    assert_eq!(number(&server), "4");
    empty(&server).await;
    let expected: Vec<_> = (1..=1_000).chain(1..=501).collect();
    assert_eq!(sent(&store).await, expected);
    let history = store.read_aggregate(&parcel("p"), &Versions::all()).await;
    assert_eq!(history.unwrap().len(), 501);
}

#[tokio::test]
async fn emits_are_published_when_they_arrive() {
    let server = server();
    let builder = builder(&server).publish_on_commit(post());
    let store = builder.connect().await.unwrap();
    let mut subscription = store.subscribe(&["post.*".parse().unwrap()]).await.unwrap();
    let owner = lease(&store, "a", LONG).await;
    commit(&store, &owner, 1, vec![sends(1), sends_to("p", 2)]).await;
    // Who does not publish itself records what is not published.
    let silent = self::store(&server).await;
    commit(&silent, &owner, 2, vec![sends(3)]).await;
    commit(&store, &owner, 3, vec![sends(4)]).await;
    for n in [1, 2, 4] {
        let item = soon("an event", subscription.next()).await;
        assert!(
            matches!(&item, Some(RealtimeItem::Event(event)) if event.payload() == n.to_string()),
            "{item:?}"
        );
    }
    empty(&server).await;
    assert_eq!(sent(&store).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn nothing_is_dropped_before_replicas_have_it() {
    let server = RedisServer::builder().aof(Aof::Always).start().unwrap();
    let replica = RedisServer::builder().replica_of(&server).unwrap();
    let replica = replica.start().unwrap();
    let builder = builder(&server).durability(Durability::Replicated(1));
    let store = builder.connect().await.unwrap();
    let owner = lease(&store, "a", LONG).await;
    commit(&store, &owner, 1, vec![sends(1)]).await;
    empty(&server).await;
    assert_eq!(ask(&replica, &["XLEN", "events:post"]), "1");
    replica.freeze().unwrap();
    let committing = tokio::spawn({
        let (store, owner) = (store.clone(), owner.clone());
        let next = emitting(2, vec![vec![sends(2)]]);
        async move { store.commit(&owner, &next).await }
    });
    until("a record", || recorded(&server) == 1).await;
    look(&store).await;
    until("the event", || {
        ask(&server, &["XLEN", "events:post"]) == "2"
    })
    .await;
    assert_eq!(recorded(&server), 1);
    replica.thaw().unwrap();
    soon("a commit", committing).await.unwrap().unwrap();
    empty(&server).await;
    assert_eq!(ask(&replica, &["XLEN", "events:post"]), "2");
    assert_eq!(sent(&store).await, [1, 2]);
}

#[test]
fn deliveries_go_on_though_the_runtime_has_ended() {
    let server = server();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (store, owner) = runtime().block_on(async {
        let store = store(&server).await;
        let owner = lease(&store, "a", LONG).await;
        block(&server, &store, &owner).await;
        (store, owner)
    });
    unblock(&server);
    runtime().block_on(async {
        commit(&store, &owner, 3, vec![sends(3)]).await;
        empty(&server).await;
        assert_eq!(sent(&store).await, [1, 2, 3]);
    });
}

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event("sdlc.order.placed", key = customer)]
struct Placed {
    customer: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event("bill.order.billed", key = customer)]
struct Billed {
    customer: String,
}

#[tokio::test]
async fn a_dispatch_waits_for_what_goes_elsewhere() {
    let server = server();
    let store = store(&server).await;
    let bills = HandlerDefinition::function("bill", |placed: Placed, _: Context| async {
        Billed {
            customer: placed.customer,
        }
    });
    let service = Service::builder("g")
        .without_discovered_handlers()
        .store(store.clone())
        .handler(bills.on("sdlc.order.placed").emits("bill.order.billed"))
        .build()
        .unwrap();
    for n in 1..=3 {
        let placed = Placed {
            customer: n.to_string(),
        };
        let done = soon("a dispatch", service.dispatch(placed)).await.unwrap();
        let billed = Partition::from(Category::new("bill").unwrap());
        let newest = store.head(&billed).await.unwrap();
        let emitted: Vec<_> = done.emitted.iter().map(|event| event.position()).collect();
        assert_eq!(emitted, [newest]);
    }
    let delivered = ask(&server, &["HGET", "{events:bill}:delivered", FROM]);
    assert_eq!(counted(&delivered), "3");
}
