//! Commits: emits, progress and dead letters in one step, once.

use event_core::{
    Append, AppendError, Category, CodecError, Commit, CommitError, Committed, EventStore,
    Expected, Groups, Lease, Partition, Position, Progress, StoreError, Versions,
};
use event_redis::{Durability, RedisStore};
use event_tests::RedisServer;
use event_tests::redis_server::Aof;

use crate::groups::{LONG, lease};
use crate::support::{
    builder, event_as, events, id, numbered, only, project, sdlc, server, soon, store, to, until,
};

const PROGRESS: &str = "{events:sdlc}:group:g";

fn emitting(number: u64, emitted: Vec<Vec<Append>>) -> Commit {
    Commit {
        number,
        progress: Progress {
            checkpoint: Position::new(number, 0),
            event_id: Some(id(7)),
            reached: Position::new(number, 0),
            open: vec![],
        },
        finished: 1,
        emitted,
        ..Commit::default()
    }
}

fn feed(numbers: &[u32]) -> Append {
    Append::to_feed(sdlc(), numbered(numbers))
}

fn count(server: &RedisServer, command: &[&str]) -> usize {
    server.command(command).unwrap().parse().unwrap()
}

fn checkpoint(server: &RedisServer) -> String {
    server.command(&["HGET", PROGRESS, "checkpoint"]).unwrap()
}

async fn refused(store: &RedisStore, lease: &Lease, commit: &Commit) -> Vec<(usize, AppendError)> {
    match store.commit(lease, commit).await {
        Err(CommitError::Refused { refused }) => refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn emits_and_progress_are_stored_in_one_step() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    store
        .append(&to("gothic", Expected::NoStream, numbered(&[1])))
        .await
        .unwrap();
    let other = Category::new("other").unwrap();
    let commit = emitting(
        1,
        vec![
            vec![to("gothic", Expected::Any, numbered(&[2, 3])), feed(&[4])],
            vec![],
            vec![
                // Whatever the version is, and twice to one aggregate.
                to("gothic", Expected::Exact(9), numbered(&[5])),
                Append::to_feed(
                    other.clone(),
                    vec![event_as(id(6), "other.thing.done", "6")],
                ),
                to("new", Expected::Any, numbered(&[8])),
            ],
        ],
    );
    let committed = store.commit(&owner, &commit).await.unwrap();
    let shape: Vec<Vec<Vec<u64>>> = committed
        .emitted
        .iter()
        .map(|run| {
            run.iter()
                .map(|appended| appended.events.iter().map(|event| event.version).collect())
                .collect()
        })
        .collect();
    assert_eq!(
        shape,
        [
            vec![vec![2, 3], vec![0]],
            vec![],
            vec![vec![4], vec![0], vec![1]]
        ]
    );
    let progress = [
        ("checkpoint", "1-0"),
        ("event", &id(7).to_string()),
        ("reached", "1-0"),
        ("open", "[]"),
        ("finished", "1"),
        ("owner", "a"),
        ("epoch", "1"),
        ("commit", "1"),
    ];
    for (field, value) in progress {
        assert_eq!(server.command(&["HGET", PROGRESS, field]).unwrap(), value);
    }
    assert_eq!(count(&server, &["HLEN", PROGRESS]), progress.len() + 1);
    let history = store
        .read_aggregate(&project("gothic"), &Versions::all())
        .await
        .unwrap();
    let ids: Vec<_> = history
        .iter()
        .map(|event| event.metadata().event_id)
        .collect();
    assert_eq!(ids, [id(1), id(2), id(3), id(5)]);
    let positions: Vec<_> = committed.emitted[0][0]
        .events
        .iter()
        .map(|event| event.position)
        .collect();
    assert_eq!(positions, [history[1].position(), history[2].position()]);
    // The feed and the history tell the same.
    let entries = store
        .read_feed(&only(), Position::START, 100)
        .await
        .unwrap();
    assert_eq!(entries.len(), 6);
    for entry in entries {
        let event = entry.into_event().unwrap();
        if let Some(aggregate) = event.aggregate().filter(|a| a.id == "gothic") {
            let index = usize::try_from(aggregate.version).unwrap() - 1;
            assert_eq!(history[index], event);
        }
    }
    assert_eq!(
        store.head(&other.into()).await.unwrap(),
        committed.emitted[2][1].position()
    );
    assert_eq!(
        server.command(&["GET", "{events:other}:format"]).unwrap(),
        "1"
    );
}

#[tokio::test]
async fn a_commit_that_is_repeated_stores_nothing() {
    let server = server();
    let (store, other) = (store(&server).await, store(&server).await);
    let owner = lease(&store, "a", LONG).await;
    let commit = emitting(
        1,
        vec![vec![feed(&[1]), to("x", Expected::Any, numbered(&[2]))]],
    );
    let first = store.commit(&owner, &commit).await.unwrap();
    assert_eq!(first.emitted[0].len(), 2);
    for client in [&store, &other] {
        let again = client.commit(&owner, &commit).await.unwrap();
        assert_eq!(again, Committed::default());
    }
    assert_eq!(count(&server, &["XLEN", "events:sdlc"]), 2);
    assert_eq!(count(&server, &["HGET", PROGRESS, "finished"]), 1);
    // An old one that comes late changes nothing.
    store.commit(&owner, &emitting(2, vec![])).await.unwrap();
    store.commit(&owner, &commit).await.unwrap();
    assert_eq!(checkpoint(&server), "2-0");
}

#[tokio::test]
async fn a_reply_that_is_lost_is_no_commit_that_is_lost() {
    let mut server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    // Each commit is sent, and the connection is cut before the reply can be trusted to be here.
    for number in 1..=30 {
        let event = u32::try_from(number).unwrap();
        let commit = emitting(number, vec![vec![feed(&[event])]]);
        let (store, owner) = (store.clone(), owner.clone());
        let committing = tokio::spawn(async move { store.commit(&owner, &commit).await });
        tokio::task::yield_now().await;
        server
            .command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .unwrap();
        soon("a commit", committing).await.unwrap().unwrap();
    }
    server.kill();
    server.restart().unwrap();
    let commit = emitting(30, vec![vec![feed(&[30])]]);
    soon("a commit", store.commit(&owner, &commit))
        .await
        .unwrap();
    assert_eq!(count(&server, &["XLEN", "events:sdlc"]), 30);
    assert_eq!(count(&server, &["HGET", PROGRESS, "finished"]), 30);
}

#[tokio::test]
async fn a_frozen_server_is_asked_again_and_stores_once() {
    let server = server();
    let patient = store(&server).await;
    let impatient = builder(&server).patience(std::time::Duration::from_millis(200));
    let impatient = impatient.connect().await.unwrap();
    let owner = lease(&patient, "a", LONG).await;
    impatient
        .commit(&owner, &emitting(1, vec![]))
        .await
        .unwrap();
    server.freeze().unwrap();
    let commit = emitting(2, vec![vec![feed(&[1])]]);
    // What was asked lies with the server, which will do it when it goes on.
    let error = soon("an error", impatient.commit(&owner, &commit)).await;
    assert!(
        matches!(
            error,
            Err(CommitError::Store(StoreError::Unavailable { .. }))
        ),
        "{error:?}"
    );
    server.thaw().unwrap();
    let again = soon("a commit", patient.commit(&owner, &commit)).await;
    assert_eq!(again.unwrap().dead_letters, 0);
    assert_eq!(count(&server, &["XLEN", "events:sdlc"]), 1);
}

#[tokio::test]
async fn what_cannot_be_stored_is_named_and_nothing_is_written() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    store.commit(&owner, &emitting(1, vec![])).await.unwrap();
    let history = "{events:sdlc}:history:project";
    for command in [
        ["RPUSH", &format!("{history}:bad"), "nonsense"],
        ["SET", &format!("{history}:text"), "x"],
        ["SET", "events:taken", "x"],
        ["SET", "{events:newer}:format", "2"],
    ] {
        server.command(&command).unwrap();
    }
    let full = [
        "XADD",
        "events:full",
        "18446744073709551615-18446744073709551615",
        "a",
        "b",
    ];
    server.command(&full).unwrap();
    let to_category = |name: &str| {
        let event = event_as(id(1), &format!("{name}.thing.done"), "1");
        Append::to_feed(Category::new(name.to_owned()).unwrap(), vec![event])
    };
    let before = server.command(&["KEYS", "*"]).unwrap();
    let mut before: Vec<_> = before.lines().collect();
    before.sort_unstable();
    let commit = emitting(
        2,
        vec![
            vec![feed(&[1])],
            vec![feed(&[2]), to("bad", Expected::Any, numbered(&[3]))],
            vec![to("text", Expected::Any, numbered(&[4])), feed(&[5])],
            vec![to("good", Expected::Any, numbered(&[6]))],
            vec![to_category("taken"), to_category("newer")],
            vec![to_category("newer")],
            vec![to_category("full")],
        ],
    );
    let refused = refused(&store, &owner, &commit).await;
    let runs: Vec<_> = refused.iter().map(|(run, _)| *run).collect();
    assert_eq!(runs, [1, 2, 4, 5, 6]);
    let source = |error: &AppendError| match error {
        AppendError::Store(StoreError::Refused { source, .. }) => source.to_string(),
        error => panic!("{error:?}"),
    };
    assert!(
        matches!(&refused[0].1, AppendError::Codec(CodecError::Malformed { reason })
            if reason.contains("nonsense")),
        "{refused:?}"
    );
    assert!(source(&refused[1].1).contains("WRONGTYPE"), "{refused:?}");
    assert!(source(&refused[2].1).contains("WRONGTYPE"), "{refused:?}");
    assert!(source(&refused[3].1).contains("format 2"), "{refused:?}");
    assert!(
        source(&refused[4].1).contains("last possible id"),
        "{refused:?}"
    );

    let keys = server.command(&["KEYS", "*"]).unwrap();
    let mut keys: Vec<_> = keys.lines().collect();
    keys.sort_unstable();
    assert_eq!(keys, before);
    assert_eq!(checkpoint(&server), "1-0");
    // Without them it is stored, under the same number.
    let mut rest = commit.clone();
    for run in runs {
        rest.emitted[run].clear();
    }
    store.commit(&owner, &rest).await.unwrap();
    assert_eq!(count(&server, &["XLEN", "events:sdlc"]), 2);
    assert_eq!(checkpoint(&server), "2-0");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_the_server_is_asked() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    let large = event_as(
        id(1),
        "sdlc.phase.changed",
        &format!("\"{}\"", "x".repeat(2 << 20)),
    );
    let realtime = Append::to_feed(sdlc(), vec![]);
    let commit = emitting(
        1,
        vec![
            vec![feed(&[2])],
            vec![Append::to_feed(sdlc(), vec![large])],
            vec![feed(&[3]), realtime],
        ],
    );
    let refused = refused(&store, &owner, &commit).await;
    assert!(
        matches!(
            refused.as_slice(),
            [
                (1, AppendError::PayloadTooLarge { .. }),
                (2, AppendError::NoEvents)
            ]
        ),
        "{refused:?}"
    );
    assert_eq!(count(&server, &["EXISTS", "events:sdlc"]), 0);
}

#[tokio::test]
async fn what_the_user_may_not_write_is_refused() {
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
        "%R~*other*",
    ];
    server.command(&rules).unwrap();
    let url = server.url().replace("redis://", "redis://app:x@");
    let store = RedisStore::connect(url).await.unwrap();
    let owner = lease(&store, "a", LONG).await;
    let other = event_as(id(1), "other.thing.done", "1");
    let other = Append::to_feed(Category::new("other").unwrap(), vec![other]);
    let commit = emitting(1, vec![vec![feed(&[2])], vec![other]]);
    let refused = refused(&store, &owner, &commit).await;
    assert_eq!(refused.len(), 1);
    assert!(
        matches!(&refused[0], (1, AppendError::Store(StoreError::Refused { source, .. }))
            if source.to_string().contains("NOPERM")),
        "{refused:?}"
    );
    assert_eq!(count(&server, &["EXISTS", "events:sdlc"]), 0);
}

#[tokio::test]
async fn thousands_of_events_are_one_commit() {
    let server = server();
    let store = store(&server).await;
    let owner = lease(&store, "a", LONG).await;
    let one_each =
        (0..2_000).map(|n| vec![to(&format!("p{}", n % 700), Expected::Any, numbered(&[n]))]);
    let committed = store
        .commit(&owner, &emitting(1, one_each.collect()))
        .await
        .unwrap();
    assert_eq!(committed.emitted.len(), 2_000);
    assert_eq!(committed.emitted[1_999][0].version(), 3);
    let large = vec![vec![
        to("large", Expected::Any, events(1_000)),
        to("large", Expected::Any, events(1_000)),
        to("large", Expected::Any, events(1_000)),
        Append::to_feed(sdlc(), events(1_000)),
    ]];
    let committed = store.commit(&owner, &emitting(2, large)).await.unwrap();
    assert_eq!(committed.emitted[0][2].version(), 3_000);
    assert_eq!(count(&server, &["XLEN", "events:sdlc"]), 6_000);
    assert_eq!(
        count(&server, &["LLEN", "{events:sdlc}:history:project:large"]),
        3_000
    );
}

#[tokio::test]
async fn emits_go_to_the_partitions_of_their_keys() {
    let server = server();
    let early = store(&server).await;
    let owner = lease(&early, "a", LONG).await;
    let target = Category::new("target").unwrap();
    builder(&server)
        .partitions(target.clone(), 4)
        .connect()
        .await
        .unwrap();
    // This client takes it for one partition, and notices.
    let emitted = (1..=40).map(|n| {
        let event = event_as(id(n), "target.thing.done", "1");
        vec![Append::to_feed(target.clone(), vec![event])]
    });
    let commit = emitting(1, emitted.collect());
    early.commit(&owner, &commit).await.unwrap();
    let mut found = 0;
    for number in 0..4 {
        let partition = Partition::new(target.clone(), number);
        let entries = early
            .read_feed(&partition, Position::START, 100)
            .await
            .unwrap();
        assert!(!entries.is_empty());
        found += entries.len();
        for entry in entries {
            let event = entry.into_event().unwrap();
            let event_id = event.metadata().event_id;
            let event = event_as(event_id, event.event_type(), "1");
            assert_eq!(Partition::of_event(target.clone(), &event, 4), partition);
        }
    }
    assert_eq!(found, 40);
    let several = Append::to_feed(
        target,
        (1..=40)
            .map(|n| event_as(id(n), "target.thing.done", "1"))
            .collect(),
    );
    let refused = refused(&early, &owner, &emitting(2, vec![vec![several]])).await;
    assert!(
        matches!(
            refused.as_slice(),
            [(0, AppendError::SeveralPartitions { .. })]
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn emits_are_published_where_that_is_switched_on() {
    use event_core::{Realtime, RealtimeItem};
    let server = server();
    let store = builder(&server)
        .publish_on_commit(sdlc())
        .connect()
        .await
        .unwrap();
    let mut subscription = store.subscribe(&["sdlc.*".parse().unwrap()]).await.unwrap();
    let owner = lease(&store, "a", LONG).await;
    let commit = emitting(
        1,
        vec![vec![
            feed(&[1]),
            to("gothic", Expected::Any, numbered(&[2, 3])),
        ]],
    );
    store.commit(&owner, &commit).await.unwrap();
    for n in 1..=3 {
        let item = soon("an event", subscription.next()).await;
        assert!(
            matches!(&item, Some(RealtimeItem::Event(event)) if event.payload() == n.to_string()),
            "{item:?}"
        );
    }
    assert_eq!(
        server
            .command(&["HGET", "{events:sdlc}:published", "sdlc.phase.changed"])
            .unwrap(),
        "3"
    );
}

#[tokio::test]
async fn a_commit_that_emits_is_confirmed_by_replicas() {
    let server = RedisServer::builder().aof(Aof::Always).start().unwrap();
    let replica = RedisServer::builder()
        .replica_of(&server)
        .unwrap()
        .start()
        .unwrap();
    let store = builder(&server)
        .durability(Durability::Replicated(1))
        .patience(std::time::Duration::from_secs(20))
        .connect()
        .await
        .unwrap();
    let owner = lease(&store, "a", LONG).await;
    let commit = emitting(1, vec![vec![feed(&[1])]]);
    store.commit(&owner, &commit).await.unwrap();
    assert_eq!(count(&replica, &["XLEN", "events:sdlc"]), 1);

    replica.freeze().unwrap();
    // What emits nothing waits for nobody.
    soon("a commit", store.commit(&owner, &emitting(2, vec![])))
        .await
        .unwrap();
    let committing = tokio::spawn({
        let (store, owner) = (store.clone(), owner.clone());
        let commit = emitting(3, vec![vec![feed(&[2])]]);
        async move { store.commit(&owner, &commit).await }
    });
    // It is stored, and waits for the replica.
    until("the event", || {
        count(&server, &["XLEN", "events:sdlc"]) == 2
    })
    .await;
    assert!(!committing.is_finished());
    replica.thaw().unwrap();
    let committed = soon("a commit", committing).await.unwrap().unwrap();
    assert_eq!(committed.emitted[0][0].events.len(), 1);
    assert_eq!(count(&replica, &["XLEN", "events:sdlc"]), 2);
    // Asked again, it waits as well, and has something to wait for.
    let commit = emitting(3, vec![vec![feed(&[2])]]);
    let again = store.commit(&owner, &commit).await.unwrap();
    assert_eq!(again, Committed::default());
    assert_eq!(count(&server, &["XLEN", "events:sdlc"]), 2);
}

#[tokio::test]
async fn too_few_replicas_are_an_unknown_end() {
    let server = RedisServer::builder().aof(Aof::Always).start().unwrap();
    let store = builder(&server)
        .durability(Durability::Replicated(1))
        .accept_weaker_durability()
        .patience(std::time::Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    // Not connected for such a short time, if it is not here yet.
    let owner = soon("a lease", async {
        loop {
            match store.acquire("g", &only(), "a", LONG).await {
                Ok(event_core::Acquired::Yes { lease, .. }) => break lease,
                Ok(acquired) => panic!("{acquired:?}"),
                Err(_) => {}
            }
        }
    })
    .await;
    let commit = emitting(1, vec![vec![feed(&[1])]]);
    let error = store.commit(&owner, &commit).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::Store(StoreError::Unavailable { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_planted_faults_do_what_they_say() {
    let server = server();
    let whole = store(&server).await;
    let old = lease(&whole, "a", LONG).await;
    whole.release(&old).await.unwrap();
    let new = lease(&whole, "b", LONG).await;
    let faulty = builder(&server)
        .without_epoch_check()
        .connect()
        .await
        .unwrap();
    faulty
        .commit(&old, &emitting(1, vec![vec![feed(&[1])]]))
        .await
        .unwrap();
    assert_eq!(count(&server, &["XLEN", "events:sdlc"]), 1);
    let faulty = builder(&server)
        .without_commit_numbers()
        .connect()
        .await
        .unwrap();
    for _ in 0..2 {
        faulty
            .commit(&new, &emitting(1, vec![vec![feed(&[2])]]))
            .await
            .unwrap();
    }
    assert_eq!(count(&server, &["XLEN", "events:sdlc"]), 3);
}
