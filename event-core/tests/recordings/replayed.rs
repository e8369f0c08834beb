//! Recordings replayed by a service under test, and compared with golden files.

use event_core::prelude::*;
use event_core::testing::{GoldenError, TestService};
use event_core::{Envelope, HandlerDefinition, Recording, Writes};
use serde_json::json;

use crate::events::{
    Announced, GithubPush, Project, RepositoryAnalyzed, agent, category, counting, pushes,
};

const THREE: &[(u32, &str, u32)] = &[
    (1, "octo/hello", 1),
    (3, "octo/world", 101),
    (2, "octo/hello", 3),
];

#[tokio::test]
async fn a_recording_is_handled_event_by_event() {
    let test = TestService::start(agent()).await.unwrap();
    let recording = pushes(THREE);
    let replayed = test.replay(&recording).await.unwrap();
    assert_eq!(
        (replayed.inputs(), replayed.left_out(), replayed.failures()),
        (3, 0, 1)
    );
    let types: Vec<_> = replayed
        .events()
        .iter()
        .map(|event| event.event_type())
        .collect();
    // Of each input all that it has led to, feed by feed, and then what was sent.
    let each = [
        "repository.analyzed",
        "sdlc.work.counted",
        "repository.announced",
    ];
    assert_eq!(types, [each, each].concat());

    // The clock follows, and never goes back.
    let times: Vec<_> = replayed
        .events()
        .iter()
        .map(|event| event.metadata().timestamp.timestamp() % 60)
        .collect();
    assert_eq!(times, [21, 21, 21, 23, 23, 23].map(|second| second - 20));
    let analyzed = test.emitted::<RepositoryAnalyzed>().await.unwrap();
    assert_eq!(analyzed.len(), 2);
    assert_eq!(test.emitted::<Announced>().await.unwrap().len(), 2);
    let project = test
        .repository::<Project>()
        .load("octo/hello")
        .await
        .unwrap();
    assert_eq!(project.state.commits, 4);
    replayed.assert_emits_only_declared();
}

#[tokio::test]
async fn what_the_service_has_made_itself_is_made_anew() {
    let first = TestService::start(agent()).await.unwrap();
    first
        .replay(&pushes(THREE))
        .await
        .unwrap()
        .assert_emits_only_declared();
    let everything = ["github", "sdlc", "repository"].map(category);
    let recording = Recording::of(first.store()).categories(everything);
    let recording = recording.record().await.unwrap();
    assert_eq!(recording.len(), 7);

    let second = TestService::start(agent()).await.unwrap();
    let replayed = second.replay(&recording).await.unwrap();
    assert_eq!((replayed.inputs(), replayed.left_out()), (3, 4));
    let again = Recording::of(second.store())
        .category(category("sdlc"))
        .record()
        .await
        .unwrap();
    assert_eq!(again.len(), 2);

    // To another service these are events as any.
    let third = TestService::start(counting()).await.unwrap();
    let replayed = third.replay(&recording).await.unwrap();
    assert_eq!((replayed.inputs(), replayed.left_out()), (7, 0));
}

#[tokio::test]
async fn a_golden_file_has_what_is_not_volatile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden.json");
    let replay = async || {
        let test = TestService::start(agent()).await.unwrap();
        let replayed = test.replay(&pushes(THREE)).await.unwrap();
        let replayed = replayed
            .states_of(&test.repository::<Project>())
            .await
            .unwrap();
        replayed
            .observe("mails", json!({"sent": 2, "at": chrono::Utc::now()}))
            .ignoring("at")
    };
    let first = replay().await;
    let missing = first.compare(&path).unwrap_err();
    assert!(matches!(missing, GoldenError::Missing { .. }));
    assert!(missing.to_string().contains("UPDATE_GOLDEN=1"), "{missing}");

    // The ids of reports come by chance, and are counted.
    std::fs::write(&path, first.to_text().unwrap()).unwrap();
    replay().await.assert_golden(&path);
    let text = std::fs::read_to_string(&path).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(golden["inputs"], 3);
    assert_eq!(
        golden["events"][3],
        json!({
            "of": "github.push at 1763900002000-2",
            "type": "repository.analyzed",
            "key": "octo/hello",
            "payload": {"repository": "octo/hello", "findings": 3, "report": "<id 2>"},
        })
    );
    assert_eq!(
        golden["events"][4]["aggregate"],
        "project octo/hello, version 2"
    );
    assert_eq!(
        golden["failures"],
        json!([{
            "of": "github.push at 1763900003000-1",
            "handler": "Agent::analyze",
            "reason": "exhausted",
            "errors": ["the handler failed: that is too much", "that is too much"],
        }])
    );
    assert_eq!(
        golden["states"],
        json!({"project octo/hello": {"version": 2, "state": {"commits": 4}}})
    );
    assert_eq!(
        golden["observed"],
        json!({"mails": {"sent": 2, "at": "<ignored>"}})
    );

    std::fs::write(&path, text.replace(r#""commits": 4"#, r#""commits": 5"#)).unwrap();
    let different = replay().await.compare(&path).unwrap_err().to_string();
    assert!(different.contains("-        \"commits\": 5"), "{different}");
    assert!(different.contains("+        \"commits\": 4"), "{different}");
    assert!(different.contains("UPDATE_GOLDEN=1"), "{different}");
}

struct Pushes;

#[projection(name = "pushes", version = 1)]
impl Pushes {
    #[on("github.push")]
    fn count(&self, push: GithubPush, writes: &mut Writes) -> Result<(), BoxError> {
        writes.increment(&push.repository, "pushes", 1);
        writes.set(&push.repository, &push)?;
        Ok(())
    }
}

#[tokio::test]
async fn a_golden_file_has_what_projections_have() {
    for builder in [
        agent().projection(Pushes),
        agent().inline_projection(Pushes),
    ] {
        let test = TestService::start(builder).await.unwrap();
        let replayed = test.replay(&pushes(THREE)).await.unwrap();
        let view = test.service().projection("pushes").unwrap();
        let replayed = replayed.projection_of(&view).await.unwrap();
        let golden = replayed.to_text().unwrap();
        let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
        let of = |repository: &str| &golden["projections"]["pushes"][repository];
        assert_eq!(of("octo/hello")["fields"], json!({"pushes": 2}));
        assert_eq!(of("octo/world")["fields"], json!({"pushes": 1}));
        assert_eq!(of("octo/hello")["document"]["commits"], 3);
    }
}

#[tokio::test]
async fn two_replays_agree_without_chance() {
    let recording = pushes(THREE);
    TestService::assert_deterministic(&recording, async || TestService::start(counting()).await)
        .await
        .unwrap();
}

#[tokio::test]
#[should_panic(expected = "\"report\"")]
async fn two_replays_disagree_by_chance() {
    let recording = pushes(THREE);
    TestService::assert_deterministic(&recording, async || TestService::start(agent()).await)
        .await
        .unwrap();
}

#[tokio::test]
#[should_panic(expected = "`repository.analyzed` was published while github.push at")]
async fn what_is_published_by_the_side_door_is_told() {
    #[derive(Clone)]
    struct Door(std::sync::Arc<std::sync::OnceLock<Publisher>>);

    let door = Door(std::sync::Arc::default());
    let inner = door.clone();
    let handler = HandlerDefinition::function("side", move |push: GithubPush, _: Context| {
        let publisher = inner.0.get().cloned();
        async move {
            let analyzed = RepositoryAnalyzed {
                repository: push.repository,
                findings: 0,
                report: uuid::Uuid::nil(),
            };
            match publisher {
                Some(publisher) => publisher.publish(analyzed).await.map(drop),
                None => Ok(()),
            }
        }
    });
    let builder = Service::builder("side")
        .without_discovered_handlers()
        .handler(handler.on("github.push"));
    let test = TestService::start(builder).await.unwrap();
    door.0.set(test.service().publisher().clone()).unwrap();
    test.replay(&pushes(THREE))
        .await
        .unwrap()
        .assert_emits_only_declared();
}

#[tokio::test]
async fn a_golden_file_has_what_has_the_id_of_its_cause_and_metadata_of_its_own() {
    let handler = HandlerDefinition::function("again", |push: GithubPush, context: Context| {
        let analyzed = RepositoryAnalyzed {
            repository: push.repository,
            findings: push.commits,
            report: uuid::Uuid::nil(),
        };
        let analyzed = Envelope::of(analyzed).event_id(context.event_id());
        async move { analyzed.metadata("reviewer", "ada") }
    });
    let builder = Service::builder("again")
        .without_discovered_handlers()
        .handler(handler.on("github.push").emits("repository.analyzed"));
    let test = TestService::start(builder).await.unwrap();
    let replayed = test.replay(&pushes(&THREE[..1])).await.unwrap();
    let golden = replayed.to_text().unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let events = golden["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{golden:#}");
    assert_eq!(events[0]["type"], "repository.analyzed");
    assert_eq!(events[0]["metadata"], json!({"reviewer": "ada"}));
}
