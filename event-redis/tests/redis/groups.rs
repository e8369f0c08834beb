//! Groups: their instances, leases and progress.

use std::time::Duration;

use event_core::{
    Acquired, Append, Commit, CommitError, EventStore, Expected, Groups, Lease, Open, Partition,
    Position, Progress, Start,
};
use event_redis::RedisStore;
use event_tests::RedisServer;

use crate::support::{
    builder, event_as, events, id, numbered, only, sdlc, server, soon, store, to, until,
};

pub(crate) const LONG: Duration = Duration::from_secs(600);
const PROGRESS: &str = "{events:sdlc}:group:g";

/// A lease that nobody else has.
pub(crate) async fn lease(store: &RedisStore, instance: &str, duration: Duration) -> Lease {
    owned(store, instance, duration).await.0
}

async fn owned(store: &RedisStore, instance: &str, duration: Duration) -> (Lease, Progress, bool) {
    match store
        .acquire("g", &only(), instance, duration)
        .await
        .unwrap()
    {
        Acquired::Yes {
            lease,
            progress,
            history_lost,
        } => (lease, progress, history_lost),
        Acquired::No { remaining } => panic!("owned for {remaining:?}"),
    }
}

/// As though the lease had been taken long ago.
fn expire(server: &RedisServer) {
    server.command(&["HSET", PROGRESS, "until", "1"]).unwrap();
}

fn up_to(number: u64, position: Position) -> Commit {
    Commit {
        number,
        progress: Progress {
            checkpoint: position,
            reached: position,
            ..Progress::default()
        },
        finished: 1,
        ..Commit::default()
    }
}

fn field(server: &RedisServer, name: &str) -> String {
    server.command(&["HGET", PROGRESS, name]).unwrap()
}

/// What a group says of itself in the words of the server.
fn native(server: &RedisServer, name: &str) -> String {
    let groups = server.command(&["XINFO", "GROUPS", "events:sdlc"]).unwrap();
    let mut lines = groups.lines();
    lines.find(|line| *line == name);
    lines.next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_new_group_begins_at_the_beginning_or_now() {
    let server = server();
    let store = store(&server).await;
    let appended = store
        .append(&to("gothic", Expected::Any, events(3)))
        .await
        .unwrap();
    let from_start = store.open("a", &only(), Start::Beginning).await.unwrap();
    assert_eq!(from_start, Progress::default());
    let from_now = store.open("b", &only(), Start::Now).await.unwrap();
    assert_eq!(from_now.checkpoint, appended.position());
    assert_eq!(from_now.reached, appended.position());
    // It is decided once.
    store
        .append(&to("gothic", Expected::Any, events(1)))
        .await
        .unwrap();
    for start in [Start::Beginning, Start::Now] {
        assert_eq!(store.open("a", &only(), start).await.unwrap(), from_start);
        assert_eq!(store.open("b", &only(), start).await.unwrap(), from_now);
    }
    let groups = server.command(&["XINFO", "GROUPS", "events:sdlc"]).unwrap();
    let lags: Vec<_> = groups
        .lines()
        .zip(groups.lines().skip(1))
        .filter(|(name, _)| *name == "lag")
        .map(|(_, lag)| lag)
        .collect();
    assert_eq!(lags, ["4", "1"]);
}

#[tokio::test]
async fn opening_creates_no_feed() {
    let server = server();
    let store = store(&server).await;
    for start in [Start::Beginning, Start::Now] {
        let progress = store.open("g", &only(), start).await.unwrap();
        assert_eq!(progress, Progress::default());
    }
    lease(&store, "a", LONG).await;
    assert_eq!(server.command(&["EXISTS", "events:sdlc"]).unwrap(), "0");
}

#[tokio::test]
async fn progress_survives_its_owner() {
    let server = server();
    let store = store(&server).await;
    store.open("g", &only(), Start::Beginning).await.unwrap();
    let appended = store
        .append(&to("gothic", Expected::Any, events(4)))
        .await
        .unwrap();
    let at = |n: usize| appended.events[n].position;
    let (first, progress, _) = owned(&store, "a", LONG).await;
    assert_eq!((first.epoch, &progress), (1, &Progress::default()));
    let progress = Progress {
        checkpoint: at(0),
        event_id: None,
        reached: at(3),
        open: vec![
            Open {
                position: at(1),
                done: vec!["on_push".into(), "say \"hi\"".into()],
            },
            Open {
                position: at(2),
                done: vec![],
            },
        ],
    };
    let commit = Commit {
        number: 1,
        progress: progress.clone(),
        finished: 2,
        ..Commit::default()
    };
    store.commit(&first, &commit).await.unwrap();
    assert_eq!(
        field(&server, "open"),
        format!(
            r#"[{{"position":"{}","done":["on_push","say \"hi\""]}},{{"position":"{}","done":[]}}]"#,
            at(1),
            at(2)
        )
    );
    store.release(&first).await.unwrap();
    let (second, found, history_lost) = owned(&store, "b", LONG).await;
    assert_eq!((second.epoch, found, history_lost), (2, progress, false));
}

#[tokio::test]
async fn a_partition_has_one_owner() {
    let server = server();
    let (store, other) = (store(&server).await, store(&server).await);
    let first = lease(&store, "a", Duration::from_secs(60)).await;
    let refused = other.acquire("g", &only(), "b", LONG).await.unwrap();
    let Acquired::No { remaining } = refused else {
        panic!("{refused:?}");
    };
    assert!(
        remaining > Duration::from_secs(50) && remaining <= Duration::from_secs(60),
        "{remaining:?}"
    );
    // Another group, and another partition, know nothing of it.
    for (group, partition) in [("h", only()), ("g", Partition::new(sdlc(), 1))] {
        let acquired = other.acquire(group, &partition, "b", LONG).await.unwrap();
        assert!(matches!(acquired, Acquired::Yes { .. }), "{acquired:?}");
    }
    assert!(store.renew(&first, Duration::from_secs(90)).await.unwrap());
    let refused = other.acquire("g", &only(), "b", LONG).await.unwrap();
    assert!(
        matches!(refused, Acquired::No { remaining } if remaining > Duration::from_secs(60)),
        "{refused:?}"
    );
    store.release(&first).await.unwrap();
    assert!(!store.renew(&first, LONG).await.unwrap());
    assert_eq!(lease(&other, "b", LONG).await.epoch, 2);
}

#[tokio::test]
async fn an_owner_that_was_frozen_can_write_nothing() {
    let server = server();
    let (store, other) = (store(&server).await, store(&server).await);
    let appended = store
        .append(&to("gothic", Expected::Any, events(3)))
        .await
        .unwrap();
    let at = |n: usize| appended.events[n].position;
    let frozen = lease(&store, "a", LONG).await;
    store.commit(&frozen, &up_to(1, at(0))).await.unwrap();
    expire(&server);
    // Nobody has taken it yet, so that it is still good.
    store.commit(&frozen, &up_to(2, at(1))).await.unwrap();
    let (next, progress, _) = owned(&other, "b", LONG).await;
    assert_eq!(progress.checkpoint, at(1));

    let mut late = up_to(3, at(2));
    late.emitted = vec![vec![Append::to_feed(sdlc(), numbered(&[9]))]];
    let before = server.command(&["HGETALL", PROGRESS]).unwrap();
    let error = store.commit(&frozen, &late).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::LeaseLost { group, partition }
            if **group == *"g" && *partition == only()),
        "{error:?}"
    );
    assert!(!store.renew(&frozen, LONG).await.unwrap());
    store.release(&frozen).await.unwrap();
    assert_eq!(server.command(&["HGETALL", PROGRESS]).unwrap(), before);
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "3");
    other.commit(&next, &up_to(1, at(2))).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_expires_is_free() {
    let server = server();
    let (store, other) = (store(&server).await, store(&server).await);
    lease(&store, "a", Duration::from_millis(30)).await;
    soon("the end of the lease", async {
        loop {
            match other.acquire("g", &only(), "b", LONG).await.unwrap() {
                Acquired::Yes { lease, .. } => break assert_eq!(lease.epoch, 2),
                Acquired::No { remaining } => tokio::time::sleep(remaining).await,
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_comes_back_is_another_owner() {
    let server = server();
    let store = store(&server).await;
    let before = lease(&store, "a", LONG).await;
    store
        .commit(&before, &up_to(1, Position::new(1, 0)))
        .await
        .unwrap();
    let after = lease(&store, "a", LONG).await;
    assert_eq!(after.epoch, before.epoch + 1);
    let error = store
        .commit(&before, &up_to(2, Position::new(2, 0)))
        .await
        .unwrap_err();
    assert!(matches!(error, CommitError::LeaseLost { .. }), "{error:?}");
    // Commits are counted anew.
    store
        .commit(&after, &up_to(1, Position::new(3, 0)))
        .await
        .unwrap();
    assert_eq!(field(&server, "checkpoint"), "3-0");
}

#[tokio::test]
async fn the_lag_shows_in_the_words_of_the_server() {
    let server = server();
    let store = store(&server).await;
    store.open("g", &only(), Start::Beginning).await.unwrap();
    let owner = lease(&store, "a", LONG).await;
    // There is no stream yet, and none is made.
    store
        .commit(&owner, &up_to(1, Position::START))
        .await
        .unwrap();
    assert_eq!(server.command(&["EXISTS", "events:sdlc"]).unwrap(), "0");
    server
        .command(&["HSET", PROGRESS, "finished", "0"])
        .unwrap();

    let appended = store
        .append(&to("gothic", Expected::Any, events(10)))
        .await
        .unwrap();
    let mut commit = up_to(2, appended.events[3].position);
    commit.finished = 4;
    store.commit(&owner, &commit).await.unwrap();
    assert_eq!(native(&server, "name"), "g");
    assert_eq!(native(&server, "lag"), "6");
    assert_eq!(
        native(&server, "last-delivered-id"),
        appended.events[3].position.to_string()
    );
    let mut commit = up_to(3, appended.position());
    commit.finished = 6;
    store.commit(&owner, &commit).await.unwrap();
    assert_eq!(native(&server, "lag"), "0");
    store
        .append(&to("gothic", Expected::Any, events(2)))
        .await
        .unwrap();
    assert_eq!(native(&server, "lag"), "2");
    // Whatever somebody does to the native group, the next commit makes it anew.
    server
        .command(&["XGROUP", "DESTROY", "events:sdlc", "g"])
        .unwrap();
    store
        .commit(&owner, &up_to(4, store.head(&only()).await.unwrap()))
        .await
        .unwrap();
    assert_eq!(native(&server, "lag"), "1");
}

#[tokio::test]
async fn a_feed_that_ends_before_the_checkpoint_is_noticed() {
    let server = server();
    let store = store(&server).await;
    let appended = store
        .append(&to("gothic", Expected::Any, events(5)))
        .await
        .unwrap();
    let at = |n: usize| appended.events[n].position;
    let owner = lease(&store, "a", LONG).await;
    let mut commit = up_to(1, at(1));
    commit.progress.reached = at(4);
    commit.progress.open = vec![
        Open {
            position: at(2),
            done: vec!["b".into()],
        },
        Open {
            position: at(3),
            done: vec![],
        },
    ];
    commit.finished = 3;
    store.commit(&owner, &commit).await.unwrap();
    assert!(!owned(&store, "a", LONG).await.2);

    // As after a failover to a replica that had only three.
    let lose = |last: usize| {
        server.command(&["DEL", "events:sdlc"]).unwrap();
        let id = at(last).to_string();
        let add = [
            "XADD",
            "events:sdlc",
            &id,
            "type",
            "phase.changed",
            "payload",
            "1",
        ];
        server.command(&add).unwrap();
    };
    lose(2);
    let (_, progress, history_lost) = owned(&store, "a", LONG).await;
    assert!(history_lost);
    assert_eq!(
        progress,
        Progress {
            checkpoint: at(1),
            event_id: None,
            reached: at(2),
            open: vec![Open {
                position: at(2),
                done: vec!["b".into()],
            }],
        }
    );
    lose(0);
    let (_, progress, history_lost) = owned(&store, "a", LONG).await;
    assert!(history_lost);
    let lowered = Progress {
        checkpoint: at(0),
        reached: at(0),
        ..Progress::default()
    };
    assert_eq!(progress, lowered);
    // It is noticed once, and what comes now is new.
    let (_, progress, history_lost) = owned(&store, "a", LONG).await;
    assert_eq!((progress, history_lost), (lowered, false));
    server.command(&["DEL", "events:sdlc"]).unwrap();
    let (_, progress, history_lost) = owned(&store, "a", LONG).await;
    assert_eq!((progress, history_lost), (Progress::default(), true));
}

#[tokio::test]
async fn another_event_at_the_checkpoint_is_noticed() {
    let server = server();
    let store = store(&server).await;
    let appended = store
        .append(&to("gothic", Expected::Any, numbered(&[1, 2, 3])))
        .await
        .unwrap();
    let at = |n: usize| appended.events[n].position;
    let owner = lease(&store, "a", LONG).await;
    let mut commit = up_to(1, at(1));
    commit.progress.event_id = Some(id(2));
    store.commit(&owner, &commit).await.unwrap();
    let is_lost = || async { owned(&store, "a", LONG).await.2 };
    assert!(!is_lost().await);

    // Trimming and deleting lose nothing that was not handled.
    let copy = |command: &[&str]| server.command(command).unwrap();
    copy(&["COPY", "events:sdlc", "copy"]);
    copy(&["XDEL", "events:sdlc", &at(1).to_string()]);
    assert!(!is_lost().await);
    copy(&["COPY", "copy", "events:sdlc", "REPLACE"]);
    copy(&["XTRIM", "events:sdlc", "MINID", &at(2).to_string()]);
    assert!(!is_lost().await);
    copy(&["XTRIM", "events:sdlc", "MAXLEN", "0"]);
    assert!(!is_lost().await);

    let write = |n: usize, event: u32| {
        let id = at(n).to_string();
        let metadata = format!(r#"{{"eventId":"{}"}}"#, self::id(event));
        server
            .command(&[
                "XADD",
                "events:sdlc",
                &id,
                "type",
                "phase.changed",
                "payload",
                "1",
                "metadata",
                &metadata,
            ])
            .unwrap();
    };
    // The feed was written anew: without the event, and with another one.
    copy(&["DEL", "events:sdlc"]);
    write(0, 1);
    write(2, 3);
    assert!(is_lost().await);
    copy(&["DEL", "events:sdlc"]);
    write(0, 1);
    write(1, 7);
    assert!(is_lost().await);
    copy(&["DEL", "events:sdlc"]);
    write(1, 2);
    assert!(!is_lost().await);
}

#[tokio::test]
async fn instances_come_and_go() {
    let server = server();
    let (store, other) = (store(&server).await, store(&server).await);
    let names = |members: Vec<event_core::Member>| -> Vec<String> {
        members.into_iter().map(|member| member.instance).collect()
    };
    let mut reader = store.group_reader("g").await.unwrap();
    let members = store.join("g", "b", Duration::from_secs(60)).await.unwrap();
    assert_eq!(members.len(), 1);
    assert!(
        members[0].remaining > Duration::from_secs(50)
            && members[0].remaining <= Duration::from_secs(60),
        "{members:?}"
    );
    assert!(soon("a change", reader.next(&[])).await.unwrap().changed);
    assert_eq!(names(other.join("g", "a", LONG).await.unwrap()), ["a", "b"]);
    assert!(soon("a change", reader.next(&[])).await.unwrap().changed);
    assert_eq!(names(store.join("h", "c", LONG).await.unwrap()), ["c"]);

    // To say so again is no change.
    let changes = || {
        let changes = server.command(&["XLEN", "{group:g}:changes"]).unwrap();
        changes.parse::<usize>().unwrap()
    };
    assert_eq!(changes(), 2);
    store.join("g", "b", LONG).await.unwrap();
    assert_eq!(changes(), 2);
    other.leave("g", "a").await.unwrap();
    assert_eq!(changes(), 3);
    assert!(soon("a change", reader.next(&[])).await.unwrap().changed);
    assert_eq!(names(store.join("g", "b", LONG).await.unwrap()), ["b"]);

    // One that says nothing any more is gone, and whoever comes next tells.
    other
        .join("g", "a", Duration::from_millis(20))
        .await
        .unwrap();
    assert_eq!(changes(), 4);
    soon("the end of a member", async {
        while store.join("g", "b", LONG).await.unwrap().len() > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(changes(), 5);
    // One that comes back after that long may have been missed.
    server
        .command(&["ZADD", "{group:g}:members", "1", "b"])
        .unwrap();
    assert_eq!(names(store.join("g", "b", LONG).await.unwrap()), ["b"]);
    assert_eq!(changes(), 6);
}

#[tokio::test]
async fn changes_do_not_pile_up() {
    let server = server();
    let store = store(&server).await;
    for _ in 0..300 {
        store.leave("g", "a").await.unwrap();
    }
    let length: usize = server
        .command(&["XLEN", "{group:g}:changes"])
        .unwrap()
        .parse()
        .unwrap();
    assert!((100..300).contains(&length), "{length}");
}

#[tokio::test]
async fn a_prefix_stands_before_everything_of_a_group() {
    let server = server();
    let store = builder(&server).prefix("shop:").connect().await.unwrap();
    store.open("g", &only(), Start::Beginning).await.unwrap();
    store.join("g", "a", LONG).await.unwrap();
    let keys = server.command(&["KEYS", "*"]).unwrap();
    let mut keys: Vec<_> = keys.lines().collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "{shop:events:sdlc}:group:g",
            "{shop:events:sdlc}:groups",
            "{shop:group:g}:changes",
            "{shop:group:g}:members",
        ]
    );
}

#[tokio::test]
async fn what_an_owner_may_not_do_is_said_before_it_begins() {
    let server = server();
    for (lacking, rule) in [("HDEL", "-hdel"), ("ZADD", "-zadd"), ("XRANGE", "-xrange")] {
        let rules = [
            "ACL", "SETUSER", "app", "reset", "on", "nopass", "~*", "&*", "+@all", rule,
        ];
        server.command(&rules).unwrap();
        let url = server.url().replace("redis://", "redis://app:x@");
        let store = RedisStore::connect(url).await.unwrap();
        let error = store.acquire("g", &only(), "a", LONG).await.unwrap_err();
        let event_core::StoreError::Refused { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(
            source.to_string().contains(&format!("`{lacking}`")),
            "{source}"
        );
        assert_eq!(server.command(&["KEYS", "*"]).unwrap(), "");
    }
}

#[tokio::test]
async fn leases_are_kept_over_a_restart() {
    let mut server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    server.kill();
    server.restart().unwrap();
    let event = event_as(id(1), "sdlc.phase.changed", "1");
    let mut commit = up_to(1, Position::new(1, 0));
    commit.emitted = vec![vec![Append::to_feed(sdlc(), vec![event])]];
    soon("a commit", store.commit(&owner, &commit))
        .await
        .unwrap();
    until("the event", || {
        server.command(&["XLEN", "events:sdlc"]).unwrap() == "1"
    })
    .await;
}

#[tokio::test]
async fn the_lag_is_what_is_yet_to_finish() {
    let server = server();
    let store = store(&server).await;
    assert_eq!(store.lag("g", &only()).await.unwrap(), 0);
    let append = to("gothic", Expected::Any, events(5));
    let appended = store.append(&append).await.unwrap();
    // Nobody knows the group yet.
    assert_eq!(store.lag("g", &only()).await.unwrap(), 5);
    store.open("g", &only(), Start::Beginning).await.unwrap();
    store.open("now", &only(), Start::Now).await.unwrap();
    assert_eq!(store.lag("g", &only()).await.unwrap(), 5);
    assert_eq!(store.lag("now", &only()).await.unwrap(), 0);

    let lease = lease(&store, "a", LONG).await;
    let at = |n: usize| appended.events[n].position;
    let mut commit = up_to(1, at(0));
    commit.progress.reached = at(2);
    commit.progress.open = vec![Open {
        position: at(1),
        done: Vec::new(),
    }];
    commit.finished = 2;
    store.commit(&lease, &commit).await.unwrap();
    // Two lie behind what it has reached, and one is open.
    assert_eq!(store.lag("g", &only()).await.unwrap(), 3);
    // What was trimmed away is finished.
    server
        .command(&["XTRIM", "events:sdlc", "MAXLEN", "3"])
        .unwrap();
    assert_eq!(store.lag("g", &only()).await.unwrap(), 3);
    assert_eq!(store.lag("new", &only()).await.unwrap(), 3);
    // Nor is it known by being owned.
    let owned = store.acquire("new", &only(), "a", LONG).await.unwrap();
    assert!(matches!(owned, Acquired::Yes { .. }), "{owned:?}");
    assert_eq!(store.lag("new", &only()).await.unwrap(), 3);
}

#[tokio::test]
async fn who_owns_a_partition_is_told() {
    let server = server();
    let store = store(&server).await;
    let owner = async || store.owner("g", &only()).await.unwrap();
    assert_eq!(owner().await, None);
    let first = lease(&store, "a", LONG).await;
    assert_eq!(owner().await.as_deref(), Some("a"));
    store.release(&first).await.unwrap();
    assert_eq!(owner().await, None);
    lease(&store, "b", LONG).await;
    assert_eq!(owner().await.as_deref(), Some("b"));
    expire(&server);
    assert_eq!(owner().await, None);
}

#[tokio::test]
async fn a_step_of_counting_reads_a_few_megabytes_at_most() {
    let server = server();
    let large = "x".repeat(100_000);
    for number in 1..=60 {
        let id = format!("{number}-0");
        server
            .command(&["XADD", "events:sdlc", &id, "payload", &large])
            .unwrap();
    }
    let script = concat!(
        include_str!("../../src/scripts/stream.lua"),
        include_str!("../../src/scripts/count.lua")
    );
    let mut counted = ["30-0", "0", "30-0", "0"].map(str::to_owned);
    let mut steps = 0;
    let told = loop {
        let [forward, later, backward, earlier] = &counted;
        let rest = [forward, later, backward, earlier].map(String::as_str);
        let call = ["EVAL", script, "1", "events:sdlc", "30-0"];
        let reply = server.command(&[&call[..], &rest].concat()).unwrap();
        steps += 1;
        let values: Vec<_> = reply.lines().map(str::to_owned).collect();
        if values[0] == "1" {
            break values;
        }
        let Ok(rest) = values[1..].to_vec().try_into() else {
            panic!("{values:?}");
        };
        counted = rest;
    };
    assert_eq!(told, ["1", "30-0", "30", "60"]);
    // 3 MB lie in either direction.
    assert!(steps >= 4, "{steps} steps");
}
