//! Commits: what the owner of a partition has done is stored whole or not at all, and once.

use std::sync::Arc;

use super::StoreHarness;
use super::bank::{account, bank, category, deposit, deposits, event_of, event_with};
use super::steps::{
    LONG, acquire, append, append_to_feed, commit, feed, fresh, head, history, new_ids, open,
    recorded_ids, up_to,
};
use crate::codec::Codec;
use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position};
use crate::store::{
    Append, AppendError, Appended, Commit, CommitError, Committed, DeadLetter, DeadLetterReason,
    DeadLetters, Expected, Groups, Limits, Open, Progress,
};

/// A dead letter of a position.
pub(super) fn letter(position: Position, handler: &str, key: Option<&str>) -> DeadLetter {
    let now = Codec::default().clock().now();
    DeadLetter {
        position,
        handler: handler.into(),
        key: key.map(Into::into),
        event_type: Some("bank.deposited".into()),
        event_id: Some(uuid::Uuid::now_v7()),
        reason: DeadLetterReason::Exhausted,
        errors: vec!["it failed: ü".into(), "since something broke".into()],
        attempts: 3,
        first_failed_at: now,
        last_failed_at: now,
        redrive: false,
    }
}

fn to_account(id: &str, count: usize) -> Append {
    Append::to(account(id), Expected::Any, deposits(count))
}

async fn letters(store: &impl DeadLetters, group: &str) -> Vec<DeadLetter> {
    match store
        .list_dead_letters(group, &bank().into(), None, usize::MAX)
        .await
    {
        Ok(letters) => letters,
        Err(error) => panic!("dead letters must be listed: {error}"),
    }
}

/// A commit stores progress, emitted events and dead letters, and says where the events lie, where that
/// is wanted, and how many dead letters there are.
pub async fn a_commit_stores_everything<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let partition = Partition::from(bank());
    let appended = append_to_feed(&store, &bank(), deposits(3)).await;
    let [first, _, last] = [0, 1, 2].map(|index: usize| appended.events[index].position);
    let (lease, _) = acquire(&store, "g", &partition, "a", LONG).await;
    let shop = category("shop");
    let emitted = [event_of(&shop), event_of(&shop)];
    let parked = letter(first, "h", Some("k"));
    let committed = commit(
        &store,
        &lease,
        &Commit {
            number: 1,
            progress: Progress {
                checkpoint: last,
                event_id: Some(recorded_ids(&feed(&store, &bank()).await)[2]),
                reached: last,
                open: Vec::new(),
            },
            finished: 3,
            emitted: vec![vec![Append::to_feed(shop.clone(), emitted.to_vec())]],
            parked: vec![parked.clone()],
            wants_places: true,
            ..Commit::default()
        },
    )
    .await;
    assert_eq!(committed.dead_letters, 1);
    let found = feed(&other, &shop).await;
    assert_eq!(recorded_ids(&found), new_ids(&emitted));
    assert_eq!(
        places(&committed),
        [found.iter().map(|e| e.position()).collect::<Vec<_>>()]
    );
    assert_eq!(letters(&other, "g").await, [parked]);
    let progress = open(&other, "g", &partition, Start::Beginning).await;
    assert_eq!((progress.checkpoint, progress.reached), (last, last));
    // Nothing of it is of another group.
    assert_eq!(letters(&other, "g2").await, []);
    let progress = open(&other, "g2", &partition, Start::Beginning).await;
    assert_eq!(progress, Progress::default());
}

/// The positions of what each run has emitted.
fn places(committed: &Committed) -> Vec<Vec<Position>> {
    let of = |appended: &Appended| -> Vec<_> {
        appended.events.iter().map(|event| event.position).collect()
    };
    committed
        .emitted
        .iter()
        .map(|run| run.iter().flat_map(of).collect())
        .collect()
}

/// Progress is read as it was committed: what is open, the handlers that are through with it, and
/// the event at the checkpoint; by those who open the group and by the next owner.
pub async fn progress_survives<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let partition = Partition::from(bank());
    append_to_feed(&store, &bank(), deposits(200)).await;
    let events = feed(&store, &bank()).await;
    let at = |index: usize| events[index].position();
    let with = |checkpoint: usize, reached: usize, open: Vec<Open>| Progress {
        checkpoint: at(checkpoint),
        event_id: Some(events[checkpoint].metadata().event_id),
        reached: at(reached),
        open,
    };
    let done = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    let mut all = vec![
        with(0, 0, Vec::new()),
        with(
            1,
            9,
            vec![
                Open {
                    position: at(2),
                    done: Vec::new(),
                },
                Open {
                    position: at(5),
                    done: done(&["a handler", "Über::\"quoted\"", "z"]),
                },
                Open {
                    position: at(9),
                    done: done(&["z"]),
                },
            ],
        ),
        Progress {
            event_id: None,
            ..with(10, 10, Vec::new())
        },
    ];
    all.push(with(
        11,
        199,
        (12..199)
            .map(|index| Open {
                position: at(index),
                done: done(&["one", "two"]),
            })
            .collect(),
    ));
    all.push(with(199, 199, Vec::new()));
    for (index, progress) in all.into_iter().enumerate() {
        let instance = format!("i{index}");
        let (lease, _) = acquire(&store, "g", &partition, &instance, LONG).await;
        let stored = Commit {
            number: 1,
            progress: progress.clone(),
            ..Commit::default()
        };
        commit(&store, &lease, &stored).await;
        store.release(&lease).await.unwrap();
        let opened = open(&other, "g", &partition, Start::Now).await;
        assert_eq!(opened, progress, "what is opened");
        let (lease, acquired) = acquire(&other, "g", &partition, "next", LONG).await;
        assert_eq!(acquired, progress, "what is acquired");
        store.release(&lease).await.unwrap();
    }
}

/// A commit whose number was stored already in the epoch is a success that writes nothing: what it
/// emits is stored once. A new epoch counts anew.
pub async fn a_commit_sent_again_writes_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let partition = Partition::from(bank());
    let appended = append_to_feed(&store, &bank(), deposits(4)).await;
    let at = |index: usize| appended.events[index].position;
    let shop = category("shop");
    let with = |number: u64, index: usize| Commit {
        number,
        progress: up_to(at(index)),
        finished: 1,
        emitted: vec![vec![
            Append::to_feed(shop.clone(), vec![event_of(&shop)]),
            to_account("a", 1),
        ]],
        parked: vec![letter(at(index), "h", None)],
        wants_places: true,
        ..Commit::default()
    };
    let (lease, _) = acquire(&store, "g", &partition, "a", LONG).await;
    let first = with(1, 0);
    let stored = commit(&store, &lease, &first).await;
    assert_eq!(places(&stored)[0].len(), 2);
    for client in [&store, &other] {
        let again = commit(client, &lease, &first).await;
        assert_eq!(again.dead_letters, 1);
        assert!(again.emitted.is_empty(), "it says that it was a repetition");
    }
    commit(&store, &lease, &with(2, 1)).await;
    // Late, and of other content: the number decides.
    commit(&store, &lease, &with(1, 3)).await;
    let progress = open(&store, "g", &partition, Start::Beginning).await;
    assert_eq!(progress.checkpoint, at(1));
    assert_eq!(feed(&store, &shop).await.len(), 2);
    assert_eq!(history(&store, &account("a")).await.len(), 2);
    assert_eq!(letters(&store, "g").await.len(), 2);

    store.release(&lease).await.unwrap();
    let (lease, _) = acquire(&store, "g", &partition, "b", LONG).await;
    commit(&store, &lease, &with(1, 2)).await;
    assert_eq!(feed(&store, &shop).await.len(), 3);
    assert_eq!(letters(&store, "g").await.len(), 3);
}

/// A commit with events that cannot be stored writes nothing, and names the runs they come from and
/// why; without those it is accepted under the same number.
pub async fn a_refused_emit_writes_nothing_and_is_named<H: StoreHarness>(harness: &H) {
    let limits = Limits {
        payload_bytes: 100,
        ..Limits::default()
    };
    let store = harness.store(limits).await;
    let partition = Partition::from(bank());
    let there = append_to_feed(&store, &bank(), deposits(2))
        .await
        .position();
    let before = open(&store, "g", &partition, Start::Beginning).await;
    let (lease, _) = acquire(&store, "g", &partition, "a", LONG).await;
    let shop = category("shop");
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(100));
    let mut refused = Commit {
        number: 1,
        progress: up_to(there),
        finished: 2,
        emitted: vec![
            vec![Append::to_feed(shop.clone(), vec![event_of(&shop)])],
            vec![
                to_account("a", 1),
                Append::to_feed(shop.clone(), vec![event_with("shop.large", &large)]),
            ],
            vec![to_account("b", 1)],
            vec![Append::to_feed(shop.clone(), vec![deposit()])],
        ],
        parked: vec![letter(there, "h", None)],
        wants_places: true,
        ..Commit::default()
    };
    for _ in 0..2 {
        match store.commit(&lease, &refused).await {
            Err(CommitError::Refused { refused }) => assert!(
                matches!(
                    &*refused,
                    [
                        (1, AppendError::PayloadTooLarge { .. }),
                        (3, AppendError::OtherCategory { .. })
                    ]
                ),
                "each run must be named, with its reason: {refused:?}"
            ),
            other => panic!("the commit must be refused, and came to {other:?}"),
        }
        assert_eq!(feed(&store, &shop).await, []);
        assert_eq!(history(&store, &account("a")).await, []);
        assert_eq!(history(&store, &account("b")).await, []);
        assert_eq!(letters(&store, "g").await, []);
        let progress = open(&store, "g", &partition, Start::Beginning).await;
        assert_eq!(progress, before);
    }
    refused.emitted = vec![refused.emitted.remove(0), refused.emitted.remove(1)];
    commit(&store, &lease, &refused).await;
    assert_eq!(feed(&store, &shop).await.len(), 1);
    assert_eq!(history(&store, &account("b")).await.len(), 1);
    assert_eq!(letters(&store, "g").await.len(), 1);
}

/// What is emitted goes to any categories and aggregates, to its own feed too; versions go on,
/// whatever was expected, and what one aggregate gets from several runs keeps their order.
pub async fn emits_go_to_feeds_and_aggregates<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    append(&store, &account("old"), Expected::NoStream, deposits(3)).await;
    let (lease, _) = acquire(&store, "g", &partition, "a", LONG).await;
    let (shop, post) = (category("shop"), category("post"));
    let ship = AggregateId::new(post.clone(), "ship", "ü: 1").unwrap();
    let new = deposits(5);
    let emitted = vec![
        vec![
            Append::to(account("old"), Expected::Exact(1), new[..2].to_vec()),
            Append::to_feed(shop.clone(), vec![event_of(&shop), event_of(&shop)]),
        ],
        vec![
            Append::to(account("new"), Expected::Exists, vec![new[2].clone()]),
            Append::to(account("old"), Expected::NoStream, vec![new[3].clone()]),
            Append::to(ship.clone(), Expected::Any, vec![event_of(&post)]),
        ],
        vec![Append::to_feed(bank(), vec![new[4].clone()])],
    ];
    let committed = commit(
        &store,
        &lease,
        &Commit {
            number: 1,
            emitted,
            wants_places: true,
            ..Commit::default()
        },
    )
    .await;
    let old = history(&store, &account("old")).await;
    let expected = new_ids(&[new[0].clone(), new[1].clone(), new[3].clone()]);
    assert_eq!(recorded_ids(&old)[3..], expected);
    assert_eq!(
        recorded_ids(&history(&store, &account("new")).await),
        new_ids(&new[2..3])
    );
    assert_eq!(history(&store, &ship).await.len(), 1);
    assert_eq!(feed(&store, &shop).await.len(), 2);
    let bank_feed = feed(&store, &bank()).await;
    assert_eq!(bank_feed.len(), 8);
    let versions = committed.emitted[0][0].events.iter().map(|e| e.version);
    assert_eq!(versions.collect::<Vec<_>>(), [4, 5]);
    assert_eq!(committed.emitted[1][1].version(), 6);
    let known: Vec<_> = bank_feed.iter().map(|event| event.position()).collect();
    for (run, append) in [(0, 0), (1, 0), (1, 1), (2, 0)] {
        for event in &committed.emitted[run][append].events {
            assert!(known.contains(&event.position), "{committed:?}");
            assert!(!event.repeated);
        }
    }
    // Others go on at the version that the commit has led to.
    let next = append(&store, &account("old"), Expected::Exact(6), vec![deposit()]).await;
    assert_eq!(next.version(), 7);
}

/// Commits beside appends to the same aggregate lose nothing, and versions have no holes.
pub async fn commits_beside_appends_lose_nothing<H: StoreHarness>(harness: &H) {
    const EACH: u64 = 50;
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let partition = Partition::from(category("shop"));
    let (lease, _) = acquire(&store, "g", &partition, "a", LONG).await;
    let writer = tokio::spawn(async move {
        for _ in 0..EACH {
            append(&other, &account("a"), Expected::Any, vec![deposit()]).await;
        }
    });
    for number in 1..=EACH {
        let emits = Commit {
            number,
            emitted: vec![vec![to_account("a", 2)]],
            wants_places: true,
            ..Commit::default()
        };
        commit(&store, &lease, &emits).await;
    }
    writer.await.unwrap();
    // That versions have no holes is looked at where a history is read.
    let found = history(&store, &account("a")).await.len() as u64;
    assert_eq!(found, 3 * EACH);
    let in_feed = feed(&store, &bank()).await;
    assert_eq!(in_feed.len() as u64, 3 * EACH);
    assert!(head(&store, &bank()).await > Position::START);
}
