//! Histories that somebody has damaged: what is found, and what is made anew.

use event_core::prelude::*;
use event_core::{
    Category, Checks, Findings, RebuildHistoryError, rebuild_history, verify, verify_aggregate,
};
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};

use crate::support::{server, store};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
enum LedgerEvent {
    #[event("ledger.entered")]
    Entered { amount: u64 },
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Ledger {
    total: u64,
}

impl Aggregate for Ledger {
    const TYPE: &'static str = "book";
    type Event = LedgerEvent;
    type Command = Vec<u64>;
    type Error = std::convert::Infallible;

    fn apply(&mut self, LedgerEvent::Entered { amount }: &LedgerEvent) {
        self.total += amount;
    }

    fn handle(&self, amounts: Vec<u64>) -> Result<Vec<LedgerEvent>, Self::Error> {
        let entered = |amount| LedgerEvent::Entered { amount };
        Ok(amounts.into_iter().map(entered).collect())
    }
}

const HISTORY: &str = "{events:ledger}:history:book:a";

fn ledger() -> Category {
    Category::new("ledger").unwrap()
}

fn book() -> AggregateId {
    AggregateId::of::<Ledger>("a").unwrap()
}

/// A server on which somebody has damaged the history of an aggregate with the events 1 to 5.
async fn damaged(damage: &[&[&str]]) -> (RedisServer, event_redis::RedisStore) {
    let server = server();
    let store = store(&server).await;
    let books = Repository::<Ledger>::new(store.clone());
    books.execute("a", vec![1, 2, 3, 4, 5]).await.unwrap();
    books.execute("other", vec![1]).await.unwrap();
    for command in damage {
        server.command(command).unwrap();
    }
    (server, store)
}

async fn find(store: &event_redis::RedisStore) -> Findings {
    let findings = verify(store, &ledger(), &Checks::new()).await.unwrap();
    let of_one = verify_aggregate(store, &book(), &Checks::new())
        .await
        .unwrap();
    let counts = |findings: &Findings| findings.kinds().map(|(_, found)| found.count);
    assert_eq!(counts(&findings), counts(&of_one), "only one is damaged");
    findings
}

/// Makes the history anew, after which nothing is wrong with it.
async fn heal(store: &event_redis::RedisStore) {
    assert_eq!(rebuild_history(store, &book()).await.unwrap().version, 5);
    let findings = find(store).await;
    assert!(findings.is_sound(), "{findings:?}");
    let books = Repository::<Ledger>::new(store.clone());
    let loaded = books.load("a").await.unwrap();
    assert_eq!((loaded.version, loaded.state.total), (5, 15));
}

#[tokio::test]
async fn registered_types_are_read() {
    let (server, store) = damaged(&[]).await;
    let findings = find(&store).await;
    assert!(findings.is_sound(), "{findings:?}");
    assert_eq!((findings.events, findings.unknown_types.count), (6, 0));
    for (event_type, payload) in [("entered", r#"{"amount":-1}"#), ("erased", "{}")] {
        let add = [
            "XADD",
            "events:ledger",
            "*",
            "type",
            event_type,
            "payload",
            payload,
        ];
        server.command(&add).unwrap();
    }
    let findings = verify(&store, &ledger(), &Checks::new()).await.unwrap();
    assert_eq!(
        (findings.unreadable.count, findings.unknown_types.count),
        (1, 1)
    );
}

#[tokio::test]
async fn a_lost_history_is_found_and_made_anew() {
    let (_server, store) = damaged(&[&["DEL", HISTORY]]).await;
    let findings = find(&store).await;
    assert_eq!(findings.missing_in_history.count, 5, "{findings:?}");
    heal(&store).await;
}

#[tokio::test]
async fn a_history_without_its_end_is_found_and_made_anew() {
    let (_server, store) = damaged(&[&["LTRIM", HISTORY, "0", "2"]]).await;
    let findings = find(&store).await;
    assert_eq!(findings.missing_in_history.count, 2, "{findings:?}");
    heal(&store).await;
}

#[tokio::test]
async fn a_hole_is_found_and_closed() {
    let (server, store) = damaged(&[]).await;
    let third = server.command(&["LINDEX", HISTORY, "2"]).unwrap();
    server.command(&["LREM", HISTORY, "1", &third]).unwrap();
    let findings = find(&store).await;
    assert_eq!(findings.holes.count, 1, "{findings:?}");
    assert_eq!(findings.holes.first[0].version, Some(4));
    heal(&store).await;
}

#[tokio::test]
async fn another_payload_is_found_and_replaced() {
    let (server, store) = damaged(&[]).await;
    let third = server.command(&["LINDEX", HISTORY, "2"]).unwrap();
    let forged = third.replace(r#"{"amount":3}"#, r#"{"amount":3000}"#);
    assert_ne!(third, forged);
    server.command(&["LSET", HISTORY, "2", &forged]).unwrap();
    let findings = find(&store).await;
    assert_eq!(findings.different.count, 1, "{findings:?}");
    let finding = &findings.different.first[0];
    assert!(
        finding.to_string().contains("the payload differs"),
        "{finding}"
    );
    heal(&store).await;
}

#[tokio::test]
async fn two_events_in_each_others_place_are_found() {
    let (server, store) = damaged(&[]).await;
    let at = |n: &str| server.command(&["LINDEX", HISTORY, n]).unwrap();
    let (second, third) = (at("1"), at("2"));
    let as_second = third.replace("[1,3,", "[1,2,");
    let as_third = second.replace("[1,2,", "[1,3,");
    server.command(&["LSET", HISTORY, "1", &as_second]).unwrap();
    server.command(&["LSET", HISTORY, "2", &as_third]).unwrap();
    let findings = find(&store).await;
    assert_eq!(findings.out_of_order.count, 1, "{findings:?}");
    assert_eq!(findings.different.count, 2, "their versions");
    heal(&store).await;
}

#[tokio::test]
async fn an_element_that_is_none_is_found_and_replaced() {
    let (_server, store) = damaged(&[&["LSET", HISTORY, "2", "nonsense"]]).await;
    let findings = find(&store).await;
    assert_eq!(findings.unreadable.count, 1, "{findings:?}");
    heal(&store).await;
}

#[tokio::test]
async fn what_the_feed_has_lost_is_found_and_nothing_is_made_of_it() {
    let (server, store) = damaged(&[]).await;
    let entries = server
        .command(&["XRANGE", "events:ledger", "-", "+"])
        .unwrap();
    let ids: Vec<_> = entries
        .lines()
        .filter(|line| line.contains('-') && line.chars().all(|c| c.is_ascii_digit() || c == '-'))
        .collect();
    assert_eq!(ids.len(), 6);
    server.command(&["XDEL", "events:ledger", ids[2]]).unwrap();
    let findings = find(&store).await;
    assert_eq!(findings.missing_in_feed.count, 1, "{findings:?}");
    assert_eq!(findings.missing_in_feed.first[0].version, Some(3));
    let before = server.command(&["LRANGE", HISTORY, "0", "-1"]).unwrap();
    match rebuild_history(&store, &book()).await {
        Err(RebuildHistoryError::Incomplete { version: 3, .. }) => {}
        other => panic!("{other:?}"),
    }
    // Nor of one that lacks its end.
    server
        .command(&[
            "XADD",
            "events:ledger",
            "*",
            "type",
            "entered",
            "payload",
            "{}",
        ])
        .unwrap();
    server.command(&["XDEL", "events:ledger", ids[4]]).unwrap();
    assert!(rebuild_history(&store, &book()).await.is_err());
    assert_eq!(
        server.command(&["LRANGE", HISTORY, "0", "-1"]).unwrap(),
        before
    );
    let keys = server.command(&["KEYS", "*staged*"]).unwrap();
    assert_eq!(keys, "", "nothing is left of it");
}

#[tokio::test]
async fn a_history_that_is_ahead_of_the_feed_is_left() {
    let (server, store) = damaged(&[]).await;
    let entries = server
        .command(&["XREVRANGE", "events:ledger", "+", "-", "COUNT", "2"])
        .unwrap();
    let last = entries
        .lines()
        .filter(|line| line.contains('-') && line.chars().all(|c| c.is_ascii_digit() || c == '-'))
        .nth(1)
        .unwrap();
    server.command(&["XDEL", "events:ledger", last]).unwrap();
    match rebuild_history(&store, &book()).await {
        Err(RebuildHistoryError::Newer {
            version: 5,
            found: 4,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}
