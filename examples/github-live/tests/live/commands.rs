//! Mutations: done, refused, or in conflict.

use serde_json::{Value, json};

use crate::client::{ask, data};
use crate::harness::*;

const ENTER: &str = "mutation ($phase: Phase!, $version: Int, $id: ID) {
    enterPhase(repository: \"octo-test/lab\", phase: $phase, because: \"a test\",
        expectedVersion: $version, commandId: $id) {
        __typename
        ... on CommandAccepted { events repository { version phase } }
        ... on CommandRefused { code reason }
        ... on VersionConflict { expected actual }
        ... on UnknownRepository { name }
    }
}";

async fn enter(served: &Served, variables: Value) -> Value {
    data(served.address, ENTER, variables).await["enterPhase"].take()
}

/// A repository of version 3, in the phase build.
async fn built() -> Served {
    let served = Served::in_memory().await;
    served.deliver("push", push(1)).await;
    served.settled().await;
    served
}

#[tokio::test]
async fn a_command_is_done_and_seen_at_once() {
    let served = built().await;
    let done = enter(&served, json!({ "phase": "TEST", "version": 3 })).await;
    let expected = json!({
        "__typename": "CommandAccepted",
        "events": ["codebase.phase.entered"],
        "repository": { "version": 4, "phase": "TEST" },
    });
    assert_eq!(done, expected);
    let query = "{ repository(name: \"octo-test/lab\") { version phase } }";
    let seen = data(served.address, query, json!({})).await;
    assert_eq!(seen["repository"], expected["repository"]);
}

#[tokio::test]
async fn a_refusal_is_typed() {
    let served = built().await;
    let refused = enter(&served, json!({ "phase": "RELEASE" })).await;
    let expected = json!({
        "__typename": "CommandRefused",
        "code": "PHASE_OUT_OF_ORDER",
        "reason": "release cannot follow build",
    });
    assert_eq!(refused, expected);
    let deleted = lab(json!({ "action": "deleted" }));
    served.deliver("repository", deleted).await;
    served.settled().await;
    let refused = enter(&served, json!({ "phase": "TEST" })).await;
    assert_eq!(refused["code"], "DELETED");
}

#[tokio::test]
async fn a_conflict_is_typed() {
    let served = built().await;
    let conflict = enter(&served, json!({ "phase": "TEST", "version": 2 })).await;
    let expected = json!({ "__typename": "VersionConflict", "expected": 2, "actual": 3 });
    assert_eq!(conflict, expected);
}

/// Of many who know the same version, one is first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_the_same_version_one_is_first() {
    let served = built().await;
    let at_once = (0..16).map(|_| enter(&served, json!({ "phase": "TEST", "version": 3 })));
    let results = futures::future::join_all(at_once).await;
    let of = |name: &str| {
        results
            .iter()
            .filter(|one| one["__typename"] == name)
            .count()
    };
    assert_eq!(
        (of("CommandAccepted"), of("VersionConflict")),
        (1, 15),
        "{results:?}"
    );
}

#[tokio::test]
async fn a_command_that_is_sent_again_is_done_once() {
    let served = built().await;
    let id = "5b7e5f0e-64b5-4a39-8d37-2a0a5b5f5f11";
    let variables = json!({ "phase": "TEST", "version": 3, "id": id });
    let done = enter(&served, variables.clone()).await;
    assert_eq!(done["repository"]["version"], 4);
    // The client knows the version of before, as it has had no answer.
    let again = enter(&served, variables).await;
    let expected = json!({
        "__typename": "CommandAccepted",
        "events": [],
        "repository": { "version": 4, "phase": "TEST" },
    });
    assert_eq!(again, expected);
}

#[tokio::test]
async fn what_is_unknown_or_no_command_is_told() {
    let served = Served::in_memory().await;
    let unknown = enter(&served, json!({ "phase": "TEST" })).await;
    let expected = json!({ "__typename": "UnknownRepository", "name": LAB });
    assert_eq!(unknown, expected);
    let answer = ask(served.address, ENTER, json!({ "phase": "TEST", "id": "7" })).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_ID");
    let long = format!(
        "mutation {{ enterPhase(repository: \"a/b\", phase: TEST, because: \"{}\") {{ __typename }} }}",
        "x".repeat(501)
    );
    let answer = ask(served.address, &long, json!({})).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_TEXT");
}
