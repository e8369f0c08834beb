//! Aggregates that can be rebuilt from what was recorded, and some that cannot.

use event_core::prelude::*;
use event_core::testing::{ReplayUnsafe, assert_replay_safe};
use event_core::{Event, Recording};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::events::{Project, ProjectEvent, category};

/// A project with so many events.
async fn recorded(count: u32) -> Recording {
    let store = MemoryStore::new();
    let projects = Repository::<Project>::new(store.clone());
    for commits in 0..count {
        projects.execute("octo/hello", commits).await.unwrap();
        projects.execute("octo/world", commits).await.unwrap();
    }
    let recording = Recording::of(&store).category(category("sdlc"));
    recording.record().await.unwrap()
}

/// An aggregate of the same events that does otherwise.
macro_rules! aggregate {
    ($name:ident { $($fields:tt)* }, |$state:ident, $event:ident| $apply:expr) => {
        #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
        struct $name { $($fields)* }

        impl Aggregate for $name {
            const TYPE: &'static str = "project";
            type Event = ProjectEvent;
            type Command = ();
            type Error = BoxError;

            fn apply(&mut self, $event: &ProjectEvent) {
                let $state = self;
                $apply
            }

            fn handle(&self, (): ()) -> Result<Vec<ProjectEvent>, BoxError> {
                Ok(Vec::new())
            }
        }
    };
}

aggregate!(
    Forgetful {
        seen: u32,
        #[serde(skip)]
        last: u32
    },
    |state, event| {
        if let ProjectEvent::Counted { commits } = event {
            state.seen += u32::from(state.last + 1 == *commits);
            state.last = *commits;
        }
    }
);
aggregate!(Panicking { seen: u32 }, |state, _event| {
    state.seen += 1;
    assert!(state.seen < 7, "seven is too much");
});
aggregate!(
    Unkept {
        seen: u32,
        #[serde(skip_serializing)]
        must: u32
    },
    |state, _event| {
        state.seen += state.must + 1;
    }
);

fn check<A>(recording: &Recording) -> Result<(), ReplayUnsafe>
where
    A: Aggregate + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    ReplayUnsafe::check::<A>(recording)
}

#[tokio::test]
async fn a_state_that_is_kept_whole_is_safe() {
    assert_replay_safe::<Project>(&recorded(100).await);
    assert_replay_safe::<Project>(&recorded(1).await);
}

#[tokio::test]
async fn what_is_not_safe_is_told() {
    let recording = recorded(10).await;
    match check::<Forgetful>(&recording) {
        Err(ReplayUnsafe::Different {
            aggregate, version, ..
        }) => assert_eq!((aggregate.as_str(), version), ("project:octo/hello", 2)),
        other => panic!("{other:?}"),
    }
    match check::<Panicking>(&recording) {
        Err(ReplayUnsafe::Panicked {
            version,
            event_type,
            ..
        }) => {
            assert_eq!((version, event_type.as_str()), (7, "sdlc.work.counted"));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        check::<Unkept>(&recording),
        Err(ReplayUnsafe::NotKept { version: 1, .. })
    ));
}

#[tokio::test]
async fn a_history_must_be_whole_and_readable() {
    let mut recording = recorded(3).await;
    recording.lines_mut().remove(2);
    match check::<Project>(&recording) {
        Err(ReplayUnsafe::Incomplete { last, found, .. }) => assert_eq!((last, found), (1, 3)),
        other => panic!("{other:?}"),
    }
    let text = recorded(3).await.to_text().unwrap();
    let unreadable: Recording = text
        .replacen("\"commits\":1", "\"commits\":\"one\"", 1)
        .parse()
        .unwrap();
    match check::<Project>(&unreadable) {
        Err(ReplayUnsafe::Unreadable {
            version, source, ..
        }) => {
            assert_eq!(version, 2, "{source}");
        }
        other => panic!("{other:?}"),
    }
    let nothing = check::<Project>(&Recording::default());
    assert!(matches!(nothing, Err(ReplayUnsafe::NothingRecorded { .. })));
    assert_eq!(ProjectEvent::DEFINITIONS.len(), 2);
}
