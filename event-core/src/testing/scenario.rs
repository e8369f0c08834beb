//! Scenarios: given some events, when a command comes, then this must happen.

// A scenario is an assertion of a test: what does not come out is reported by a panic.
#![allow(clippy::panic)]

use std::fmt::{self, Debug, Display};

use crate::BoxError;
use crate::aggregate::Aggregate;
use crate::codec::{self, Codec, CodecError, Decoded};
use crate::event::Event;

/// A test of an aggregate in three steps: *given* what has happened, *when* a command comes, *then*
/// this follows. It needs no store and no runtime.
///
/// Every event passes through the [`Codec`] on its way, as it would on its way into a store and out
/// again: one that is not read as it was written fails the scenario.
///
/// ```
/// use event_core::prelude::*;
/// use event_core::testing::Scenario;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
/// enum DoorEvent {
///     #[event("house.door.opened")]
///     Opened,
///     #[event("house.door.closed")]
///     Closed { by: String },
/// }
///
/// #[derive(Clone, Debug)]
/// enum DoorCommand {
///     Open,
///     Close { by: String },
/// }
///
/// #[derive(Debug, PartialEq, thiserror::Error)]
/// #[error("the door is open already")]
/// struct OpenAlready;
///
/// #[derive(Default)]
/// struct Door {
///     open: bool,
/// }
///
/// impl Aggregate for Door {
///     const TYPE: &'static str = "door";
///     type Event = DoorEvent;
///     type Command = DoorCommand;
///     type Error = OpenAlready;
///
///     fn apply(&mut self, event: &DoorEvent) {
///         self.open = *event == DoorEvent::Opened;
///     }
///
///     fn handle(&self, command: DoorCommand) -> Result<Vec<DoorEvent>, OpenAlready> {
///         match command {
///             DoorCommand::Open if self.open => Err(OpenAlready),
///             DoorCommand::Open => Ok(vec![DoorEvent::Opened]),
///             DoorCommand::Close { by } if self.open => Ok(vec![DoorEvent::Closed { by }]),
///             DoorCommand::Close { .. } => Ok(vec![]),
///         }
///     }
/// }
///
/// // A command on a new aggregate.
/// Scenario::<Door>::new()
///     .when(DoorCommand::Open)
///     .then_emits([DoorEvent::Opened])
///     .then_state(|door| assert!(door.open));
///
/// // A command on one with a past.
/// Scenario::<Door>::given([DoorEvent::Opened])
///     .when(DoorCommand::Close { by: "wind".into() })
///     .then_emits([DoorEvent::Closed { by: "wind".into() }]);
///
/// // A command that is refused, and one that leads to nothing.
/// Scenario::<Door>::given([DoorEvent::Opened])
///     .when(DoorCommand::Open)
///     .then_fails_with(OpenAlready);
/// Scenario::<Door>::new()
///     .when(DoorCommand::Close { by: "wind".into() })
///     .then_nothing();
/// ```
#[must_use = "a scenario tests nothing before `when` and a `then_…`"]
pub struct Scenario<A: Aggregate> {
    state: A,
    /// What has happened, as the report of a failure shows it.
    given: Vec<String>,
}

impl<A: Aggregate> Scenario<A>
where
    A::Event: Debug + PartialEq,
{
    /// Begins with an aggregate to which nothing has happened.
    pub fn new() -> Self {
        Self {
            state: A::default(),
            given: Vec::new(),
        }
    }

    /// Begins with an aggregate to which these events have happened.
    ///
    /// # Panics
    /// If an event is not read as it was written.
    #[track_caller]
    pub fn given(events: impl IntoIterator<Item = A::Event>) -> Self {
        let mut scenario = Self::new();
        for event in events {
            match through_codec(&event) {
                Ok(stored) => scenario.state.apply(&stored),
                Err(broken) => panic!("a given event does not survive being stored\n{broken}"),
            }
            scenario.given.push(format!("{event:?}"));
        }
        scenario
    }

    /// Lets the aggregate decide on a command.
    ///
    /// # Panics
    /// If an event that it leads to is not read as it was written.
    #[must_use = "say what must follow: `then_emits`, `then_nothing`, `then_rejects`, …"]
    #[track_caller]
    pub fn when(self, command: A::Command) -> Outcome<A>
    where
        A::Command: Debug,
    {
        let Self { mut state, given } = self;
        let when = format!("{command:?}");
        let decision = match state.handle(command) {
            Ok(events) => {
                let mut stored = Vec::new();
                for event in events {
                    match through_codec(&event) {
                        Ok(event) => stored.push(event),
                        Err(broken) => panic!(
                            "an event that the command leads to does not survive being stored\n{}{broken}",
                            Steps {
                                given: &given,
                                when: &when,
                            },
                        ),
                    }
                }
                for event in &stored {
                    state.apply(event);
                }
                Ok(stored)
            }
            Err(reason) => Err(reason),
        };
        Outcome {
            state,
            given,
            when,
            decision,
        }
    }
}

impl<A: Aggregate> Default for Scenario<A>
where
    A::Event: Debug + PartialEq,
{
    fn default() -> Self {
        Self::new()
    }
}

/// What a command has led to in a [`Scenario`]: the `then` of the test.
pub struct Outcome<A: Aggregate> {
    state: A,
    given: Vec<String>,
    when: String,
    decision: Result<Vec<A::Event>, A::Error>,
}

impl<A: Aggregate> Outcome<A>
where
    A::Event: Debug + PartialEq,
{
    /// The command must lead to exactly these events, in this order.
    ///
    /// # Panics
    /// If it leads to others, or is refused.
    #[track_caller]
    pub fn then_emits(self, events: impl IntoIterator<Item = A::Event>) -> Self {
        let expected: Vec<_> = events.into_iter().collect();
        match &self.decision {
            Ok(emitted) if *emitted == expected => self,
            _ => self.fail(&emitted(&expected)),
        }
    }

    /// The command must be accepted and lead to no event.
    ///
    /// # Panics
    /// If it leads to events, or is refused.
    #[track_caller]
    pub fn then_nothing(self) -> Self {
        self.then_emits([])
    }

    /// The command must be refused, for a reason for which `is_reason` returns true.
    ///
    /// # Panics
    /// If it is accepted, or refused for another reason.
    #[track_caller]
    pub fn then_rejects(self, is_reason: impl FnOnce(&A::Error) -> bool) -> Self {
        match &self.decision {
            Err(reason) if is_reason(reason) => self,
            _ => self.fail("  refused, for the reason that `then_rejects` looks for"),
        }
    }

    /// The command must be refused with this error.
    ///
    /// # Panics
    /// If it is accepted, or refused with another.
    #[track_caller]
    pub fn then_fails_with(self, error: A::Error) -> Self
    where
        A::Error: PartialEq,
    {
        match &self.decision {
            Err(reason) if *reason == error => self,
            _ => self.fail(&refused(error)),
        }
    }

    /// Hands out the state after the command (as it was before, where the command is refused), for
    /// assertions of the test's own.
    pub fn then_state(self, assert: impl FnOnce(&A)) -> Self {
        assert(&self.state);
        self
    }

    #[track_caller]
    fn fail(self, expected: &str) -> ! {
        let actual = match self.decision {
            Ok(events) => emitted(&events),
            Err(reason) => refused(reason),
        };
        let steps = Steps {
            given: &self.given,
            when: &self.when,
        };
        panic!("the scenario comes out otherwise\n{steps}expected\n{expected}\nactual\n{actual}");
    }
}

/// What came before the outcome, one step a line.
struct Steps<'a> {
    given: &'a [String],
    when: &'a str,
}

impl Display for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("given\n")?;
        if self.given.is_empty() {
            f.write_str("  nothing\n")?;
        }
        for event in self.given {
            writeln!(f, "  {event}")?;
        }
        writeln!(f, "when\n  {}", self.when)
    }
}

fn emitted(events: &[impl Debug]) -> String {
    if events.is_empty() {
        return "  no events".to_owned();
    }
    let lines: Vec<String> = events.iter().map(|event| format!("  {event:?}")).collect();
    lines.join("\n")
}

fn refused(reason: impl Into<BoxError>) -> String {
    let reason = reason.into();
    format!("  refused: {reason} ({reason:?})")
}

/// Writes an event as it would be stored, and reads it again.
fn through_codec<E: Event + Debug + PartialEq>(event: &E) -> Result<E, String> {
    let new = Codec::default()
        .encode(event)
        .map_err(|error| not_survived(event, None, &with_source(&error)))?;
    let read = codec::decode(
        new.event_type(),
        new.metadata().schema_version,
        new.payload(),
    )
    .map_err(|error| not_survived(event, Some(new.payload()), &with_source(&error)))?;
    match read {
        Decoded::One(read) if read == *event => Ok(read),
        Decoded::One(read) => Err(not_survived(
            event,
            Some(new.payload()),
            &format!("{read:?}"),
        )),
        Decoded::Several(read) => Err(not_survived(
            event,
            Some(new.payload()),
            &format!("{read:?}"),
        )),
    }
}

fn not_survived(event: &impl Debug, payload: Option<&str>, read: &str) -> String {
    let payload = payload.unwrap_or("nothing");
    format!("event\n  {event:?}\nwritten\n  {payload}\nread\n  {read}")
}

fn with_source(error: &CodecError) -> String {
    match std::error::Error::source(error) {
        None => error.to_string(),
        Some(source) => format!("{error}: {source}"),
    }
}
