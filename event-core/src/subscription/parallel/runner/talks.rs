//! Talks: what has come of entries is stored, and what is pending is kept, claimed and taken back.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use super::store::Store;
use super::{FINISH_EVERY, ParallelRunner, Talk};
use crate::handler::HandlerError;
use crate::recorded::Position;
use crate::repository::recorded;
use crate::store::{AppendError, Finish, FinishError, Finished, ReadError, StoreError};
use crate::subscription::parallel::GONE_AFTER;
use crate::subscription::parallel::work::{Gathered, Place};
use crate::subscription::shared::pauses;

impl ParallelRunner<'_> {
    /// Asks the store for what is due, of each partition of which nothing else is on its way.
    pub(super) fn begin_talk(&mut self) {
        let keeps = self.keeping.is_due();
        let claims = self.claiming.is_due();
        let removes = self.removing.is_due();
        for index in 0..self.parts.len() {
            let part = &mut self.parts[index];
            part.must_keep |= keeps;
            part.may_claim |= claims;
            part.may_remove |= removes;
            if !part.is_talking
                && let Some(talk) = self.next_talk(index)
            {
                self.parts[index].is_talking = true;
                self.talks.push(async move { (index, talk.await) }.boxed());
            }
        }
    }

    /// What is due of a partition.
    fn next_talk(&mut self, index: usize) -> Option<BoxFuture<'static, Talk>> {
        let part = &mut self.parts[index];
        if std::mem::take(&mut part.must_keep)
            && let Some(talk) = self.keep(index)
        {
            return Some(talk);
        }
        if self.must_finish(index) {
            return Some(self.finish(index));
        }
        if self.stopping.is_cancelled() {
            // What is left is left to others.
            return None;
        }
        let part = &mut self.parts[index];
        if part.must_take_back {
            if Instant::now() < part.try_at {
                return None;
            }
            if part.must_open {
                let start = self.handler.definition.start;
                return Some(self.store(index).open(start).boxed());
            }
            // What is on its way must not come twice.
            let is_taking = self.reader.is_taking(&self.partitions[index]);
            return (!is_taking).then(|| self.store(index).take_back().boxed());
        }
        if std::mem::take(&mut part.may_claim)
            && self.works.len() < self.handler.window
            && self.handler.shared.gate.closed_until().is_none()
            && !self.is_full()
        {
            let room = self.handler.window - self.works.len();
            let room = (room / self.parts.len()).max(1);
            let claim = self.store(index).claim(self.handler.lease, room);
            return Some(claim.boxed());
        }
        let may_remove = std::mem::take(&mut self.parts[index].may_remove);
        may_remove.then(|| {
            let idle = self.handler.lease * GONE_AFTER;
            self.store(index).remove_consumers(idle).boxed()
        })
    }

    fn store(&self, index: usize) -> Store {
        Store {
            backend: Arc::clone(&self.handler.shared.backend),
            consumer: self.handler.consumer.clone(),
            partition: self.partitions[index].clone(),
            patience: self.patience(),
            stopping: self.stopping.clone(),
        }
    }

    /// Says that what is here is still worked on. Where there are too many dead letters, looks whether
    /// there still are.
    fn keep(&mut self, index: usize) -> Option<BoxFuture<'static, Talk>> {
        let is_full = self.parts[index].dead_letters >= self.handler.dead_letter_limit;
        let places = self.works.keys();
        let mut positions: Vec<_> = places
            .filter(|place| place.partition == index)
            .map(|place| place.position)
            .collect();
        if positions.is_empty() && !is_full {
            return None;
        }
        positions.sort_unstable();
        let store = self.store(index);
        let keep = async move {
            if !positions.is_empty() {
                store.keep_alive(&positions).await;
            }
            if is_full {
                store.finish(Finish::default()).await
            } else {
                Talk::Kept
            }
        };
        Some(keep.boxed())
    }

    fn must_finish(&self, index: usize) -> bool {
        let part = &self.parts[index];
        if part.gathered.is_empty() {
            return false;
        }
        part.gathered.is_urgent()
            || self.stopping.is_cancelled()
            || !self.handler.waiting.is_empty()
            || part.gathered.len() * self.parts.len() >= self.handler.window / 4
            || part
                .last_finish
                .is_none_or(|last| last.elapsed() >= FINISH_EVERY)
    }

    fn finish(&mut self, index: usize) -> BoxFuture<'static, Talk> {
        let wants_places = !self.handler.waiting.is_empty();
        let part = &mut self.parts[index];
        let finish = part.gathered.take(wants_places);
        part.last_finish = Some(Instant::now());
        let span = debug_span!("store", handler = %self.handler.consumer.group);
        self.store(index).finish(finish).instrument(span).boxed()
    }

    /// Notes what the store has said.
    pub(super) fn talked(&mut self, index: usize, talk: Talk) {
        let partition = &self.partitions[index];
        let part = &mut self.parts[index];
        part.is_talking = false;
        match talk {
            Talk::Kept => {}
            Talk::TakenBack(Ok(entries)) => {
                part.must_take_back = false;
                part.tries = pauses();
                self.leave_out();
                self.admit_early(index, entries);
            }
            Talk::TakenBack(Err(ReadError::Store(StoreError::Forgotten { .. })))
            | Talk::Claimed(Err(ReadError::Store(StoreError::Forgotten { .. })), _) => {
                self.forget(index);
            }
            Talk::TakenBack(Err(error)) => {
                tracing::error!(%partition, %error, "what is pending cannot be read; trying again");
                part.try_at = Instant::now() + part.tries.next();
            }
            Talk::Claimed(Ok(entries), limit) => {
                // There may be more.
                part.may_claim |= entries.len() >= limit;
                self.admit_early(index, entries);
            }
            Talk::Claimed(Err(error), _) => {
                tracing::warn!(%partition, %error, "entries cannot be claimed");
                // They may be pending here all the same.
                part.must_take_back = true;
                self.leave_out();
            }
            Talk::Opened(Ok(())) => {
                tracing::warn!(%partition, "the group was forgotten; it begins anew");
                part.must_open = false;
                part.tries = pauses();
            }
            Talk::Opened(Err(error)) => {
                tracing::error!(%partition, %error, "the group was forgotten, and cannot be opened; trying again");
                part.try_at = Instant::now() + part.tries.next();
            }
            Talk::Finished(finish, Ok(finished)) => self.finished(index, &finish, &finished),
            Talk::Finished(finish, Err(FinishError::Refused { refused })) => {
                self.refused(index, finish, refused);
            }
            Talk::Finished(_, Err(FinishError::Store(StoreError::Forgotten { .. }))) => {
                self.forget(index);
            }
            // Tried again, without end, unless it stops. Others claim these entries.
            Talk::Finished(_, Err(FinishError::Store(error))) => {
                tracing::error!(%partition, %error, "what has come of entries is not stored");
            }
        }
    }

    /// Drops what is here of a partition: the group was reset, so that it is nobody's any more.
    fn forget(&mut self, index: usize) {
        let bytes = &mut self.bytes;
        self.works.retain(|place, work| {
            let stays = place.partition != index;
            if !stays {
                *bytes = bytes.saturating_sub(work.bytes);
            }
            stays
        });
        self.ready.retain(|place| place.partition != index);
        let part = &mut self.parts[index];
        part.gathered = Gathered::default();
        part.early.clear();
        part.opened += 1;
        part.must_open = true;
        part.must_take_back = true;
        self.leave_out();
    }

    fn finished(&mut self, partition: usize, finish: &Finish, finished: &Finished) {
        self.count_dead_letters(partition, finished.dead_letters);
        self.tell(partition, finish, finished);
        let waits = !self.handler.waiting.is_empty();
        for (emits, stored) in finish.emitted.iter().zip(&finished.emitted) {
            match stored {
                Some(places) if waits => {
                    let place = Place {
                        partition,
                        position: emits.position,
                    };
                    if let Some(work) = self.works.get_mut(&place) {
                        for (append, appended) in emits.appends.iter().zip(places) {
                            work.emitted.extend(recorded(append, appended));
                        }
                    }
                }
                Some(_) => {}
                None => tracing::debug!(
                    partition = %self.partitions[partition],
                    position = %emits.position,
                    "what was emitted is left out: the entry is handled already"
                ),
            }
        }
        let emitted = finish.emitted.iter().map(|emits| emits.position);
        let parked = finish.parked.iter().map(|letter| letter.position);
        for position in finish.done.iter().copied().chain(emitted).chain(parked) {
            let place = Place {
                partition,
                position,
            };
            let Some(work) = self.works.remove(&place) else {
                continue;
            };
            self.bytes = self.bytes.saturating_sub(work.bytes);
            if waits && let Some(event) = work.event {
                let event_id = event.metadata().event_id;
                let outcome = match work.failure {
                    Some(failure) => Err(failure),
                    None => Ok(()),
                };
                self.handler.waiting.note_emitted(event_id, work.emitted);
                self.handler.waiting.tell(event_id, outcome);
            }
        }
    }

    /// Tells what was stored.
    pub(super) fn tell(&self, partition: usize, finish: &Finish, finished: &Finished) {
        let metrics = &self.parts[partition].metrics;
        metrics.commits.increment(1);
        metrics.parked.increment(finish.parked.len() as u64);
        let stored = finish.emitted.iter().zip(&finished.emitted);
        let stored = stored.filter(|(_, places)| places.is_some());
        let sent = self.handler.definition.dispatcher.publisher.metrics();
        sent.emitted(stored.flat_map(|(emits, _)| &emits.appends));
        if let Some(reports) = &self.handler.shared.reports {
            for letter in &finish.parked {
                reports.dead_letter(&self.partitions[partition], letter);
            }
        }
    }

    /// Makes failures of the runs whose events cannot be stored, and gathers the rest again.
    fn refused(&mut self, partition: usize, finish: Finish, refused: Vec<(usize, AppendError)>) {
        let gathered = &mut self.parts[partition].gathered;
        for (position, error) in gathered.take_back(finish, refused) {
            let place = Place {
                partition,
                position,
            };
            self.failed(place, HandlerError::Publish(Box::new(error)));
        }
    }

    fn count_dead_letters(&mut self, partition: usize, count: usize) {
        let was_full = self.is_full();
        self.parts[partition].dead_letters = count;
        if self.is_full() && !was_full {
            tracing::error!(
                partition = %self.partitions[partition],
                count,
                "there are as many dead letters as there may be: nothing more is taken until some are redriven or discarded"
            );
        }
    }

    /// The positions of what is pending here, sorted, of each partition that has some.
    pub(super) fn positions(&self) -> Vec<(usize, Vec<Position>)> {
        let mut places: Vec<_> = self.works.keys().copied().collect();
        places.sort_unstable();
        places
            .chunk_by(|a, b| a.partition == b.partition)
            .map(|places| {
                let positions = places.iter().map(|place| place.position).collect();
                (places[0].partition, positions)
            })
            .collect()
    }
}
