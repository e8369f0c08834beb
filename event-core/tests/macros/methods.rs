//! `#[event_handler]` on an `impl` block.

use std::sync::Arc;

use event_core::{
    BoxError, Context, Envelope, Event, HandlerRegistration, RecordedEvent, To, event_handler,
};
use serde::{Deserialize, Serialize};

use crate::events::{Chunk, Named, Newtype, Shapes, Tuple, Unit};

type Outcome<T> = Result<T, std::fmt::Error>;

#[event_handler]
struct Methods {
    #[allow(dead_code)]
    name: Arc<str>,
}

#[event_handler(group = "agents", start = now)]
impl Methods {
    #[on("macros.named")]
    async fn by_value(&self, event: Named) {
        let _ = event;
    }

    #[on("macros.named")]
    #[on("macros.*")]
    async fn by_reference(&self, event: &Named) {
        let _ = event;
    }

    #[on("macros.named", "macros.t*")]
    async fn recorded(&self, event: RecordedEvent) {
        let _ = event;
    }

    #[on("macros.named")]
    async fn recorded_reference(&self, _: &RecordedEvent, context: &Context) {
        let _ = context.attempt();
    }

    #[on("macros.named")]
    async fn context_first(
        &self,
        _context: &event_core::Context,
        event: &event_core::RecordedEvent,
    ) {
        let _ = event;
    }

    #[on("macros.named")]
    async fn destructured(&self, Named { repository, .. }: Named) -> Result<(), BoxError> {
        let _ = repository;
        Ok(())
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn one(&self, event: Named) -> Tuple {
        Tuple(event.repository, event.commits)
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn option(&self, event: Named) -> Option<Tuple> {
        Some(Tuple(event.repository, event.commits))
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn vec(&self, _event: Named) -> Vec<Tuple> {
        Vec::new()
    }

    #[on("macros.named")]
    #[emits("macros.tuple", "macros.newtype")]
    #[emits("macros.shapes.unit")]
    async fn tuple(&self, _event: Named) -> (Tuple, Option<Newtype>, Vec<Shapes>) {
        (Tuple("a".into(), 1), None, vec![Shapes::Unit])
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn result(&self, _event: Named) -> Result<Tuple, BoxError> {
        Ok(Tuple("a".into(), 1))
    }

    #[on("macros.named")]
    #[emits("macros.tuple")]
    async fn alias(&self, _event: Named) -> Outcome<Vec<Tuple>> {
        Ok(Vec::new())
    }

    #[on("macros.named")]
    #[emits("macros.steps.begun")]
    async fn to(&self, _event: Named) -> Option<To<Steps>> {
        None
    }

    #[on("macros.named")]
    #[emits("macros.unit")]
    async fn envelope(&self, _event: Named) -> Envelope<Unit> {
        Envelope::of(Unit)
    }

    #[on("macros.shapes.*")]
    async fn some_of_an_enum(self: &Self, event: Shapes) -> Result<(), String> {
        let _ = event;
        self.not_a_handler();
        Ok(())
    }

    #[cfg(any())]
    #[on("macros.not.there")]
    async fn not_compiled(&self, event: NotThere) {}

    /// Kept as it is.
    fn not_a_handler(&self) {}
}

#[derive(Clone)]
#[event_handler()]
struct Live;

#[event_handler(realtime)]
impl Live {
    #[on("macros.chunk.sent")]
    #[emits("macros.chunk.sent")]
    async fn echo(&self, chunk: Chunk) -> Chunk {
        chunk
    }

    #[event_core::on("*.chunk.*")]
    async fn any(
        &self,
        event: &RecordedEvent,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let _ = event;
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
        "Live::echo",
        "Methods::alias",
        "Methods::by_reference",
        "Methods::by_value",
        "Methods::context_first",
        "Methods::destructured",
        "Methods::envelope",
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
