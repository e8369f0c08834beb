//! Events whose shape or name has changed, and stored ones that nobody writes any more.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use event_core::prelude::*;
use event_core::testing::TestService;
use event_core::{
    AggregateId, Append, Category, CodecError, Context, DeadLetterReason, DeadLetters,
    EventDefinition, EventStore, Expected, HandlerDefinition, HandlerEvent, Metadata,
    MissingUpcast, Mistake, NewEvent, Position, RecordedEvent, Repository, RepositoryError, Upcast,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// Version 1 had a name alone, version 2 first and last name, version 3 has these in an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FullName {
    first: String,
    last: String,
}

#[derive(Deserialize)]
struct RegisteredV1 {
    name: String,
}

#[derive(Serialize)]
struct RegisteredV2 {
    first: String,
    last: String,
}

fn part_name(old: RegisteredV1) -> RegisteredV2 {
    let (first, last) = old.name.split_once(' ').unwrap_or((&old.name, ""));
    RegisteredV2 {
        first: first.into(),
        last: last.into(),
    }
}

fn gather_name(old: Value) -> Value {
    json!({ "name": old })
}

/// One event was stored for what are two today.
fn part_move(old: Value) -> Vec<PersonEvent> {
    let text = |name: &str| old[name].as_str().unwrap_or_default().to_owned();
    vec![
        PersonEvent::Left { city: text("from") },
        PersonEvent::Arrived { city: text("to") },
    ]
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(
    retired("person.greeted", "person.waved_at"),
    split("person.moved" = part_move)
)]
enum PersonEvent {
    #[event(
        "person.registered",
        version = 3,
        upcast(1 = part_name, 2 = gather_name)
    )]
    Registered { name: FullName },
    #[event("person.left")]
    Left { city: String },
    #[event("person.arrived", formerly("person.came", "person.reached"))]
    Arrived { city: String },
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Person {
    name: Option<FullName>,
    cities: Vec<String>,
}

impl Aggregate for Person {
    const TYPE: &'static str = "person";
    type Event = PersonEvent;
    type Command = PersonEvent;
    type Error = std::convert::Infallible;

    fn apply(&mut self, event: &PersonEvent) {
        match event {
            PersonEvent::Registered { name } => self.name = Some(name.clone()),
            PersonEvent::Left { city } => self.cities.push(format!("-{city}")),
            PersonEvent::Arrived { city } => self.cities.push(format!("+{city}")),
        }
    }

    fn handle(&self, command: PersonEvent) -> Result<Vec<PersonEvent>, Self::Error> {
        Ok(vec![command])
    }
}

/// An event as an older program has stored it.
fn old(event_type: &str, schema_version: u32, payload: Value) -> NewEvent {
    let mut metadata = Metadata::new(Uuid::now_v7(), chrono::Utc::now());
    metadata.schema_version = schema_version;
    NewEvent::from_parts(event_type, payload.to_string(), metadata).unwrap()
}

async fn store(store: &impl EventStore, id: &str, events: Vec<NewEvent>) {
    let category = Category::new("person").unwrap();
    let aggregate = AggregateId::new(category, "person", id).unwrap();
    let append = Append::to(aggregate, Expected::Any, events);
    store.append(&append).await.unwrap();
}

fn ada() -> FullName {
    FullName {
        first: "Ada".into(),
        last: "Lovelace".into(),
    }
}

#[tokio::test]
async fn an_aggregate_is_rebuilt_from_every_version() {
    let memory = MemoryStore::new();
    let people = Repository::<Person>::new(memory.clone());
    for (version, payload) in [
        (1, json!({"name": "Ada Lovelace"})),
        (2, json!({"first": "Ada", "last": "Lovelace"})),
        (3, json!({"name": {"first": "Ada", "last": "Lovelace"}})),
    ] {
        let id = format!("v{version}");
        store(
            &memory,
            &id,
            vec![old("person.registered", version, payload)],
        )
        .await;
        let person = people.load(&id).await.unwrap();
        assert_eq!(person.state.name, Some(ada()), "{version}");

        // What is written is of today's version, behind what was there.
        people
            .execute(&id, PersonEvent::Registered { name: ada() })
            .await
            .unwrap();
        assert_eq!(people.load(&id).await.unwrap().version, 2);
    }
}

#[tokio::test]
async fn an_aggregate_knows_its_events_by_their_former_names() {
    let memory = MemoryStore::new();
    let people = Repository::<Person>::new(memory.clone());
    let events = ["person.came", "person.reached", "person.arrived"];
    let events = events.map(|name| old(name, 1, json!({ "city": name })));
    store(&memory, "ada", events.to_vec()).await;
    let person = people.load("ada").await.unwrap();
    assert_eq!(
        person.state.cities,
        ["+person.came", "+person.reached", "+person.arrived"]
    );
}

#[tokio::test]
async fn split_events_are_several_and_retired_ones_are_none() {
    let memory = MemoryStore::new();
    let people = Repository::<Person>::new(memory.clone());
    let events = vec![
        old("person.arrived", 1, json!({"city": "London"})),
        old("person.greeted", 1, json!({"by": "Charles"})),
        old("person.moved", 1, json!({"from": "London", "to": "Paris"})),
        old("person.waved_at", 1, json!(null)),
    ];
    store(&memory, "ada", events).await;
    let person = people.load("ada").await.unwrap();
    assert_eq!(person.state.cities, ["+London", "-London", "+Paris"]);
    // Versions count what is stored.
    assert_eq!(person.version, 4);
    let done = people
        .execute(
            "ada",
            PersonEvent::Left {
                city: "Paris".into(),
            },
        )
        .await
        .unwrap();
    assert_eq!(done.version, 5);
}

#[tokio::test]
async fn a_version_of_the_future_is_an_error_that_says_so() {
    let memory = MemoryStore::new();
    let people = Repository::<Person>::new(memory.clone());
    // Its payload would fit.
    let payload = json!({"name": {"first": "Ada", "last": "Lovelace"}});
    for version in [0, 4] {
        let id = version.to_string();
        store(
            &memory,
            &id,
            vec![old("person.registered", version, payload.clone())],
        )
        .await;
        let error = people.load(&id).await.unwrap_err();
        let message = format!("{error:?}");
        assert!(matches!(error, RepositoryError::Read(_)), "{message}");
        let wanted =
            format!("version {version} of its shape, and this program knows versions 1 to 3");
        assert!(message.contains(&wanted), "{message}");
    }
    store(
        &memory,
        "unfit",
        vec![old("person.registered", 1, json!({"nom": "Ada"}))],
    )
    .await;
    let message = format!("{:?}", people.load("unfit").await.unwrap_err());
    assert!(message.contains("upcast from version 1"), "{message}");
    assert!(message.contains("missing field `name`"), "{message}");
}

#[test]
fn what_is_written_is_of_the_newest_version() {
    let codec = event_core::Codec::default();
    let event = codec
        .encode(&PersonEvent::Registered { name: ada() })
        .unwrap();
    assert_eq!(event.metadata().schema_version, 3);
    let event = codec
        .encode(&PersonEvent::Left { city: "x".into() })
        .unwrap();
    assert_eq!(event.metadata().schema_version, 1);
}

#[test]
fn a_recorded_event_is_read_as_it_is_meant_today() {
    let recorded = |event: NewEvent| {
        RecordedEvent::new(
            event.event_type(),
            event.payload(),
            Position::new(1, 0),
            None,
            event.metadata().clone(),
        )
    };
    let registered = recorded(old("person.registered", 1, json!({"name": "Ada Lovelace"})));
    let expected = PersonEvent::Registered { name: ada() };
    assert_eq!(registered.decode::<PersonEvent>().unwrap(), expected);
    assert_eq!(registered.view::<PersonEvent>().unwrap(), Some(expected));

    let moved = recorded(old("person.moved", 1, json!({"from": "A", "to": "B"})));
    assert_eq!(moved.decode_all::<PersonEvent>().unwrap().len(), 2);
    assert_eq!(moved.view::<PersonEvent>().unwrap(), None);
    let error = moved.decode::<PersonEvent>().unwrap_err();
    assert!(
        matches!(error, CodecError::NotOne { count: 2, .. }),
        "{error}"
    );

    let greeted = recorded(old("person.greeted", 7, json!(1)));
    assert_eq!(greeted.decode_all::<PersonEvent>().unwrap(), []);
    let error = greeted.decode::<PersonEvent>().unwrap_err();
    assert!(
        matches!(error, CodecError::NotOne { count: 0, .. }),
        "{error}"
    );
}

/// What handlers were called with, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn handler<E: HandlerEvent + std::fmt::Debug + 'static>(
        &self,
        name: &'static str,
        on: &str,
    ) -> HandlerDefinition {
        let seen = self.clone();
        HandlerDefinition::function(name, move |event: E, context: Context| {
            let line = format!("{}: {event:?}", context.handler());
            seen.0.lock().unwrap().push(line);
            async {}
        })
        .on(on)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn handlers_get_old_events_as_those_of_today() {
    let seen = Seen::default();
    let test = TestService::start(
        Service::builder("people")
            .handler(seen.handler::<PersonEvent>("arrivals", "person.arrived"))
            .handler(seen.handler::<PersonEvent>("everything", "person.*")),
    )
    .await
    .unwrap();
    let events = vec![
        old("person.registered", 1, json!({"name": "Ada Lovelace"})),
        old("person.came", 1, json!({"city": "A"})),
        old("person.greeted", 1, json!({})),
        old("person.moved", 1, json!({"from": "A", "to": "B"})),
    ];
    store(test.store(), "ada", events).await;
    test.run_until_idle().await.unwrap();
    assert_eq!(
        seen.take(),
        [
            r#"everything: Registered { name: FullName { first: "Ada", last: "Lovelace" } }"#,
            r#"arrivals: Arrived { city: "A" }"#,
            r#"everything: Arrived { city: "A" }"#,
            r#"arrivals: Arrived { city: "B" }"#,
            r#"everything: Left { city: "A" }"#,
            r#"everything: Arrived { city: "B" }"#,
        ]
    );
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("noted.visit")]
struct Noted {
    city: String,
}

#[tokio::test]
async fn each_part_of_a_split_event_emits_what_it_leads_to() {
    let note = HandlerDefinition::function("note", |event: PersonEvent, _: Context| async move {
        match event {
            PersonEvent::Left { city } | PersonEvent::Arrived { city } => Some(Noted { city }),
            PersonEvent::Registered { .. } => None,
        }
    });
    let builder = Service::builder("people").handler(note.on("person.*").emits("noted.visit"));
    let test = TestService::start(builder).await.unwrap();
    let moved = old("person.moved", 1, json!({"from": "A", "to": "B"}));
    store(test.store(), "ada", vec![moved]).await;
    test.run_until_idle().await.unwrap();

    let noted = test.emitted::<Noted>().await.unwrap();
    let cities: Vec<_> = noted.iter().map(|noted| noted.city.as_str()).collect();
    assert_eq!(cities, ["A", "B"]);
}

#[tokio::test]
async fn a_handler_makes_a_dead_letter_of_a_version_of_the_future() {
    let seen = Seen::default();
    let builder =
        Service::builder("people").handler(seen.handler::<PersonEvent>("everything", "person.*"));
    let test = TestService::start(builder).await.unwrap();
    let events = vec![old("person.registered", 4, json!({"name": "?"}))];
    store(test.store(), "ada", events).await;
    let events = vec![old("person.left", 1, json!({"city": "A"}))];
    store(test.store(), "bob", events).await;
    let error = test.run_until_idle().await.unwrap_err().to_string();
    assert!(error.contains("knows versions 1 to 3"), "{error}");
    assert_eq!(seen.take(), [r#"everything: Left { city: "A" }"#]);
    let feed = Category::new("person").unwrap().into();
    let letters = test
        .store()
        .list_dead_letters("people", &feed, None, 10)
        .await;
    let reasons: Vec<_> = letters
        .unwrap()
        .iter()
        .map(|letter| letter.reason)
        .collect();
    assert_eq!(reasons, [DeadLetterReason::UnknownVersion]);
}

/// By hand nobody sees the hole but the service that is built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Holey {}

impl Event for Holey {
    const DEFINITIONS: &'static [EventDefinition] = &[EventDefinition::new("holey.event")
        .version(4)
        .upcasts(&[Upcast::new(2, Ok)])];

    fn definition(&self) -> &'static EventDefinition {
        &Self::DEFINITIONS[0]
    }
}

#[test]
fn a_service_is_not_built_with_a_hole_in_an_upcast_chain() {
    let seen = Seen::default();
    let built = Service::builder("holey")
        .store(MemoryStore::new())
        .handler(seen.handler::<Holey>("a", "holey.event"))
        .handler(seen.handler::<Holey>("b", "holey.*"))
        .build();
    let hole = |from| {
        Mistake::MissingUpcast(MissingUpcast {
            event_type: "holey.event",
            from,
        })
    };
    assert_eq!(built.unwrap_err().mistakes(), [hole(1), hole(3)]);

    let recorded = RecordedEvent::new(
        "holey.event",
        "{}",
        Position::new(1, 0),
        None,
        old("holey.event", 3, json!({})).metadata().clone(),
    );
    let error = recorded.decode::<Holey>().unwrap_err();
    assert!(
        matches!(
            error,
            CodecError::MissingUpcast(MissingUpcast { from: 3, .. })
        ),
        "{error}"
    );
}
