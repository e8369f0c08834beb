//! Commits: what was done is gathered, stored, and told.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use super::{COMMIT_EVERY, Gathered, Owned, REDRIVEN, Talk};
use crate::handler::HandlerError;
use crate::repository::recorded;
use crate::store::{Append, Commit, CommitError, Committed};
use crate::subscription::parked::Parked;
use crate::subscription::shared::pauses;
use crate::subscription::window::{Number, Settling};
use crate::trace;

impl Owned {
    /// Finishes a work, if nothing of it is left to do or to store.
    pub(super) fn settle(&mut self, number: Number) {
        let Some(work) = self.work(number) else {
            return;
        };
        if !work.is_settled() {
            return;
        }
        if let Some(redriven) = &mut work.redriven
            && redriven.is_resolved
        {
            // Told once: what follows is only the wait for the commit.
            redriven.is_resolved = false;
            work.uncommitted += 1;
            let id = redriven.id.clone();
            self.gathered.resolved.push(id);
            self.gathered.waiting.push(number);
            return;
        }
        if work.uncommitted > 0 {
            self.gathered.is_moved = true;
            return;
        }
        self.finish(number);
    }

    fn finish(&mut self, number: Number) {
        let shared = Arc::clone(&self.shared);
        let Some(work) = self.work(number) else {
            return;
        };
        let is_new = work.count();
        let lane = work.lane;
        if !shared.waiting.is_empty()
            && let Some(event_id) = work.event_id()
        {
            let outcome = match work.failure.take() {
                Some(failure) => Err(failure),
                None => Ok(()),
            };
            shared.waiting.tell(event_id, outcome);
        }
        if number >= REDRIVEN {
            self.drop_redriven(number);
        } else {
            self.leave_lane(lane);
            self.gathered.finished += u64::from(is_new);
            let bytes = self.window.leave(number);
            self.leave_behind(bytes);
        }
    }

    /// Notes that an entry of so many bytes is out of the window.
    pub(super) fn leave_behind(&mut self, bytes: usize) {
        self.gathered.is_moved = true;
        if self.load.remove(1, bytes) {
            self.shared.room.notify_one();
        }
    }

    /// When the next commit is due at the latest, if one is.
    pub(super) fn commit_at(&self) -> Option<Instant> {
        if self.talk.is_some() || !self.gathered.is_moved {
            return None;
        }
        self.last_commit.map(|last| last + COMMIT_EVERY)
    }

    /// Commits, or reads the dead letters, if it is time to and nothing else is on its way.
    pub(super) fn begin_talk(&mut self, is_stopping: bool) {
        if self.talk.is_some() {
            return;
        }
        let is_due = self.gathered.is_urgent()
            || (self.gathered.is_moved
                && (is_stopping
                    || self
                        .last_commit
                        .is_none_or(|last| last.elapsed() >= COMMIT_EVERY)));
        // In turns, where both are wanted all the time.
        let must_load = self.must_load && !is_stopping && !(is_due && self.has_loaded);
        self.has_loaded = must_load;
        if must_load {
            self.must_load = false;
            let shared = Arc::clone(&self.shared);
            let lease = self.lease.clone();
            self.talk = Some(Box::pin(async move {
                Talk::Loaded(Parked::load(&*shared.backend, &lease.group, &lease.partition).await)
            }));
            return;
        }
        if !is_due {
            return;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.finished += self.window.count_settled();
        let commit = Commit {
            number: self.commit_number,
            progress: self.window.progress(),
            finished: gathered.finished,
            emitted: std::mem::take(&mut gathered.emitted),
            parked: gathered.parked.clone(),
            follows: gathered.follows.clone(),
            retried: gathered.retried.clone(),
            resolved: gathered.resolved.clone(),
            wants_places: !self.shared.waiting.is_empty(),
        };
        self.last_commit = Some(Instant::now());
        let shared = Arc::clone(&self.shared);
        let lease = self.lease.clone();
        let span = debug_span!("store", partition = %lease.partition, commit = commit.number);
        trace::link(&span, commit.traceparents());
        self.talk = Some(Box::pin(
            async move {
                let mut pauses = pauses();
                loop {
                    let result = shared.backend.commit(&lease, &commit).await;
                    if let Err(CommitError::Store(error)) = &result {
                        tracing::error!(partition = %lease.partition, %error, "a commit is not stored; trying again");
                        // The same commit again, without end: whoever stops the service has a
                        // deadline.
                        pauses.pause(&CancellationToken::new()).await;
                        continue;
                    }
                    return Talk::Committed(Box::new(gathered), Box::new(commit), result);
                }
            }
            .instrument(span),
        ));
    }

    /// Notes what the store has said. `false` where the lease is lost.
    pub(super) fn talked(&mut self, talk: Talk) -> bool {
        match talk {
            Talk::Loaded(Ok(mut parked)) => {
                for letter in self.gathered.parked.iter().chain(&self.gathered.retried) {
                    parked.insert(letter.clone());
                }
                for id in &self.gathered.resolved {
                    parked.remove(id);
                }
                self.parked = parked;
                self.reloaded();
                self.count_dead_letters(self.parked.len());
                self.redrive();
            }
            Talk::Loaded(Err(error)) => {
                tracing::error!(partition = %self.lease.partition, %error, "the dead letters cannot be read; trying again");
                self.must_load = true;
            }
            Talk::Committed(gathered, commit, Ok(committed)) => {
                self.commit_number += 1;
                self.load.set_progress(&commit.progress);
                self.tell(&gathered, &commit);
                self.note_emitted(&gathered, &commit, &committed);
                for id in &gathered.resolved {
                    self.parked.remove(id);
                }
                self.count_dead_letters(committed.dead_letters);
                for number in &gathered.waiting {
                    if let Some(work) = self.work(*number) {
                        work.uncommitted = work.uncommitted.saturating_sub(1);
                    }
                    self.settle(*number);
                }
                if gathered.parked.iter().any(|letter| letter.redrive) {
                    self.redrive();
                }
            }
            Talk::Committed(gathered, commit, Err(CommitError::Refused { refused })) => {
                self.take_back(*gathered, *commit, refused);
            }
            Talk::Committed(_, _, Err(error)) => {
                tracing::warn!(partition = %self.lease.partition, %error, "the partition is given up");
                return false;
            }
        }
        true
    }

    /// Tells what a commit has stored.
    pub(super) fn tell(&self, gathered: &Gathered, commit: &Commit) {
        let metrics = &self.load.metrics;
        metrics.commits.increment(1);
        metrics.parked.increment(gathered.parked.len() as u64);
        let sent = self.dispatcher.publisher.metrics();
        sent.emitted(commit.emitted.iter().flatten());
        if let Some(reports) = &self.shared.reports {
            for letter in &gathered.parked {
                reports.dead_letter(&self.lease.partition, letter);
            }
        }
    }

    /// Remembers what was emitted where somebody waits for it.
    pub(super) fn note_emitted(
        &mut self,
        gathered: &Gathered,
        commit: &Commit,
        committed: &Committed,
    ) {
        if self.shared.waiting.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        for (((number, _), appends), places) in gathered
            .runs
            .iter()
            .zip(&commit.emitted)
            .zip(&committed.emitted)
        {
            if let Some(event_id) = self.work(*number).and_then(|work| work.event_id()) {
                let stored = appends.iter().zip(places);
                let stored = stored.flat_map(|(append, appended)| recorded(append, appended));
                shared.waiting.note_emitted(event_id, stored);
            }
        }
    }

    /// Makes failures of the runs whose events cannot be stored, and gathers the rest again.
    fn take_back(
        &mut self,
        mut gathered: Gathered,
        commit: Commit,
        refused: Vec<(usize, crate::store::AppendError)>,
    ) {
        let mut errors: HashMap<usize, _> = refused.into_iter().collect();
        let mut kept = Gathered {
            parked: std::mem::take(&mut gathered.parked),
            follows: std::mem::take(&mut gathered.follows),
            retried: std::mem::take(&mut gathered.retried),
            resolved: std::mem::take(&mut gathered.resolved),
            finished: gathered.finished,
            is_moved: true,
            ..Gathered::default()
        };
        let mut waiting = std::mem::take(&mut gathered.waiting);
        let mut failures = Vec::new();
        for (index, (run, appends)) in gathered.runs.into_iter().zip(commit.emitted).enumerate() {
            match errors.remove(&index) {
                None => {
                    kept.runs.push(run);
                    kept.emitted.push(appends);
                }
                Some(error) => {
                    if let Some(at) = waiting.iter().position(|number| *number == run.0) {
                        waiting.swap_remove(at);
                    }
                    failures.push((run, error));
                }
            }
        }
        kept.waiting = waiting;
        // In front of what was gathered meanwhile, whose order it keeps.
        let newer = std::mem::take(&mut self.gathered);
        kept.runs.extend(newer.runs);
        kept.emitted.extend(newer.emitted);
        kept.parked.extend(newer.parked);
        kept.follows.extend(newer.follows);
        kept.retried.extend(newer.retried);
        kept.resolved.extend(newer.resolved);
        kept.waiting.extend(newer.waiting);
        kept.finished += newer.finished;
        self.gathered = kept;
        for ((number, route), error) in failures {
            self.leave_parked(number);
            if let Some(work) = self.work(number) {
                work.uncommitted = work.uncommitted.saturating_sub(1);
                work.done.retain(|done| *done != route);
                // It is not settled any more.
                if number < REDRIVEN && std::mem::replace(&mut work.is_counted, false) {
                    self.gathered.finished -= 1;
                }
            }
            self.failed(number, route, HandlerError::Publish(Box::new(error)));
            self.settle(number);
        }
    }
}

impl Commit {
    /// The trace contexts of what is emitted.
    fn traceparents(&self) -> impl Iterator<Item = Option<&str>> {
        let emitted = self.emitted.iter().flatten().flat_map(Append::events);
        emitted.map(|event| event.metadata().traceparent.as_deref())
    }
}
