//! Events: typed facts, and what their types are called.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pattern;

/// A typed fact that is recorded once and never changed.
///
/// Derive it; `#[event("…")]` names the type of a struct or of each variant of an enum. The payload
/// of a struct is what serde makes of it; the payload of an enum is the body of the variant alone,
/// so `#[serde(tag = …)]`, `#[serde(untagged)]` and the like are refused on such an enum.
///
/// ```
/// use event_core::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
/// #[event("github.push", key = repository)]
/// pub struct GithubPush {
///     pub repository: String,
///     pub commits: u32,
/// }
///
/// let push = GithubPush { repository: "octo/hello".into(), commits: 2 };
/// assert_eq!(push.definition().name(), "github.push");
/// assert_eq!(push.key().as_deref(), Some("octo/hello"));
/// ```
///
/// # Contract
/// - [`DEFINITIONS`](Event::DEFINITIONS) must list every type that a value can have, each once.
/// - [`definition`](Event::definition) must return one of them.
/// - An enum's definitions must carry the [`variant`](EventDefinition::variant) they stand for.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "add `#[derive(Event)]` and `#[event(\"category.name\")]` to `{Self}`"
)]
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Every type that a value of this Rust type can have.
    const DEFINITIONS: &'static [EventDefinition];

    /// The type of this value.
    fn definition(&self) -> &'static EventDefinition;

    /// What must stay in order where the event belongs to no aggregate: events of one key are
    /// handled one after the other.
    fn key(&self) -> Option<String> {
        None
    }
}

/// One event type: its name, and how it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventDefinition {
    name: &'static str,
    realtime: bool,
    variant: Option<u32>,
}

impl EventDefinition {
    /// A stored event type.
    ///
    /// # Panics
    /// If `name` is no event type (see [`is_event_type`]). Definitions are constants, so that is an
    /// error of the compiler.
    #[allow(clippy::panic)] // Only ever evaluated by the compiler: see above.
    pub const fn new(name: &'static str) -> Self {
        if !is_event_type(name) {
            panic!(
                "an event type is lower-case segments joined by dots, such as `github.pr.opened`"
            );
        }
        Self {
            name,
            realtime: false,
            variant: None,
        }
    }

    /// Sends events of this type by Pub/Sub and keeps them nowhere.
    pub const fn realtime(mut self) -> Self {
        self.realtime = true;
        self
    }

    /// The index of the enum variant that this type stands for, counted from 0.
    pub const fn variant(mut self, index: u32) -> Self {
        self.variant = Some(index);
        self
    }

    /// The full dotted name, such as `sdlc.phase.changed`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether events of this type are sent by Pub/Sub and kept nowhere.
    pub const fn is_realtime(&self) -> bool {
        self.realtime
    }

    /// The index of the enum variant, or `None` where the event is a struct.
    pub const fn variant_index(&self) -> Option<u32> {
        self.variant
    }

    /// The category, which is the first segment of the name.
    pub fn category(&self) -> Category {
        Category(Cow::Borrowed(first_segment(self.name)))
    }
}

/// Whether `name` matches `^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$`.
pub const fn is_event_type(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || !bytes[0].is_ascii_lowercase() {
        return false;
    }
    let mut dots = 0;
    let mut index = 1;
    while index < bytes.len() {
        match bytes[index] {
            b'.' => {
                if bytes[index - 1] == b'.' {
                    return false;
                }
                dots += 1;
            }
            b'a'..=b'z' | b'0'..=b'9' | b'_' => {}
            _ => return false,
        }
        index += 1;
    }
    dots > 0 && bytes[bytes.len() - 1] != b'.'
}

fn first_segment(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// The first segment of an event type: `sdlc` in `sdlc.phase.changed`. Events of one category lie in
/// one feed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Category(Cow<'static, str>);

impl Category {
    /// Checks that `name` matches `^[a-z][a-z0-9_]*$`.
    ///
    /// # Errors
    /// [`InvalidCategory`] where it does not.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidCategory> {
        let name = name.into();
        let mut bytes = name.bytes();
        let valid = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if valid {
            Ok(Self(Cow::Owned(name)))
        } else {
            Err(InvalidCategory { name })
        }
    }

    /// The category of a full event type.
    ///
    /// # Errors
    /// [`InvalidCategory`] where `event_type` does not begin with a category.
    pub fn of(event_type: &str) -> Result<Self, InvalidCategory> {
        Self::new(first_segment(event_type))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no category.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is no category; write one word of lower-case letters, digits and `_` that begins with a letter, such as `github`"
)]
pub struct InvalidCategory {
    /// What was given.
    pub name: String,
}

/// The event types that something takes or returns, known to the compiler.
///
/// It is a tree because the compiler cannot join slices of generic types.
#[derive(Clone, Copy, Debug)]
pub enum Declared {
    /// No event at all, as `()`.
    Nothing,
    /// Any event, as [`RecordedEvent`](crate::RecordedEvent).
    Anything,
    /// The types of one Rust type.
    Types(&'static [EventDefinition]),
    /// Those of several, as of a tuple.
    Each(&'static [Declared]),
    /// Events of the aggregate type named here, with their aggregate.
    Aggregate(&'static str, &'static [EventDefinition]),
}

impl Declared {
    /// Whether there is no type at all.
    pub const fn is_nothing(&self) -> bool {
        match self {
            Declared::Nothing => true,
            Declared::Anything => false,
            Declared::Types(types) | Declared::Aggregate(_, types) => types.is_empty(),
            Declared::Each(parts) => {
                let mut index = 0;
                while index < parts.len() {
                    if !parts[index].is_nothing() {
                        return false;
                    }
                    index += 1;
                }
                true
            }
        }
    }

    /// Whether a type that `pattern` matches is among them. A full event type is a pattern, too.
    pub const fn matches(&self, pattern: &str) -> bool {
        match self {
            Declared::Nothing => false,
            Declared::Anything => true,
            Declared::Types(types) | Declared::Aggregate(_, types) => {
                let mut index = 0;
                while index < types.len() {
                    if pattern::matches(pattern, types[index].name()) {
                        return true;
                    }
                    index += 1;
                }
                false
            }
            Declared::Each(parts) => {
                let mut index = 0;
                while index < parts.len() {
                    if parts[index].matches(pattern) {
                        return true;
                    }
                    index += 1;
                }
                false
            }
        }
    }

    /// Whether every type among them that `pattern` matches is a realtime type (also where there
    /// is none). `Anything` answers `true`: nothing is known against it.
    pub const fn only_realtime(&self, pattern: &str) -> bool {
        self.all_travel(pattern, true)
    }

    /// Whether every type among them that `pattern` matches is a stored type (also where there is
    /// none). `Anything` answers `true`: nothing is known against it.
    pub const fn only_stored(&self, pattern: &str) -> bool {
        self.all_travel(pattern, false)
    }

    const fn all_travel(&self, pattern: &str, realtime: bool) -> bool {
        match self {
            Declared::Nothing | Declared::Anything => true,
            Declared::Types(types) | Declared::Aggregate(_, types) => {
                let mut index = 0;
                while index < types.len() {
                    if pattern::matches(pattern, types[index].name())
                        && types[index].is_realtime() != realtime
                    {
                        return false;
                    }
                    index += 1;
                }
                true
            }
            Declared::Each(parts) => {
                let mut index = 0;
                while index < parts.len() {
                    if !parts[index].all_travel(pattern, realtime) {
                        return false;
                    }
                    index += 1;
                }
                true
            }
        }
    }

    /// Calls `visit` with each definition, and with the aggregate type it belongs to.
    pub fn for_each(&self, visit: &mut dyn FnMut(&'static EventDefinition, Option<&'static str>)) {
        match self {
            Declared::Nothing | Declared::Anything => {}
            Declared::Types(types) => types.iter().for_each(|t| visit(t, None)),
            Declared::Aggregate(name, types) => types.iter().for_each(|t| visit(t, Some(name))),
            Declared::Each(parts) => parts.iter().for_each(|part| part.for_each(visit)),
        }
    }
}

/// The event types of one Rust type, as `#[derive(Event)]` reports them to every service of the
/// program.
#[derive(Debug)]
pub struct EventRegistration {
    rust_type: &'static str,
    definitions: &'static [EventDefinition],
}

impl EventRegistration {
    /// Names the Rust type and what it defines.
    pub const fn new(rust_type: &'static str, definitions: &'static [EventDefinition]) -> Self {
        Self {
            rust_type,
            definitions,
        }
    }

    /// The name of the Rust type.
    pub fn rust_type(&self) -> &'static str {
        self.rust_type
    }

    /// What it defines.
    pub fn definitions(&self) -> &'static [EventDefinition] {
        self.definitions
    }

    /// Every registration that is linked into this program, in no particular order.
    pub fn all() -> impl Iterator<Item = &'static EventRegistration> {
        inventory::iter::<EventRegistration>.into_iter()
    }
}

inventory::collect!(EventRegistration);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_are_segments_of_lower_case() {
        for good in ["a.b", "github.push", "sdlc.phase.changed", "a1_.0.x_9"] {
            assert!(is_event_type(good), "{good}");
        }
        for bad in [
            "", "a", ".a", "a.", "a..b", "A.b", "1a.b", "_a.b", "a.B", "a.b-c", "a.*", "ä.b",
        ] {
            assert!(!is_event_type(bad), "{bad}");
        }
    }

    #[test]
    fn categories_are_one_word() {
        assert_eq!(
            Category::of("github.pr.opened").map(|c| c.to_string()),
            Ok("github".to_owned())
        );
        for bad in ["", "A", "a.b", "9", "a-b", "a*"] {
            assert!(Category::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn declared_types_are_found_in_the_tree() {
        const PUSH: &[EventDefinition] = &[EventDefinition::new("github.push")];
        const CHUNK: &[EventDefinition] = &[EventDefinition::new("ai.response.chunk").realtime()];
        const BOTH: Declared = Declared::Each(&[Declared::Types(PUSH), Declared::Types(CHUNK)]);
        assert!(BOTH.matches("ai.*"));
        assert!(BOTH.matches("github.push"));
        assert!(!BOTH.matches("github.pull"));
        assert!(BOTH.only_realtime("ai.*") && !BOTH.only_realtime("*"));
        assert!(BOTH.only_stored("github.*") && !BOTH.only_stored("*"));
        assert!(Declared::Each(&[Declared::Nothing]).is_nothing());
    }
}
