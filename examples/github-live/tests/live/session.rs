//! AI sessions: started, streamed, whole at the end.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Socket, ask, data};
use crate::harness::*;

const FOLLOW: &str = "subscription ($session: ID!, $after: Cursor) {
    aiSession(session: $session, after: $after) {
        cursor missed
        event {
            __typename
            ... on AiSessionStarted { prompt repository }
            ... on AiContextLoaded { version cached facts }
            ... on AiResponseChunk { index text }
            ... on AiResponseCompleted { chunks text }
        }
    }
}";
const START: &str = "mutation ($session: ID!) {
    startAiSession(session: $session, repository: \"octo-test/lab\", prompt: \"How is it?\")
}";

/// All that happens in a new session.
async fn session(served: &Served) -> Vec<Value> {
    let session = Uuid::new_v4().to_string();
    let mut socket = Socket::connect(served.address).await;
    socket
        .subscribe("1", FOLLOW, json!({ "session": session }))
        .await;
    soon(async {
        // One ear for what is sent, and one reader for what is stored.
        while served.live.bridge().clients() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let started = data(served.address, START, json!({ "session": session })).await;
    assert_eq!(started["startAiSession"], session);
    let mut updates = Vec::new();
    loop {
        updates.push(socket.result().await);
        let whole = updates
            .iter()
            .find(|one| kind(one) == "AiResponseCompleted");
        let Some(whole) = whole else { continue };
        let chunks = updates.iter().filter(|one| kind(one) == "AiResponseChunk");
        // Sent and stored come by two ways, so the last pieces may come after the whole.
        if whole["event"]["chunks"] == chunks.count() {
            return updates;
        }
    }
}

fn kind(update: &Value) -> &str {
    update["event"]["__typename"].as_str().unwrap()
}

fn of<'a>(updates: &'a [Value], wanted: &str) -> &'a Value {
    &updates.iter().find(|one| kind(one) == wanted).unwrap()["event"]
}

#[tokio::test]
async fn an_answer_is_streamed_and_whole_at_the_end() {
    let served = Served::in_memory().await;
    served.deliver("push", push(2)).await;
    served.settled().await;
    let updates = session(&served).await;

    assert_eq!(of(&updates, "AiSessionStarted")["prompt"], "How is it?");
    assert_eq!(of(&updates, "AiContextLoaded")["version"], 3);
    let completed = of(&updates, "AiResponseCompleted");
    let text = completed["text"].as_str().unwrap();
    assert!(
        text.contains("octo-test/lab") && text.contains("2 commits"),
        "{text}"
    );
    let chunks = updates.iter().filter(|one| kind(one) == "AiResponseChunk");
    let chunks: Vec<_> = chunks.collect();
    assert!(chunks.len() > 5);
    for (index, chunk) in chunks.iter().enumerate() {
        assert_eq!(
            (&chunk["event"]["index"], &chunk["missed"]),
            (&json!(index), &json!(0))
        );
        assert!(chunk["cursor"].is_null(), "it lies nowhere");
    }
    let pieces = chunks
        .iter()
        .map(|chunk| chunk["event"]["text"].as_str().unwrap());
    assert_eq!(pieces.collect::<String>(), text);
}

/// What was stored comes again behind the cursor; what was only sent does not.
#[tokio::test]
async fn a_session_is_gone_on_with_behind_a_cursor() {
    let served = Served::in_memory().await;
    let updates = session(&served).await;
    let started = updates
        .iter()
        .find(|one| kind(one) == "AiSessionStarted")
        .unwrap();
    let events = "{ newest { events { type payload } } }";
    let events = data(served.address, events, json!({})).await;
    let events = events["newest"]["events"].as_array().unwrap().clone();
    let first = events
        .iter()
        .find(|one| one["type"] == "ai.session.started")
        .unwrap();
    let first: Value = serde_json::from_str(first["payload"].as_str().unwrap()).unwrap();

    let mut socket = Socket::connect(served.address).await;
    let after = json!({ "session": first["session"], "after": started["cursor"] });
    socket.subscribe("1", FOLLOW, after).await;
    assert_eq!(kind(&socket.result().await), "AiContextLoaded");
    assert_eq!(kind(&socket.result().await), "AiResponseCompleted");
}

#[tokio::test]
async fn a_context_is_kept_until_an_event_of_the_repository_comes() {
    let served = Served::in_memory().await;
    served.deliver("push", push(1)).await;
    served.settled().await;
    let version_and_cached = |updates: &[Value]| {
        let loaded = of(updates, "AiContextLoaded");
        (loaded["version"].clone(), loaded["cached"].clone())
    };
    assert_eq!(
        version_and_cached(&session(&served).await),
        (json!(3), json!(false))
    );
    assert_eq!(
        version_and_cached(&session(&served).await),
        (json!(3), json!(true))
    );

    let before = served.live.contexts().invalidated().forgotten();
    served.deliver("issues", issue("opened", 1)).await;
    soon(async {
        while served.live.contexts().invalidated().forgotten() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        version_and_cached(&session(&served).await),
        (json!(4), json!(false))
    );
}

#[tokio::test]
async fn a_session_needs_an_id_and_a_question() {
    let served = Served::in_memory().await;
    let answer = ask(served.address, START, json!({ "session": "seven" })).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_ID");
    let query = "mutation ($session: ID!) {
        startAiSession(session: $session, repository: \"a/b\", prompt: \"  \")
    }";
    let answer = ask(served.address, query, json!({ "session": Uuid::new_v4() })).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_TEXT");
}
