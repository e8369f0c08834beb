//! Assertions that `#[event_handler]` generates: whether the Rust types of a handler fit the event
//! types that are written above it. The compiler evaluates them and reports them at the caller.

use crate::event::{Declared, EventDefinition};

/// The event that a handler takes can be what `#[on(pattern)]` says.
#[track_caller]
pub const fn covers(covers: &Declared, pattern: &str, rust_type: &str) {
    if covers.matches(pattern) || is_unknown(covers) {
        return;
    }
    Message::new()
        .push("no event type of `")
        .push(rust_type)
        .push("` matches `")
        .push(pattern)
        .push("`; ")
        .push_types(covers)
        .push(", or take another event")
        .panic()
}

/// A stored handler reacts to stored types: of those that the pattern matches, to one at least.
#[track_caller]
pub const fn reacts_to_stored(covers: &Declared, pattern: &str) {
    if !covers.only_stored(pattern) && covers.only_realtime(pattern) {
        Message::new()
            .push("`")
            .push(pattern)
            .push("` is sent in realtime and kept nowhere; add `realtime` to `#[event_handler]`")
            .panic()
    }
}

/// A realtime handler reacts to realtime types: of those that the pattern matches, to one at least.
#[track_caller]
pub const fn reacts_to_realtime(covers: &Declared, pattern: &str) {
    if !covers.only_realtime(pattern) && covers.only_stored(pattern) {
        Message::new()
            .push("`")
            .push(pattern)
            .push("` is stored, and a realtime handler would not see it; remove `realtime` from ")
            .push("`#[event_handler]`, or add it to the event")
            .panic()
    }
}

/// A projection takes stored types: of those that the pattern matches, one at least.
#[track_caller]
pub const fn is_projected(covers: &Declared, pattern: &str) {
    if !covers.only_stored(pattern) && covers.only_realtime(pattern) {
        Message::new()
            .push("`")
            .push(pattern)
            .push(
                "` is sent in realtime and kept nowhere, so no projection is made of it; remove it",
            )
            .panic()
    }
}

/// What a handler returns can be what `#[emits(event_type)]` says.
#[track_caller]
pub const fn declares(declares: &Declared, event_type: &str, rust_type: &str) {
    if declares.matches(event_type) || is_unknown(declares) {
        return;
    }
    let message = Message::new().push("`").push(rust_type);
    if declares.is_nothing() {
        message
            .push("` is no event, so the handler emits nothing; return the event, or remove `")
            .push(event_type)
            .push("` here")
            .panic()
    }
    message
        .push("` does not declare `")
        .push(event_type)
        .push("`; ")
        .push_types(declares)
        .push(", or return another event")
        .panic()
}

/// Of each event that a handler returns, `#[emits(…)]` names a type: of an enum, those that are
/// emitted.
#[track_caller]
pub const fn emits_each(declares: &Declared, emits: &[&str], handler: &str, rust_type: &str) {
    if is_unknown(declares) {
        return;
    }
    let Some(unnamed) = unnamed(declares, emits) else {
        return;
    };
    let message = Message::new()
        .push("`")
        .push(handler)
        .push("` returns `")
        .push(rust_type);
    if emits.is_empty() {
        message
            .push("` and does not say which events it emits; write `#[emits(")
            .push_each(declares, "\"")
            .push(")]` above it")
            .panic()
    }
    // A name that fits nothing is reported where it is written.
    let mut index = 0;
    while index < emits.len() {
        if !declares.matches(emits[index]) {
            return;
        }
        index += 1;
    }
    message
        .push("` and does not name ")
        .push_each(unnamed, "`")
        .push("; add what it emits of that to `#[emits(…)]`")
        .panic()
}

/// The first part of which none is among `emits`.
const fn unnamed<'a>(declared: &'a Declared, emits: &[&str]) -> Option<&'a Declared> {
    match declared {
        Declared::Nothing | Declared::Anything => None,
        Declared::Types(_) | Declared::Aggregate(..) => {
            let mut index = 0;
            while index < emits.len() {
                if declared.matches(emits[index]) {
                    return None;
                }
                index += 1;
            }
            Some(declared)
        }
        Declared::Each(parts) => {
            let mut index = 0;
            while index < parts.len() {
                if let Some(found) = unnamed(&parts[index], emits) {
                    return Some(found);
                }
                index += 1;
            }
            None
        }
    }
}

/// A realtime handler emits realtime types.
#[track_caller]
pub const fn emits_no_stored(declares: &Declared, event_type: &str) {
    if !declares.only_realtime(event_type) {
        Message::new()
            .push("`")
            .push(event_type)
            .push("` is stored, and a realtime handler runs in every instance, so each would ")
            .push("store it; emit realtime events only, or remove `realtime`")
            .panic()
    }
}

/// Whether a derive has reported a mistake in the type, and left it without event types.
const fn is_unknown(declared: &Declared) -> bool {
    match declared {
        Declared::Nothing | Declared::Anything => false,
        Declared::Types(types) | Declared::Aggregate(_, types) => types.is_empty(),
        Declared::Each(parts) => {
            let mut index = 0;
            while index < parts.len() {
                if is_unknown(&parts[index]) {
                    return true;
                }
                index += 1;
            }
            false
        }
    }
}

/// A text that the compiler can put together.
struct Message {
    bytes: [u8; 1024],
    length: usize,
    types: usize,
}

impl Message {
    const fn new() -> Self {
        Self {
            bytes: [0; 1024],
            length: 0,
            types: 0,
        }
    }

    /// Adds a text, unless it is too long.
    const fn push(mut self, text: &str) -> Self {
        let bytes = text.as_bytes();
        if self.length + bytes.len() <= self.bytes.len() {
            let mut index = 0;
            while index < bytes.len() {
                self.bytes[self.length] = bytes[index];
                self.length += 1;
                index += 1;
            }
        }
        self
    }

    /// Says which types there are to choose from.
    const fn push_types(self, declared: &Declared) -> Self {
        let introduction = if count(declared) == 1 {
            "write its type, "
        } else {
            "write one of its types, "
        };
        self.push(introduction).push_each(declared, "`")
    }

    /// Lists the types, between `quote`s.
    const fn push_each(mut self, declared: &Declared, quote: &str) -> Self {
        match declared {
            Declared::Nothing | Declared::Anything => {}
            Declared::Types(types) | Declared::Aggregate(_, types) => {
                let mut index = 0;
                while index < types.len() {
                    self = self.push_type(&types[index], quote);
                    index += 1;
                }
            }
            Declared::Each(parts) => {
                let mut index = 0;
                while index < parts.len() {
                    self = self.push_each(&parts[index], quote);
                    index += 1;
                }
            }
        }
        self
    }

    const fn push_type(mut self, definition: &EventDefinition, quote: &str) -> Self {
        self.types += 1;
        if self.types > MOST_TYPES + 1 {
            return self;
        }
        if self.types > 1 {
            self = self.push(", ");
        }
        if self.types > MOST_TYPES {
            return self.push("…");
        }
        self.push(quote).push(definition.name()).push(quote)
    }

    #[track_caller]
    #[allow(clippy::panic)] // Only ever evaluated by the compiler.
    const fn panic(&self) -> ! {
        let (text, _) = self.bytes.split_at(self.length);
        match core::str::from_utf8(text) {
            Ok(text) => panic!("{}", text),
            Err(_) => panic!("the types of this handler do not fit"),
        }
    }
}

/// How many types a message lists.
const MOST_TYPES: usize = 8;

const fn count(declared: &Declared) -> usize {
    match declared {
        Declared::Nothing | Declared::Anything => 0,
        Declared::Types(types) | Declared::Aggregate(_, types) => types.len(),
        Declared::Each(parts) => {
            let mut found = 0;
            let mut index = 0;
            while index < parts.len() {
                found += count(&parts[index]);
                index += 1;
            }
            found
        }
    }
}
