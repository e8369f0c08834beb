//! `#[derive(Event)]`.

use event_core::testing::TestService;
use event_core::{BoxError, Event, EventRegistration, Service};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("macros.named", key = repository)]
pub(crate) struct Named {
    pub(crate) repository: String,
    pub(crate) commits: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("macros.tuple", key = 1)]
pub(crate) struct Tuple(pub(crate) String, pub(crate) u32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("macros.newtype")]
pub(crate) struct Newtype(pub(crate) String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("macros.unit")]
pub(crate) struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("macros.chunk.sent", realtime)]
pub(crate) struct Chunk {
    pub(crate) r#type: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(realtime, key = r#type, "macros.other.order")]
pub(crate) struct OtherOrder {
    pub(crate) r#type: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("macros.several")]
#[event(key = id)]
pub(crate) struct SeveralAttributes {
    pub(crate) id: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Shapes {
    #[event("macros.shapes.unit")]
    Unit,
    #[event("macros.shapes.newtype", key = 0)]
    #[serde(rename = "other")]
    Newtype(String),
    #[event("macros.shapes.tuple", key = 1, realtime)]
    Tuple(String, u32),
    #[event("macros.shapes.struct", key = name)]
    Struct { name: String, size: u32 },
}

#[test]
fn a_struct_has_one_definition() {
    let named = Named {
        repository: "octo/hello".into(),
        commits: 2,
    };
    assert_eq!(Named::DEFINITIONS.len(), 1);
    assert_eq!(named.definition().name(), "macros.named");
    assert_eq!(named.definition().variant_index(), None);
    assert!(!named.definition().is_realtime());
    assert_eq!(named.key().as_deref(), Some("octo/hello"));
    assert_eq!(Tuple("a".into(), 7).key().as_deref(), Some("7"));
    assert_eq!(Unit.definition().name(), "macros.unit");
    assert_eq!(Unit.key(), None);
    let chunk = Chunk { r#type: "x".into() };
    assert!(chunk.definition().is_realtime());
    let other = OtherOrder { r#type: "x".into() };
    assert_eq!(other.key().as_deref(), Some("x"));
    assert!(other.definition().is_realtime());
    assert_eq!(SeveralAttributes { id: 3 }.key().as_deref(), Some("3"));
}

#[tokio::test]
async fn every_shape_is_stored_and_read() -> Result<(), BoxError> {
    let builder = Service::builder("macros").without_discovered_handlers();
    let test = TestService::start(builder).await?;
    let named = Named {
        repository: "octo/hello".into(),
        commits: 2,
    };
    let shapes = [
        Shapes::Unit,
        Shapes::Newtype("a".into()),
        Shapes::Struct {
            name: "c".into(),
            size: 1,
        },
        Shapes::Tuple("b".into(), 5),
    ];
    test.publish((named.clone(), Tuple("a".into(), 7), Unit))
        .await?;
    test.publish(Vec::from(shapes.clone())).await?;
    assert_eq!(test.recorded::<Named>().await?, [named]);
    assert_eq!(test.recorded::<Tuple>().await?, [Tuple("a".into(), 7)]);
    assert_eq!(test.recorded::<Unit>().await?, [Unit]);
    // The realtime variant comes last.
    assert_eq!(test.recorded::<Shapes>().await?, shapes);
    Ok(())
}

#[test]
fn an_enum_has_one_definition_for_each_variant() {
    let shapes = [
        Shapes::Unit,
        Shapes::Newtype("a".into()),
        Shapes::Tuple("b".into(), 5),
        Shapes::Struct {
            name: "c".into(),
            size: 1,
        },
    ];
    let found: Vec<_> = shapes
        .iter()
        .map(|shape| {
            let definition = shape.definition();
            (definition.name(), definition.variant_index(), shape.key())
        })
        .collect();
    let expected = [
        ("macros.shapes.unit", Some(0), None),
        ("macros.shapes.newtype", Some(1), Some("a".to_owned())),
        ("macros.shapes.tuple", Some(2), Some("5".to_owned())),
        ("macros.shapes.struct", Some(3), Some("c".to_owned())),
    ];
    assert_eq!(found, expected);
    let realtime: Vec<_> = Shapes::DEFINITIONS
        .iter()
        .map(|d| d.is_realtime())
        .collect();
    assert_eq!(realtime, [false, false, true, false]);
}

#[test]
fn events_are_registered() {
    let shapes = EventRegistration::all()
        .find(|registration| registration.rust_type().ends_with("::Shapes"))
        .unwrap();
    assert_eq!(shapes.definitions(), Shapes::DEFINITIONS);
}
