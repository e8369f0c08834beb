//! `#[event_handler]` on an `async fn`.

use event_core::{Context, HandlerRegistration, RecordedEvent, event_handler};

use crate::events::{Chunk, Named, Tuple};

#[event_handler(on = "macros.named")]
async fn one_pattern(event: Named) {
    let _ = event;
}

#[event_handler(on = ["macros.named", "macros.t*"], group = "agents", start = beginning)]
async fn several_patterns(event: &RecordedEvent) {
    let _ = event;
}

#[event_handler(on = "macros.chunk.sent", realtime)]
async fn live(event: Chunk) {
    let _ = event;
}

#[event_handler(on = "macros.named", emits = "macros.tuple")]
async fn emits_one(event: Named, _: &Context) -> Tuple {
    Tuple(event.repository, 10)
}

#[event_handler(on = "macros.named", emits = ["macros.tuple"])]
pub(crate) async fn emits_several(event: Named) -> Result<Option<Tuple>, std::io::Error> {
    Ok(Some(Tuple(event.repository, 11)))
}

#[event_handler]
#[on("macros.named")]
#[emits("macros.tuple")]
async fn attributes_below(event: Named) -> Vec<Tuple> {
    vec![Tuple(event.repository, 12)]
}

#[tokio::test]
async fn a_function_stays_callable() {
    let event = Named {
        repository: "a".into(),
        commits: 1,
    };
    assert_eq!(attributes_below(event).await, [Tuple("a".into(), 12)]);
}

#[test]
fn each_function_is_registered_under_its_name() {
    let found = HandlerRegistration::all();
    for name in [
        "one_pattern",
        "several_patterns",
        "live",
        "emits_one",
        "emits_several",
    ] {
        assert_eq!(
            found.iter().filter(|d| d.name() == name).count(),
            1,
            "{name}"
        );
    }
    let several = found
        .iter()
        .find(|d| d.name() == "several_patterns")
        .unwrap();
    assert_eq!(
        format!("{several:?}"),
        r#"HandlerDefinition { name: "several_patterns", on: ["macros.named", "macros.t*"], emits: [], .. }"#
    );
}
