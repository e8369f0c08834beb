//! Deliveries: taken in, or refused with a reason.

use event_core::MemoryStore;
use serde_json::{Value, json};

use crate::client::{data, http};
use crate::harness::*;

const NEWEST: &str = "{ newest { events { id type } } }";

async fn stored(served: &Served) -> Value {
    data(served.address, NEWEST, json!({})).await["newest"]["events"].take()
}

#[tokio::test]
async fn a_delivery_is_stored_under_its_id_and_once() {
    let served = Served::in_memory().await;
    let id = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
    for _ in 0..2 {
        let body = push(1).to_string();
        let answer = post(served.address, "push", Some(id), body.as_bytes(), None).await;
        assert_eq!(
            (answer.status, answer.json()),
            (202, json!({ "eventId": id }))
        );
    }
    served.settled().await;
    let stored = stored(&served).await;
    let pushes = stored.as_array().unwrap().iter();
    let pushes: Vec<_> = pushes
        .filter(|event| event["type"] == "github.push")
        .collect();
    assert_eq!(pushes, [&json!({ "id": id, "type": "github.push" })]);
}

#[tokio::test]
async fn what_github_invents_tomorrow_is_taken_in() {
    let served = Served::in_memory().await;
    let payload = lab(json!({ "action": "relieved" }));
    let id = served.deliver("lighthouse_keeper", payload).await;
    served.settled().await;
    let expected = json!({ "id": id, "type": "github.lighthouse_keeper.relieved" });
    assert_eq!(stored(&served).await[0], expected);
}

#[tokio::test]
async fn a_signature_must_be_there_and_right() {
    let served = Served::on(MemoryStore::new(), quick(), Some(SECRET)).await;
    let body = push(1).to_string();
    let right = sign(SECRET, body.as_bytes());
    let other = sign("another secret", body.as_bytes());
    for (signature, status, code) in [
        (None, 401, "SIGNATURE_MISSING"),
        (Some(other.as_str()), 401, "SIGNATURE_WRONG"),
        (Some("sha256=zz"), 401, "SIGNATURE_WRONG"),
    ] {
        let refused = post(served.address, "push", None, body.as_bytes(), signature).await;
        assert_eq!(refused.status, status, "{refused:?}");
        assert_eq!(refused.json()["error"]["code"], code);
    }
    assert_eq!(stored(&served).await, json!([]));
    let taken = post(served.address, "push", None, body.as_bytes(), Some(&right)).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    // The same signature of another body.
    let body = push(2).to_string();
    let refused = post(served.address, "push", None, body.as_bytes(), Some(&right)).await;
    assert_eq!(refused.json()["error"]["code"], "SIGNATURE_WRONG");
}

#[tokio::test]
async fn what_is_no_delivery_is_refused_with_a_reason() {
    let served = Served::in_memory().await;
    let good = push(1).to_string();
    for (event, body, status, code) in [
        ("push", "{\"ref\": ", 400, "NOT_JSON"),
        ("push", "[1]", 400, "NOT_JSON"),
        ("push", "", 400, "NOT_JSON"),
        ("Push!", &good, 422, "UNKNOWN_EVENT"),
        ("issues", r#"{"action": "Opened?"}"#, 422, "UNKNOWN_ACTION"),
        ("push", "{}", 422, "NO_DELIVERY"),
        ("", &good, 400, "NO_EVENT"),
    ] {
        let refused = post(served.address, event, None, body.as_bytes(), None).await;
        assert_eq!(refused.status, status, "{event} {body}: {refused:?}");
        assert_eq!(refused.json()["error"]["code"], code, "{event} {body}");
        let message = refused.json()["error"]["message"].as_str().unwrap().len();
        assert!(message > 10);
    }
    let headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("X-GitHub-Event", "push"),
    ];
    let path = "/webhooks/github";
    let refused = http(served.address, "POST", path, &headers, b"payload=%7B%7D").await;
    assert_eq!(refused.status, 415, "{refused:?}");
    assert_eq!(refused.json()["error"]["code"], "CONTENT_TYPE");
    assert_eq!(
        http(served.address, "GET", path, &[], b"").await.status,
        405
    );
    assert_eq!(stored(&served).await, json!([]));
}

#[tokio::test]
async fn a_body_is_bounded() {
    let served = Served::in_memory().await;
    let long = vec![b' '; 25 * 1024 * 1024 + 1];
    let refused = post(served.address, "push", None, &long, None).await;
    assert_eq!(refused.status, 413, "{refused:?}");
    assert_eq!(refused.json()["error"]["code"], "TOO_LONG");
}
