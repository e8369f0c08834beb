//! The shapes of payloads, as JSON schemas: only with the feature `schema`.

use std::marker::PhantomData;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserializer;
use serde::de::value::Error;
use serde::de::{Error as _, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value, json};

use crate::event::Event;

/// Finds the schemas of an event, where its type has one. Made by the macro.
#[doc(hidden)]
#[derive(Debug)]
pub struct SchemasOf<E>(PhantomData<E>);

impl<E> SchemasOf<E> {
    #[doc(hidden)]
    pub const NEW: Self = Self(PhantomData);
}

impl<E: Event + JsonSchema> SchemasOf<E> {
    #[doc(hidden)]
    pub fn find(&self) -> Option<Vec<Value>> {
        let root = SchemaSettings::draft2020_12()
            .into_generator()
            .into_root_schema_for::<E>();
        let root = root.to_value();
        let variants = variants_of::<E>();
        let definitions = E::DEFINITIONS.iter();
        let schemas = definitions.map(|definition| match definition.variant_index() {
            None => Some(root.clone()),
            Some(index) => body_of(&root, variants?.get(usize::try_from(index).ok()?)?),
        });
        schemas.collect()
    }
}

/// What is found where the type has none.
#[doc(hidden)]
pub trait WithoutSchemas {
    #[doc(hidden)]
    fn find(&self) -> Option<Vec<Value>> {
        None
    }
}

impl<E> WithoutSchemas for SchemasOf<E> {}

/// The schema of what a variant has in it, out of that of the enum: what is stored is the body alone.
fn body_of(root: &Value, variant: &str) -> Option<Value> {
    let alternatives = match root.get("oneOf").or_else(|| root.get("anyOf")) {
        Some(Value::Array(alternatives)) => alternatives.as_slice(),
        _ => std::slice::from_ref(root),
    };
    let mut body = alternatives.iter().find_map(|alternative| {
        if let Some(body) = alternative
            .pointer("/properties")
            .and_then(|p| p.get(variant))
        {
            return Some(body.clone());
        }
        let is_const = alternative.get("const").is_some_and(|name| name == variant);
        let is_listed = alternative.get("enum").and_then(Value::as_array);
        let is_listed = is_listed.is_some_and(|names| names.iter().any(|name| name == variant));
        // One without content is stored as an empty object.
        (is_const || is_listed).then(|| json!({"type": "object"}))
    })?;
    let shared = needed(&body, root);
    if let Value::Object(body) = &mut body
        && !shared.is_empty()
    {
        body.insert("$defs".into(), Value::Object(shared));
    }
    Some(body)
}

/// Of the schemas that others refer to, those that this one needs.
fn needed(schema: &Value, root: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    let mut open = vec![schema];
    while let Some(next) = open.pop() {
        match next {
            Value::Object(object) => {
                let name = object.get("$ref").and_then(Value::as_str);
                let name = name.and_then(|reference| reference.strip_prefix("#/$defs/"));
                let shared = name.and_then(|name| Some((name, root.get("$defs")?.get(name)?)));
                if let Some((name, shared)) = shared
                    && !found.contains_key(name)
                {
                    found.insert(name.to_owned(), shared.clone());
                    open.push(shared);
                }
                open.extend(object.values());
            }
            Value::Array(values) => open.extend(values),
            _ => {}
        }
    }
    found
}

/// The names of an enum's variants as serde writes them, in order.
fn variants_of<E: Event>() -> Option<&'static [&'static str]> {
    let mut found = None;
    let _ = E::deserialize(VariantNames(&mut found));
    found
}

/// Asks a type what its variants are called, and gives it nothing.
struct VariantNames<'a>(&'a mut Option<&'static [&'static str]>);

impl<'de> Deserializer<'de> for VariantNames<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("there is no value"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = Some(variants);
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// Takes out of a schema what tells nothing of the shape: titles, descriptions, examples.
pub(crate) fn shape(schema: &Value) -> Value {
    match schema {
        Value::Object(object) => {
            let is_text = |name: &str| {
                matches!(
                    name,
                    "title" | "description" | "examples" | "deprecated" | "default" | "$schema"
                )
            };
            let mut kept = Map::new();
            for (name, value) in object {
                if matches!(name.as_str(), "properties" | "$defs" | "patternProperties") {
                    // Here names are those of fields.
                    if let Value::Object(fields) = value {
                        let fields = fields
                            .iter()
                            .map(|(name, value)| (name.clone(), shape(value)));
                        kept.insert(name.clone(), Value::Object(fields.collect()));
                    }
                } else if !is_text(name) {
                    kept.insert(name.clone(), shape(value));
                }
            }
            Value::Object(kept)
        }
        Value::Array(values) => Value::Array(values.iter().map(shape).collect()),
        other => other.clone(),
    }
}
