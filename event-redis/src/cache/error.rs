//! What can go wrong with a cache.

use std::fmt;

use event_core::{BoxError, Classify, ErrorClass, StoreError};

/// A cache that could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The server does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value cannot be written as JSON.
    #[error(
        "the value for `{key}` cannot be written as JSON; correct how serde writes it: {source}"
    )]
    Encode {
        /// The key.
        key: String,
        /// What serde says.
        source: serde_json::Error,
    },
    /// What is kept is not what was asked for.
    #[error(
        "what is kept for `{key}` cannot be read as `{rust_type}`; remove it, or give the cache another name with the new shape: {source}"
    )]
    Decode {
        /// The key.
        key: String,
        /// The type that was asked for.
        rust_type: &'static str,
        /// What serde says.
        source: serde_json::Error,
    },
    /// A value could not be loaded.
    #[error("the value for `{key}` could not be loaded: {source}")]
    Load {
        /// The key.
        key: String,
        /// What went wrong.
        source: BoxError,
    },
    /// An event has no such field, or it is neither a text nor a number nor a boolean.
    #[error(
        "`{event_type}` has no field `{field}` that is a text, a number or a boolean, as `{pattern}` wants; correct the pattern, and redrive the event, which is a dead letter of its group then, or let what is cached expire"
    )]
    Field {
        /// The event's type.
        event_type: String,
        /// The field.
        field: String,
        /// The pattern.
        pattern: String,
    },
    /// An event cannot be written as JSON, so that nothing is known of its fields.
    #[error("the fields of the event are not known: {source}")]
    Event {
        /// What is wrong.
        source: event_core::CodecError,
    },
}

impl Classify for CacheError {
    fn class(&self) -> ErrorClass {
        match self {
            // Another attempt would find the same.
            CacheError::Field { .. } | CacheError::Event { .. } => ErrorClass::Reject,
            _ => ErrorClass::Retry,
        }
    }
}

/// A name that no cache can have.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is no name of a cache; write one word of lower-case letters, digits and `_` that begins with a letter, such as `pages`"
)]
pub struct InvalidCacheName {
    /// What was given.
    pub name: String,
}

/// A text that is no pattern of keys.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyPattern {
    /// Nothing was given.
    #[error("the pattern is empty; write the keys that go, such as `repo:{{repository}}:*`")]
    Empty,
    /// A brace or a bracket without its other one.
    #[error(
        "`{pattern}` has a `{character}` without its other one; write that, too, or write `{{{{`, `}}}}` or `\\[` where the character itself is meant"
    )]
    Unclosed {
        /// What was given.
        pattern: String,
        /// The brace or the bracket.
        character: char,
    },
    /// There is no name between braces, or it has blanks.
    #[error(
        "`{pattern}` has braces without a field's name, or with blanks; write it as it is in JSON, such as `{{repository}}`"
    )]
    NoField {
        /// What was given.
        pattern: String,
    },
}

/// As [`Display`](fmt::Display): a `main` that returns an error prints this, and the sentence is for those who read it
/// there.
impl fmt::Debug for InvalidCacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// As [`Display`](fmt::Display): a `main` that returns an error prints this, and the sentence is for those who read it
/// there.
impl fmt::Debug for InvalidKeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
