//! Talks: what has come of entries is stored, and what is pending is kept, claimed and taken back.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use super::store::Store;
use super::{FINISH_EVERY, ParallelRunner, Talk};
use crate::handler::HandlerError;
use crate::recorded::Position;
use crate::repository::recorded;
use crate::store::{AppendError, Finish, FinishError, Finished};
use crate::subscription::parallel::GONE_AFTER;
use crate::subscription::parallel::work::Place;

impl ParallelRunner<'_> {
    /// Asks the store for what is due, if nothing else is on its way.
    pub(super) fn begin_talk(&mut self) {
        if self.talk.is_some() {
            return;
        }
        if self.keeping.is_due() && (!self.works.is_empty() || self.is_full()) {
            self.keep();
        } else if self.must_finish() {
            self.finish();
        } else if self.stopping.is_cancelled() {
            // What is left is left to others.
        } else if self.must_take_back && !self.is_taking {
            self.must_take_back = false;
            self.talk = Some(Box::pin(self.store().take_back()));
        } else if self.claiming.is_due()
            && self.works.len() < self.handler.window
            && self.handler.shared.gate.closed_until().is_none()
            && !self.is_full()
        {
            let room = self.handler.window - self.works.len();
            self.talk = Some(Box::pin(self.store().claim(self.handler.lease, room)));
        } else if self.removing.is_due() {
            let idle = self.handler.lease * GONE_AFTER;
            self.talk = Some(Box::pin(self.store().remove_consumers(idle)));
        }
    }

    fn store(&self) -> Store {
        Store {
            backend: Arc::clone(&self.handler.shared.backend),
            consumer: self.handler.consumer.clone(),
            partitions: Arc::clone(&self.partitions),
        }
    }

    /// Says that what is here is still worked on. Where there are too many dead letters, looks whether
    /// there still are.
    fn keep(&mut self) {
        let positions = self.positions();
        let limit = self.handler.dead_letter_limit;
        let full: Vec<_> = (0..self.partitions.len())
            .filter(|index| self.dead_letters[*index] >= limit)
            .map(|index| (index, Finish::default()))
            .collect();
        let store = self.store();
        self.talk = Some(Box::pin(async move {
            store.keep_alive(positions).await;
            if full.is_empty() {
                Talk::Kept
            } else {
                store.finish(full).await
            }
        }));
    }

    fn must_finish(&self) -> bool {
        if self.gathered.is_empty() {
            return false;
        }
        self.gathered.is_urgent()
            || self.stopping.is_cancelled()
            || !self.handler.waiting.is_empty()
            || self.gathered.len() >= self.handler.window / 4
            || self
                .last_finish
                .is_none_or(|last| last.elapsed() >= FINISH_EVERY)
    }

    fn finish(&mut self) {
        let mut finishes = self.gathered.take(self.partitions.len());
        let wants_places = !self.handler.waiting.is_empty();
        for (_, finish) in &mut finishes {
            finish.wants_places = wants_places;
        }
        self.last_finish = Some(Instant::now());
        let span = debug_span!("store", handler = %self.handler.consumer.group);
        let store = self.store();
        let finish = async move { store.finish(finishes).await };
        self.talk = Some(Box::pin(finish.instrument(span)));
    }

    /// Notes what the store has said.
    pub(super) fn talked(&mut self, talk: Talk) {
        match talk {
            Talk::Kept => {}
            Talk::NotTakenBack(error) => {
                tracing::error!(%error, "what is pending cannot be read; trying again");
                self.must_take_back = true;
            }
            Talk::Pending(pending) => {
                for (partition, entries) in pending {
                    self.admit(partition, entries);
                }
            }
            Talk::Finished(finishes) => {
                for (partition, finish, result) in finishes {
                    match result {
                        Ok(finished) => self.finished(partition, &finish, &finished),
                        Err(FinishError::Refused { refused }) => {
                            self.refused(partition, finish, refused);
                        }
                        // Tried again, without end, before.
                        Err(FinishError::Store(error)) => {
                            tracing::error!(%error, "what has come of entries is not stored");
                            self.gathered.take_back(partition, finish, Vec::new());
                        }
                    }
                }
            }
        }
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
        let metrics = &self.metrics[partition];
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
        for (place, error) in self.gathered.take_back(partition, finish, refused) {
            self.failed(place, HandlerError::Publish(Box::new(error)));
        }
    }

    fn count_dead_letters(&mut self, partition: usize, count: usize) {
        let was_full = self.is_full();
        self.dead_letters[partition] = count;
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
