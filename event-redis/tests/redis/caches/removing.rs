//! Which values events remove.

use std::time::Duration;

use event_core::{Replay, Retry};
use event_redis::AsOf;

use super::*;

const PATTERN: &str = "repo:{repository}:*";

#[tokio::test]
async fn an_event_removes_what_its_pattern_matches() {
    let server = server();
    let pages = pages(&server).await;
    let handler = pages.invalidate::<RepositoryUpdated>(PATTERN).unwrap();
    let test = service(&server, handler).await;
    for number in 0..300 {
        keep(&pages, &format!("repo:a:{number}")).await;
        keep(&pages, &format!("repo:b:{number}")).await;
    }
    let others = store(&server).await.cache("others").unwrap();
    keep(&others, "repo:a:1").await;

    test.publish(updated("a")).await.unwrap();
    test.run_until_idle().await.unwrap();
    for number in 0..300 {
        assert!(!is_kept(&pages, &format!("repo:a:{number}")).await);
        assert!(is_kept(&pages, &format!("repo:b:{number}")).await);
    }
    assert!(is_kept(&others, "repo:a:1").await);
}

#[tokio::test]
async fn the_value_of_a_field_is_no_pattern() {
    let server = server();
    let pages = pages(&server).await;
    let handler = pages.invalidate::<RepositoryUpdated>(PATTERN).unwrap();
    let test = service(&server, handler).await;
    let strange = ["*", "?", "[ab]", "[^x]", r"\a", "a*", r"\", "a-b"];
    keep(&pages, "repo:a:1").await;
    keep(&pages, "repo:b:1").await;
    for name in strange {
        for one in strange {
            keep(&pages, &format!("repo:{one}:1")).await;
        }
        test.publish(updated(name)).await.unwrap();
        test.run_until_idle().await.unwrap();
        for one in strange {
            let key = format!("repo:{one}:1");
            assert_eq!(is_kept(&pages, &key).await, one != name, "{key} by {name}");
        }
        assert!(is_kept(&pages, "repo:a:1").await, "{name}");
        assert!(is_kept(&pages, "repo:b:1").await, "{name}");
    }
}

#[tokio::test]
async fn a_key_is_gone_to_directly() {
    let server = server();
    let pages = pages(&server).await;
    let handler = pages.invalidate::<RepositoryUpdated>("repo:{repository}");
    let test = service(&server, handler.unwrap()).await;
    for name in ["a", "*", "b"] {
        keep(&pages, &format!("repo:{name}")).await;
    }
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
    test.publish(vec![updated("*"), updated("b"), updated("never kept")])
        .await
        .unwrap();
    test.run_until_idle().await.unwrap();
    assert!(is_kept(&pages, "repo:a").await);
    assert!(!is_kept(&pages, "repo:*").await);
    assert!(!is_kept(&pages, "repo:b").await);
    let said = server.command(&["INFO", "commandstats"]).unwrap();
    assert!(!said.contains("cmdstat_scan"), "{said}");
    assert!(said.contains("cmdstat_unlink"), "{said}");
}

#[tokio::test]
async fn a_failure_is_one_of_the_handlers() {
    let server = server();
    let pages = pages(&server).await;
    let handler = pages.invalidate::<RepositoryUpdated>(PATTERN).unwrap();
    let retry = Retry {
        base: Duration::from_millis(1),
        max_delay: Duration::from_millis(1),
        max: 3,
    };
    let test = service(&server, handler.retry(retry)).await;
    keep(&pages, "repo:a:1").await;
    let key = "cache:pages:repo:a:2";
    server.command(&["SET", key, "no entry"]).unwrap();
    test.publish(updated("a")).await.unwrap();
    let error = format!("{:?}", test.run_until_idle().await.unwrap_err());
    assert!(error.contains("WRONGTYPE"), "{error}");
    assert!(error.contains("attempts: 3"), "{error}");

    // A replay does again what was not done.
    server.command(&["DEL", key]).unwrap();
    keep(&pages, "repo:a:1").await;
    let report = test.service().replay(Replay::all()).await;
    assert!(report.unwrap().left_out.is_empty());
    assert!(!is_kept(&pages, "repo:a:1").await);
}

#[tokio::test]
async fn an_event_removes_what_has_its_tag() {
    let server = server();
    let pages = pages(&server).await;
    let handler = pages.invalidate_tag::<RepositoryUpdated>("repo:{repository}");
    let test = service(&server, handler.unwrap()).await;
    for number in 0..300 {
        let entry = pages.entry(format!("{number}")).tag("all").tag("repo:*");
        assert!(entry.set(&number, AsOf::default()).await.unwrap());
    }
    let entry = pages.entry("other").tag("all").tag("repo:a");
    assert!(entry.set(&1, AsOf::default()).await.unwrap());
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
    test.publish(updated("*")).await.unwrap();
    test.run_until_idle().await.unwrap();
    for number in 0..300 {
        let value = pages.get::<u32>(&number.to_string()).await.unwrap();
        assert_eq!(value, None, "{number}");
    }
    assert_eq!(pages.get("other").await.unwrap(), Some(1));
    let said = server.command(&["INFO", "commandstats"]).unwrap();
    assert!(!said.contains("cmdstat_scan"), "{said}");
    let under = |tag: &str| {
        let tag = format!("cache-tag:pages:{tag}");
        server.command(&["ZCARD", &tag]).unwrap()
    };
    // They stay there until their time is over: who is about to keep one anew has put it there already.
    assert_eq!(under("repo:*").trim(), "300");
    assert_eq!(under("repo:a").trim(), "1");
    // Only the one that is still there has anything to lose.
    assert_eq!(pages.remove_tagged("all").await.unwrap(), 1);
}

/// A tag is written before its entry: an event that comes in between must leave it there for the next.
#[tokio::test]
async fn an_event_between_a_tag_and_its_entry_takes_nothing_from_the_next() {
    let server = server();
    let pages = pages(&server).await;
    let key = "cache:pages:a";
    for present in [false, true] {
        let entry = pages.entry("a").tag("t");
        if present {
            assert!(entry.set(&0, AsOf::default()).await.unwrap());
        }
        // As far as one has come who keeps a value when the event is handled.
        server
            .command(&["ZADD", "cache-tag:pages:t", "9999999999999999", key])
            .unwrap();
        pages.remove_tagged("t").await.unwrap();
        assert!(pages.set("a", &1, AsOf::default()).await.unwrap());
        assert_eq!(pages.remove_tagged("t").await.unwrap(), 1);
        assert_eq!(pages.get::<u32>("a").await.unwrap(), None);
    }
}

#[tokio::test]
async fn entries_that_are_gone_leave_their_tags() {
    let server = server();
    let pages = pages(&server).await;
    let tag = "cache-tag:pages:t";
    for number in 0..150 {
        let entry = pages.entry(format!("{number}")).tag("t");
        assert!(entry.set(&number, AsOf::default()).await.unwrap());
        // As if its time were over.
        let key = format!("cache:pages:{number}");
        server.command(&["ZADD", tag, "1", &key]).unwrap();
    }
    // Each that comes takes some with it.
    for key in ["a", "b"] {
        let entry = pages.entry(key).tag("t");
        assert!(entry.set(&1, AsOf::default()).await.unwrap());
    }
    assert_eq!(server.command(&["ZCARD", tag]).unwrap().trim(), "2");
    // With the last of them the tag goes, too: after the margin that clocks may differ by.
    let left: u64 = server
        .command(&["PTTL", tag])
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!((1..=61 * 60_000).contains(&left), "{left}");
}
