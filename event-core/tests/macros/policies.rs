//! `retry`, `timeout`, `on_exhausted` and `delivery`, and the class that an error has.

use std::sync::Arc;
use std::time::Duration;

use event_core::testing::TestService;
use event_core::{
    BoxError, Category, Classify, DeadLetterReason, DeadLetters, ErrorClass, HandlerDefinition,
    HandlerError, HandlerFailure, HandlerRegistration, MemoryStore, Mistake, Retry, Service,
    ServiceError, event_handler,
};
use tokio::time::Instant;

use crate::events::{Chunk, Named};

/// An error that decides itself.
#[derive(Debug, thiserror::Error)]
#[error("the repository is gone")]
struct Gone;

impl Classify for Gone {
    fn class(&self) -> ErrorClass {
        ErrorClass::Reject
    }
}

/// An error that does not.
#[derive(Debug, thiserror::Error)]
#[error("the analyzer is busy")]
struct Busy;

type Tried<T> = Result<T, Gone>;

#[event_handler]
struct Policies;

#[event_handler(
    group = "policies",
    retry(max = 3, base = "1ms", max_delay = "2ms"),
    timeout = "1h",
    on_exhausted = park,
    delivery = ordered
)]
impl Policies {
    #[on("macros.named")]
    async fn of_all(&self, _: Named) -> Result<(), Busy> {
        Err(Busy)
    }

    #[on("macros.named", retry(max = 2, base = "0ms",))]
    async fn own_max(&self, _: Named) -> Result<(), Busy> {
        Err(Busy)
    }

    #[on("macros.n*", "macros.named", on_exhausted = skip)]
    async fn skip(&self, _: Named) -> Result<(), BoxError> {
        Err("never".into())
    }

    #[on("macros.named", on_exhausted = stop)]
    async fn stop(&self, _: Named) -> Result<(), BoxError> {
        Err("never".into())
    }

    #[on("macros.named", timeout = "20ms", retry(max = 1))]
    #[on("macros.n*", delivery = parallel)]
    async fn timeout(&self, _: Named) {
        std::future::pending().await
    }

    #[on("macros.named")]
    async fn reject(&self, _: Named) -> Result<Option<()>, Gone> {
        Err(Gone)
    }

    #[on("macros.named")]
    async fn reject_by_alias(&self, _: Named) -> Tried<()> {
        Err(Gone)
    }

    #[on("macros.named")]
    async fn reject_of_self(&self, _: Named) -> Result<(), <Self as Fails>::Error> {
        Err(Gone)
    }

    // Its error is the same, but in a type that says nothing.
    #[on("macros.named")]
    async fn hidden(&self, _: Named) -> Result<(), BoxError> {
        Err(Gone.into())
    }
}

trait Fails {
    type Error;
}

impl Fails for Policies {
    type Error = Gone;
}

#[event_handler(on = "macros.named", group = "policies", retry(max = 2, base = "1ms"))]
async fn function_max(_: Named) -> Result<(), Busy> {
    Err(Busy)
}

#[event_handler(group = "policies", retry(base = "1ms"))]
#[on("macros.named", on_exhausted = skip)]
async fn function_in_both(_: Named) -> Result<(), Busy> {
    Err(Busy)
}

#[event_handler(on = "macros.named", group = "policies", delivery = parallel)]
#[on("macros.n*", retry(max = 3, base = "2h", max_delay = "2h"))]
async fn delays(_: Named) -> Result<(), Busy> {
    Err(Busy)
}

#[event_handler(
    on = "macros.chunk.sent",
    group = "policies",
    realtime,
    retry(max = 2, max_delay = "1m"),
    timeout = "5s",
    on_exhausted = skip
)]
async fn realtime_max(_: Chunk) -> Result<(), Busy> {
    Err(Busy)
}

fn definition(name: &str) -> HandlerDefinition {
    let all = HandlerRegistration::all();
    all.into_iter().find(|d| d.name() == name).unwrap()
}

async fn service_of(name: &str) -> TestService {
    let builder = Service::builder("policies")
        .without_discovered_handlers()
        .handler(definition(name));
    TestService::start(builder).await.unwrap()
}

async fn failure(test: &TestService) -> Arc<HandlerFailure> {
    match test.run_until_idle().await.unwrap_err() {
        ServiceError::Handler(failure) => failure,
        other => panic!("{other}"),
    }
}

/// How a handler fails on an event, and why that is a dead letter then, if it is one.
async fn failed(name: &str) -> (Arc<HandlerFailure>, Option<DeadLetterReason>) {
    let test = service_of(name).await;
    let event = Named {
        repository: "octo/hello".into(),
        commits: 2,
    };
    test.publish(event).await.unwrap();
    let failure = failure(&test).await;
    let category = Category::new("macros").unwrap();
    let letters = test
        .store()
        .list_dead_letters("policies", &(&category).into(), None, 10)
        .await
        .unwrap();
    assert!(letters.len() < 2);
    (failure, letters.first().map(|letter| letter.reason))
}

#[tokio::test(start_paused = true)]
async fn the_attempts_are_as_many_as_was_said() {
    for (name, attempts) in [
        ("Policies::of_all", 3),
        ("Policies::own_max", 2),
        ("function_max", 2),
        ("delays", 3),
        // The default of `retry`, whose `max` was left out.
        ("function_in_both", Retry::default().max),
    ] {
        let (failure, _) = failed(name).await;
        assert_eq!(failure.attempts, attempts, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_delays_are_as_long_as_was_said() {
    let begun = Instant::now();
    failed("delays").await;
    assert!(begun.elapsed() >= Duration::from_secs(2 * 2 * 3_600));
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_the_event_is_what_was_said() {
    for (name, reason) in [
        ("Policies::of_all", Some(DeadLetterReason::Exhausted)),
        ("Policies::skip", None),
        ("Policies::stop", None),
        ("function_in_both", None),
    ] {
        assert_eq!(failed(name).await.1, reason, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_group_has_the_event_before_it_and_one_that_skips_behind_it() {
    for (name, fails_again) in [("Policies::stop", true), ("Policies::skip", false)] {
        let test = service_of(name).await;
        let event = Named {
            repository: "octo/hello".into(),
            commits: 2,
        };
        test.publish(event).await.unwrap();
        failure(&test).await;
        let again = test.run_until_idle().await;
        assert_eq!(again.is_err(), fails_again, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_broken_off_after_the_timeout() {
    let (failure, reason) = failed("Policies::timeout").await;
    let timeout = Duration::from_millis(20);
    assert!(
        matches!(failure.source, HandlerError::TimedOut(after) if after == timeout),
        "{failure}"
    );
    assert_eq!(reason, Some(DeadLetterReason::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_has_a_class_decides_itself() {
    for name in ["reject", "reject_by_alias", "reject_of_self"] {
        let (failure, reason) = failed(&format!("Policies::{name}")).await;
        assert_eq!(failure.attempts, 1, "{name}");
        assert_eq!(reason, Some(DeadLetterReason::Rejected), "{name}");
    }
    let (failure, reason) = failed("Policies::hidden").await;
    assert_eq!(failure.attempts, 3);
    assert_eq!(reason, Some(DeadLetterReason::Exhausted));
}

#[tokio::test(start_paused = true)]
async fn a_realtime_handler_has_attempts_and_a_timeout_too() {
    let test = service_of("realtime_max").await;
    test.publish(Chunk { r#type: "x".into() }).await.unwrap();
    assert_eq!(failure(&test).await.attempts, 2);
}

#[test]
fn the_delivery_is_what_was_said() {
    for (name, is_parallel) in [
        ("delays", true),
        ("Policies::timeout", true),
        ("Policies::of_all", false),
        ("function_max", false),
    ] {
        // Of realtime handlers, parallel ones are refused.
        let built = Service::builder("policies")
            .without_discovered_handlers()
            .handler(definition(name).realtime())
            .store(MemoryStore::new())
            .build();
        let mistakes = match built {
            Ok(_) => Vec::new(),
            Err(error) => error.mistakes().to_vec(),
        };
        let refused = Mistake::ParallelRealtimeHandler {
            handler: name.into(),
        };
        assert_eq!(mistakes.contains(&refused), is_parallel, "{name}");
    }
}
