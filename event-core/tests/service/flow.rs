//! The whole flow, on a memory store.

use event_core::prelude::*;
use event_core::testing::TestService;
use event_core::{
    DeadLetterReason, DeadLetters, HandlerDefinition, HandlerError, PublishError, Published,
    ServiceError, Versions,
};

use crate::events::{
    GithubPush, Project, ProjectEvent, PullRequest, RepositoryAnalyzed, Seen, analyzes, builder,
    notes_pushes, push,
};

#[tokio::test]
async fn an_event_leads_to_another_until_nothing_is_left() {
    let seen = Seen::default();
    let noted = seen.clone();
    let second =
        HandlerDefinition::function("second", move |done: RepositoryAnalyzed, _: Context| {
            noted.note(format!("{}={}", done.repository, done.findings));
            async {}
        })
        .on("repository.analyzed");
    let test = TestService::start(builder("s").handler(analyzes("first")).handler(second))
        .await
        .unwrap();
    test.publish(vec![push("a", 1), push("b", 2)])
        .await
        .unwrap();
    let handled = test.run_until_idle().await.unwrap();
    assert_eq!(handled.entries, 4);
    assert_eq!(seen.all(), ["a=1", "b=2"]);
    assert_eq!(test.run_until_idle().await.unwrap().entries, 0);
    assert_eq!(test.recorded::<GithubPush>().await.unwrap().len(), 2);
    assert_eq!(test.emitted::<GithubPush>().await.unwrap(), []);
    assert_eq!(test.emitted::<RepositoryAnalyzed>().await.unwrap().len(), 2);
}

fn metadata(published: &Published) -> &event_core::Metadata {
    published.events[0].event.metadata()
}

#[tokio::test]
async fn correlation_and_causation_flow_by_themselves() {
    #[event_handler]
    struct Advances {
        projects: Repository<Project>,
        publisher: Publisher,
    }

    #[event_handler(group = "correlated")]
    impl Advances {
        #[on("github.push")]
        #[emits("repository.analyzed")]
        async fn advance(&self, event: GithubPush) -> Result<RepositoryAnalyzed, BoxError> {
            self.projects.execute("gothic", "build".into()).await?;
            self.publisher
                .publish(PullRequest::Opened { number: 1 })
                .await?;
            Ok(RepositoryAnalyzed {
                repository: event.repository,
                findings: 0,
            })
        }
    }

    let test =
        TestService::start(Service::builder("correlated").expect_handlers(["Advances::advance"]))
            .await
            .unwrap();
    let published = test
        .publish(Envelope::of(push("a", 1)).correlation_id("request-7"))
        .await
        .unwrap();
    let cause = metadata(&published).event_id.to_string();
    assert_eq!(metadata(&published).causation_id, None);
    assert_eq!(metadata(&published).source.as_deref(), Some("correlated"));
    test.run_until_idle().await.unwrap();

    let mut effects = Vec::new();
    for category in ["sdlc", "repository", "github"] {
        let category = event_core::Category::new(category).unwrap();
        for entry in test
            .store()
            .read_feed(&category.into(), Position::START, 10)
            .await
            .unwrap()
        {
            effects.push(entry.into_event().unwrap());
        }
    }
    let types: Vec<_> = effects.iter().map(RecordedEvent::event_type).collect();
    assert_eq!(
        types,
        [
            "sdlc.phase.changed",
            "repository.analyzed",
            "github.push",
            "github.pr.opened"
        ]
    );
    for effect in effects.iter().filter(|e| e.event_type() != "github.push") {
        assert_eq!(effect.metadata().correlation_id, "request-7", "{effect:?}");
        assert_eq!(
            effect.metadata().causation_id.as_ref(),
            Some(&cause),
            "{effect:?}"
        );
    }
}

#[tokio::test]
async fn an_event_of_the_users_own_id_is_published_once() {
    let test = TestService::start(builder("s")).await.unwrap();
    let id = "72d3162e-cc78-11e3-81ab-4c9367dc0958".parse().unwrap();
    let delivery = || {
        Envelope::of(push("a", 1))
            .event_id(id)
            .metadata("delivery", "x")
    };
    let first = test.publish(delivery()).await.unwrap();
    let again = test.publish(delivery()).await.unwrap();
    assert!(!first.events[0].repeated && again.events[0].repeated);
    assert_eq!(first.events[0].event, again.events[0].event);
    assert_eq!(metadata(&first).event_id, id);
    assert_eq!(metadata(&first).correlation_id, id.to_string());
    assert_eq!(metadata(&first).extra["delivery"], "x");
    assert_eq!(test.recorded::<GithubPush>().await.unwrap().len(), 1);
    let reserved = Envelope::of(push("a", 1)).metadata("timestamp", 3);
    assert!(matches!(
        test.publish(reserved).await,
        Err(ServiceError::Publish(PublishError::Codec(_)))
    ));
}

#[tokio::test]
async fn an_aggregates_event_is_published_only_to_it() {
    let test = TestService::start(builder("s").aggregate::<Project>())
        .await
        .unwrap();
    let opened = || ProjectEvent::Opened {
        name: "Gothic".into(),
    };
    let error = test.publish(opened()).await.unwrap_err();
    assert!(
        matches!(
            error,
            ServiceError::Publish(PublishError::BelongsToAggregate {
                aggregate_type: "project",
                ..
            })
        ),
        "{error}"
    );
    let published = test
        .publish(To::<Project>("gothic".into(), opened()))
        .await
        .unwrap();
    let aggregate = published.events[0].event.aggregate().unwrap();
    assert_eq!((aggregate.id.as_str(), aggregate.version), ("gothic", 1));
    assert_eq!(
        test.repository::<Project>()
            .load("gothic")
            .await
            .unwrap()
            .version,
        1
    );
}

#[tokio::test]
async fn a_mix_of_events_is_published_in_its_order() {
    let test = TestService::start(builder("s")).await.unwrap();
    let published = test
        .publish((
            push("a", 1),
            To::<Project>(
                "gothic".into(),
                ProjectEvent::PhaseChanged { to: "x".into() },
            ),
            vec![push("b", 1), push("c", 1)],
            None::<PullRequest>,
            crate::events::ResponseChunk { text: "hi".into() },
        ))
        .await
        .unwrap();
    let types: Vec<_> = published
        .events
        .iter()
        .map(|e| e.event.event_type())
        .collect();
    assert_eq!(
        types,
        [
            "github.push",
            "sdlc.phase.changed",
            "github.push",
            "github.push",
            "ai.response.chunk"
        ]
    );
    assert_eq!(published.events[4].event.position(), Position::START);
    let history = test
        .store()
        .read_aggregate(
            &AggregateId::of::<Project>("gothic").unwrap(),
            &Versions::all(),
        )
        .await
        .unwrap();
    assert_eq!(history[0].event_type(), "sdlc.phase.changed");
}

#[tokio::test]
async fn foreign_entries_reach_handlers_and_broken_ones_stop_nothing() {
    let seen = Seen::default();
    let test = TestService::start(builder("s").handler(notes_pushes("note", &seen)))
        .await
        .unwrap();
    let github = event_core::Category::new("github").unwrap();
    let store = test.store();
    store.append_foreign(
        &github,
        &[
            ("type", "push"),
            ("payload", r#"{"repository":"x","commits":7}"#),
        ],
    );
    store.append_foreign(&github, &[("garbage", "1")]);
    store.append_foreign(
        &github,
        &[("type", "github.push"), ("payload", r#"{"repository":5}"#)],
    );
    store.append_foreign(
        &github,
        &[
            ("type", "push"),
            ("payload", r#"{"repository":"y","commits":8}"#),
        ],
    );
    // The one that the handler cannot read is reported; both are dead letters.
    let error = test.run_until_idle().await.unwrap_err();
    assert!(
        matches!(&error, ServiceError::Handler(failure)
            if matches!(failure.source, HandlerError::Unreadable(_))),
        "{error}"
    );
    assert_eq!(seen.all(), ["x:7", "y:8"]);
    let letters = store
        .list_dead_letters("s", &github.into(), None, 10)
        .await
        .unwrap();
    let reasons: Vec<_> = letters.iter().map(|letter| letter.reason).collect();
    assert_eq!(
        reasons,
        [DeadLetterReason::Undecodable, DeadLetterReason::Unreadable]
    );
}

#[tokio::test]
async fn a_pattern_skips_the_types_that_the_event_does_not_have() {
    let seen = Seen::default();
    let noted = seen.clone();
    let all = HandlerDefinition::function("all", move |event: PullRequest, _: Context| {
        noted.note(format!("{event:?}"));
        async {}
    })
    .on("github.*");
    let test = TestService::start(builder("s").handler(all)).await.unwrap();
    test.publish((push("a", 1), PullRequest::Closed { number: 4 }))
        .await
        .unwrap();
    test.run_until_idle().await.unwrap();
    assert_eq!(seen.all(), ["Closed { number: 4 }"]);
}
