//! The lock of event types: a file that says which shape each stored event has, so that a test notices
//! when one changes.

mod difference;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::EventRegistration;
use crate::schema::shape;
use difference::{Place, differ};

/// The variable that has the file written anew.
const UPDATE: &str = "UPDATE_EVENTS_LOCK";

/// Fails a test where a stored event type has changed its shape without a new version.
///
/// The shapes lie in the file `events.lock` beside the `Cargo.toml` of the package whose test it is; it
/// belongs under version control. `UPDATE_EVENTS_LOCK=1 cargo test` writes it anew. Every event type
/// that is linked into the test is looked at, so the crates that define them must be named there
/// (`use my_events as _;`), and each type must derive [`schemars::JsonSchema`].
///
/// ```no_run
/// #[test]
/// fn no_event_has_changed_its_shape() {
///     event_core::assert_events_locked!();
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! assert_events_locked {
    () => {
        if let Err(error) = $crate::testing::EventsLock::at(::core::concat!(
            ::core::env!("CARGO_MANIFEST_DIR"),
            "/events.lock"
        ))
        .check()
        {
            ::core::panic!("{error}");
        }
    };
}

/// What is wrong with the events of a program, by a lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Events are not as they are locked.
    #[error("the events are not as `{}` has them:{}", path.display(), list(differences))]
    Different {
        /// The file.
        path: PathBuf,
        /// What differs, and what to do about it.
        differences: Vec<String>,
    },
    /// The file cannot be read or written.
    #[error("cannot read or write `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no lock.
    #[error("`{}` cannot be read ({source}); write it anew with {UPDATE}=1", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

fn list(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        // Writing into a `String` cannot fail.
        let _ = write!(text, "\n- {line}");
        text
    })
}

/// The file that locks the shapes of events. Most tests need [`assert_events_locked!`] alone.
///
/// [`assert_events_locked!`]: crate::assert_events_locked
#[derive(Debug)]
pub struct EventsLock {
    path: PathBuf,
    update: bool,
}

/// A file: each type with all its versions so far.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct File {
    events: BTreeMap<String, Locked>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Locked {
    version: u32,
    /// The schema of each version that there was while the file was kept.
    shapes: BTreeMap<u32, Value>,
}

/// The event types of a program.
struct Program {
    events: BTreeMap<&'static str, (u32, Value)>,
    /// Names that stored events are still read by.
    past: Vec<&'static str>,
    mistakes: Vec<String>,
}

impl EventsLock {
    /// The lock in this file. It is written anew where the environment has `UPDATE_EVENTS_LOCK=1`.
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            update: env::var(UPDATE).is_ok_and(|value| value != "0" && !value.is_empty()),
        }
    }

    /// Has the file written anew, or not, whatever the environment says.
    pub fn update(mut self, update: bool) -> Self {
        self.update = update;
        self
    }

    /// Compares the event types of this program with the file, or writes it.
    ///
    /// # Errors
    /// [`LockError::Different`] with everything that differs; others where there is no such file, or
    /// it cannot be read or written.
    pub fn check(&self) -> Result<(), LockError> {
        let program = Program::of(EventRegistration::all());
        self.check_program(program)
    }

    fn check_program(&self, program: Program) -> Result<(), LockError> {
        let locked = self.read()?;
        let mut differences = program.mistakes.clone();
        if self.update {
            if differences.is_empty() {
                return self.write(&program.lock(locked.unwrap_or_default()));
            }
        } else {
            match &locked {
                Some(locked) => program.compare(locked, &mut differences),
                None => {
                    differences.push(format!("there is no such file; write it with {UPDATE}=1"))
                }
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(LockError::Different {
            path: self.path.clone(),
            differences,
        })
    }

    fn read(&self) -> Result<Option<File>, LockError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = self.path.clone();
                return Err(LockError::File { path, source });
            }
        };
        let path = self.path.clone();
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| LockError::Malformed { path, source })
    }

    fn write(&self, file: &File) -> Result<(), LockError> {
        let path = self.path.clone();
        let mut text =
            serde_json::to_string_pretty(file).map_err(|source| LockError::Malformed {
                path: path.clone(),
                source,
            })?;
        text.push('\n');
        fs::write(&self.path, text).map_err(|source| LockError::File { path, source })
    }
}

impl Program {
    fn of<'a>(registrations: impl Iterator<Item = &'a EventRegistration>) -> Self {
        let mut program = Self {
            events: BTreeMap::new(),
            past: Vec::new(),
            mistakes: Vec::new(),
        };
        let mut rust_types = BTreeMap::new();
        let mut registrations: Vec<_> = registrations
            // This crate's own, which no user can change.
            .filter(|one| !one.rust_type().starts_with("event_core::"))
            .collect();
        registrations.sort_by_key(|one| one.rust_type());
        for registration in registrations {
            let rust_type = registration.rust_type();
            let definitions = registration.definitions().iter();
            let mut stored = definitions
                .enumerate()
                .filter(|(_, one)| !one.is_realtime());
            program
                .past
                .extend(registration.past_events().iter().map(|past| past.name()));
            let Some(schemas) = registration.payload_schemas() else {
                if stored.next().is_some() {
                    program.mistakes.push(format!(
                        "`{rust_type}` has no schema; add `#[derive(schemars::JsonSchema)]`, and to what is in it"
                    ));
                }
                continue;
            };
            for (index, definition) in stored {
                program.past.extend(definition.former_names());
                let Some(schema) = schemas.get(index) else {
                    continue;
                };
                let event = (definition.schema_version(), shape(schema));
                let name = definition.name();
                if program
                    .events
                    .get(name)
                    .is_some_and(|other| *other != event)
                {
                    program.mistakes.push(format!(
                        "`{name}` has one shape in `{}` and another in `{rust_type}`; let both be one type",
                        rust_types.get(name).copied().unwrap_or_default()
                    ));
                }
                rust_types.insert(name, rust_type);
                program.events.insert(name, event);
            }
        }
        program
    }

    /// The file that locks these events, with what was locked of older versions.
    fn lock(&self, before: File) -> File {
        let mut events = before.events;
        events.retain(|name, _| self.events.contains_key(name.as_str()));
        for (name, (version, shape)) in &self.events {
            let locked = events.entry((*name).to_owned()).or_insert_with(|| Locked {
                version: *version,
                shapes: BTreeMap::new(),
            });
            locked.version = *version;
            locked.shapes.insert(*version, shape.clone());
        }
        File { events }
    }

    fn compare(&self, locked: &File, differences: &mut Vec<String>) {
        for (name, (version, shape)) in &self.events {
            let Some(before) = locked.events.get(*name) else {
                differences.push(format!("`{name}` is new; lock it with {UPDATE}=1"));
                continue;
            };
            if *version < before.version {
                differences.push(format!(
                    "`{name}` is of version {version}, and was of version {} before; versions only grow",
                    before.version
                ));
                continue;
            }
            if *version > before.version {
                differences.push(format!(
                    "`{name}` is of version {version} now; lock it with {UPDATE}=1"
                ));
                continue;
            }
            let Some(old) = before.shapes.get(version) else {
                differences.push(format!(
                    "`{name}` has no shape there; lock it with {UPDATE}=1"
                ));
                continue;
            };
            let mut changes = Vec::new();
            differ(&mut Place::payload(old, shape), old, shape, &mut changes);
            for change in changes {
                differences.push(if change.is_harmless {
                    format!(
                        "`{name}`: {}; old events are read as before, so lock it with {UPDATE}=1",
                        change.what
                    )
                } else {
                    format!(
                        "`{name}`: {}; count its version up to {} and add `upcast({version} = function)`",
                        change.what,
                        version + 1
                    )
                });
            }
        }
        for name in locked.events.keys() {
            if !self.events.contains_key(name.as_str()) {
                differences.push(if self.past.contains(&name.as_str()) {
                    format!("`{name}` is of the past now; take it out with {UPDATE}=1")
                } else {
                    format!(
                        "`{name}` is gone, and nothing reads what is stored of it; add `formerly`, `split` or `retired` where it was, or bring it back"
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;

    use super::difference::{fields, resolve};
    use super::*;
    use crate::Event;
    use crate::schema::{SchemasOf, WithoutSchemas as _};

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Author {
        name: String,
        address: Option<String>,
    }

    #[derive(Serialize, Deserialize, JsonSchema, Event)]
    #[event("lock.pushed")]
    struct Pushed {
        repository: String,
        commits: Vec<u32>,
        author: Author,
    }

    #[derive(Serialize, Deserialize, JsonSchema, Event)]
    #[serde(rename_all = "camelCase")]
    enum Phase {
        #[event("lock.phase.opened")]
        Opened,
        #[event("lock.phase.changed")]
        #[serde(rename = "moved")]
        Changed { from: String, to: String },
        #[event("lock.phase.noted")]
        Noted(Author),
        #[event("lock.phase.shown", realtime)]
        Shown,
    }

    fn pushed() -> EventRegistration {
        // Its real path is that of this crate, which is left out.
        EventRegistration::new("user::Pushed", Pushed::DEFINITIONS)
            .schemas(Some(|| SchemasOf::<Pushed>::NEW.find()))
    }

    fn phase() -> EventRegistration {
        EventRegistration::new("user::Phase", Phase::DEFINITIONS)
            .schemas(Some(|| SchemasOf::<Phase>::NEW.find()))
    }

    /// What differs where a program with one schema is held to the lock of another.
    fn differences(locked: &EventRegistration, now: &EventRegistration) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let lock = EventsLock::at(folder.path().join("events.lock"));
        lock.check_program(Program::of([locked].into_iter()))
            .unwrap_err();
        let lock = lock.update(true);
        lock.check_program(Program::of([locked].into_iter()))
            .unwrap();
        let lock = lock.update(false);
        lock.check_program(Program::of([locked].into_iter()))
            .unwrap();
        match lock.check_program(Program::of([now].into_iter())) {
            Ok(()) => Vec::new(),
            Err(LockError::Different { differences, .. }) => differences,
            Err(error) => panic!("{error}"),
        }
    }

    /// As it might have been, or become.
    macro_rules! variation {
        ($name:ident, $event:literal; $(#[$attribute:meta])* { $($fields:tt)* }) => {{
            #[derive(Serialize, Deserialize, JsonSchema, Event)]
            #[event($event)]
            $(#[$attribute])*
            struct $name { $($fields)* }
            EventRegistration::new("user::Pushed", $name::DEFINITIONS)
                .schemas(Some(|| SchemasOf::<$name>::NEW.find()))
        }};
    }

    #[test]
    fn each_stored_type_is_locked_with_its_body() {
        let program = Program::of([&pushed(), &phase()].into_iter());
        assert_eq!(program.mistakes, Vec::<String>::new());
        let names: Vec<_> = program.events.keys().copied().collect();
        assert_eq!(
            names,
            [
                "lock.phase.changed",
                "lock.phase.noted",
                "lock.phase.opened",
                "lock.pushed"
            ]
        );
        let (version, changed) = &program.events["lock.phase.changed"];
        assert_eq!(*version, 1);
        assert_eq!(changed["properties"]["from"]["type"], "string");
        assert_eq!(program.events["lock.phase.opened"].1["type"], "object");
        let noted = &program.events["lock.phase.noted"].1;
        assert!(fields(resolve(noted, noted)).is_some_and(|fields| fields.contains_key("name")));
        assert!(program.events["lock.pushed"].1.get("title").is_none());
    }

    #[test]
    fn nothing_differs_where_nothing_has_changed() {
        assert_eq!(differences(&phase(), &phase()), Vec::<String>::new());
        let documented = variation!(Documented, "lock.pushed"; #[schemars(title = "A push")] {
            /// With a description.
            repository: String,
            author: Author,
            commits: Vec<u32>,
        });
        assert_eq!(differences(&pushed(), &documented), Vec::<String>::new());
    }

    #[test]
    fn a_change_is_named_by_its_field() {
        #[derive(Serialize, Deserialize, JsonSchema)]
        struct OtherAuthor {
            name: u64,
            address: Option<String>,
        }
        let changed = variation!(Changed, "lock.pushed"; {
            repo: String,
            commits: Vec<String>,
            author: OtherAuthor,
        });
        let found = differences(&pushed(), &changed);
        for expected in [
            "`lock.pushed`: field `repository` is gone",
            "`lock.pushed`: field `repo` is new and required",
            "`lock.pushed`: field `commits.[]` was integer (uint32), and is string",
            "`lock.pushed`: field `author.name` was string, and is integer (uint64)",
        ] {
            let end = "; count its version up to 2 and add `upcast(1 = function)`";
            let is_it = |line: &String| *line == format!("{expected}{end}");
            assert!(found.iter().any(is_it), "{expected} in {found:#?}");
        }
        assert_eq!(found.len(), 4, "{found:#?}");
    }

    #[test]
    fn a_change_that_harms_nobody_is_only_to_be_locked() {
        let grown = variation!(Grown, "lock.pushed"; {
            repository: String,
            commits: Vec<u32>,
            author: Author,
            branch: Option<String>,
        });
        assert_eq!(
            differences(&pushed(), &grown),
            [
                "`lock.pushed`: field `branch` is new and optional; old events are read as before, so lock it with UPDATE_EVENTS_LOCK=1"
            ]
        );
        assert_eq!(
            differences(&grown, &pushed()),
            [
                "`lock.pushed`: field `branch` is gone; count its version up to 2 and add `upcast(1 = function)`"
            ]
        );
    }

    #[test]
    fn a_type_that_is_gone_is_missed() {
        let found = differences(&pushed(), &phase());
        let gone = found
            .iter()
            .filter(|line| line.contains("`lock.pushed` is gone"));
        assert_eq!(gone.count(), 1, "{found:#?}");

        let renamed = EventRegistration::new("user::Pushed", &[RENAMED])
            .schemas(Some(|| SchemasOf::<Pushed>::NEW.find()));
        let found = differences(&pushed(), &renamed);
        assert!(
            found
                .iter()
                .any(|line| line.contains("`lock.pushed` is of the past now")),
            "{found:#?}"
        );
        assert!(
            found
                .iter()
                .any(|line| line.contains("`lock.push.done` is new")),
            "{found:#?}"
        );
    }

    const RENAMED: crate::EventDefinition =
        crate::EventDefinition::new("lock.push.done").formerly(&["lock.pushed"]);

    #[test]
    fn older_versions_stay_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.lock");
        let lock = EventsLock::at(&path).update(true);
        lock.check_program(Program::of([&pushed()].into_iter()))
            .unwrap();
        const SECOND: crate::EventDefinition =
            crate::EventDefinition::new("lock.pushed").version(2);
        let second = EventRegistration::new("user::Pushed", &[SECOND])
            .schemas(Some(|| SchemasOf::<Pushed>::NEW.find()));
        lock.check_program(Program::of([&second].into_iter()))
            .unwrap();
        let file = lock.read().unwrap().unwrap();
        assert_eq!(file.events["lock.pushed"].version, 2);
        let versions: Vec<_> = file.events["lock.pushed"].shapes.keys().copied().collect();
        assert_eq!(versions, [1, 2]);

        let lock = lock.update(false);
        let error = lock
            .check_program(Program::of([&pushed()].into_iter()))
            .unwrap_err();
        assert!(error.to_string().contains("versions only grow"), "{error}");
    }

    #[test]
    fn a_type_without_a_schema_is_a_mistake() {
        let bare = EventRegistration::new("user::Bare", Pushed::DEFINITIONS).schemas(Some(|| None));
        let error = EventsLock::at("/nowhere/events.lock")
            .check_program(Program::of([&bare].into_iter()))
            .unwrap_err();
        assert!(
            error.to_string().contains("`user::Bare` has no schema"),
            "{error}"
        );
        #[derive(Serialize, Deserialize, Event)]
        #[event("lock.bare")]
        struct Bare {}
        assert_eq!(SchemasOf::<Bare>::NEW.find(), None);
    }

    #[test]
    fn a_file_that_is_no_lock_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.lock");
        std::fs::write(&path, "{").unwrap();
        let error = EventsLock::at(&path).update(false).check().unwrap_err();
        assert!(matches!(error, LockError::Malformed { .. }), "{error}");
    }
}
