//! JSON of any shape, looked into only where something is wanted.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The longest text that is taken out of a payload, in bytes. No name, title or path of GitHub's is
/// longer.
const MAX_TEXT_BYTES: usize = 1024;

/// A piece of JSON text, or nothing. What is missing, null or of another shape than wanted is not
/// there: GitHub leaves fields out, and others send deliveries, too.
///
/// Nothing is copied before it is taken out, so that a payload of 25 MB costs its own size and no
/// more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<'a>(Option<&'a RawValue>);

impl<'a> Json<'a> {
    /// Checks that a text is JSON.
    ///
    /// # Errors
    /// Where it is not, and at which column.
    pub fn parse(text: &'a str) -> Result<Self, NotJson> {
        match serde_json::from_str(text) {
            Ok(raw) => Ok(Self(Some(raw))),
            Err(error) => Err(NotJson::new(&error)),
        }
    }

    /// Whether it is an object.
    pub fn is_object(self) -> bool {
        self.raw().is_some_and(|raw| raw.starts_with('{'))
    }

    /// Whether it is there, and not null.
    pub fn is_some(self) -> bool {
        self.raw().is_some_and(|raw| raw != "null")
    }

    /// The text of it.
    pub fn raw(self) -> Option<&'a str> {
        self.0.map(RawValue::get)
    }

    /// Several fields of an object, found in one pass. Of a name that stands twice, the last.
    pub fn fields<const N: usize>(self, names: [&str; N]) -> [Json<'a>; N] {
        let mut found = [Json::default(); N];
        if let Some(mut json) = self.deserializer() {
            let visitor = Fields {
                names,
                found: &mut found,
            };
            // Something else than an object has no fields.
            let _ = json.deserialize_any(visitor);
        }
        found
    }

    /// A field of an object.
    pub fn field(self, name: &str) -> Json<'a> {
        let [field] = self.fields([name]);
        field
    }

    /// A field of a field of ….
    pub fn at(self, path: &[&str]) -> Json<'a> {
        path.iter().fold(self, |json, name| json.field(name))
    }

    /// Each element of an array.
    pub fn each(self, visit: impl FnMut(Json<'a>)) {
        if let Some(mut json) = self.deserializer() {
            // Something else than an array has no elements.
            let _ = json.deserialize_any(Elements(visit));
        }
    }

    /// A string, whole.
    pub fn string(self) -> Option<String> {
        serde_json::from_str(self.raw()?).ok()
    }

    /// A string, cut off where it is longer than any that is meant seriously.
    pub fn text(self) -> Option<String> {
        let mut text = self.string()?;
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        Some(text)
    }

    /// A whole number from 0.
    pub fn number(self) -> Option<u64> {
        serde_json::from_str(self.raw()?).ok()
    }

    /// True or false.
    pub fn flag(self) -> Option<bool> {
        serde_json::from_str(self.raw()?).ok()
    }

    fn deserializer(self) -> Option<serde_json::Deserializer<serde_json::de::StrRead<'a>>> {
        self.raw().map(serde_json::Deserializer::from_str)
    }
}

/// Takes the named fields of an object.
struct Fields<'f, 'a, const N: usize> {
    names: [&'f str; N],
    found: &'f mut [Json<'a>; N],
}

impl<'a, const N: usize> Visitor<'a> for Fields<'_, 'a, N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(FieldName(name)) = map.next_key()? {
            match self.names.iter().position(|wanted| *wanted == name) {
                Some(index) => self.found[index] = Json(Some(map.next_value()?)),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct FieldName<'a>(#[serde(borrow)] Cow<'a, str>);

/// Visits the elements of an array.
struct Elements<F>(F);

impl<'a, F: FnMut(Json<'a>)> Visitor<'a> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&RawValue>()? {
            (self.0)(Json(Some(element)));
        }
        Ok(())
    }
}

/// A text that is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    /// It ends too early.
    #[error("the JSON is cut off after column {column}")]
    CutOff {
        /// Where it ends.
        column: usize,
    },
    /// Something else is wrong with it.
    #[error("not JSON at column {column}: {problem}")]
    Malformed {
        /// Where.
        column: usize,
        /// What.
        problem: String,
    },
}

impl NotJson {
    fn new(error: &serde_json::Error) -> Self {
        let column = error.column();
        if error.is_eof() {
            return Self::CutOff { column };
        }
        // Every text here is one line, so where the line number stands it would mislead.
        let text = error.to_string();
        let problem = text
            .rsplit_once(" at line ")
            .map_or(text.as_str(), |(problem, _)| problem);
        Self::Malformed {
            column,
            problem: problem.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_anything_else_is_not() {
        let json = Json::parse(
            r#"{"a": {"b": "tëxt", "a": 3}, "n": null, "flag": true, "big": 1e3, "neg": -1,
                "list": [1, "two", [], {"x": 3}], "esc\u0061ped": 1, "twice": 1, "twice": 2}"#,
        )
        .unwrap();
        assert!(json.is_object());
        assert_eq!(json.at(&["a", "b"]).text().as_deref(), Some("tëxt"));
        assert_eq!(json.at(&["a", "a"]).number(), Some(3));
        assert_eq!(json.field("flag").flag(), Some(true));
        assert_eq!(json.field("escaped").number(), Some(1));
        assert_eq!(json.field("twice").number(), Some(2));
        for nothing in ["n", "missing", "big", "neg", "list", "flag"] {
            assert_eq!(json.field(nothing).text(), None, "{nothing}");
            assert_eq!(json.field(nothing).number(), None, "{nothing}");
            assert!(!json.at(&[nothing, "x"]).is_some(), "{nothing}");
        }
        assert!(!json.field("n").is_some() && json.field("list").is_some());
        let mut numbers = Vec::new();
        json.field("list")
            .each(|each| numbers.push(each.field("x").number().or(each.number())));
        assert_eq!(numbers, [Some(1), None, None, Some(3)]);
        json.field("a")
            .each(|_| panic!("an object has no elements"));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = format!("\"{}\"", "ü".repeat(MAX_TEXT_BYTES));
        let text = Json::parse(&long).unwrap().text().unwrap();
        assert_eq!(text.len(), MAX_TEXT_BYTES);
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let json = Json::parse(&deep).map(|json| json.field("x").is_some());
        assert_ne!(json, Ok(true));
    }

    #[test]
    fn what_is_not_json_is_told() {
        let problem = |text| Json::parse(text).unwrap_err().to_string();
        assert_eq!(problem(r#"{"a": [1"#), "the JSON is cut off after column 8");
        assert_eq!(
            problem(r#"{"a": }"#),
            "not JSON at column 7: expected value"
        );
    }
}
