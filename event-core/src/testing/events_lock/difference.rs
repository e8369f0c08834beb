//! What has changed from one schema to another, field by field.

use serde_json::Value;

/// Something that has changed.
pub(super) struct Change {
    pub(super) what: String,
    /// Whether what was written before is read the same.
    pub(super) is_harmless: bool,
}

/// Where in a payload a schema stands.
pub(super) struct Place<'a> {
    path: Vec<String>,
    roots: (&'a Value, &'a Value),
    /// References that were followed already.
    followed: Vec<(String, String)>,
}

impl<'a> Place<'a> {
    pub(super) fn payload(before: &'a Value, now: &'a Value) -> Self {
        Self {
            path: Vec::new(),
            roots: (before, now),
            followed: Vec::new(),
        }
    }

    fn name(&self) -> String {
        if self.path.is_empty() {
            "the payload".to_owned()
        } else {
            format!("field `{}`", self.path.join("."))
        }
    }

    fn field(&self, name: &str) -> String {
        let mut path = self.path.clone();
        path.push(name.to_owned());
        format!("field `{}`", path.join("."))
    }

    fn at<T>(&mut self, step: &str, go: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step.to_owned());
        let outcome = go(self);
        self.path.pop();
        outcome
    }
}

/// Says what has changed from one schema to the other.
pub(super) fn differ(
    place: &mut Place<'_>,
    before: &Value,
    now: &Value,
    changes: &mut Vec<Change>,
) {
    if let (Some(old), Some(new)) = (reference(before), reference(now)) {
        let pair = (old.to_owned(), new.to_owned());
        if place.followed.contains(&pair) {
            return;
        }
        place.followed.push(pair);
    }
    let before = resolve(before, place.roots.0);
    let now = resolve(now, place.roots.1);
    let (Some(old_fields), Some(new_fields)) = (fields(before), fields(now)) else {
        let items = |schema: &Value| schema.get("items").cloned();
        match (items(before), items(now)) {
            (Some(old), Some(new)) if without(before, "items") == without(now, "items") => {
                place.at("[]", |place| differ(place, &old, &new, changes));
            }
            _ if before != now && !same_references(place, before, now) => changes.push(Change {
                what: format!(
                    "{} was {}, and is {}",
                    place.name(),
                    brief(before),
                    brief(now)
                ),
                is_harmless: false,
            }),
            _ => {}
        }
        return;
    };
    for (name, old) in old_fields {
        match new_fields.get(name) {
            Some(new) => place.at(name, |place| differ(place, old, new, changes)),
            None => changes.push(Change {
                what: format!("{} is gone", place.field(name)),
                is_harmless: false,
            }),
        }
    }
    for name in new_fields.keys() {
        if !old_fields.contains_key(name) {
            let is_harmless = !requires(now, name);
            let kind = if is_harmless { "optional" } else { "required" };
            changes.push(Change {
                what: format!("{} is new and {kind}", place.field(name)),
                is_harmless,
            });
        } else if requires(before, name) != requires(now, name) {
            let is_harmless = requires(before, name);
            let what = if is_harmless { "optional" } else { "required" };
            changes.push(Change {
                what: format!("{} is {what} now", place.field(name)),
                is_harmless,
            });
        }
    }
    let rest = |schema: &Value| {
        without(
            &without(&without(schema, "properties"), "required"),
            "$defs",
        )
    };
    if rest(before) != rest(now) {
        changes.push(Change {
            what: format!(
                "{} was {}, and is {}",
                place.name(),
                brief(&rest(before)),
                brief(&rest(now))
            ),
            is_harmless: false,
        });
    }
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()
}

pub(super) fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    reference(schema)
        .and_then(|reference| root.pointer(reference.strip_prefix('#')?))
        .unwrap_or(schema)
}

pub(super) fn fields(schema: &Value) -> Option<&serde_json::Map<String, Value>> {
    schema.get("properties")?.as_object()
}

fn requires(schema: &Value, field: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|names| names.iter().any(|name| name == field))
}

fn without(schema: &Value, name: &str) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(object) = &mut schema {
        object.remove(name);
    }
    schema
}

/// Whether two schemas that are the same on their face are so below, too.
fn same_references(place: &Place<'_>, before: &Value, now: &Value) -> bool {
    let definitions = |root: &Value| root.get("$defs").cloned();
    without(before, "$defs") == without(now, "$defs")
        && definitions(place.roots.0) == definitions(place.roots.1)
}

/// A schema in few words.
fn brief(schema: &Value) -> String {
    let kind = schema.get("type");
    let format = schema.get("format").and_then(Value::as_str);
    match (kind, format) {
        (Some(Value::String(kind)), Some(format)) => format!("{kind} ({format})"),
        (Some(Value::String(kind)), None) if schema.as_object().is_some_and(|o| o.len() == 1) => {
            kind.clone()
        }
        _ => schema.to_string(),
    }
}
