//! Recordings are replayed: the real handlers and aggregates handle what was recorded.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::TestService;
use super::replayed::{Failed, Input, Made, Replayed};
use crate::BoxError;
use crate::codec::NewEvent;
use crate::dispatcher::{HandlerFailure, chain_of};
use crate::event::{Category, EventRegistration};
use crate::handler::HandlerError;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, RecordedEvent};
use crate::recording::{Recording, RecordingLine};
use crate::service::ServiceError;
use crate::store::{Append, Backend, DeadLetter, Expected, ReadError};

/// How many dead letters are read at once.
const BATCH: usize = 1_000;

/// Partitions, and up to where each was written before.
type Heads = BTreeMap<Partition, Position>;

/// Where the events of a recording came to lie, with the partition as far as the store says it. What was
/// made is told from them by that: a handler may give what it makes the id of what it handles.
type Places = HashSet<(Option<Partition>, Position)>;

impl<S: Backend + Clone> TestService<S> {
    /// Has the service handle what was recorded, one event after the other, each with everything that
    /// follows from it. The clock follows: when an event is handled, it is the time at which that was made.
    ///
    /// The events keep their ids, times and causes. Those that this service has made itself while it
    /// handled others of the recording are left out, since it makes them anew.
    ///
    /// A handler that fails is no error here: what it failed on is among what the recording has come to.
    ///
    /// ```standalone_crate
    /// use event_core::prelude::*;
    /// use event_core::Recording;
    /// use event_core::testing::TestService;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
    /// # #[event("github.push")]
    /// # struct GithubPush { commits: u32 }
    /// # #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
    /// # #[event("repository.analyzed")]
    /// # struct RepositoryAnalyzed { findings: u32 }
    /// #[event_handler(on = "github.push", emits = "repository.analyzed", group = "analyzer")]
    /// async fn analyze(push: GithubPush) -> RepositoryAnalyzed {
    ///     RepositoryAnalyzed { findings: push.commits }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let recording: Recording =
    ///     r#"{"position":"1763900000000-0","type":"github.push","payload":{"commits":3}}"#.parse()?;
    /// let test = TestService::start(Service::builder("analyzer")).await?;
    /// let replayed = test.replay(&recording).await?;
    /// assert_eq!(replayed.events()[0].event_type(), "repository.analyzed");
    /// replayed.assert_emits_only_declared();
    /// # let folder = std::env::temp_dir().join(format!("golden-{}", std::process::id()));
    /// # let path = folder.join("pushes.json");
    /// # std::fs::create_dir_all(&folder)?;
    /// # std::fs::write(&path, replayed.to_text()?)?;
    /// # let golden = path.display().to_string();
    /// // In a test of your own: `assert_golden("tests/golden/pushes.json")`
    /// replayed.assert_golden(golden);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Where the store does not answer, or something of the recording is not taken.
    pub async fn replay(&self, recording: &Recording) -> Result<Replayed, BoxError> {
        let lines = recording.lines();
        let mut now = lines.first().map(|line| line.event.metadata().timestamp);
        for line in lines {
            // What it makes must not have the id of something recorded.
            self.ids().skip(line.event.metadata().event_id);
        }
        if let Some(now) = now {
            self.clock().set(now);
        }
        self.run_until_idle().await?;
        let heads = self.heads(recording).await?;
        let heard_before = self.hear().await?.len();

        let mut inputs = Vec::new();
        let mut places = Places::new();
        let mut left_out = 0;
        let mut failures = Vec::new();
        // All of them: of two feeds, a recording may have an effect before its cause.
        let ids = lines.iter().map(|line| id_of(&line.event));
        let ids: HashSet<_> = ids.collect();
        for line in lines {
            let metadata = line.event.metadata();
            let is_own = metadata.source.as_deref() == Some(self.service().name())
                && metadata
                    .causation_id
                    .as_ref()
                    .is_some_and(|cause| ids.contains(cause));
            if is_own {
                left_out += 1;
                continue;
            }
            now = now.max(Some(metadata.timestamp));
            self.clock().set(now.unwrap_or(metadata.timestamp));
            // With the service's inline projections, as what it makes itself.
            let appended = self.service().store().append(&append_of(line)?).await?;
            // A repetition is stored already, as what is perhaps no event of the recording.
            let stored = appended.events.iter().filter(|event| !event.repeated);
            places.extend(stored.map(|event| (appended.partition.clone(), event.position)));
            inputs.push(Input::of(line));
            match self.run_until_idle().await {
                Ok(_) => {}
                Err(ServiceError::Handler(failure)) => failures.push(failure),
                Err(error) => return Err(error.into()),
            }
            drop(self.hear().await?);
        }

        let made = self.made(&heads, &inputs, &places, heard_before).await?;
        let letters = self.letters(heads.keys()).await?;
        let failed = failed(&inputs, &made, letters, &failures);
        let undeclared = failures
            .iter()
            .filter(|failure| matches!(failure.source, HandlerError::Undeclared { .. }))
            .map(ToString::to_string)
            .collect();
        let declared = self.service().declared_emits().clone();
        Ok(Replayed::new(
            inputs, left_out, made, failed, undeclared, declared,
        ))
    }

    /// The partitions of every category that the program or the recording knows.
    async fn heads(&self, recording: &Recording) -> Result<Heads, ReadError> {
        let recorded = recording.lines().iter().map(|line| &line.partition);
        let mut categories: BTreeSet<Category> = recorded
            .map(|partition| partition.category().clone())
            .collect();
        for registration in EventRegistration::all() {
            let stored = registration.definitions().iter();
            let stored = stored.filter(|definition| !definition.is_realtime());
            categories.extend(stored.map(|definition| definition.category()));
        }
        let mut heads = Heads::new();
        for category in categories {
            for number in 0..self.store().partitions(&category).await? {
                let partition = Partition::new(category.clone(), number);
                let head = self.store().head(&partition).await?;
                heads.insert(partition, head);
            }
        }
        Ok(heads)
    }

    /// What was stored and sent beside the recording, each behind its cause.
    async fn made(
        &self,
        heads: &Heads,
        inputs: &[Input],
        places: &Places,
        heard_before: usize,
    ) -> Result<Vec<Made>, BoxError> {
        let mut known: HashSet<Uuid> = inputs.iter().map(|input| input.event_id).collect();
        let mut events = Vec::new();
        for (partition, head) in heads {
            let mut behind = self.events_behind(partition, *head).await?;
            behind.retain(|event| {
                let is_at = |partition| places.contains(&(partition, event.position()));
                !is_at(Some(partition.clone())) && !is_at(None)
            });
            known.extend(behind.iter().map(|event| event.metadata().event_id));
            events.extend(behind);
        }
        let heard = self.hear().await?;
        let sent = heard.iter().skip(heard_before);
        events.extend(
            sent.filter(|event| known.insert(event.metadata().event_id))
                .cloned(),
        );
        Ok(by_cause(inputs, events))
    }

    async fn letters(
        &self,
        partitions: impl Iterator<Item = &Partition>,
    ) -> Result<Vec<DeadLetter>, BoxError> {
        let group = self.service().group();
        let mut letters: Vec<DeadLetter> = Vec::new();
        for partition in partitions {
            let mut last = None;
            loop {
                let store = self.store();
                let page = store.list_dead_letters(group, partition, last.as_ref(), BATCH);
                let page = page.await?;
                let Some(newest) = page.last() else {
                    break;
                };
                last = Some(newest.id());
                letters.extend(page);
            }
        }
        Ok(letters)
    }
}

/// The append that stores a recorded event as it was, wherever it comes to lie.
fn append_of(line: &RecordingLine) -> Result<Append, BoxError> {
    let event = &line.event;
    let new = NewEvent::from_parts(
        event.event_type(),
        event.payload(),
        event.metadata().clone(),
    )?;
    let category = line.partition.category().clone();
    Ok(match event.aggregate() {
        None => Append::to_feed(category, vec![new]),
        Some(own) => {
            let id = AggregateId::new(category, own.aggregate_type.clone(), &own.id)?;
            Append::to(id, Expected::Any, vec![new])
        }
    })
}

/// Puts events behind what they were made for: so that their order is the same, whichever of two that do
/// not depend on each other was faster.
fn by_cause(inputs: &[Input], events: Vec<RecordedEvent>) -> Vec<Made> {
    let mut causes: HashSet<String> = events.iter().map(id_of).collect();
    causes.extend(inputs.iter().map(|input| input.event_id.to_string()));
    let mut effects: HashMap<String, Vec<RecordedEvent>> = HashMap::new();
    // What is still to be told, the next at the end: first of all what nothing has caused.
    let mut open = Vec::new();
    for event in events {
        match &event.metadata().causation_id {
            Some(cause) if causes.contains(cause) => {
                effects.entry(cause.clone()).or_default().push(event);
            }
            _ => open.push(Made {
                of: None,
                because: None,
                event,
            }),
        }
    }
    open.reverse();
    for input in inputs.iter().rev() {
        let effects = effects.remove(&input.event_id.to_string());
        let effects = effects.unwrap_or_default().into_iter().rev();
        open.extend(effects.map(|event| Made {
            of: Some(input.name.clone()),
            because: None,
            event,
        }));
    }
    let mut made = Vec::new();
    while let Some(next) = open.pop() {
        let effects = effects.remove(&id_of(&next.event));
        let effects = effects.unwrap_or_default().into_iter().rev();
        open.extend(effects.map(|event| Made {
            of: next.of.clone(),
            because: Some(next.event.event_type().to_owned()),
            event,
        }));
        made.push(next);
    }
    made
}

fn id_of(event: &RecordedEvent) -> String {
    event.metadata().event_id.to_string()
}

/// What handlers have failed on, in the order of the recording.
fn failed(
    inputs: &[Input],
    made: &[Made],
    letters: Vec<DeadLetter>,
    failures: &[Arc<HandlerFailure>],
) -> Vec<Failed> {
    let recorded = inputs
        .iter()
        .map(|input| (input.event_id, input.name.clone()));
    let made = made.iter().map(|made| {
        let of = made.of.as_deref().unwrap_or("nothing");
        let name = format!("{} of {of}", made.event.event_type());
        (made.event.metadata().event_id, name)
    });
    let events: HashMap<Uuid, (usize, String)> = recorded
        .chain(made)
        .enumerate()
        .map(|(number, (id, name))| (id, (number, name)))
        .collect();
    let mut failed = BTreeMap::new();
    let skipped = failures.iter().map(|failure| {
        let errors = chain_of(&failure.source);
        let handler = failure.handler.clone();
        (
            Some(failure.event_id),
            handler,
            "leftOut".to_owned(),
            errors,
        )
    });
    // Those that are dead letters say more, so they come later.
    let parked = letters.into_iter().map(|letter| {
        let reason = serde_json::to_value(letter.reason);
        let reason = reason
            .ok()
            .and_then(|reason| Some(reason.as_str()?.to_owned()));
        let reason = reason.unwrap_or_default();
        (letter.event_id, letter.handler, reason, letter.errors)
    });
    for (event_id, handler, reason, errors) in skipped.chain(parked) {
        if let Some((number, name)) = event_id.and_then(|id| events.get(&id)) {
            let failure = Failed {
                of: name.clone(),
                handler: handler.clone(),
                reason,
                errors,
            };
            failed.insert((*number, handler), failure);
        }
    }
    failed.into_values().collect()
}
