use std::sync::Arc;

use event_core::prelude::*;
use event_core::{
    Delivery, Emission, Handler, HandlerDefinition, HandlerError, Mistake, Start, Warning,
};

use crate::events::{
    GithubPush, ProjectEvent, RepositoryAnalyzed, ResponseChunk, analyzes, builder,
};

trait Analyzer: Send + Sync {}

#[event_handler]
struct Needy {
    _analyzer: Arc<dyn Analyzer>,
    _limit: u16,
}

#[event_handler(group = "needy")]
impl Needy {
    #[on("github.push")]
    async fn look(&self, _: GithubPush) {}
}

struct Raw;

#[async_trait::async_trait]
impl Handler for Raw {
    async fn handle(&self, _: &RecordedEvent, _: &Context) -> Result<Vec<Emission>, HandlerError> {
        Ok(Vec::new())
    }
}

fn idle(name: &str) -> HandlerDefinition {
    HandlerDefinition::function(name, |_: RecordedEvent, _: Context| async {})
}

fn mistakes(builder: event_core::ServiceBuilder) -> Vec<Mistake> {
    builder.build().unwrap_err().mistakes().to_vec()
}

#[test]
fn every_mistake_is_in_one_report() {
    let error = Service::builder("needy")
        .provide(3_u8)
        .provide(4_u8)
        .handler(idle("twice").on("a.b"))
        .handler(idle("twice").on("a.b"))
        .handler(idle("bad_pattern").on("Not A Pattern"))
        .handler(idle("nothing"))
        .handler(
            HandlerDefinition::new("raw", Raw)
                .on("a.b")
                .emits("no.such.type"),
        )
        .store(MemoryStore::new())
        .build()
        .unwrap_err();
    let report = error.to_string();
    assert_eq!(error.mistakes().len(), 7, "{report}");
    assert_eq!(report.lines().count(), 8, "{report}");
    for part in [
        "service `needy` cannot be built:",
        "`u8` is provided twice",
        "2 handlers are named `twice`",
        "`Not A Pattern`",
        "`nothing` reacts to nothing",
        "`raw` emits `no.such.type`",
        "`Needy::look` needs `alloc::sync::Arc<dyn service::build::Analyzer>`",
        "`Needy::look` needs `u16`",
    ] {
        assert!(report.contains(part), "{part} is not in:\n{report}");
    }
    // What a `main` that returns it prints.
    assert_eq!(format!("{error:?}"), report);
}

#[test]
fn a_service_needs_a_store() {
    let mistakes = mistakes(builder("s").handler(idle("fine").on("a.b")));
    assert_eq!(mistakes, [Mistake::NoStore]);
}

#[test]
fn a_dependency_in_an_arc_or_without_one_is_hinted_at() {
    #[derive(Clone)]
    struct Bare;

    #[event_handler]
    struct Wrapped {
        _in_an_arc: Arc<Bare>,
        _bare: u32,
    }

    #[event_handler(group = "wrapped")]
    impl Wrapped {
        #[on("github.push")]
        async fn look(&self, _: GithubPush) {}
    }

    let error = Service::builder("wrapped")
        .store(MemoryStore::new())
        .provide(Bare)
        .provide(Arc::new(1_u32))
        .build()
        .unwrap_err();
    let provided: Vec<_> = error
        .mistakes()
        .iter()
        .map(|mistake| match mistake {
            Mistake::MissingDependency {
                provided_instead, ..
            } => provided_instead.unwrap_or_default(),
            _ => "",
        })
        .collect();
    let [bare, "alloc::sync::Arc<u32>"] = provided[..] else {
        panic!("{provided:?}");
    };
    assert!(bare.ends_with("::Bare"), "{bare}");
    let report = error.to_string();
    assert!(
        report.contains(
            "needs `u32`, which nobody provides; `alloc::sync::Arc<u32>` is provided, which is another type"
        ),
        "{report}"
    );
}

#[test]
fn a_missing_store_hides_no_other_mistake() {
    let found = mistakes(Service::builder("needy").handler(idle("nothing")));
    assert!(
        matches!(
            &found[..],
            [
                Mistake::NoStore,
                Mistake::MissingDependency { .. },
                Mistake::MissingDependency { .. },
                Mistake::ReactsToNothing { .. },
            ]
        ),
        "{found:?}"
    );
    // What a store brings is not missing beside it.
    let found = mistakes(Service::builder("modest"));
    assert_eq!(found, [Mistake::NoStore]);
}

#[event_handler]
struct Modest {
    _store: Arc<dyn EventStore>,
    _publisher: Publisher,
    _clock: event_core::Clock,
    _projects: Repository<crate::events::Project>,
}

#[event_handler(group = "modest")]
impl Modest {
    #[on("github.push")]
    async fn look(&self, _: GithubPush) {}
}

#[test]
fn what_is_always_there_need_not_be_provided() {
    let service = Service::builder("modest")
        .store(MemoryStore::new())
        .expect_handlers(["Modest::look"])
        .build()
        .unwrap();
    assert_eq!(service.handlers(), ["Modest::look"]);
}

#[test]
fn handlers_run_in_their_own_group_only() {
    let service = Service::builder("another")
        .store(MemoryStore::new())
        .handler(idle("mine").on("a.b").group("another"))
        .handler(idle("theirs").on("a.b").group("elsewhere"))
        .handler(idle("everybodys").on("a.b"))
        .build()
        .unwrap();
    let own: Vec<_> = service.handlers().iter().map(String::as_str).collect();
    assert!(
        own.contains(&"mine") && own.contains(&"everybodys"),
        "{own:?}"
    );
    assert!(!own.contains(&"theirs") && !own.contains(&"Needy::look"));
    let as_group = Service::builder("another")
        .group("elsewhere")
        .store(MemoryStore::new())
        .handler(idle("theirs").on("a.b").group("elsewhere"))
        .build()
        .unwrap();
    assert!(as_group.handlers().contains(&"theirs".to_owned()));
}

#[test]
fn the_set_of_handlers_can_be_asserted() {
    let found = mistakes(
        builder("s")
            .store(MemoryStore::new())
            .handler(idle("there").on("a.b"))
            .expect_handlers(["missing"]),
    );
    let (missing, there) = ("missing".to_owned(), "there".to_owned());
    assert_eq!(
        found,
        [
            Mistake::HandlerNotFound { handler: missing },
            Mistake::HandlerNotExpected { handler: there }
        ]
    );
}

#[test]
fn an_event_that_nobody_publishes_can_be_a_mistake() {
    let with = |elsewhere: &[&str]| {
        builder("s")
            .store(MemoryStore::new())
            .handler(analyzes("analyze"))
            .handler(idle("follow").on("repository.*"))
            .handler(idle("wait").on("billing.paid"))
            .expect_publishers(elsewhere.iter().copied())
            .build()
    };
    let error = with(&["github.*"]).unwrap_err();
    assert_eq!(
        error.mistakes(),
        [Mistake::NobodyPublishes {
            handler: "wait".into(),
            pattern: "billing.paid".into()
        }]
    );
    assert!(with(&["github.push", "billing.paid"]).is_ok());
}

#[test]
fn what_is_emitted_must_be_returned_and_the_reverse() {
    let returns = |emits: &[&str]| {
        let mut handler = HandlerDefinition::function("h", |_: GithubPush, _: Context| async {
            None::<RepositoryAnalyzed>
        })
        .on("github.push");
        for event_type in emits {
            handler = handler.emits(*event_type);
        }
        builder("s")
            .store(MemoryStore::new())
            .handler(handler)
            .build()
    };
    assert!(returns(&["repository.analyzed"]).is_ok());
    assert!(matches!(
        returns(&[]).unwrap_err().mistakes(),
        [Mistake::UndeclaredEmits { event_types, .. }] if *event_types == ["repository.analyzed"]
    ));
    assert!(matches!(
        returns(&["github.push"]).unwrap_err().mistakes(),
        [Mistake::NotReturned { event_type, .. }] if event_type == "github.push"
    ));
}

#[test]
fn patterns_must_fit_what_the_handler_takes() {
    let found = mistakes(
        builder("s")
            .store(MemoryStore::new())
            .handler(
                HandlerDefinition::function("other", |_: GithubPush, _: Context| async {})
                    .on("github.pull"),
            )
            .handler(idle("all").on("*"))
            .handler(
                HandlerDefinition::function("chunk", |_: ResponseChunk, _: Context| async {})
                    .on("ai.response.chunk"),
            ),
    );
    assert!(
        matches!(
            &found[..],
            [
                Mistake::AnyCategory { .. },
                Mistake::NotRealtime { .. },
                Mistake::NotCovered { .. }
            ]
        ),
        "{found:?}"
    );
}

#[test]
fn a_realtime_handler_is_not_parallel() {
    let chunks = || {
        HandlerDefinition::function("chunk", |_: ResponseChunk, _: Context| async {})
            .on("ai.response.chunk")
            .realtime()
    };
    let found = mistakes(
        builder("s")
            .store(MemoryStore::new())
            .handler(chunks().delivery(Delivery::Parallel)),
    );
    assert_eq!(
        found,
        [Mistake::ParallelRealtimeHandler {
            handler: "chunk".into()
        }]
    );
    let ordered = builder("s")
        .store(MemoryStore::new())
        .handler(chunks().delivery(Delivery::Ordered));
    assert!(ordered.build().is_ok());
}

#[test]
fn a_realtime_handler_emits_nothing_that_is_stored() {
    let found = mistakes(
        builder("s")
            .store(MemoryStore::new())
            .handler(analyzes("analyze").realtime()),
    );
    assert!(
        matches!(&found[..], [Mistake::StoredEmitOfRealtimeHandler { .. }]),
        "{found:?}"
    );
}

#[test]
fn an_aggregates_event_is_emitted_only_to_it() {
    let opens = HandlerDefinition::function("open", |push: GithubPush, _: Context| async {
        ProjectEvent::Opened {
            name: push.repository,
        }
    })
    .on("github.push")
    .emits("sdlc.project.opened");
    let found = mistakes(
        builder("s")
            .store(MemoryStore::new())
            .aggregate::<crate::events::Project>()
            .handler(opens),
    );
    assert!(
        matches!(
            &found[..],
            [Mistake::EmitOfAggregateEvent {
                aggregate_type: "project",
                ..
            }]
        ),
        "{found:?}"
    );
}

#[test]
fn a_group_starts_a_feed_in_one_place() {
    let found = mistakes(
        builder("s")
            .store(MemoryStore::new())
            .handler(idle("old").on("a.b"))
            .handler(idle("new").on("a.c").start(Start::Now)),
    );
    assert!(
        matches!(&found[..], [Mistake::ConflictingStarts { .. }]),
        "{found:?}"
    );
}

#[test]
fn a_cycle_of_emits_is_a_warning() {
    let back = HandlerDefinition::function("back", |done: RepositoryAnalyzed, _: Context| async {
        GithubPush {
            repository: done.repository,
            commits: 0,
        }
    })
    .on("repository.*")
    .emits("github.push");
    let service = builder("s")
        .store(MemoryStore::new())
        .handler(analyzes("analyze"))
        .handler(back)
        .build()
        .unwrap();
    assert_eq!(
        service.warnings(),
        [Warning::Cycle {
            handlers: vec!["analyze".into(), "back".into()]
        }]
    );
}

#[test]
fn a_group_without_handlers_is_a_warning_where_others_have_some() {
    let mistaken = Service::builder("needyy").store(MemoryStore::new());
    let service = mistaken.build().unwrap();
    let [warning @ Warning::NoHandlers { .. }] = service.warnings() else {
        panic!("{:?}", service.warnings());
    };
    let said = warning.to_string();
    for part in ["`needyy`", "`modest`", "`needy`", ".group(…)"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }

    let by_hand = || {
        builder("s")
            .store(MemoryStore::new())
            .handler(idle("theirs").on("a.b").group("elsewhere"))
    };
    assert_eq!(
        by_hand().build().unwrap().warnings(),
        [Warning::NoHandlers {
            group: "s".into(),
            other_groups: vec!["elsewhere".into()]
        }]
    );
    let own = by_hand().handler(idle("mine").on("a.b")).build().unwrap();
    assert_eq!(own.warnings(), []);
    let none = builder("s").store(MemoryStore::new()).build().unwrap();
    assert_eq!(none.warnings(), []);
}
