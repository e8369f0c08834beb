//! What is wrong with a projection is said when the service is built.

use event_core::prelude::*;
use event_core::projection::{Projection, ProjectionMethod, ProjectionSink, SinkBatch};
use event_core::{Mistake, Partition, ServiceBuilder};

use crate::events::GithubPush;

struct Wrong;

impl Projection for Wrong {
    const NAME: &'static str = "not a name";
    const VERSION: u32 = 1;

    fn methods() -> Vec<ProjectionMethod<Self>> {
        let push = |_: &Self, _: GithubPush, _: &mut Writes| {};
        let any = |_: &Self, _: RecordedEvent, _: &mut Writes| {};
        vec![
            ProjectionMethod::new("nothing", push),
            ProjectionMethod::new("uncovered", push).on("sdlc.*"),
            ProjectionMethod::new("open", any).on("*.push"),
        ]
    }
}

struct Empty;

impl Projection for Empty {
    const NAME: &'static str = "empty";
    const VERSION: u32 = 1;

    fn methods() -> Vec<ProjectionMethod<Self>> {
        Vec::new()
    }
}

struct Sink;

#[async_trait::async_trait]
impl ProjectionSink for Sink {
    async fn checkpoint(&self, _: &Partition) -> Result<Position, BoxError> {
        Ok(Position::START)
    }

    async fn apply(&self, _: &SinkBatch<'_>) -> Result<bool, BoxError> {
        Ok(true)
    }
}

fn mistakes(builder: ServiceBuilder) -> Vec<Mistake> {
    let builder = builder.without_discovered_handlers();
    builder.build().unwrap_err().mistakes().to_vec()
}

#[test]
fn what_is_wrong_with_projections_is_one_report() {
    let builder = Service::builder("wrong").store(MemoryStore::new());
    let mistakes = mistakes(
        builder
            .inline_projection(Wrong)
            .projection(Empty)
            .projection_sink("sink", 1, ["No Pattern"], Sink),
    );
    let text = |mistake: &Mistake| mistake.to_string();
    let said: Vec<_> = mistakes.iter().map(text).collect();
    assert_eq!(said.len(), 7, "{said:#?}");
    for part in [
        "`not a name::nothing` reacts to nothing",
        "`sdlc.*`",
        "`*.push`",
        "`not a name::open` takes a `RecordedEvent`",
        "`not a name` is no name for a projection",
        "`empty` reacts to nothing",
        "`No Pattern`",
    ] {
        assert!(
            said.iter().any(|said| said.contains(part)),
            "{part}: {said:#?}"
        );
    }
}

#[test]
fn two_of_one_version_are_a_mistake() {
    let builder = Service::builder("wrong").store(MemoryStore::new());
    let builder = builder.projection_sink("sales", 1, ["github.push"], Sink);
    let mistakes = mistakes(builder.projection_sink("sales", 1, ["github.push"], Sink));
    let projection = "sales v1".to_owned();
    assert_eq!(mistakes, [Mistake::DuplicateProjection { projection }]);
}

#[test]
fn tokens_are_read_as_they_are_written() {
    for text in ["", "order~1-0", "order:3~1763900000000-1.stock~7-0"] {
        let token: event_core::Token = text.parse().unwrap();
        assert_eq!(token.to_string(), text);
    }
    for bad in [
        "order",
        "order~",
        "order~1",
        "~1-0",
        "order:x~1-0",
        "order~1-0.",
        "Order~1-0",
    ] {
        assert!(bad.parse::<event_core::Token>().is_err(), "{bad}");
    }
}
