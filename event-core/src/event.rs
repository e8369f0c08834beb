//! Events: typed facts, and what their types are called.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::codec::{self, CodecError};
use crate::pattern;
use crate::recorded::RecordedEvent;

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

    /// Types of events that are stored, and that a value of this Rust type can have no more.
    const PAST: &'static [PastEvent] = &[];

    /// Reads a stored event of a type that was split: one of [`PAST`](Event::PAST).
    ///
    /// # Errors
    /// What serde says where the payload does not fit.
    fn split(event_type: &str, payload: Value) -> Result<Vec<Self>, serde_json::Error> {
        let _ = (event_type, payload);
        Ok(Vec::new())
    }
}

/// One event type: its name, how it travels, and how its shape has changed.
#[derive(Clone, Copy, Debug)]
pub struct EventDefinition {
    name: &'static str,
    realtime: bool,
    variant: Option<u32>,
    version: u32,
    formerly: &'static [&'static str],
    upcasts: &'static [Upcast],
}

/// Two definitions are the same where their names are, their ways, their variants and their versions.
impl PartialEq for EventDefinition {
    fn eq(&self, other: &Self) -> bool {
        let of = |one: &Self| (one.name, one.realtime, one.variant, one.version);
        of(self) == of(other) && self.formerly == other.formerly
    }
}

impl Eq for EventDefinition {}

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
            version: 1,
            formerly: &[],
            upcasts: &[],
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

    /// The version of the payload's shape that this program writes, counted from 1.
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// How stored payloads of older versions become those of the next one: one for each version below
    /// this one's.
    pub const fn upcasts(mut self, upcasts: &'static [Upcast]) -> Self {
        self.upcasts = upcasts;
        self
    }

    /// Names under which events of this type were stored before.
    pub const fn formerly(mut self, names: &'static [&'static str]) -> Self {
        self.formerly = names;
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

    /// The version of the payload's shape that this program writes, counted from 1.
    pub const fn schema_version(&self) -> u32 {
        self.version
    }

    /// Names under which events of this type were stored before.
    pub const fn former_names(&self) -> &'static [&'static str] {
        self.formerly
    }

    /// Whether an event that is stored under this name is of this type.
    pub fn is_stored_as(&self, event_type: &str) -> bool {
        self.name == event_type || self.formerly.contains(&event_type)
    }

    /// What makes of a payload of that version one of the next; `None` where there is nothing.
    pub fn upcast(&self, from: u32) -> Option<&'static Upcast> {
        self.upcasts.iter().find(|upcast| upcast.from == from)
    }

    /// The versions from which no upcast leads to the next one.
    pub(crate) fn versions_without_upcast(&self) -> Vec<u32> {
        (1..self.version)
            .filter(|version| self.upcast(*version).is_none())
            .collect()
    }

    /// The category, which is the first segment of the name.
    pub fn category(&self) -> Category {
        Category(Cow::Borrowed(first_segment(self.name)))
    }
}

/// Makes of a payload of one version that of the next one.
///
/// ```
/// use event_core::{EventDefinition, Upcast};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct PushedV1 {
///     repository: String,
/// }
///
/// #[derive(Serialize)]
/// struct Pushed {
///     repository: String,
///     branch: String,
/// }
///
/// fn add_branch(old: PushedV1) -> Pushed {
///     Pushed { repository: old.repository, branch: "main".into() }
/// }
///
/// const PUSHED: EventDefinition = EventDefinition::new("github.push")
///     .version(2)
///     .upcasts(&[Upcast::new(1, |payload| Upcast::apply(add_branch, payload))]);
///
/// let upcast = PUSHED.upcast(1).unwrap();
/// let payload = upcast.convert(serde_json::json!({"repository": "octo/hello"})).unwrap();
/// assert_eq!(payload["branch"], "main");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Upcast {
    from: u32,
    convert: fn(Value) -> Result<Value, serde_json::Error>,
}

impl Upcast {
    /// Converts payloads of version `from` to version `from + 1`.
    pub const fn new(from: u32, convert: fn(Value) -> Result<Value, serde_json::Error>) -> Self {
        Self { from, convert }
    }

    /// Calls a function from one JSON [`Value`] to another, or from the old type to the new one: what
    /// serde can read, and what it can write.
    ///
    /// # Errors
    /// What serde says where the payload does not fit, or cannot be written.
    pub fn apply<I: DeserializeOwned, O: Serialize>(
        function: impl FnOnce(I) -> O,
        payload: Value,
    ) -> Result<Value, serde_json::Error> {
        serde_json::to_value(function(serde_json::from_value(payload)?))
    }

    /// The version that it reads.
    pub const fn from(&self) -> u32 {
        self.from
    }

    /// Converts a payload.
    ///
    /// # Errors
    /// What serde says where the payload does not fit.
    pub fn convert(&self, payload: Value) -> Result<Value, serde_json::Error> {
        (self.convert)(payload)
    }
}

/// A version of an event that no upcast leads on from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing brings `{event_type}` from version {from} to version {}; add `upcast({from} = function)` to its `#[event(…)]`", from + 1
)]
pub struct MissingUpcast {
    /// The event's type.
    pub event_type: &'static str,
    /// The version that nothing reads.
    pub from: u32,
}

/// Whether each event can be read in every version that there was.
pub(crate) const fn upcasts_are_whole(definitions: &[EventDefinition]) -> bool {
    let mut index = 0;
    while index < definitions.len() {
        let definition = &definitions[index];
        let mut version = 1;
        while version < definition.version {
            let mut at = 0;
            while at < definition.upcasts.len() && definition.upcasts[at].from != version {
                at += 1;
            }
            if at == definition.upcasts.len() {
                return false;
            }
            version += 1;
        }
        index += 1;
    }
    true
}

/// A type of events that are stored, and that are written no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastEvent {
    name: &'static str,
    is_split: bool,
}

impl PastEvent {
    /// Events of this type mean nothing any more: whoever reads them passes over them.
    ///
    /// # Panics
    /// If `name` is no event type; an error of the compiler, as in [`EventDefinition::new`].
    pub const fn retired(name: &'static str) -> Self {
        Self {
            name: EventDefinition::new(name).name,
            is_split: false,
        }
    }

    /// An event of this type is read as some events of other types: see [`Event::split`].
    ///
    /// # Panics
    /// If `name` is no event type; an error of the compiler, as in [`EventDefinition::new`].
    pub const fn split(name: &'static str) -> Self {
        Self {
            name: EventDefinition::new(name).name,
            is_split: true,
        }
    }

    /// Calls a function from the old payload to the events of today.
    ///
    /// # Errors
    /// What serde says where the payload does not fit.
    pub fn apply<I: DeserializeOwned, O: IntoIterator<Item = E>, E>(
        function: impl FnOnce(I) -> O,
        payload: Value,
    ) -> Result<Vec<E>, serde_json::Error> {
        Ok(function(serde_json::from_value(payload)?)
            .into_iter()
            .collect())
    }

    /// The full dotted name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it is read as other events.
    pub const fn is_split(&self) -> bool {
        self.is_split
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
    past: &'static [PastEvent],
    schemas: Option<fn() -> Option<Vec<Value>>>,
    read: Option<TryRead>,
}

/// Whether a stored event can be read as some type; `None` where that has no such event.
type TryRead = fn(&RecordedEvent) -> Option<Result<(), CodecError>>;

/// Whether a stored event can be read as `E`; `None` where `E` has no such type.
fn try_read<E: Event>(event: &RecordedEvent) -> Option<Result<(), CodecError>> {
    codec::find::<E>(event.event_type()).ok()?;
    Some(event.decode_all::<E>().map(drop))
}

impl EventRegistration {
    /// Names the Rust type, with its path, and what it defines.
    pub const fn new(rust_type: &'static str, definitions: &'static [EventDefinition]) -> Self {
        Self {
            rust_type,
            definitions,
            past: &[],
            schemas: None,
            read: None,
        }
    }

    /// Has stored events read as the Rust type, where somebody verifies that they can be.
    pub const fn read_as<E: Event>(mut self) -> Self {
        self.read = Some(try_read::<E>);
        self
    }

    /// Whether a stored event can be read as the Rust type; `None` where that has no such type.
    pub(crate) fn try_read(&self, event: &RecordedEvent) -> Option<Result<(), CodecError>> {
        self.read.and_then(|read| read(event))
    }

    /// Names what the Rust type has no more.
    pub const fn past(mut self, past: &'static [PastEvent]) -> Self {
        self.past = past;
        self
    }

    /// Gives a JSON schema for the payload of each definition, for generated code.
    #[doc(hidden)]
    pub const fn schemas(mut self, schemas: Option<fn() -> Option<Vec<Value>>>) -> Self {
        self.schemas = schemas;
        self
    }

    /// What the Rust type has no more.
    pub fn past_events(&self) -> &'static [PastEvent] {
        self.past
    }

    /// A JSON schema for the payload of each definition, where the feature `schema` is on and the Rust
    /// type has one.
    #[cfg(feature = "schema")]
    pub(crate) fn payload_schemas(&self) -> Option<Vec<Value>> {
        self.schemas.and_then(|schemas| schemas())
    }

    /// The name of the Rust type, with its path.
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
