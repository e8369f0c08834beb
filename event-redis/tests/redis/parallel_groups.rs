//! The groups of handlers with parallel delivery, in the words of the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_core::prelude::*;
use event_core::{
    Append, Consumer, Delivery, EntryEmits, Expected, FeedEntry, Finish, Finished, Groups,
    HandlerDefinition, ParallelGroup, ParallelGroups, ParallelReader, Reset, Start, Taken,
};
use event_redis::RedisStore;
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::support::{builder, events, numbered, only, sdlc, server, soon, store, to, until};

const GROUP: &str = "g/pack";
const LONG: Duration = Duration::from_secs(600);

fn group() -> ParallelGroup {
    ParallelGroup {
        group: "g".into(),
        handler: "pack".into(),
    }
}

fn consumer(instance: &str) -> Consumer {
    Consumer {
        group: group(),
        instance: instance.into(),
    }
}

async fn open(store: &RedisStore, start: Start) {
    store.open_parallel(&group(), &only(), start).await.unwrap();
}

async fn append(store: &RedisStore, count: usize) -> Vec<Position> {
    let append = to("gothic", Expected::Any, events(count));
    let appended = store.append(&append).await.unwrap();
    appended.events.iter().map(|event| event.position).collect()
}

async fn reader(store: &RedisStore, instance: &str) -> Box<dyn ParallelReader> {
    let reader = store.parallel_reader(&consumer(instance), &[only()]).await;
    reader.unwrap()
}

fn positions(entries: Vec<FeedEntry>) -> Vec<Position> {
    entries.iter().map(FeedEntry::position).collect()
}

fn all(taken: Taken) -> Vec<Position> {
    positions(taken.entries.into_iter().flat_map(|(_, e)| e).collect())
}

/// Takes until there are so many.
async fn take(reader: &mut dyn ParallelReader, count: usize) -> Vec<Position> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = soon("entries", reader.take(1_000, LONG)).await.unwrap();
        taken.extend(all(next));
    }
    taken
}

async fn finish(store: &RedisStore, instance: &str, done: &[Position]) -> Finished {
    let finish = Finish {
        done: done.to_vec(),
        ..Finish::default()
    };
    let finished = store.finish(&consumer(instance), &only(), &finish).await;
    finished.unwrap()
}

async fn is_finished(store: &RedisStore) -> bool {
    let range = Position::START..=Position::END;
    store.is_finished(&group(), &only(), range).await.unwrap()
}

fn destroy(server: &RedisServer) {
    let destroy = ["XGROUP", "DESTROY", "events:sdlc", GROUP];
    assert_eq!(server.command(&destroy).unwrap(), "1");
}

/// What the server says of the group.
fn native(server: &RedisServer, name: &str) -> String {
    let groups = server.command(&["XINFO", "GROUPS", "events:sdlc"]).unwrap();
    let mut lines = groups.lines();
    lines.find(|line| *line == name);
    lines.next().unwrap_or_default().to_owned()
}

fn memory(server: &RedisServer, field: &str) -> String {
    let get = ["HGET", "{events:sdlc}:parallel:g/pack", field];
    server.command(&get).unwrap()
}

#[tokio::test]
async fn the_server_shows_how_far_a_handler_is() {
    let server = server();
    let store = store(&server).await;
    open(&store, Start::Beginning).await;
    let at = append(&store, 5).await;
    assert_eq!(native(&server, "name"), GROUP);
    assert_eq!(native(&server, "lag"), "5");
    let mut reader = reader(&store, "a").await;
    let taken = reader.take(3, LONG).await.unwrap();
    assert_eq!(all(taken), at[..3]);
    finish(&store, "a", &at[..1]).await;
    assert_eq!(native(&server, "lag"), "2");
    assert_eq!(native(&server, "pending"), "2");
    let consumers = ["XINFO", "CONSUMERS", "events:sdlc", GROUP];
    let consumers = server.command(&consumers).unwrap();
    assert_eq!(consumers.lines().nth(1), Some("a"), "{consumers}");
    assert_eq!(memory(&server, "pending"), at[1].to_string());
    assert_eq!(memory(&server, "delivered"), at[2].to_string());
    finish(&store, "a", &at[1..3]).await;
    assert_eq!(memory(&server, "pending"), "");
}

#[tokio::test]
async fn an_opened_group_settles_no_number_of_partitions() {
    let server = server();
    let early = store(&server).await;
    assert_eq!(early.partitions(&sdlc()).await.unwrap(), 1);
    open(&early, Start::Beginning).await;
    assert_eq!(early.partitions(&sdlc()).await.unwrap(), 1);
    let four = builder(&server).partitions(sdlc(), 4).connect().await;
    assert_eq!(four.unwrap().partitions(&sdlc()).await.unwrap(), 4);
    assert_eq!(early.partitions(&sdlc()).await.unwrap(), 4);
}

/// What the server says of the lag; nothing where it does not know.
fn lag(server: &RedisServer) -> String {
    let groups = server.command(&["XINFO", "GROUPS", "events:sdlc"]);
    let groups = groups.unwrap();
    let mut lines = groups.lines().skip_while(|line| *line != "lag");
    lines.nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_server_knows_the_lag_of_a_group_that_was_made_again() {
    let server = server();
    let store = store(&server).await;
    open(&store, Start::Beginning).await;
    assert_eq!(lag(&server), "0");
    let at = append(&store, 6).await;
    let mut reader = reader(&store, "a").await;
    for _ in 0..2 {
        soon("an entry", reader.take(1, LONG)).await.unwrap();
    }
    finish(&store, "a", &at[..1]).await;
    destroy(&server);
    assert!(!is_finished(&store).await, "it is made again");
    // Behind the first one.
    assert_eq!(lag(&server), "5");
    soon("an entry", reader.take(1, LONG)).await.unwrap();
    assert_eq!(lag(&server), "4");
    // And where entries were trimmed away that it has passed.
    server
        .command(&["XTRIM", "events:sdlc", "MAXLEN", "4"])
        .unwrap();
    destroy(&server);
    assert!(!is_finished(&store).await, "it is made again");
    assert_eq!(lag(&server), "4");
}

#[tokio::test]
async fn a_lost_group_is_made_again_from_what_is_remembered() {
    let server = server();
    let store = store(&server).await;
    open(&store, Start::Beginning).await;
    let at = append(&store, 5).await;
    let mut reader = reader(&store, "a").await;
    assert_eq!(take(&mut *reader, 5).await, at);
    finish(&store, "a", &at[..2]).await;
    destroy(&server);
    // Whatever comes first makes it again: all but what was finished at the beginning.
    let more = append(&store, 1).await;
    let expected = [&at[2..], &more].concat();
    assert_eq!(take(&mut *reader, 4).await, expected);
    finish(&store, "a", &expected).await;
    assert!(is_finished(&store).await);

    // With nothing pending it goes on with what is new.
    destroy(&server);
    assert!(!is_finished(&store).await, "not known");
    assert!(is_finished(&store).await);
    destroy(&server);
    let more = append(&store, 1).await;
    finish(&store, "a", &[]).await;
    assert_eq!(take(&mut *reader, 1).await, more);
    for _ in 0..2 {
        destroy(&server);
        let claimed = store
            .claim(&consumer("b"), &only(), Duration::ZERO, 10)
            .await;
        assert!(claimed.unwrap().is_empty());
        let back = store
            .take_back(&consumer("a"), &only(), Position::START, 10)
            .await;
        assert!(back.unwrap().is_empty());
        store
            .keep_alive(&consumer("a"), &only(), &more)
            .await
            .unwrap();
        store.leave_parallel(&consumer("a"), &only()).await.unwrap();
    }
    // What was emitted for an entry that is to be delivered again waits for that.
    let emits = Finish {
        emitted: vec![EntryEmits {
            position: more[0],
            appends: vec![Append::to_feed(sdlc(), numbered(&[9]))],
        }],
        ..Finish::default()
    };
    let finished = store.finish(&consumer("a"), &only(), &emits).await.unwrap();
    assert_eq!(finished.emitted, [None]);
    assert_eq!(take(&mut *reader, 1).await, more);
    let finished = store.finish(&consumer("a"), &only(), &emits).await.unwrap();
    assert!(finished.emitted[0].is_some());
}

#[tokio::test]
async fn a_waiting_reader_survives_the_loss_of_its_group_without_haste() {
    let server = server();
    let store = store(&server).await;
    // As a service that starts now: what comes after everything was lost is new all the same.
    append(&store, 1).await;
    open(&store, Start::Now).await;
    let mut reader = reader(&store, "a").await;
    let waiting = tokio::spawn(async move {
        let taken = take(&mut *reader, 1).await;
        (taken, reader)
    });
    let is_blocked = || {
        let info = server.command(&["INFO", "clients"]).unwrap();
        info.contains("blocked_clients:1")
    };
    until("it waits", is_blocked).await;
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
    destroy(&server);
    until("it waits again", || {
        native(&server, "name") == GROUP && is_blocked()
    })
    .await;
    server.command(&["FLUSHALL"]).unwrap();
    until("it waits again", || {
        server.command(&["EXISTS", "events:sdlc"]).unwrap() == "1" && is_blocked()
    })
    .await;
    let stats = server.command(&["INFO", "commandstats"]).unwrap();
    let made = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_xgroup|create:calls="))
        .and_then(|rest| rest.split(',').next()?.parse::<u32>().ok());
    assert!(made.is_some_and(|made| made <= 4), "{stats}");
    let at = append(&store, 1).await;
    let (taken, _) = waiting.await.unwrap();
    assert_eq!(taken, at);
}

#[tokio::test]
async fn a_reader_whose_connection_is_cut_says_that_something_may_be_missing() {
    let server = server();
    let store = store(&server).await;
    open(&store, Start::Beginning).await;
    let mut reader = reader(&store, "a").await;
    let waiting = tokio::spawn(async move { reader.take(10, LONG).await });
    let is_blocked = || {
        let info = server.command(&["INFO", "clients"]).unwrap();
        info.contains("blocked_clients:1")
    };
    until("it waits", is_blocked).await;
    let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    server.command(&kill).unwrap();
    let at = append(&store, 1).await;
    let taken = soon("the entry", waiting).await.unwrap().unwrap();
    assert_eq!(taken.torn, [sdlc().into()]);
    assert_eq!(all(taken), at);
}

#[tokio::test]
async fn a_close_does_not_wait_for_the_server() {
    let server = server();
    let store = store(&server).await;
    open(&store, Start::Beginning).await;
    let mut reader = reader(&store, "a").await;
    // So often, it would take too long to wait for the server to answer by itself.
    let closes = async {
        for _ in 0..10 {
            let waited = tokio::time::timeout(Duration::from_millis(50), reader.take(10, LONG));
            assert!(waited.await.is_err(), "there is nothing");
            assert!(all(reader.close().await.unwrap()).is_empty());
        }
    };
    soon("ten closes", closes).await;
    // Nobody takes any more.
    let at = append(&store, 1).await;
    assert_eq!(native(&server, "pending"), "0");
    assert_eq!(take(&mut *reader, 1).await, at);
}

#[tokio::test]
async fn a_claim_follows_the_cursor_to_its_end() {
    let server = server();
    let store = store(&server).await;
    open(&store, Start::Beginning).await;
    let mut at = Vec::new();
    for _ in 0..3 {
        at.extend(append(&store, 1_000).await);
    }
    assert_eq!(take(&mut *reader(&store, "a").await, 3_000).await, at);
    // Those at the beginning are kept alive, so that the first answers have none.
    store
        .let_go(&consumer("a"), &only(), &at[2_000..])
        .await
        .unwrap();
    let claimed = store
        .claim(&consumer("b"), &only(), LONG, 5_000)
        .await
        .unwrap();
    assert_eq!(positions(claimed), at[2_000..]);
    store.let_go(&consumer("a"), &only(), &at).await.unwrap();
    let claimed = store
        .claim(&consumer("b"), &only(), LONG, 1_200)
        .await
        .unwrap();
    assert_eq!(positions(claimed), at[..1_200]);
}

#[tokio::test]
async fn entries_that_were_deleted_hold_nobody_up() {
    let server = server();
    let store = store(&server).await;
    open(&store, Start::Beginning).await;
    let at = append(&store, 4).await;
    take(&mut *reader(&store, "a").await, 4).await;
    let delete = |position: Position| {
        let delete = ["XDEL", "events:sdlc", &position.to_string()];
        assert_eq!(server.command(&delete).unwrap(), "1");
    };
    delete(at[0]);
    delete(at[1]);
    let back = store
        .take_back(&consumer("a"), &only(), Position::START, 2)
        .await;
    assert_eq!(positions(back.unwrap()), at[2..]);
    let claimed = store
        .claim(&consumer("b"), &only(), Duration::ZERO, 10)
        .await;
    assert_eq!(positions(claimed.unwrap()), at[2..]);
    finish(&store, "b", &at[2..]).await;
    assert!(is_finished(&store).await);
}

#[tokio::test]
async fn a_user_that_may_not_is_told_before_anything_is_taken() {
    let server = server();
    let rules = [
        "ACL", "SETUSER", "app", "on", "nopass", "~*", "&*", "+@all", "-xack",
    ];
    server.command(&rules).unwrap();
    let url = server.url().replace("redis://", "redis://app:x@");
    let store = RedisStore::connect(url).await.unwrap();
    let error = store.open_parallel(&group(), &only(), Start::Now).await;
    let error = format!("{:?}", error.unwrap_err());
    assert!(error.contains("XACK"), "{error}");
}

#[tokio::test]
async fn a_group_that_was_reset_is_not_made_again_by_a_consumer_from_before() {
    let server = server();
    let store = store(&server).await;
    open(&store, Start::Beginning).await;
    let at = append(&store, 3).await;
    let mut reader = reader(&store, "a").await;
    assert_eq!(take(&mut *reader, 3).await, at);
    store.reset("g", &only(), Reset::Forget).await.unwrap();
    let error = reader.take(5, Duration::ZERO).await.unwrap_err();
    let error = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(error.contains("was reset"), "{error}");
    let range = Position::START..=Position::END;
    let looked = store.is_finished(&group(), &only(), range).await;
    assert!(looked.is_err(), "it is not known: {looked:?}");
    let keys = server.command(&["KEYS", "*parallel*"]).unwrap();
    assert_eq!(keys, "{events:sdlc}:parallel:g/pack");

    // It begins as it is told to, and is made again where it is lost now.
    open(&store, Start::Now).await;
    let more = append(&store, 1).await;
    assert_eq!(take(&mut *reader, 1).await, more);
    destroy(&server);
    assert_eq!(take(&mut *reader, 1).await, more);
    assert_eq!(memory(&server, "resets"), "1");
    assert_eq!(memory(&server, "forgotten"), "");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("sdlc.phase.changed")]
struct Changed(u64);

#[tokio::test]
async fn an_instance_whose_group_was_reset_begins_anew_and_can_be_stopped() {
    let server = server();
    let store = store(&server).await;
    append(&store, 3).await;
    let (calls, places) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (called, place) = (Arc::clone(&calls), Arc::clone(&places));
    let handler = HandlerDefinition::function("pack", move |_: Changed, _: Context| {
        called.fetch_add(1, Ordering::SeqCst);
        let place = Arc::clone(&place);
        async move { place.acquire().await.unwrap().forget() }
    });
    let service = Service::builder("g")
        .without_discovered_handlers()
        .store(store.clone())
        .handler(
            handler
                .on("sdlc.phase.changed")
                .delivery(Delivery::Parallel),
        )
        .build()
        .unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        service.run_until(stopped).await
    });
    until("all have begun", || calls.load(Ordering::SeqCst) == 3).await;
    // As if nobody had heard of the instance for so long that it counts as dead.
    let forget = ["HDEL", "{events:sdlc}:group:g", "owner", "until"];
    soon("a reset", async {
        loop {
            server.command(&forget).unwrap();
            // It may have taken the partition again.
            if store.reset("g", &only(), Reset::Forget).await.is_ok() {
                break;
            }
        }
    })
    .await;
    places.add_permits(100);
    until("all are handled anew", || calls.load(Ordering::SeqCst) == 6).await;
    let _ = stop.send(());
    soon("the service stops", running).await.unwrap().unwrap();
    assert!(is_finished(&store).await);
}
