//! What projections are kept as: writes with their checkpoint, versions, and who fills them.

use std::time::Duration;

use tokio::task::JoinSet;

use super::StoreHarness;
use super::bank::{bank, category, deposits};
use super::steps::{LONG, SHORT, append_to_feed, fresh, within};
use crate::partition::Partition;
use crate::projection::{MAX_COUNT, ProjectionWrites, Writes};
use crate::recorded::Position;
use crate::store::{ApplyError, EventStore, ProjectionId, ProjectionStep, Projections, ServeError};

fn version(number: u32) -> ProjectionId {
    ProjectionId::new("balances", number).unwrap()
}

fn at(milliseconds: u64) -> Position {
    Position::new(milliseconds, 0)
}

/// What is written between two positions.
fn step(from: u64, to: u64, write: impl FnOnce(&mut Writes)) -> ProjectionStep {
    let mut writes = Writes::default();
    write(&mut writes);
    let (from, to) = (at(from), at(to));
    let writes = ProjectionWrites::of(writes).unwrap();
    ProjectionStep { from, to, writes }
}

/// A store that knows a version of a projection.
async fn opened<H: StoreHarness>(harness: &H) -> H::Store {
    let store = fresh(harness).await;
    store.open_projection(&version(1), &[bank()]).await.unwrap();
    store
}

async fn apply(store: &impl Projections, step: &ProjectionStep) {
    let partition = Partition::from(bank());
    let applied = store.apply_projection(&version(1), &partition, step).await;
    applied.unwrap();
}

/// What is written is read again: documents, fields and counts, after each of the operations.
pub async fn what_is_written_to_a_projection_is_read<H: StoreHarness>(harness: &H) {
    let store = opened(harness).await;
    let other = harness.other_client(&store).await;
    let id = version(1);
    let document = async |key| other.projection_document(&id, key).await.unwrap();
    let field = async |key, field| other.projection_field(&id, key, field).await.unwrap();

    apply(
        &store,
        &step(0, 1, |writes| {
            writes.set("a", &["x", "ü\n\"}"]).unwrap();
            writes.set_field("a", "name", "Ä").unwrap();
            writes.increment("a", "count", 3);
            writes.increment("a", "count", -1);
            writes.set_field("b", "count", &7).unwrap();
            writes.increment("b", "count", 1);
            writes.increment("c d:{e}", "f g", MAX_COUNT);
        }),
    )
    .await;
    assert_eq!(document("a").await.unwrap(), r#"["x","ü\n\"}"]"#);
    assert_eq!(field("a", "name").await.unwrap(), "\"Ä\"");
    assert_eq!(field("a", "count").await.unwrap(), "2");
    assert_eq!(field("b", "count").await.unwrap(), "8");
    assert_eq!(
        field("c d:{e}", "f g").await.unwrap(),
        MAX_COUNT.to_string()
    );
    assert_eq!(document("b").await, None);
    assert_eq!(field("b", "name").await, None);

    apply(
        &store,
        &step(1, 2, |writes| {
            writes.increment("a", "count", 40);
            writes.remove_field("a", "name");
            writes.remove_field("b", "count");
            writes.increment("c d:{e}", "f g", -MAX_COUNT);
        }),
    )
    .await;
    let fields = other.projection_fields(&id, "a").await.unwrap();
    assert_eq!(
        fields.into_iter().collect::<Vec<_>>(),
        [("count".to_owned(), "42".to_owned())]
    );
    assert_eq!(field("c d:{e}", "f g").await.unwrap(), "0");
    assert_eq!(field("b", "count").await, None);

    apply(
        &store,
        &step(2, 3, |writes| {
            writes.set("a", &1).unwrap();
            writes.remove("a");
            writes.increment("a", "count", 1);
            writes.remove("c d:{e}");
        }),
    )
    .await;
    assert_eq!(document("a").await, None, "it was removed after it was set");
    assert_eq!(field("a", "count").await.unwrap(), "1", "it counts anew");
    assert!(
        other
            .projection_fields(&id, "c d:{e}")
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(other.projection_keys(&id, None, 10).await.unwrap(), ["a"]);
}

/// The keys that have something are read page by page, in the order of their bytes.
pub async fn keys_of_a_projection_are_read_in_pages<H: StoreHarness>(harness: &H) {
    const COUNT: usize = 1_234;
    let store = opened(harness).await;
    let id = version(1);
    let key = |number: usize| format!("k{number:05}");
    apply(
        &store,
        &step(0, 1, |writes| {
            for number in (0..COUNT).rev() {
                writes.increment(key(number), "n", 1);
                writes.set(format!("gone{number}"), &number).unwrap();
            }
        }),
    )
    .await;
    apply(
        &store,
        &step(1, 2, |writes| {
            (0..COUNT).for_each(|number| writes.remove(format!("gone{number}")));
        }),
    )
    .await;
    let mut keys: Vec<String> = Vec::new();
    loop {
        let after = keys.last().map(String::as_str);
        let page = store.projection_keys(&id, after, 100).await.unwrap();
        assert!(page.len() <= 100);
        if page.is_empty() {
            break;
        }
        keys.extend(page);
    }
    assert_eq!(keys, (0..COUNT).map(key).collect::<Vec<_>>());
}

/// Writes are stored with their checkpoint, and only where it is the one that they begin at; each
/// partition has its own.
pub async fn a_step_from_another_checkpoint_is_refused<H: StoreHarness>(harness: &H) {
    let store = opened(harness).await;
    let (id, partition) = (version(1), Partition::from(bank()));
    let count = |writes: &mut Writes| writes.increment("a", "n", 1);
    apply(&store, &step(0, 5, count)).await;
    for stale in [
        step(0, 5, count),
        step(0, 9, count),
        step(4, 6, count),
        step(6, 7, count),
    ] {
        match store.apply_projection(&id, &partition, &stale).await {
            Err(ApplyError::Moved { checkpoint }) => assert_eq!(checkpoint, at(5)),
            other => panic!("{stale:?} must be refused, and came to {other:?}"),
        }
    }
    let number_2 = Partition::new(bank(), 2);
    let applied = store
        .apply_projection(&id, &number_2, &step(0, 3, count))
        .await;
    applied.unwrap();
    apply(&store, &step(5, 6, |_| {})).await;
    assert_eq!(
        store
            .projection_field(&id, "a", "n")
            .await
            .unwrap()
            .unwrap(),
        "2"
    );
    assert_eq!(
        store.projection_checkpoint(&id, &partition).await.unwrap(),
        at(6)
    );
    assert_eq!(
        store.projection_checkpoint(&id, &number_2).await.unwrap(),
        at(3)
    );
    let unknown = store
        .apply_projection(&version(2), &partition, &step(0, 1, count))
        .await;
    assert!(
        matches!(unknown, Err(ApplyError::Unknown { .. })),
        "{unknown:?}"
    );
}

/// Of several that write the same steps at once, each step is in the state once.
pub async fn of_many_writers_each_step_counts_once<H: StoreHarness>(harness: &H) {
    const STEPS: u64 = 200;
    let store = opened(harness).await;
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let store = harness.other_client(&store).await;
        writers.spawn(async move {
            let mut from = 0;
            while from < STEPS {
                let step = step(from, from + 1, |writes| writes.increment("a", "n", 1));
                let partition = Partition::from(bank());
                match store.apply_projection(&version(1), &partition, &step).await {
                    Ok(()) => from += 1,
                    Err(ApplyError::Moved { checkpoint }) => from = checkpoint.milliseconds(),
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    within("all steps are written", writers.join_all()).await;
    let count = store.projection_field(&version(1), "a", "n").await.unwrap();
    assert_eq!(count.unwrap(), STEPS.to_string());
}

/// Where one field cannot be counted up, nothing of the step is written, and the field is named.
pub async fn what_is_no_count_is_refused_whole<H: StoreHarness>(harness: &H) {
    let store = opened(harness).await;
    let (id, partition) = (version(1), Partition::from(bank()));
    apply(
        &store,
        &step(0, 1, |writes| {
            writes.set_field("a", "text", "x").unwrap();
            writes.set_field("a", "half", &0.5).unwrap();
            writes.set_field("a", "large", &(1u64 << 60)).unwrap();
            writes.increment("a", "full", MAX_COUNT);
        }),
    )
    .await;
    for field in ["text", "half", "large", "full"] {
        let refused = step(1, 2, |writes| {
            writes.increment("a", "other", 1);
            writes.set("b", &1).unwrap();
            writes.increment("a", field, 1);
        });
        match store.apply_projection(&id, &partition, &refused).await {
            Err(ApplyError::NotACount { key, field: named }) => {
                assert_eq!((key.as_str(), named.as_str()), ("a", field));
            }
            other => panic!("`{field}` is no count, and it came to {other:?}"),
        }
        assert_eq!(
            store.projection_field(&id, "a", "other").await.unwrap(),
            None
        );
        assert_eq!(store.projection_document(&id, "b").await.unwrap(), None);
        assert_eq!(
            store.projection_checkpoint(&id, &partition).await.unwrap(),
            at(1)
        );
    }
}

/// A version that is not the first is opened only when it is said, and takes the place of the one that is
/// read only when it has all that this one has.
pub async fn a_version_that_is_behind_is_not_switched_to<H: StoreHarness>(harness: &H) {
    let store = opened(harness).await;
    let partition = Partition::from(bank());
    let known = store.open_first_projection(&version(2), &[bank()]).await;
    assert!(!known.unwrap().versions.contains_key(&2), "another is read");
    let unknown = store.switch_projection(&version(2), 1).await;
    assert!(
        matches!(unknown, Err(ServeError::Unknown { .. })),
        "{unknown:?}"
    );
    store.open_projection(&version(2), &[bank()]).await.unwrap();
    apply(&store, &step(0, 9, |_| {})).await;
    for (from, to, is_there) in [(0, 8, false), (8, 10, true)] {
        let step = step(from, to, |_| {});
        let applied = store.apply_projection(&version(2), &partition, &step).await;
        applied.unwrap();
        let switched = store.switch_projection(&version(2), 7).await.unwrap();
        assert!(!switched, "another one is read");
        let switched = store.switch_projection(&version(2), 1).await.unwrap();
        assert_eq!(switched, is_there);
    }
    let again = store.switch_projection(&version(2), 1).await;
    assert!(again.unwrap(), "it was done before");
    let versions = store.projection_versions("balances").await.unwrap();
    assert_eq!((versions.served, versions.is_live(2)), (Some(2), true));
    assert_eq!(versions.versions[&2].categories, [bank()]);
}

/// The first version is served at once, another one when it is said; then the one before may be dropped,
/// and nothing is left of it.
pub async fn versions_of_a_projection_are_switched_and_dropped<H: StoreHarness>(harness: &H) {
    const KEYS: usize = 1_100;
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let partition = Partition::from(bank());
    assert_eq!(store.served_projection("balances").await.unwrap(), None);
    let versions = store.open_projection(&version(1), &[bank()]).await.unwrap();
    assert_eq!((versions.served, versions.is_live(1)), (Some(1), true));
    let both = [bank(), category("stock")];
    let versions = other.open_projection(&version(2), &both).await.unwrap();
    assert_eq!((versions.served, versions.is_live(2)), (Some(1), false));
    assert_eq!(
        versions,
        store.open_projection(&version(2), &both).await.unwrap()
    );
    assert_eq!(versions.versions[&2].categories, both);

    apply(
        &store,
        &step(0, 1, |writes| {
            (0..KEYS).for_each(|number| {
                writes.increment(number.to_string(), "n", 1);
                writes.set(number.to_string(), &number).unwrap();
            });
        }),
    )
    .await;
    let served = store.drop_projection(&version(1)).await;
    assert!(
        matches!(served, Err(ServeError::Served { .. })),
        "{served:?}"
    );
    assert_eq!(other.serve_projection(&version(2)).await.unwrap(), Some(1));
    let versions = store.projection_versions("balances").await.unwrap();
    assert_eq!(versions.served, Some(2));
    assert!(
        versions.is_live(1) && versions.is_live(2),
        "both are filled on"
    );
    let unknown = store.serve_projection(&version(3)).await;
    assert!(
        matches!(unknown, Err(ServeError::Unknown { .. })),
        "{unknown:?}"
    );

    assert!(store.drop_projection(&version(1)).await.unwrap());
    assert!(!store.drop_projection(&version(1)).await.unwrap());
    let dropped = store
        .apply_projection(&version(1), &partition, &step(1, 2, |_| {}))
        .await;
    assert!(
        matches!(dropped, Err(ApplyError::Unknown { .. })),
        "{dropped:?}"
    );
    let versions = store.open_projection(&version(1), &[bank()]).await.unwrap();
    assert_eq!((versions.served, versions.is_live(1)), (Some(2), false));
    assert_eq!(
        store.projection_keys(&version(1), None, 10).await.unwrap(),
        [""; 0]
    );
    assert_eq!(
        store.projection_document(&version(1), "7").await.unwrap(),
        None
    );
    let checkpoint = store.projection_checkpoint(&version(1), &partition).await;
    assert_eq!(checkpoint.unwrap(), Position::START);
}

/// The version that is read may go where it is the last one: nothing is left of the projection, nothing is held back
/// for it, and it may begin anew.
pub async fn the_last_version_of_a_projection_may_be_dropped<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    store.open_projection(&version(1), &[bank()]).await.unwrap();
    let first = step(0, 1, |writes| writes.increment("ada", "n", 1));
    apply(&store, &first).await;

    assert!(store.drop_projection(&version(1)).await.unwrap());
    assert!(!store.drop_projection(&version(1)).await.unwrap());
    assert_eq!(store.served_projection("balances").await.unwrap(), None);
    let late = step(1, 2, |_| {});
    let late = store.apply_projection(&version(1), &partition, &late).await;
    assert!(matches!(late, Err(ApplyError::Unknown { .. })), "{late:?}");
    let holding_back = store.projection_checkpoints(&partition).await.unwrap();
    assert!(holding_back.is_empty(), "{holding_back:?}");

    let anew = store.open_projection(&version(1), &[bank()]).await.unwrap();
    assert_eq!((anew.served, anew.is_live(1)), (Some(1), true));
    apply(&store, &first).await;
}

/// One instance fills a version at a time, until its lease ends or it gives it back.
pub async fn one_instance_fills_a_version<H: StoreHarness>(harness: &H) {
    let store = opened(harness).await;
    let other = harness.other_client(&store).await;
    let id = version(1);
    let hold = async |instance, lease: Duration| {
        other.hold_projection(&id, instance, lease).await.unwrap()
    };
    assert!(store.hold_projection(&id, "a", LONG).await.unwrap());
    assert!(!hold("b", LONG).await);
    assert!(hold("a", LONG).await, "it is prolonged");
    other.release_projection(&id, "b").await.unwrap();
    assert!(!hold("b", LONG).await, "only the holder gives it back");
    other.release_projection(&id, "a").await.unwrap();
    assert!(hold("b", SHORT).await);
    within("the lease ends", async { while !hold("a", LONG).await {} }).await;
    assert!(!other.hold_projection(&version(2), "a", LONG).await.unwrap());
}

/// Of each version that is made of a category it is known how far it is in a partition: at the beginning, too.
pub async fn every_version_says_how_far_it_is<H: StoreHarness>(harness: &H) {
    let store = opened(harness).await;
    let partition = Partition::from(bank());
    let stock = ProjectionId::new("stock", 7).unwrap();
    let both = [category("stock"), bank()];
    store.open_projection(&version(2), &[bank()]).await.unwrap();
    store.open_projection(&stock, &both).await.unwrap();
    apply(&store, &step(0, 4, |_| {})).await;
    let told = async |partition: &Partition| {
        let checkpoints = store.projection_checkpoints(partition).await.unwrap();
        let told = checkpoints.into_iter().map(|told| (told.id, told.position));
        told.collect::<Vec<_>>()
    };
    let start = Position::START;
    let expected = [
        (version(1), at(4)),
        (version(2), start),
        (stock.clone(), start),
    ];
    assert_eq!(told(&partition).await, expected);
    assert_eq!(told(&category("stock").into()).await, [(stock, start)]);
    assert_eq!(told(&category("weather").into()).await, []);
}

/// It is known how many entries lie after a position.
pub async fn entries_after_a_position_are_counted<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let partition = Partition::from(bank());
    assert_eq!(
        store
            .entries_after(&partition, Position::START)
            .await
            .unwrap(),
        0
    );
    let appended = append_to_feed(&store, &bank(), deposits(20)).await;
    assert_eq!(
        store
            .entries_after(&partition, Position::START)
            .await
            .unwrap(),
        20
    );
    for (index, event) in (1..).zip(&appended.events) {
        let after = store
            .entries_after(&partition, event.position)
            .await
            .unwrap();
        assert_eq!(after, 20 - index);
    }
    let head = store.head(&partition).await.unwrap();
    assert_eq!(store.entries_after(&partition, head).await.unwrap(), 0);
}
