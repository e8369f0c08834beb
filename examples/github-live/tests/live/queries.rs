//! Queries: repositories as their events tell, and their history.

use serde_json::json;

use crate::client::{ask, data};
use crate::harness::*;

const REPOSITORY: &str = "query ($name: String!, $at: Int) {
    repository(name: $name, atVersion: $at) {
        name version phase commits openIssues defaultBranch heads { name value }
        history { type version }
    }
}";

#[tokio::test]
async fn a_repository_is_what_its_events_tell() {
    let served = Served::in_memory().await;
    served.deliver("issues", issue("opened", 3)).await;
    served.deliver("push", push(2)).await;
    served.settled().await;

    let now = data(served.address, REPOSITORY, json!({ "name": LAB })).await;
    let expected = json!({
        "name": LAB,
        "version": 5,
        "phase": "BUILD",
        "commits": 2,
        "openIssues": [3],
        "defaultBranch": "main",
        "heads": [{ "name": "refs/heads/main", "value": "a".repeat(40) }],
        "history": [
            { "type": "codebase.registered", "version": 1 },
            { "type": "codebase.issue.opened", "version": 2 },
            { "type": "codebase.phase.entered", "version": 3 },
            { "type": "codebase.pushed", "version": 4 },
            { "type": "codebase.phase.entered", "version": 5 },
        ],
    });
    assert_eq!(now["repository"], expected);

    let then = data(served.address, REPOSITORY, json!({ "name": LAB, "at": 3 })).await;
    let then = &then["repository"];
    assert_eq!(
        (&then["version"], &then["phase"]),
        (&json!(3), &json!("PLAN"))
    );
    assert_eq!(then["history"].as_array().unwrap().len(), 3);
}

/// What was kept is not shown once an event has made it old.
#[tokio::test]
async fn a_repository_that_was_kept_is_loaded_anew_after_an_event() {
    let served = Served::in_memory().await;
    for commits in 1..20_u64 {
        served.deliver("push", push(1)).await;
        served.settled().await;
        let at = served.live.store().head(&codebase()).await.unwrap();
        soon(async {
            // The caches hear of events from the bridge.
            while !served
                .live
                .bridge()
                .positions()
                .iter()
                .any(|(_, read)| read >= at)
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let now = data(served.address, REPOSITORY, json!({ "name": LAB })).await;
        assert_eq!(now["repository"]["commits"], commits);
    }
}

fn codebase() -> event_core::Partition {
    event_core::Category::new("codebase").unwrap().into()
}

#[tokio::test]
async fn the_repositories_are_listed_by_name() {
    let served = Served::in_memory().await;
    for name in ["octo-test/b", "octo-test/a", "octo-test/c"] {
        let payload = json!({ "action": "created", "repository": { "full_name": name } });
        served.deliver("star", payload).await;
    }
    served.settled().await;
    let query = "query ($after: String) { repositories(after: $after) { name version } }";
    let all = data(served.address, query, json!({})).await;
    let named = |name| json!({ "name": name, "version": 1 });
    let expected = ["octo-test/a", "octo-test/b", "octo-test/c"].map(named);
    assert_eq!(all["repositories"], json!(expected));
    let rest = data(served.address, query, json!({ "after": "octo-test/b" })).await;
    assert_eq!(rest["repositories"], json!([named("octo-test/c")]));
}

#[tokio::test]
async fn what_cannot_be_answered_has_a_code() {
    let served = Served::in_memory().await;
    let nothing = data(
        served.address,
        REPOSITORY,
        json!({ "name": "octo-test/none" }),
    )
    .await;
    assert_eq!(nothing["repository"], json!(null));
    served.deliver("push", push(1)).await;
    served.settled().await;
    for (query, code) in [
        (
            r#"{ repository(name: "octo-test/lab", atVersion: 99) { version } }"#,
            "NO_SUCH_VERSION",
        ),
        ("{ newest(last: 201) { cursor } }", "TOO_MANY"),
    ] {
        let answer = ask(served.address, query, json!({})).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], code, "{answer}");
    }
    // So deep that it could go on for ever.
    let deep = "{ newest { events { repository { history { repository { history { repository {
        history { repository { history { repository { history { id } } } } } } } } } } } }";
    let answer = ask(served.address, deep, json!({})).await;
    assert!(answer["data"].is_null(), "{answer}");
}
