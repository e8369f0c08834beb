//! Subscriptions: what comes, from where on, and to whom.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::{EventSource, Socket, data};
use crate::harness::*;

const UPDATED: &str = "subscription ($repository: String, $after: Cursor) {
    repositoryUpdated(repository: $repository, after: $after) {
        cursor event { type version } repository { name version commits }
    }
}";
const EVENTS: &str = "subscription ($after: Cursor) {
    events(after: $after) { cursor event { id type causationId repositoryName repository { name } } }
}";

#[tokio::test]
async fn a_repository_is_followed_and_gone_on_with_behind_a_cursor() {
    let served = Served::in_memory().await;
    let mut socket = Socket::connect(served.address).await;
    let lab = json!({ "repository": LAB });
    socket.subscribe("1", UPDATED, lab).await;
    let elsewhere = json!({ "action": "created", "repository": { "full_name": "octo-test/x" } });
    // What was published before the subscription had begun is not meant.
    let begin = data(served.address, "{ newest { repositoryCursor } }", json!({})).await;
    until_subscribed(&served, 1).await;
    served.deliver("star", elsewhere).await;
    served.deliver("push", push(2)).await;
    let mut seen = Vec::new();
    let mut cursors = Vec::new();
    for _ in 0..3 {
        let update = socket.result().await;
        assert_eq!(update["repository"]["name"], LAB);
        // As new as the event, or newer.
        assert!(update["repository"]["version"].as_u64() >= update["event"]["version"].as_u64());
        seen.push(update["event"]["type"].as_str().unwrap().to_owned());
        cursors.push(update["cursor"].clone());
    }
    let expected = [
        "codebase.registered",
        "codebase.pushed",
        "codebase.phase.entered",
    ];
    assert_eq!(seen, expected);

    let behind_the_first = json!({ "repository": LAB, "after": cursors[0] });
    socket.subscribe("2", UPDATED, behind_the_first).await;
    assert_eq!(socket.result().await["event"]["type"], "codebase.pushed");
    assert_eq!(
        socket.result().await["event"]["type"],
        "codebase.phase.entered"
    );

    let from_the_query = json!({ "after": begin["newest"]["repositoryCursor"] });
    let mut socket = Socket::connect(served.address).await;
    socket.subscribe("1", UPDATED, from_the_query).await;
    let names = [socket.result().await, socket.result().await];
    let names: BTreeSet<_> = names
        .iter()
        .map(|one| one["repository"]["name"].as_str())
        .collect();
    assert!(names.contains(&Some("octo-test/x")), "{names:?}");
}

/// Waits until so many subscriptions look at a feed.
async fn until_subscribed(served: &Served, count: usize) {
    soon(async {
        while served.live.bridge().clients() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn all_events_come_with_their_causes() {
    let served = Served::in_memory().await;
    let begin = data(served.address, "{ newest { cursor } }", json!({})).await;
    let mut socket = Socket::connect(served.address).await;
    let after = json!({ "after": begin["newest"]["cursor"] });
    socket.subscribe("1", EVENTS, after).await;
    let id = served.deliver("push", push(1)).await;
    let mut types = BTreeSet::new();
    let mut caused = 0;
    for _ in 0..6 {
        let event = socket.result().await["event"].take();
        types.insert(event["type"].as_str().unwrap().to_owned());
        caused += usize::from(event["causationId"] == json!(id));
        assert_eq!(event["repositoryName"], LAB);
    }
    let expected = [
        "codebase.phase.entered",
        "codebase.pushed",
        "codebase.registered",
        "github.push",
        "repository.analyzed",
        "sdlc.phase.changed",
    ];
    assert_eq!(types, expected.map(str::to_owned).into());
    // The phase was changed by an event of the repository, and the push by nothing.
    assert_eq!(caused, 4);
}

#[tokio::test]
async fn builds_are_followed() {
    let served = Served::in_memory().await;
    let mut socket = Socket::connect(served.address).await;
    let query = "subscription { buildStatus(repository: \"octo-test/lab\") {
        repository name branch stage conclusion cursor
    } }";
    socket.subscribe("1", query, json!({})).await;
    until_subscribed(&served, 1).await;
    let run = |action: &str, conclusion: Value| {
        lab(json!({
            "action": action,
            "workflow_run": { "name": "ci", "head_branch": "main", "conclusion": conclusion },
        }))
    };
    served
        .deliver("workflow_run", run("requested", json!(null)))
        .await;
    served.deliver("push", push(1)).await;
    served
        .deliver("workflow_run", run("completed", json!("failure")))
        .await;
    for (stage, conclusion) in [("REQUESTED", json!(null)), ("COMPLETED", json!("failure"))] {
        let mut build = socket.result().await;
        assert!(build["cursor"].take().is_string());
        let expected = json!({
            "repository": LAB, "name": "ci", "branch": "main",
            "stage": stage, "conclusion": conclusion, "cursor": null,
        });
        assert_eq!(build, expected);
    }
}

#[tokio::test]
async fn a_cursor_that_is_none_is_told_by_a_code() {
    let served = Served::in_memory().await;
    let mut socket = Socket::connect(served.address).await;
    let begin = data(
        served.address,
        "{ newest { cursor repositoryCursor } }",
        json!({}),
    )
    .await;
    let of_repositories = &begin["newest"]["repositoryCursor"];
    for (id, cursor, code) in [
        ("1", &json!("made up"), "CURSOR_INVALID"),
        ("2", of_repositories, "CURSOR_OF_ANOTHER_FEED"),
    ] {
        socket
            .subscribe(id, EVENTS, json!({ "after": cursor }))
            .await;
        let refused = loop {
            let message = socket.hear().await;
            if message["id"] == id && message["type"] != "complete" {
                break message.to_string();
            }
        };
        assert!(refused.contains(code), "{refused}");
    }
}

/// A browser lets any page open a socket to here, so the server looks where the page is from.
#[tokio::test]
async fn pages_of_other_sites_are_not_let_in() {
    let served = Served::in_memory().await;
    let own = format!("http://{}", served.address);
    let mut socket = Socket::open(served.address, Some(&own)).await;
    socket.say(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.hear().await["type"], "connection_ack");
    let mut socket = Socket::open(served.address, Some("https://elsewhere.example")).await;
    socket.say(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.next().await, Err(Some(4403)));
}

/// Whichever fields are asked for, each event has an id to go on from.
#[tokio::test]
async fn a_stream_of_events_is_gone_on_with_behind_the_last_id() {
    let served = Served::in_memory().await;
    let query = "subscription { repositoryUpdated { event { version } } }";
    let mut events = EventSource::open(served.address, query, None).await;
    until_subscribed(&served, 1).await;
    for number in 1..=10 {
        served.deliver("issues", issue("opened", number)).await;
    }
    let version = |data: &Value| {
        let event = &data["data"]["repositoryUpdated"]["event"];
        event["version"].as_u64().unwrap()
    };
    let (mut last, first) = events.next().await;
    assert_eq!(version(&first), 1);
    // A new connection after every few. The issues are 10, and the first is told with two events more.
    for expected in 2..=12 {
        let (id, data) = events.next().await;
        assert_eq!(version(&data), expected);
        last = id;
        if expected % 3 == 0 {
            events = EventSource::open(served.address, query, Some(&last)).await;
        }
    }
    assert!(!last.is_empty());
}
