//! Patterns of keys that events fill in.

use serde_json::Value;

use super::error::{CacheError, InvalidKeyPattern};
use crate::glob::push_literal;

/// A pattern of keys, with fields of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPattern {
    text: String,
    parts: Vec<Part>,
    is_exact: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// As a pattern, and as the text that it stands for where nothing in it is one.
    Text { glob: String, plain: String },
    /// The path of a field.
    Field(Vec<String>),
}

/// A pattern that was filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Key(String),
    Matching(String),
    /// A field is null.
    Nothing,
}

impl KeyPattern {
    /// Reads a pattern.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidKeyPattern> {
        Self::read(text, true)
    }

    /// Reads a text in which only braces mean something.
    pub(super) fn parse_literal(text: &str) -> Result<Self, InvalidKeyPattern> {
        Self::read(text, false)
    }

    fn read(text: &str, has_globs: bool) -> Result<Self, InvalidKeyPattern> {
        let unclosed = |character| InvalidKeyPattern::Unclosed {
            pattern: text.to_owned(),
            character,
        };
        if text.is_empty() {
            return Err(InvalidKeyPattern::Empty);
        }
        let mut parts = Vec::new();
        let (mut glob, mut plain) = (String::new(), String::new());
        let mut is_exact = true;
        let mut is_in_brackets = false;
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '{' | '}' if characters.next_if_eq(&character).is_some() => {
                    glob.push(character);
                    plain.push(character);
                }
                '{' => {
                    let mut name = String::new();
                    loop {
                        match characters.next() {
                            Some('}') => break,
                            Some(character) => name.push(character),
                            None => return Err(unclosed('{')),
                        }
                    }
                    let path: Vec<_> = name.split('.').map(str::to_owned).collect();
                    let is_no_name =
                        |name: &String| name.is_empty() || name.contains(char::is_whitespace);
                    if path.iter().any(is_no_name) {
                        return Err(InvalidKeyPattern::NoField {
                            pattern: text.to_owned(),
                        });
                    }
                    let (glob, plain) = (std::mem::take(&mut glob), std::mem::take(&mut plain));
                    parts.push(Part::Text { glob, plain });
                    parts.push(Part::Field(path));
                }
                '}' => return Err(unclosed('}')),
                _ if !has_globs => {
                    push_literal(&mut glob, character.encode_utf8(&mut [0; 4]));
                    plain.push(character);
                }
                '\\' => {
                    let escaped = characters.next().unwrap_or('\\');
                    glob.push('\\');
                    glob.push(escaped);
                    plain.push(escaped);
                }
                _ => {
                    is_exact &= !matches!(character, '*' | '?' | '[');
                    match character {
                        '[' => is_in_brackets = true,
                        ']' => is_in_brackets = false,
                        _ => {}
                    }
                    glob.push(character);
                    plain.push(character);
                }
            }
        }
        if is_in_brackets {
            return Err(unclosed('['));
        }
        parts.push(Part::Text { glob, plain });
        Ok(Self {
            text: text.to_owned(),
            parts,
            is_exact,
        })
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Fills in what an event has.
    pub(super) fn fill(&self, event_type: &str, payload: &Value) -> Result<Filled, CacheError> {
        let mut filled = String::new();
        for part in &self.parts {
            let path = match part {
                Part::Text { plain, .. } if self.is_exact => {
                    filled.push_str(plain);
                    continue;
                }
                Part::Text { glob, .. } => {
                    filled.push_str(glob);
                    continue;
                }
                Part::Field(path) => path,
            };
            let found = path.iter().try_fold(payload, |value, name| value.get(name));
            let value = match found {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                Some(Value::Null) => return Ok(Filled::Nothing),
                _ => {
                    return Err(CacheError::Field {
                        event_type: event_type.to_owned(),
                        field: path.join("."),
                        pattern: self.text.clone(),
                    });
                }
            };
            if self.is_exact {
                filled.push_str(&value);
            } else {
                push_literal(&mut filled, &value);
            }
        }
        Ok(if self.is_exact {
            Filled::Key(filled)
        } else {
            Filled::Matching(filled)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(pattern: &str, payload: &Value) -> Filled {
        let pattern = KeyPattern::parse(pattern).unwrap();
        pattern.fill("repository.updated", payload).unwrap()
    }

    fn key(text: &str) -> Filled {
        Filled::Key(text.to_owned())
    }

    fn matching(text: &str) -> Filled {
        Filled::Matching(text.to_owned())
    }

    #[test]
    fn the_value_of_a_field_is_no_pattern() {
        let event = serde_json::json!({"repository": r"a*b?[c]\d", "owner": {"id": 7}});
        let filled = fill("repo:{repository}:*", &event);
        assert_eq!(filled, matching(r"repo:a\*b\?\[c\]\\d:*"));
        // A key is none either.
        let filled = fill("repo:{repository}:{owner.id}", &event);
        assert_eq!(filled, key(r"repo:a*b?[c]\d:7"));
    }

    #[test]
    fn what_is_escaped_means_itself() {
        let event = serde_json::json!({"is_new": true});
        assert_eq!(fill(r"a\*{{{is_new}}}", &event), key("a*{true}"));
        assert_eq!(fill(r"a\*[b-c]", &event), matching(r"a\*[b-c]"));
        let tag = KeyPattern::parse_literal(r"a*[\{is_new}").unwrap();
        assert_eq!(tag.fill("x.y", &event).unwrap(), key(r"a*[\true"));
    }

    #[test]
    fn null_names_nothing_and_what_is_missing_is_an_error() {
        let event = serde_json::json!({"none": null, "many": [1]});
        assert_eq!(fill("a:{none}:*", &event), Filled::Nothing);
        for field in ["many", "other", "none.deep"] {
            let pattern = KeyPattern::parse(&format!("a:{{{field}}}")).unwrap();
            let error = pattern.fill("x.y", &event).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn what_is_not_closed_is_refused() {
        for (pattern, character) in [("a{b", '{'), ("a}b", '}'), ("a[b", '[')] {
            let error = KeyPattern::parse(pattern).unwrap_err();
            let pattern = pattern.to_owned();
            assert_eq!(error, InvalidKeyPattern::Unclosed { pattern, character });
        }
        assert_eq!(KeyPattern::parse("").unwrap_err(), InvalidKeyPattern::Empty);
        for pattern in ["a{}", "{a.}", "{.}", "{ a }", "{a. b}"] {
            let error = KeyPattern::parse(pattern).unwrap_err();
            assert!(matches!(error, InvalidKeyPattern::NoField { .. }));
        }
    }
}
