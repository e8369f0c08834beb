//! `#[event_handler]` on an `impl` block.

use std::sync::{Arc, Mutex, PoisonError};

use event_core::testing::TestService;
use event_core::{
    BoxError, Context, Envelope, Event, HandlerRegistration, RecordedEvent, Service, To,
    event_handler,
};
use serde::{Deserialize, Serialize};

use crate::events::{Chunk, Named, Newtype, Shapes, Tuple, Unit};

/// Which handlers were called.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<&'static str>>>);

impl Calls {
    fn push(&self, handler: &'static str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(handler);
    }
}

type Outcome<T> = Result<T, std::fmt::Error>;

#[event_handler]
struct Methods {
    calls: Calls,
}

#[event_handler(group = "agents", start = beginning)]
impl Methods {
    #[on("macros.named")]
    async fn by_value(&self, event: Named) {
        self.called("by_value", &event);
    }

    #[on("macros.named")]
    #[on("macros.n*")]
    async fn by_reference(&self, event: &Named) {
        self.called("by_reference", event);
    }

    #[on("macros.named", "macros.nobody.*")]
    async fn recorded(&self, event: RecordedEvent) -> Result<(), BoxError> {
        self.called("recorded", &event.decode()?);
        Ok(())
    }

    #[on("macros.named")]
    async fn recorded_reference(
        &self,
        event: &RecordedEvent,
        context: &Context,
    ) -> Result<(), BoxError> {
        assert_eq!(context.handler(), "Methods::recorded_reference");
        self.called("recorded_reference", &event.decode()?);
        Ok(())
    }

    #[on("macros.named")]
    async fn context_first(&self, context: &event_core::Context, event: &Named) {
        assert_eq!(context.group(), "agents");
        self.called("context_first", event);
    }

    #[on("macros.named")]
    async fn destructured(
        &self,
        Named {
            repository,
            commits,
        }: Named,
    ) {
        self.called(
            "destructured",
            &Named {
                repository,
                commits,
            },
        );
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn one(&self, event: Named) -> Tuple {
        Tuple(event.repository, 1)
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn option(&self, event: Named) -> Option<Tuple> {
        Some(Tuple(event.repository, 2))
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn vec(&self, event: Named) -> Vec<Tuple> {
        vec![Tuple(event.repository, 3)]
    }

    #[on("macros.named")]
    #[emits("macros.tuple", "macros.newtype")]
    #[emits("macros.shapes.unit")]
    async fn tuple(&self, event: Named) -> (Tuple, Option<Newtype>, Vec<Shapes>) {
        (Tuple(event.repository, 4), None, vec![Shapes::Unit])
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn result(&self, event: Named) -> Result<Tuple, BoxError> {
        Ok(Tuple(event.repository, 5))
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn alias(&self, event: Named) -> Outcome<Vec<Tuple>> {
        Ok(vec![Tuple(event.repository, 6)])
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn of_self(&self, event: Named) -> Result<Tuple, <Self as Fails>::Error> {
        Ok(Tuple(event.repository, 7))
    }

    #[on("macros.named")]
    #[emits("macros.steps.begun")]
    async fn to(&self, event: Named) -> Option<To<Steps>> {
        Some(To(event.repository, StepsEvent::Begun))
    }

    #[on("macros.named")]
    #[emits("macros.unit")]
    async fn envelope(&self, _event: Named) -> Envelope<Unit> {
        Envelope::of(Unit).metadata("by", "envelope")
    }

    #[on("macros.shapes.*")]
    #[allow(clippy::needless_arbitrary_self_type)]
    async fn some_of_an_enum(self: &Self, event: Shapes) {
        assert_eq!(event, Shapes::Unit);
        self.calls.push("some_of_an_enum");
    }

    #[cfg(any())]
    #[on("macros.not.there")]
    async fn not_compiled(&self, event: NotThere) {}

    /// Is no handler, and stays.
    fn called(&self, handler: &'static str, event: &Named) {
        assert_eq!(event.repository, "octo/hello");
        self.calls.push(handler);
    }
}

trait Fails {
    type Error;
}

impl Fails for Methods {
    type Error = std::fmt::Error;
}

#[event_handler(start = now, group = "latecomers",)]
impl Methods {
    #[on("macros.named")]
    async fn in_another_block(&self, _: &Named) {}
}

#[event_handler()]
struct Live;

#[event_handler(realtime, group = "live")]
impl Live {
    #[on("macros.chunk.sent")]
    #[emits("macros.shapes.tuple")]
    async fn chunk(&self, chunk: Chunk) -> Shapes {
        Shapes::Tuple(chunk.r#type, 1)
    }

    #[event_core::on("*.shapes.*")]
    async fn any(&self, event: &RecordedEvent) -> Result<(), BoxError> {
        assert_eq!(event.event_type(), "macros.shapes.tuple");
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
enum StepsEvent {
    #[event("macros.steps.begun")]
    Begun,
}

#[derive(Default)]
struct Steps;

impl event_core::Aggregate for Steps {
    const TYPE: &'static str = "steps";
    type Event = StepsEvent;
    type Command = ();
    type Error = std::fmt::Error;

    fn apply(&mut self, _: &StepsEvent) {}

    fn handle(&self, (): ()) -> Result<Vec<StepsEvent>, std::fmt::Error> {
        Ok(vec![StepsEvent::Begun])
    }
}

#[test]
fn each_method_is_registered_under_its_name() {
    let names: Vec<_> = HandlerRegistration::all()
        .iter()
        .map(|definition| definition.name().to_owned())
        .filter(|name| name.starts_with("Methods::") || name.starts_with("Live::"))
        .collect();
    let expected = [
        "Live::any",
        "Live::chunk",
        "Methods::alias",
        "Methods::by_reference",
        "Methods::by_value",
        "Methods::context_first",
        "Methods::destructured",
        "Methods::envelope",
        "Methods::in_another_block",
        "Methods::of_self",
        "Methods::one",
        "Methods::option",
        "Methods::recorded",
        "Methods::recorded_reference",
        "Methods::result",
        "Methods::some_of_an_enum",
        "Methods::to",
        "Methods::tuple",
        "Methods::vec",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn each_method_is_called() -> Result<(), BoxError> {
    let calls = Calls::default();
    let builder = Service::builder("methods")
        .group("agents")
        .provide(calls.clone());
    let test = TestService::start(builder).await?;
    let event = Named {
        repository: "octo/hello".into(),
        commits: 2,
    };
    test.dispatch(event).await?;
    test.run_until_idle().await?;

    let mut called = calls.0.lock().unwrap().clone();
    called.sort_unstable();
    let expected = [
        "by_reference",
        "by_value",
        "context_first",
        "destructured",
        "recorded",
        "recorded_reference",
        "some_of_an_enum",
    ];
    assert_eq!(called, expected);
    let mut tuples: Vec<_> = test.emitted::<Tuple>().await?.iter().map(|t| t.1).collect();
    tuples.sort_unstable();
    // The handlers of `functions` are of every group, and emit 10 and more.
    assert_eq!(tuples, [1, 2, 3, 4, 5, 6, 7, 10, 11, 12]);
    assert_eq!(test.emitted::<Unit>().await?, [Unit]);
    assert_eq!(test.emitted::<StepsEvent>().await?, [StepsEvent::Begun]);
    Ok(())
}

#[tokio::test]
async fn realtime_methods_are_called() -> Result<(), BoxError> {
    let test = TestService::start(Service::builder("live")).await?;
    test.dispatch(Chunk { r#type: "x".into() }).await?;
    test.run_until_idle().await?;
    assert_eq!(
        test.emitted::<Shapes>().await?,
        [Shapes::Tuple("x".into(), 1)]
    );
    Ok(())
}
