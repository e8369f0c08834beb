//! Scenarios pass where they should, and say what is wrong where they should not.

use std::panic::{AssertUnwindSafe, catch_unwind};

use event_core::testing::Scenario;
use event_core::{Aggregate, Event, EventDefinition};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum ProjectEvent {
    Opened {
        name: String,
    },
    PhaseChanged {
        from: Phase,
        to: Phase,
    },
    Measured {
        ratio: f64,
    },
    Noted {
        #[serde(skip)]
        author: String,
    },
    Archived(Option<Option<u8>>),
}

const EVENTS: &[EventDefinition] = &[
    EventDefinition::new("sdlc.project.opened").variant(0),
    EventDefinition::new("sdlc.phase.changed").variant(1),
    EventDefinition::new("sdlc.project.measured").variant(2),
    EventDefinition::new("sdlc.project.noted").variant(3),
    EventDefinition::new("sdlc.project.archived").variant(4),
];

impl Event for ProjectEvent {
    const DEFINITIONS: &'static [EventDefinition] = EVENTS;

    fn definition(&self) -> &'static EventDefinition {
        &EVENTS[match self {
            ProjectEvent::Opened { .. } => 0,
            ProjectEvent::PhaseChanged { .. } => 1,
            ProjectEvent::Measured { .. } => 2,
            ProjectEvent::Noted { .. } => 3,
            ProjectEvent::Archived(_) => 4,
        }]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Phase {
    #[default]
    Design,
    Build,
}

#[derive(Clone, Debug)]
enum ProjectCommand {
    Open(&'static str),
    ChangePhase(Phase),
    Measure(f64),
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum ProjectError {
    #[error("open the project first")]
    NotOpen,
    #[error("the project is called `{0}` already")]
    OpenAlready(String),
}

#[derive(Default)]
struct Project {
    name: Option<String>,
    phase: Phase,
}

impl Aggregate for Project {
    const TYPE: &'static str = "project";
    type Event = ProjectEvent;
    type Command = ProjectCommand;
    type Error = ProjectError;

    fn apply(&mut self, event: &ProjectEvent) {
        match event {
            ProjectEvent::Opened { name } => self.name = Some(name.clone()),
            ProjectEvent::PhaseChanged { to, .. } => self.phase = *to,
            _ => {}
        }
    }

    fn handle(&self, command: ProjectCommand) -> Result<Vec<ProjectEvent>, ProjectError> {
        match (command, &self.name) {
            (ProjectCommand::Open(_), Some(name)) => Err(ProjectError::OpenAlready(name.clone())),
            (ProjectCommand::Open(name), None) => Ok(vec![opened(name)]),
            (_, None) => Err(ProjectError::NotOpen),
            (ProjectCommand::ChangePhase(to), _) if to == self.phase => Ok(vec![]),
            (ProjectCommand::ChangePhase(to), _) => Ok(vec![changed(self.phase, to)]),
            (ProjectCommand::Measure(ratio), _) => Ok(vec![ProjectEvent::Measured { ratio }]),
        }
    }
}

fn opened(name: &str) -> ProjectEvent {
    ProjectEvent::Opened { name: name.into() }
}

fn changed(from: Phase, to: Phase) -> ProjectEvent {
    ProjectEvent::PhaseChanged { from, to }
}

/// What a test would show.
#[allow(clippy::expect_used)] // A helper of tests, which Clippy does not take for a test itself.
fn failure(scenario: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(scenario)).expect_err("the scenario must fail");
    *panic.downcast::<String>().expect("a failure is a text")
}

#[test]
fn a_command_emits_events() {
    Scenario::<Project>::given([opened("Gothic")])
        .when(ProjectCommand::ChangePhase(Phase::Build))
        .then_emits([changed(Phase::Design, Phase::Build)])
        .then_state(|project| assert_eq!(project.phase, Phase::Build));
}

#[test]
fn a_scenario_may_begin_with_nothing() {
    Scenario::<Project>::new()
        .when(ProjectCommand::Open("Gothic"))
        .then_emits([opened("Gothic")]);
    Scenario::<Project>::given([])
        .when(ProjectCommand::Measure(1.0))
        .then_fails_with(ProjectError::NotOpen);
}

#[test]
fn a_command_may_lead_to_nothing() {
    Scenario::<Project>::given([opened("Gothic")])
        .when(ProjectCommand::ChangePhase(Phase::Design))
        .then_nothing();
}

#[test]
fn a_command_may_be_refused() {
    let refused = || {
        Scenario::<Project>::given([opened("Gothic"), changed(Phase::Design, Phase::Build)])
            .when(ProjectCommand::Open("Roman"))
    };
    refused().then_fails_with(ProjectError::OpenAlready("Gothic".into()));
    refused()
        .then_rejects(|error| matches!(error, ProjectError::OpenAlready(_)))
        .then_state(|project| assert_eq!(project.phase, Phase::Build));
}

#[test]
fn other_events_than_expected_are_shown() {
    let message = failure(|| {
        Scenario::<Project>::given([opened("Gothic")])
            .when(ProjectCommand::ChangePhase(Phase::Build))
            .then_emits([changed(Phase::Build, Phase::Build), opened("Gothic")]);
    });
    assert_eq!(
        message,
        r#"the scenario comes out otherwise
given
  Opened { name: "Gothic" }
when
  ChangePhase(Build)
expected
  PhaseChanged { from: Build, to: Build }
  Opened { name: "Gothic" }
actual
  PhaseChanged { from: Design, to: Build }"#
    );
}

#[test]
fn a_refusal_that_was_not_expected_is_shown() {
    for message in [
        failure(|| {
            Scenario::<Project>::new()
                .when(ProjectCommand::ChangePhase(Phase::Build))
                .then_nothing();
        }),
        failure(|| {
            Scenario::<Project>::new()
                .when(ProjectCommand::ChangePhase(Phase::Build))
                .then_emits([]);
        }),
    ] {
        assert_eq!(
            message,
            "the scenario comes out otherwise
given
  nothing
when
  ChangePhase(Build)
expected
  no events
actual
  refused: open the project first (NotOpen)"
        );
    }
}

#[test]
fn another_refusal_than_expected_is_shown() {
    let message = failure(|| {
        Scenario::<Project>::new()
            .when(ProjectCommand::Measure(1.0))
            .then_fails_with(ProjectError::OpenAlready("Gothic".into()));
    });
    assert!(
        message.ends_with(
            r#"expected
  refused: the project is called `Gothic` already (OpenAlready("Gothic"))
actual
  refused: open the project first (NotOpen)"#
        ),
        "{message}"
    );
}

#[test]
fn a_command_that_was_not_refused_is_shown() {
    let accepted = || {
        Scenario::<Project>::given([opened("Gothic")])
            .when(ProjectCommand::ChangePhase(Phase::Design))
    };
    for message in [
        failure(|| {
            accepted().then_rejects(|_| true);
        }),
        failure(|| {
            accepted().then_fails_with(ProjectError::NotOpen);
        }),
    ] {
        assert!(message.ends_with("actual\n  no events"), "{message}");
    }
    let message = failure(|| {
        Scenario::<Project>::new()
            .when(ProjectCommand::Measure(1.0))
            .then_rejects(|error| *error != ProjectError::NotOpen);
    });
    assert!(message.ends_with("(NotOpen)"), "{message}");
}

#[test]
fn an_event_that_does_not_survive_being_stored_is_shown() {
    let skipped = ProjectEvent::Noted {
        author: "ada".into(),
    };
    let message = failure(|| {
        let _ = Scenario::<Project>::given([skipped]);
    });
    assert_eq!(
        message,
        r#"a given event does not survive being stored
event
  Noted { author: "ada" }
written
  {}
read
  Noted { author: "" }"#
    );

    let message = failure(|| {
        let _ = Scenario::<Project>::given([ProjectEvent::Archived(Some(None))]);
    });
    assert!(message.contains("Archived(Some(None))"), "{message}");

    let message = failure(|| {
        let _ = Scenario::<Project>::given([opened("Gothic")])
            .when(ProjectCommand::Measure(f64::INFINITY));
    });
    assert_eq!(
        message,
        r#"an event that the command leads to does not survive being stored
given
  Opened { name: "Gothic" }
when
  Measure(inf)
event
  Measured { ratio: inf }
written
  {"ratio":null}
read
  the payload of `sdlc.project.measured` does not fit `scenario::ProjectEvent`; make the Rust type read what is stored, for example with `#[serde(default)]`: invalid type: null, expected f64 at line 1 column 13"#
    );
}

#[test]
fn a_failure_points_at_the_line_of_the_test() {
    let location = std::sync::Arc::new(std::sync::Mutex::new(None));
    let seen = std::sync::Arc::clone(&location);
    let before = std::panic::take_hook();
    let thread = std::thread::current().id();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == thread {
            *seen.lock().unwrap() = info.location().map(|at| at.file().to_owned());
        }
    }));
    failure(|| {
        Scenario::<Project>::new()
            .when(ProjectCommand::Open("Gothic"))
            .then_nothing();
    });
    std::panic::set_hook(before);
    let file = location.lock().unwrap().take();
    assert!(file.is_some_and(|file| file.ends_with("scenario.rs") && !file.contains("src")));
}
