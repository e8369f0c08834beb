//! Loads and events that happen at the same time.

use event_core::{Replay, Token};
use event_redis::{AsOf, CacheValue};

use super::*;

/// The three ways in which an event names what it invalidates.
fn handlers(pages: &RedisCache) -> [HandlerDefinition; 3] {
    [
        pages
            .invalidate::<RepositoryUpdated>("repo:{repository}:*")
            .unwrap(),
        pages
            .invalidate::<RepositoryUpdated>("repo:{repository}:page")
            .unwrap(),
        pages
            .invalidate_tag::<RepositoryUpdated>("repo:{repository}")
            .unwrap(),
    ]
}

const KEY: &str = "repo:a:page";

/// Appends events of the aggregate.
async fn append(test: &TestService<RedisStore>, count: usize) -> Token {
    let event = || To::<Repositories>("a".into(), updated("a"));
    let events: Vec<_> = (0..count).map(|_| event()).collect();
    test.publish(events).await.unwrap().token()
}

#[tokio::test]
async fn a_load_that_an_event_overtakes_is_not_kept() {
    for way in 0..3 {
        let server = server();
        let (here, elsewhere) = (pages(&server).await, pages(&server).await);
        let handler = handlers(&elsewhere)[way].clone();
        let test = service(&server, handler).await;
        let entry = here.entry(KEY).tag("repo:a");
        let loaded: String = entry
            .get_or_load(async || {
                let read = "old".to_owned();
                // What is read is old from here on, and the event is through before it is kept.
                test.publish(updated("a")).await?;
                test.run_until_idle().await?;
                Ok::<_, BoxError>(read)
            })
            .await
            .unwrap();
        assert_eq!(loaded, "old");
        assert!(!is_kept(&here, KEY).await, "way {way}");
        assert!(!is_kept(&elsewhere, KEY).await, "way {way}");
        // Who asks now has a load of his own.
        assert_eq!(load_as(&elsewhere, KEY, "new").await, "new");
        assert_eq!(load_as(&here, KEY, "newer").await, "new");
    }
}

#[tokio::test]
async fn a_load_that_another_has_overtaken_brings_nothing_old_back() {
    for way in 0..3 {
        let server = server();
        let pages = pages(&server).await;
        let handler = handlers(&pages)[way].clone();
        let test = service(&server, handler).await;
        let entry = pages.entry(KEY).tag("repo:a");
        let slow = entry.begin().await.unwrap();
        let fast = entry.begin().await.unwrap();
        assert!(fast.keep(&"old", AsOf::default()).await.unwrap());
        test.publish(updated("a")).await.unwrap();
        test.run_until_idle().await.unwrap();
        assert!(!is_kept(&pages, KEY).await, "way {way}");
        // Neither where nothing is, nor where something newer is loaded or kept.
        let newer = entry.begin().await.unwrap();
        assert!(!slow.keep(&"old", AsOf::default()).await.unwrap());
        assert!(newer.keep(&"new", AsOf::default()).await.unwrap());
        assert_eq!(pages.get::<String>(KEY).await.unwrap().unwrap(), "new");
    }
}

#[tokio::test]
async fn an_event_that_comes_late_removes_nothing_newer() {
    for way in 0..3 {
        let server = server();
        let pages = pages(&server).await;
        let handler = handlers(&pages)[way].clone();
        let test = service(&server, handler).await;
        append(&test, 2).await;
        let entry = pages.entry(KEY).tag("repo:a");
        let as_of = |version| AsOf::version(&repository("a"), version);
        assert!(entry.set(&"2", as_of(2)).await.unwrap());
        // Both come only now, and once more.
        test.run_until_idle().await.unwrap();
        let replayed = test.service().replay(Replay::all()).await.unwrap();
        assert_eq!(replayed.read, 2);
        assert!(is_kept(&pages, KEY).await, "way {way}");

        append(&test, 1).await;
        test.run_until_idle().await.unwrap();
        assert!(!is_kept(&pages, KEY).await, "way {way}");
        // And where it is not known what a value knows of, nothing is risked.
        keep(&pages, KEY).await;
        if way < 2 {
            test.service().replay(Replay::all()).await.unwrap();
            assert!(!is_kept(&pages, KEY).await, "way {way}");
        }
    }
}

#[tokio::test]
async fn positions_count_in_their_partition() {
    let server = server();
    let category = Category::new("repository").unwrap();
    let builder = crate::support::builder(&server).partitions(category, 8);
    let store = builder.connect().await.unwrap();
    let pages = store.cache("pages").unwrap();
    let [by_pattern, ..] = handlers(&pages);
    let test = service_on(store, by_pattern).await;
    let of_a = test.publish(updated("a")).await.unwrap().token();
    let (at_a, _) = of_a.iter().next().unwrap();
    // It lies in another partition, and later.
    let mut others = (0..).map(|number| format!("other {number}"));
    let of_other = loop {
        let name = others.next().unwrap();
        let token = test.publish(updated(&name)).await.unwrap().token();
        let (at, _) = token.iter().next().unwrap();
        if at != at_a {
            break token;
        }
    };
    let entry = pages.entry(KEY);
    assert!(entry.set(&"a", AsOf::token(&of_a)).await.unwrap());
    test.run_until_idle().await.unwrap();
    assert!(is_kept(&pages, KEY).await);

    pages.remove(KEY).await.unwrap();
    assert!(entry.set(&"a", AsOf::token(&of_other)).await.unwrap());
    test.service().replay(Replay::all()).await.unwrap();
    assert!(
        !is_kept(&pages, KEY).await,
        "it knows nothing of that partition"
    );
}

#[tokio::test]
async fn of_an_aggregate_its_version_decides() {
    let server = server();
    let pages = pages(&server).await;
    let [by_pattern, ..] = handlers(&pages);
    let test = service(&server, by_pattern).await;
    let token = append(&test, 2).await;
    // Its own token would be of another aggregate in the same partition.
    let as_of = AsOf::version(&repository("a"), 1).and(AsOf::token(&token));
    assert!(pages.set(KEY, &"1", as_of).await.unwrap());
    test.run_until_idle().await.unwrap();
    assert!(!is_kept(&pages, KEY).await);
}

#[tokio::test]
async fn a_load_is_kept_where_it_knows_of_what_has_overtaken_it() {
    for (version, is_new) in [(1, false), (2, true)] {
        for way in 0..3 {
            let server = server();
            let pages = pages(&server).await;
            let handler = handlers(&pages)[way].clone();
            let test = service(&server, handler).await;
            append(&test, 2).await;
            let entry = pages.entry(KEY).tag("repo:a");
            let _: String = entry
                .get_or_load(async || {
                    test.run_until_idle().await?;
                    let as_of = AsOf::version(&repository("a"), version);
                    Ok::<_, BoxError>(CacheValue::new("read".to_owned()).as_of(as_of))
                })
                .await
                .unwrap();
            assert_eq!(is_kept(&pages, KEY).await, is_new, "way {way}");
        }
    }
}

#[tokio::test]
async fn what_stays_since_it_is_newer_is_not_replaced_by_what_is_older() {
    let server = server();
    let pages = pages(&server).await;
    let [by_pattern, ..] = handlers(&pages);
    let test = service(&server, by_pattern).await;
    append(&test, 2).await;
    let entry = pages.entry(KEY);
    let as_of = |version| AsOf::version(&repository("a"), version);
    let unknowing = entry.begin().await.unwrap();
    let older = entry.begin().await.unwrap();
    let newer = entry.begin().await.unwrap();
    assert!(newer.keep(&"2", as_of(2)).await.unwrap());
    // The value knows of both events and stays; the loads do not.
    test.run_until_idle().await.unwrap();
    assert!(!older.keep(&"1", as_of(1)).await.unwrap());
    assert!(!unknowing.keep(&"?", AsOf::default()).await.unwrap());
    assert!(!entry.set(&"1", as_of(1)).await.unwrap());
    assert!(entry.set(&"2 again", as_of(2)).await.unwrap());
    // However often it happens, nothing grows without bound.
    for _ in 0..50 {
        test.service().replay(Replay::all()).await.unwrap();
    }
    assert!(is_kept(&pages, KEY).await);
    let noted = server.command(&["HGET", "cache:pages:repo:a:page", "noted"]);
    assert!(noted.unwrap().len() < 32 * 200);
}
