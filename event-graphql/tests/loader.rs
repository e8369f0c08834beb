//! Loader caches and fresh loaders, against each other and against events.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_graphql::dataloader::{DataLoader, HashMapCache, Loader};
use async_graphql::{
    ComplexObject, Context, EmptyMutation, Object, Schema, SimpleObject, Subscription,
};
use event_core::{Event, Metadata, Position, RecordedEvent};
use event_graphql::{FreshPerEvent, Invalidates, LoadError, LoaderCache};
use futures::{Stream, StreamExt};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event("repository.updated")]
struct RepositoryUpdated {
    repository: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
enum Moved {
    #[event("repository.moved")]
    Moved { from: String, to: String },
    #[event("repository.starred")]
    Starred { by: Option<String> },
}

/// Values that can be changed, and loads that can be held up.
#[derive(Clone)]
struct Table(Arc<Inner>);

struct Inner {
    values: Mutex<HashMap<String, u64>>,
    batches: Mutex<Vec<usize>>,
    /// A load has read, and waits to be let on: one permit each.
    begun: Semaphore,
    let_on: Semaphore,
    failures: AtomicUsize,
}

impl Table {
    fn new(values: &[(&str, u64)]) -> Self {
        let values = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), *value));
        Self(Arc::new(Inner {
            values: Mutex::new(values.collect()),
            batches: Mutex::default(),
            begun: Semaphore::new(0),
            let_on: Semaphore::new(Semaphore::MAX_PERMITS),
            failures: AtomicUsize::new(0),
        }))
    }

    /// One whose loads wait to be let on.
    fn held(values: &[(&str, u64)]) -> Self {
        let table = Self::new(values);
        table.0.let_on.forget_permits(Semaphore::MAX_PERMITS);
        table
    }

    fn set(&self, key: &str, value: u64) {
        self.0.values.lock().unwrap().insert(key.to_owned(), value);
    }

    fn batches(&self) -> Vec<usize> {
        self.0.batches.lock().unwrap().clone()
    }

    async fn until_begun(&self) {
        let begun = timeout(Duration::from_secs(30), self.0.begun.acquire());
        begun.await.unwrap().unwrap().forget();
    }

    fn let_one_on(&self) {
        self.0.let_on.add_permits(1);
    }
}

impl Loader<String> for Table {
    type Value = u64;
    type Error = String;

    async fn load(&self, keys: &[String]) -> Result<HashMap<String, u64>, String> {
        self.0.batches.lock().unwrap().push(keys.len());
        let found = {
            let values = self.0.values.lock().unwrap();
            let find = |key: &String| values.get(key).map(|value| (key.clone(), *value));
            keys.iter().filter_map(find).collect()
        };
        self.0.begun.add_permits(1);
        self.0.let_on.acquire().await.unwrap().forget();
        assert!(!keys.contains(&"panic".to_owned()), "asked to");
        if self.0.failures.load(Ordering::SeqCst) > 0 {
            self.0.failures.fetch_sub(1, Ordering::SeqCst);
            return Err("out of order".to_owned());
        }
        Ok(found)
    }
}

type Cache = LoaderCache<String, Table>;

fn cache(table: &Table) -> Cache {
    LoaderCache::builder(table.clone())
        .invalidates(|e: &RepositoryUpdated| e.repository.clone())
        .invalidates(|e: &Moved| match e {
            Moved::Moved { from, to } => vec![from.clone(), to.clone()],
            Moved::Starred { .. } => Vec::new(),
        })
        .invalidates(|e: &Moved| match e {
            Moved::Moved { .. } => None,
            Moved::Starred { by } => by.clone(),
        })
        .build()
}

fn recorded(event_type: &str, payload: &str) -> RecordedEvent {
    let metadata = Metadata::new(
        event_core::Ids::random().next(),
        event_core::Clock::system().now(),
    );
    RecordedEvent::new(event_type, payload, Position::new(1, 0), None, metadata)
}

fn updated(repository: &str) -> RecordedEvent {
    let payload = format!(r#"{{"repository":"{repository}"}}"#);
    recorded("repository.updated", &payload)
}

fn ask(cache: &Cache, key: &str) -> tokio::task::JoinHandle<Option<u64>> {
    let (cache, key) = (cache.clone(), key.to_owned());
    tokio::spawn(async move { cache.load_one(key).await.unwrap() })
}

async fn one(cache: &Cache, key: &str) -> Option<u64> {
    cache.load_one(key.to_owned()).await.unwrap()
}

#[tokio::test]
async fn what_is_asked_for_together_is_loaded_together_and_once() {
    let table = Table::new(&[("a", 1), ("b", 2)]);
    let cache = cache(&table);
    let keys = || ["a", "b", "none"].map(str::to_owned);
    let (first, second) = tokio::join!(cache.load_many(keys()), cache.load_one("a".to_owned()));
    assert_eq!(
        first.unwrap(),
        HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)])
    );
    assert_eq!(second.unwrap(), Some(1));
    assert_eq!(table.batches(), [3]);
    // That there is none is asked again.
    assert_eq!(cache.load_many(keys()).await.unwrap().len(), 2);
    assert_eq!(table.batches(), [3, 1]);
}

#[tokio::test]
async fn events_name_one_key_some_or_none() {
    let table = Table::new(&[("a", 1), ("b", 2), ("c", 3)]);
    let cache = cache(&table);
    let fill = || cache.load_many(["a", "b", "c"].map(str::to_owned));
    fill().await.unwrap();
    assert_eq!(cache.apply(&updated("a")).unwrap(), 1);
    assert_eq!(cache.len(), 2);
    fill().await.unwrap();
    let moved = recorded("repository.moved", r#"{"from":"a","to":"b"}"#);
    assert_eq!(cache.apply(&moved).unwrap(), 2);
    assert_eq!(cache.len(), 1);
    let starred = |by: &str| recorded("repository.starred", &format!(r#"{{"by":{by}}}"#));
    assert_eq!(cache.apply(&starred("null")).unwrap(), 0);
    assert_eq!(cache.apply(&starred("\"c\"")).unwrap(), 1);
    assert!(cache.is_empty());
    assert_eq!(cache.apply(&recorded("other.thing", "{}")).unwrap(), 0);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_empties_the_cache() {
    let cache = cache(&Table::new(&[("a", 1)]));
    one(&cache, "a").await;
    assert!(cache.apply(&recorded("repository.updated", "{}")).is_err());
    assert!(cache.is_empty());
}

#[tokio::test]
async fn a_load_that_an_event_overtakes_is_neither_kept_nor_joined() {
    let table = Table::held(&[("a", 1)]);
    let cache = cache(&table);
    let before = ask(&cache, "a");
    table.until_begun().await;

    table.set("a", 2);
    cache.apply(&updated("a")).unwrap();
    let after = ask(&cache, "a");
    // It has begun one of its own: the first is still held up.
    table.until_begun().await;
    table.let_one_on();
    assert_eq!(before.await.unwrap(), Some(1));
    assert!(cache.is_empty(), "the old value was kept");

    table.let_one_on();
    assert_eq!(after.await.unwrap(), Some(2));
    assert_eq!(one(&cache, "a").await, Some(2));
    assert_eq!(table.batches(), [1, 1]);
}

#[tokio::test]
async fn an_old_load_that_ends_last_does_not_replace_the_new_value() {
    let table = Table::held(&[("a", 1), ("b", 1)]);
    let cache = cache(&table);
    let before = ask(&cache, "a");
    table.until_begun().await;
    cache.clear();
    table.set("a", 2);
    let after = ask(&cache, "a");
    table.until_begun().await;
    // Permits are given in turn: both end, in whichever order.
    table.let_one_on();
    table.let_one_on();
    assert_eq!(before.await.unwrap(), Some(1));
    assert_eq!(after.await.unwrap(), Some(2));
    assert_eq!(one(&cache, "a").await, Some(2));
}

#[tokio::test]
async fn failures_are_told_to_all_and_not_kept() {
    let table = Table::new(&[("a", 1)]);
    let cache = cache(&table);
    table.0.failures.store(1, Ordering::SeqCst);
    let (one_, other) = tokio::join!(cache.load_one("a".into()), cache.load_one("a".into()));
    let failed = LoadError::Loader("out of order".to_owned());
    assert_eq!((one_, other), (Err(failed.clone()), Err(failed)));
    assert_eq!(
        cache.load_one("panic".into()).await,
        Err(LoadError::BrokenOff)
    );
    assert_eq!(one(&cache, "a").await, Some(1));
}

#[tokio::test]
async fn a_value_that_cannot_be_kept_leaves_nobody_waiting() {
    let table = Table::new(&[("a", 1), ("b", 2)]);
    let cache = LoaderCache::builder(table.clone())
        .weigh(|_, value| if *value == 1 { panic!("no weight") } else { 1 })
        .build();
    for _ in 0..2 {
        let asked = cache.load_many(["a", "b"].map(str::to_owned)).await;
        assert_eq!(asked, Err(LoadError::BrokenOff));
    }
    assert_eq!(cache.load_one("b".into()).await, Ok(Some(2)));
}

#[tokio::test]
async fn who_leaves_does_not_take_the_load_along() {
    let table = Table::held(&[("a", 1)]);
    let cache = cache(&table);
    let first = ask(&cache, "a");
    table.until_begun().await;
    let second = ask(&cache, "a");
    tokio::task::yield_now().await;
    first.abort();
    table.let_one_on();
    assert_eq!(second.await.unwrap(), Some(1));
    assert_eq!(table.batches(), [1]);
}

#[tokio::test]
async fn it_is_bounded_by_what_values_weigh() {
    let keys: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let values: Vec<(&str, u64)> = keys.iter().map(|key| (key.as_str(), 10)).collect();
    let cache = LoaderCache::builder(Table::new(&values))
        .capacity(1_000)
        .weigh(|_, value| *value)
        .max_batch(50)
        .build();
    assert_eq!(cache.load_many(keys).await.unwrap().len(), 500);
    assert!(cache.len() <= 100, "{}", cache.len());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(usize),
    Change(usize),
    LetOn,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3usize).prop_map(Step::Ask),
        (0..3usize).prop_map(Step::Change),
        Just(Step::LetOn),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whoever asks after a change and its event never gets a value from before it.
    #[test]
    fn nobody_gets_what_is_older_than_the_last_event_before_he_asked(steps in steps()) {
        const KEYS: [&str; 3] = ["a", "b", "c"];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let table = Table::held(&KEYS.map(|key| (key, 0)));
            let cache = cache(&table);
            let mut newest = [0_u64; 3];
            let mut asked = Vec::new();
            for step in steps {
                match step {
                    Step::Ask(key) => asked.push((newest[key], ask(&cache, KEYS[key]))),
                    Step::Change(key) => {
                        newest[key] += 1;
                        table.set(KEYS[key], newest[key]);
                        cache.apply(&updated(KEYS[key])).unwrap();
                    }
                    Step::LetOn => table.let_one_on(),
                }
                // The clock stands still until there is nothing else to do: all loads begin.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            table.0.let_on.add_permits(1_000);
            for (least, asked) in asked {
                assert!(asked.await.unwrap().unwrap() >= least);
            }
            for (key, newest) in KEYS.iter().zip(newest) {
                assert_eq!(one(&cache, key).await, Some(newest));
            }
        });
    }
}

struct Query;

#[Object]
impl Query {
    async fn nothing(&self) -> bool {
        true
    }
}

#[derive(SimpleObject)]
#[graphql(complex)]
struct Update {
    repository: String,
}

#[ComplexObject]
impl Update {
    async fn stars(&self, context: &Context<'_>) -> async_graphql::Result<Option<u64>> {
        let loader = context.data::<DataLoader<Table, HashMapCache>>()?;
        Ok(loader.load_one(self.repository.clone()).await?)
    }
}

struct Updates(Table);

#[Subscription]
impl Updates {
    async fn updates(&self) -> impl Stream<Item = Update> {
        let table = self.0.clone();
        futures::stream::iter([10, 20, 30]).map(move |stars| {
            table.set("a", stars);
            Update {
                repository: "a".to_owned(),
            }
        })
    }
}

#[tokio::test]
async fn each_event_of_a_subscription_has_loaders_of_its_own() {
    let table = Table::new(&[]);
    let loaders = table.clone();
    let schema = Schema::build(Query, EmptyMutation, Updates(table.clone()))
        .extension(FreshPerEvent::new().with(move || {
            DataLoader::with_cache(loaders.clone(), tokio::spawn, HashMapCache::default())
        }))
        .finish();
    let stream = schema.execute_stream("subscription { updates { stars again: stars } }");
    let seen: Vec<String> = stream.map(|one| one.data.to_string()).collect().await;
    let expected = [10, 20, 30].map(|n| format!("{{updates: {{stars: {n}, again: {n}}}}}"));
    assert_eq!(seen, expected);
    assert_eq!(table.batches(), [1, 1, 1]);
}
