//! The derive and the attributes of `event-core`, which re-exports them: use them from there.
//!
//! | macro | stands on | makes of it |
//! |---|---|---|
//! | [`#[derive(Event)]`](macro@Event) | a struct, an enum | an event that every service knows |
//! | [`#[event_handler]`](macro@event_handler) | a struct | dependencies, found by type |
//! | | an `impl` block | a handler of each method with `#[on]` |
//! | | an `async fn` | a handler without dependencies |
//! | [`#[projection]`](macro@projection) | an `impl` block | a projection of its methods with `#[on]` |
//! | [`#[on]`](macro@on), [`#[emits]`](macro@emits) | such a method or function | what it reacts to and emits |
//!
//! What they generate are calls of public functions of `event-core`: `EventDefinition::new`,
//! `HandlerDefinition::method` and so on. Everything that they do can be written by hand.
//!
//! Mistakes are reported where they are, all of an item at once. What can be told from the text is
//! checked by the macro; what needs to know types is checked by assertions in the generated code,
//! which the compiler evaluates.

mod arguments;
mod core_path;
mod errors;
mod names;
mod source;

mod event;
mod handler;
mod projection;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes an event of a struct, or of an enum, each of whose variants is an event type.
///
/// ```
/// use event_core::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event("github.push", key = repository)]
/// struct GithubPush {
///     repository: String,
///     commits: u32,
/// }
///
/// #[derive(Serialize, Deserialize, Event)]
/// enum ProjectEvent {
///     #[event("sdlc.project.opened")]
///     Opened { name: String },
///     #[event("sdlc.phase.changed", key = 0)]
///     PhaseChanged(String),
/// }
///
/// let push = GithubPush { repository: "octo/hello".into(), commits: 2 };
/// assert_eq!(push.definition().name(), "github.push");
/// assert_eq!(push.key().as_deref(), Some("octo/hello"));
///
/// let changed = ProjectEvent::PhaseChanged("build".into());
/// assert_eq!(changed.definition().name(), "sdlc.phase.changed");
/// ```
///
/// # The attribute `#[event(…)]`
///
/// | | on a struct | on a variant | on an enum |
/// |---|---|---|---|
/// | `"github.push"` | its event type | its event type | |
/// | `key = field` | the field that names what must stay in order; of a tuple its index, `key = 0` | the same | |
/// | `realtime` | it is sent by Pub/Sub and kept nowhere | the same | |
/// | `version = 3` | the version of its payload's shape, counted from 1 | the same | |
/// | `upcast(1 = f, 2 = g)` | functions from each older version's payload to that of the next: from and to JSON, or types that serde reads and writes | the same | |
/// | `formerly = "a.b"`, `formerly("a.b", "a.c")` | what it was called before | the same | |
/// | `retired("a.b", …)` | | | types that are stored and mean nothing any more: they are passed over |
/// | `split("a.b" = f, …)` | | | types that are stored and are read as others: `f` takes the payload, and gives any number of events |
/// | `crate = path` | where `event_core` is, if not there | | the same, for all variants |
///
/// An event type matches `^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$`; its first segment is its category.
/// A `key` is any field that can be displayed. Names of the past are of the category of today's.
///
/// # The payload
///
/// The payload of a struct is what serde makes of it. The payload of an enum is the body of the
/// variant alone, so these attributes of serde are refused: `tag`, `content`, `untagged`, `from`,
/// `into`, `try_from` on the enum; `skip`, `skip_serializing`, `skip_deserializing`, `other`,
/// `untagged` on a variant.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    event::derive(&parse_macro_input!(input as DeriveInput)).into()
}

/// Declares handlers and their dependencies.
///
/// # On a struct
///
/// Its fields are dependencies, found by their types: anything that can be cloned, and repositories.
/// On a unit struct it says that there are none.
///
/// # On an `impl` block
///
/// Each method with [`#[on]`](macro@on) is a handler, which is called `Struct::method`. Other methods
/// stay what they are.
///
/// ```
/// use std::sync::Arc;
///
/// use event_core::{BoxError, Context, Event, RecordedEvent, event_handler};
/// use serde::{Deserialize, Serialize};
///
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("github.push")]
/// # struct GithubPush { commits: u32 }
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("repository.analyzed")]
/// # struct RepositoryAnalyzed { findings: u32 }
/// trait Analyzer: Send + Sync {
///     fn analyze(&self, push: &GithubPush) -> Result<RepositoryAnalyzed, BoxError>;
/// }
///
/// #[event_handler]
/// struct Repositories {
///     analyzer: Arc<dyn Analyzer>,
/// }
///
/// #[event_handler(group = "repo-agent")]
/// impl Repositories {
///     #[on("github.push")]
///     #[emits("repository.analyzed")]
///     async fn analyze(&self, push: GithubPush) -> Result<RepositoryAnalyzed, BoxError> {
///         self.analyzer.analyze(&push)
///     }
///
///     #[on("github.pr.*")]
///     async fn log(&self, event: &RecordedEvent, context: &Context) {
///         println!("{}, attempt {}", event.event_type(), context.attempt());
///     }
/// }
/// ```
///
/// # On an `async fn`
///
/// ```
/// use event_core::{Event, event_handler};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event("ai.response.chunk", realtime)]
/// struct ResponseChunk {
///     text: String,
/// }
///
/// #[event_handler(on = "ai.response.chunk", realtime)]
/// async fn show(chunk: ResponseChunk) {
///     print!("{}", chunk.text);
/// }
/// ```
///
/// # Options
///
/// | option | on | meaning |
/// |---|---|---|
/// | `on = "github.push"`, `on = ["…", "…"]` | function | as [`#[on]`](macro@on) |
/// | `emits = "repository.analyzed"`, `emits = ["…", "…"]` | function | as [`#[emits]`](macro@emits) |
/// | `group = "repo-agent"` | `impl`, function | runs only in services of this group |
/// | `start = now`, `start = beginning` | `impl`, function | where a new group begins to read; `beginning`, unless it says otherwise. After a position, or at a time: `ServiceBuilder::start` |
/// | `realtime` | `impl`, function | reacts to what is sent by Pub/Sub, in every instance |
/// | `retry(max = 8, base = "100ms", max_delay = "30s")` | `impl`, function, `#[on]` | how a handler that failed is called again: `max` times at most, the first included, after waits that double from `base` to `max_delay`; each part may be left out, and is then as here |
/// | `timeout = "5s"` | `impl`, function, `#[on]` | how long one call may take; one that takes longer has failed |
/// | `on_exhausted = park`, `skip`, `stop` | `impl`, function, `#[on]` | what becomes of an event after the last attempt: it is kept among the dead letters, left out, or the group stops |
/// | `delivery = ordered`, `parallel` | `impl`, function, `#[on]` | whether the events of one key come one after the other, or any at once |
/// | `replay = allow`, `refuse` | `impl`, function, `#[on]` | whether it may be given events again that it has handled (`Service::replay`); `refuse`, unless it says otherwise |
/// | `crate = path` | all | where `event_core` is, if not there |
///
/// # Failures and delivery
///
/// Durations are a whole number and `ms`, `s`, `m` or `h`, in quotes. What stands at the `impl` block
/// holds for all of its methods; a method says it for itself behind the event types of its `#[on]`, and
/// its own option wins over the block's, `retry` as a whole. What neither says is the service's
/// (`ServiceBuilder::default_policy`), and `ServiceBuilder::policy` wins over all.
///
/// ```
/// use event_core::{Classify, ErrorClass, RecordedEvent, event_handler};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the mailbox is gone")]
/// struct Gone;
///
/// impl Classify for Gone {
///     fn class(&self) -> ErrorClass {
///         ErrorClass::Reject
///     }
/// }
///
/// #[event_handler]
/// struct Mails;
///
/// #[event_handler(retry(max = 5, base = "1s"), timeout = "30s", on_exhausted = skip)]
/// impl Mails {
///     #[on("github.push")]
///     async fn tell(&self, _: &RecordedEvent) -> Result<(), Gone> {
///         Err(Gone)
///     }
///
///     #[on("github.pr.*", retry(max = 1), delivery = parallel)]
///     async fn count(&self, _: &RecordedEvent) {}
/// }
/// ```
///
/// An error whose type implements `Classify` decides itself what it means for the event: above,
/// nothing is tried again. Any other is tried again.
///
/// A realtime handler has `retry` and `timeout`. Its events are kept nowhere, so that
/// `on_exhausted = skip` is all that it may say of the last attempt, and `delivery` and `replay` are refused.
///
/// # What a handler takes and returns
///
/// In any order one event and, if it wants, `&Context`:
///
/// | parameter | the event |
/// |---|---|
/// | `event: GithubPush`, `event: &GithubPush` | typed; types that it does not cover are skipped |
/// | `event: &RecordedEvent`, `event: RecordedEvent` | as it lies in the store, of any type |
/// | `context: &Context` | the context |
///
/// It returns nothing, or what it emits: an event, `Option`, `Vec` or a tuple of events, `To` an
/// aggregate, an `Envelope`; or a `Result` of one of these. Its future must be `Send`.
#[proc_macro_attribute]
pub fn event_handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    handler::event_handler(arguments.into(), item.into()).into()
}

/// Makes a projection of a struct: each method with [`#[on]`](macro@on) takes events, and writes what they
/// lead to.
///
/// ```
/// use event_core::{Event, Metadata, Writes, projection};
/// use event_core::projection::NotJson;
/// use serde::{Deserialize, Serialize};
///
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("github.push", key = repository)]
/// # struct GithubPush { repository: String, commits: i64 }
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("github.repository.deleted", key = repository)]
/// # struct RepositoryDeleted { repository: String }
/// struct Pushes;
///
/// #[projection(name = "pushes", version = 1)]
/// impl Pushes {
///     #[on("github.push")]
///     fn pushed(
///         &self,
///         push: &GithubPush,
///         metadata: &Metadata,
///         writes: &mut Writes,
///     ) -> Result<(), NotJson> {
///         writes.increment(&push.repository, "commits", push.commits);
///         writes.set_field(&push.repository, "last", &metadata.timestamp)
///     }
///
///     #[on("github.repository.deleted")]
///     fn deleted(&self, deleted: RepositoryDeleted, writes: &mut Writes) {
///         writes.remove(deleted.repository);
///     }
/// }
/// ```
///
/// | option | meaning |
/// |---|---|
/// | `name = "pushes"` | its name in the store: letters, digits, `_`, `-` and `.`, with a letter at the beginning |
/// | `version = 1` | the version of what its methods write; a higher one is filled by a rebuild |
/// | `crate = path` | where `event_core` is, if not there |
///
/// # What a method takes and returns
///
/// In any order
///
/// | parameter | |
/// |---|---|
/// | `event: GithubPush`, `event: &GithubPush` | the event, typed; types that it does not cover are skipped |
/// | `event: &RecordedEvent`, `event: RecordedEvent` | as it lies in the store, of any type; not where the projection is filled inline |
/// | `metadata: &Metadata` | what is known of the event beside its payload |
/// | `writes: &mut Writes` | what it leads to |
///
/// It returns nothing, or `Result<(), E>` with an error that becomes a `BoxError`. An error stops the
/// projection at this event.
#[proc_macro_attribute]
pub fn projection(arguments: TokenStream, item: TokenStream) -> TokenStream {
    projection::projection(arguments.into(), item.into()).into()
}

/// The events that a handler reacts to: full event types, or patterns, in which `*` is any run of
/// characters.
///
/// It stands on a method of an `impl` block with [`#[event_handler]`](macro@event_handler), or below
/// `#[event_handler]` on a function, once or several times, each with one or several strings. There
/// it need not be imported.
///
/// Behind them, options of [`#[event_handler]`](macro@event_handler) may stand that hold for this handler
/// alone: `retry`, `timeout`, `on_exhausted`, `delivery` and `replay`, as in
/// `#[on("github.push", retry(max = 3), timeout = "5s")]`. They win over those of the `impl` block.
///
/// A pattern covers a typed parameter if it matches at least one of its types. In the first segment
/// `*` is for realtime handlers only.
///
/// ```
/// # use event_core::{RecordedEvent, event_handler};
/// #[event_handler]
/// #[on("github.push", "github.pr.*")]
/// #[on("gitlab.*")]
/// async fn log(event: &RecordedEvent) {
///     println!("{}", event.event_type());
/// }
/// ```
#[proc_macro_attribute]
pub fn on(_: TokenStream, item: TokenStream) -> TokenStream {
    handler::misplaced("on", item.into()).into()
}

/// The event types that a handler emits, which are among those that its return type declares.
///
/// It stands where [`#[on]`](macro@on) does, once or several times, each with one or several strings.
/// Of each event that the handler returns it names a type; of an enum, those that are emitted.
///
/// ```
/// # use event_core::{Event, event_handler};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event("github.push")]
/// # struct GithubPush { commits: u32 }
/// #[derive(Serialize, Deserialize, Event)]
/// enum RepositoryEvent {
///     #[event("repository.analyzed")]
///     Analyzed { findings: u32 },
///     #[event("repository.skipped")]
///     Skipped,
///     #[event("repository.archived")]
///     Archived,
/// }
///
/// #[event_handler(on = "github.push")]
/// #[emits("repository.analyzed", "repository.skipped")]
/// async fn analyze(push: GithubPush) -> RepositoryEvent {
///     match push.commits {
///         0 => RepositoryEvent::Skipped,
///         findings => RepositoryEvent::Analyzed { findings },
///     }
/// }
/// ```
#[proc_macro_attribute]
pub fn emits(_: TokenStream, item: TokenStream) -> TokenStream {
    handler::misplaced("emits", item.into()).into()
}
