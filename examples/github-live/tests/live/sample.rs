//! The sample: played to its end, and again.

use std::time::Duration;

use event_core::MemoryStore;
use github_live::live::Settings;
use serde_json::{Value, json};

use crate::client::{ask, data};
use crate::harness::*;

const PLAY: &str = "mutation { playSample { state } }";

async fn ended(served: &Served) -> Value {
    let query = "{ status { sample { state sent rejected total } } }";
    soon(async {
        loop {
            let sample = data(served.address, query, json!({})).await["status"]["sample"].take();
            if sample["state"] != "PLAYING" {
                return sample;
            }
        }
    })
    .await
}

#[tokio::test]
async fn the_sample_ends_and_can_be_played_again() {
    let settings = Settings {
        sample: Some(Duration::ZERO),
        ..quick()
    };
    let served = Served::on(MemoryStore::new(), settings, None).await;
    let expected = json!({ "state": "ENDED", "sent": 53, "rejected": 1, "total": 53 });
    assert_eq!(ended(&served).await, expected);
    served.settled().await;
    let query = "{ repository(name: \"octo-garden/greenhouse\") { version refusals } }";
    let first = data(served.address, query, json!({})).await["repository"].take();

    let playing = data(served.address, PLAY, json!({})).await;
    assert_eq!(playing["playSample"]["state"], "PLAYING");
    assert_eq!(ended(&served).await, expected);
    served.settled().await;
    soon(async {
        loop {
            let second = data(served.address, query, json!({})).await["repository"].take();
            // The same happens again under new ids, so that some of it is refused.
            if second["version"].as_u64() > first["version"].as_u64()
                && second["refusals"].as_u64() > first["refusals"].as_u64()
            {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn without_a_sample_nothing_is_played() {
    let served = Served::in_memory().await;
    let answer = ask(served.address, PLAY, json!({})).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "NO_SAMPLE");
}
