//! The body: an event's payload alone.
//!
//! Serde writes a value of an enum as `{"PhaseChanged": {"from": …}}`. What is stored is the body of
//! the variant, `{"from": …}`, since the event type already says which variant it is. So the
//! serializer here leaves the outer layer away, and the deserializer puts it back.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, IntoDeserializer,
    VariantAccess, Visitor,
};
use serde::ser::{
    Error as _, Impossible, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleVariant, Serializer,
};

use crate::event::{Event, EventDefinition};

/// What an event without content is stored as: an object like all others.
const EMPTY: &[u8] = b"{}";

pub(super) fn encode<E: Event>(event: &E) -> Result<String, serde_json::Error> {
    let mut json = Vec::with_capacity(128);
    if event.definition().variant_index().is_some() {
        event.serialize(VariantBody(&mut serde_json::Serializer::new(&mut json)))?;
    } else {
        event.serialize(&mut serde_json::Serializer::new(&mut json))?;
    }
    if json == b"null" {
        json = EMPTY.to_vec();
    }
    String::from_utf8(json).map_err(serde_json::Error::custom)
}

/// Reads the payload of one event type.
pub(crate) struct BodySeed<E> {
    definition: &'static EventDefinition,
    event: PhantomData<E>,
}

impl<E: Event> BodySeed<E> {
    pub(crate) fn new(definition: &'static EventDefinition) -> Self {
        Self {
            definition,
            event: PhantomData,
        }
    }
}

impl<'de, E: Event> DeserializeSeed<'de> for BodySeed<E> {
    type Value = E;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<E, D::Error> {
        E::deserialize(Body {
            variant: self.definition.variant_index(),
            json: deserializer,
        })
    }
}

type Json<'a, 'b> = &'a mut serde_json::Serializer<&'b mut Vec<u8>>;

/// Writes the body of a variant, and refuses everything that is not a variant.
struct VariantBody<'a, 'b>(Json<'a, 'b>);

fn not_a_variant<T>() -> Result<T, serde_json::Error> {
    Err(serde_json::Error::custom(
        "an event enum must be written as serde's derive writes an enum without attributes",
    ))
}

macro_rules! refuse {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, _: $type) -> Result<Self::Ok, Self::Error> {
            not_a_variant()
        })*
    };
}

impl<'a, 'b> Serializer for VariantBody<'a, 'b> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeSeq = Impossible<(), Self::Error>;
    type SerializeTuple = Impossible<(), Self::Error>;
    type SerializeTupleStruct = Impossible<(), Self::Error>;
    type SerializeMap = Impossible<(), Self::Error>;
    type SerializeStruct = Impossible<(), Self::Error>;
    type SerializeTupleVariant = Bare<<Json<'a, 'b> as Serializer>::SerializeTuple>;
    type SerializeStructVariant = Bare<<Json<'a, 'b> as Serializer>::SerializeStruct>;

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), Self::Error> {
        self.0.serialize_unit()
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        value.serialize(self.0)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, Self::Error> {
        self.0.serialize_tuple(length).map(Bare)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, Self::Error> {
        self.0.serialize_struct(name, length).map(Bare)
    }

    refuse! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    fn serialize_none(self) -> Result<(), Self::Error> {
        not_a_variant()
    }

    fn serialize_some<T: ?Sized + Serialize>(self, _: &T) -> Result<(), Self::Error> {
        not_a_variant()
    }

    fn serialize_unit(self) -> Result<(), Self::Error> {
        not_a_variant()
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<(), Self::Error> {
        not_a_variant()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Self::Error> {
        not_a_variant()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Self::Error> {
        not_a_variant()
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Self::Error> {
        not_a_variant()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Self::Error> {
        not_a_variant()
    }

    fn serialize_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, Self::Error> {
        not_a_variant()
    }
}

/// A tuple or struct that is written where serde expects a variant: without the variant's own
/// closing brace.
struct Bare<S>(S);

impl<S: SerializeTuple> SerializeTupleVariant for Bare<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_element(value)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

impl<S: SerializeStruct> SerializeStructVariant for Bare<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: ?Sized + Serialize>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), S::Error> {
        self.0.serialize_field(name, value)
    }

    fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
        self.0.skip_field(name)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

/// Reads the body of a variant as if it were written with its outer layer.
struct Body<D> {
    variant: Option<u32>,
    json: D,
}

macro_rules! pass_on {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            self.json.$method(visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Body<D> {
    type Error = D::Error;

    pass_on! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_option deserialize_unit
        deserialize_seq deserialize_map deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        IgnoredAny::deserialize(self.json)?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.json.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.json.deserialize_tuple(length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.json.deserialize_tuple_struct(name, length, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.json.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.variant {
            Some(index) => visitor.visit_enum(Variant {
                name,
                index,
                json: self.json,
            }),
            None => self.json.deserialize_enum(name, variants, visitor),
        }
    }
}

struct Variant<D> {
    name: &'static str,
    index: u32,
    json: D,
}

impl<'de, D: Deserializer<'de>> EnumAccess<'de> for Variant<D> {
    type Error = D::Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self), Self::Error> {
        let variant = seed.deserialize(u64::from(self.index).into_deserializer())?;
        Ok((variant, self))
    }
}

impl<'de, D: Deserializer<'de>> VariantAccess<'de> for Variant<D> {
    type Error = D::Error;

    fn unit_variant(self) -> Result<(), Self::Error> {
        IgnoredAny::deserialize(self.json).map(|_| ())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, Self::Error> {
        seed.deserialize(self.json)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.json.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.json.deserialize_struct(self.name, fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::encode;
    use crate::codec::{CodecError, Decoded};
    use crate::event::{Event, EventDefinition};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Shape {
        Point,
        Dots(Vec<u8>),
        Named(u8, String),
        #[serde(rename_all = "camelCase")]
        Square {
            side_length: u8,
        },
    }

    const SHAPES: &[EventDefinition] = &[
        EventDefinition::new("shape.unit").variant(0),
        EventDefinition::new("shape.newtype").variant(1),
        EventDefinition::new("shape.tuple").variant(2),
        EventDefinition::new("shape.struct").variant(3),
    ];

    impl Event for Shape {
        const DEFINITIONS: &'static [EventDefinition] = SHAPES;

        fn definition(&self) -> &'static EventDefinition {
            &SHAPES[match self {
                Shape::Point => 0,
                Shape::Dots(_) => 1,
                Shape::Named(..) => 2,
                Shape::Square { .. } => 3,
            }]
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Started;

    impl Event for Started {
        const DEFINITIONS: &'static [EventDefinition] = &[EventDefinition::new("service.started")];

        fn definition(&self) -> &'static EventDefinition {
            &Self::DEFINITIONS[0]
        }
    }

    fn decode<E: Event>(name: &str, version: u32, json: &str) -> Result<E, CodecError> {
        match crate::codec::decode(name, version, json)? {
            Decoded::One(event) => Ok(event),
            Decoded::Several(_) => unreachable!("nothing was split"),
        }
    }

    #[test]
    fn the_body_of_a_variant_stands_alone() {
        for (shape, json) in [
            (Shape::Point, "{}"),
            (Shape::Dots(vec![1, 2]), "[1,2]"),
            (Shape::Named(3, "x".into()), r#"[3,"x"]"#),
            (Shape::Square { side_length: 4 }, r#"{"sideLength":4}"#),
        ] {
            assert_eq!(encode(&shape).unwrap(), json);
            let name = shape.definition().name();
            assert_eq!(decode::<Shape>(name, 1, json).unwrap(), shape);
        }
    }

    #[test]
    fn an_event_without_content_is_an_empty_object() {
        assert_eq!(encode(&Started).unwrap(), "{}");
        for stored in ["{}", "null", r#"{"more": [1]}"#] {
            assert_eq!(
                decode::<Started>("service.started", 1, stored).unwrap(),
                Started
            );
        }
    }

    #[test]
    fn what_follows_the_payload_is_an_error() {
        assert!(decode::<Shape>("shape.newtype", 1, "[1] 2").is_err());
        assert!(decode::<Shape>("shape.newtype", 2, "[1]").is_err());
        assert!(decode::<Shape>("shape.other", 1, "[1]").is_err());
    }
}
