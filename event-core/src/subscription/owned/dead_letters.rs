//! Dead letters: what becomes one, what follows it, and what is handled again.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Owned, Unit};
use crate::codec::entry::{self, EntryFields};
use crate::dispatcher::chain_of;
use crate::handler::HandlerError;
use crate::partition::key_of;
use crate::recorded::RecordedEvent;
use crate::store::{DeadLetter, DeadLetterId, DeadLetterReason};
use crate::subscription::shared::pauses;
use crate::subscription::window::Number;
use crate::subscription::work::{Redriven, Work, lane_of_key};

impl Owned {
    /// Keeps an event among the dead letters, with the next commit.
    pub(super) fn park(&mut self, number: Number, letter: DeadLetter) {
        if let Some(work) = self.work(number) {
            work.uncommitted += 1;
        }
        self.parked.insert(letter.clone());
        self.gathered.parked.push(letter);
        self.gathered.waiting.push(number);
    }

    /// Parks an event behind the dead letters of its key, if there are some.
    pub(super) fn must_follow(
        &mut self,
        number: Number,
        route: usize,
        event: &RecordedEvent,
    ) -> bool {
        if self.parked.len() == 0 {
            return false;
        }
        let name = Arc::clone(&self.names[route]);
        let Some(key) = key_of(event) else {
            return false;
        };
        if !self.parked.blocks(&name, &key) {
            return false;
        }
        let is_redriven = self.work(number).is_some_and(|work| {
            work.redriven
                .as_ref()
                .is_some_and(|redriven| *redriven.id.handler == *name)
        });
        if is_redriven {
            return false;
        }
        // What comes while the key is redriven, is redriven with it.
        let last = self.parked.of(&name, &key).next_back();
        let redrive = last.is_some_and(|last| last.redrive);
        let followed = last.map(DeadLetter::id);
        let now = self.shared.clock.now();
        let letter = DeadLetter {
            position: event.position(),
            handler: name.to_string(),
            key: Some(key),
            event_type: Some(event.event_type().to_owned()),
            event_id: Some(event.metadata().event_id),
            reason: DeadLetterReason::Follows,
            errors: Vec::new(),
            attempts: 0,
            first_failed_at: now,
            last_failed_at: now,
            redrive,
        };
        if let Some(work) = self.work(number) {
            work.done.push(route);
        }
        if let Some(followed) = followed {
            self.gathered.follows.push((letter.id(), followed));
        }
        self.park(number, letter);
        true
    }

    /// Keeps a dead letter that was handled again, and those of its key behind it, which would
    /// overtake it otherwise.
    pub(super) fn redriven_in_vain(&mut self, mut letter: DeadLetter) {
        if let Some(old) = self.parked.get(&letter.id()) {
            letter.attempts += old.attempts;
            letter.first_failed_at = old.first_failed_at;
        }
        self.retry_in_vain(letter.clone());
        self.hold_back_behind(&letter);
    }

    /// Has those of the key that lie behind a dead letter, and are to be handled again, stay there.
    fn hold_back_behind(&mut self, letter: &DeadLetter) {
        let Some(key) = &letter.key else {
            return;
        };
        let behind: Vec<_> = self
            .parked
            .of(&letter.handler, key)
            .filter(|other| other.redrive && other.position > letter.position)
            .cloned()
            .collect();
        for mut other in behind {
            other.redrive = false;
            self.retry_in_vain(other);
        }
    }

    fn retry_in_vain(&mut self, letter: DeadLetter) {
        self.parked.insert(letter.clone());
        self.gathered.retried.push(letter);
    }

    /// Has dead letters handled again that are to be.
    pub(super) fn redrive(&mut self) {
        // Those that are on their way already, and those that are not stored yet.
        let redriven = self.redriven.values().filter_map(|work| {
            let redriven = work.redriven.as_ref()?;
            Some(redriven.id.clone())
        });
        let known: HashSet<_> = redriven
            .chain(self.gathered.parked.iter().map(DeadLetter::id))
            .collect();
        let new: Vec<_> = self
            .parked
            .to_redrive()
            .map(|letter| (letter.id(), letter.key.clone()))
            .filter(|(id, _)| !known.contains(id))
            .collect();
        for (id, key) in new {
            let mut work = Work::new(id.position, None, Arc::new([]), Arc::clone(&self.names));
            work.redriven = Some(Redriven {
                id,
                is_resolved: true,
            });
            work.lane = key.as_deref().map(lane_of_key);
            work.is_running = true;
            let lane = work.lane;
            let number = self.next_redriven;
            self.next_redriven += 1;
            self.redriven.insert(number, work);
            self.load.add(1, 0);
            self.enter_lane(lane, number);
        }
    }

    /// Reads the entry of a dead letter.
    pub(super) fn fetch(&mut self, number: Number) {
        let Some(id) = self
            .work(number)
            .and_then(|work| Some(work.redriven.as_ref()?.id.clone()))
        else {
            return;
        };
        // It may have failed before its turn came, or be discarded.
        if !self.parked.get(&id).is_some_and(|letter| letter.redrive) {
            self.drop_redriven(number);
            return;
        }
        let shared = Arc::clone(&self.shared);
        let lease = self.lease.clone();
        let stopping = self.stopping.clone();
        self.units.spawn(async move {
            let mut pauses = pauses();
            loop {
                let inspected = shared
                    .backend
                    .inspect_dead_letter(&lease.group, &lease.partition, &id)
                    .await;
                match inspected {
                    Ok(None) => {
                        return Unit::Fetched {
                            number,
                            event: Ok(None),
                        };
                    }
                    Ok(Some(inspected)) => {
                        let fields = EntryFields::of(inspected.raw);
                        let event = entry::decode(&lease.partition, id.position, &fields)
                            .map(Some)
                            .map_err(HandlerError::Unreadable);
                        return Unit::Fetched { number, event };
                    }
                    Err(error) => {
                        tracing::error!(%error, "a dead letter cannot be read; trying again");
                    }
                }
                if !pauses.pause(&stopping).await {
                    return Unit::Stopped;
                }
            }
        });
    }

    pub(super) fn fetched(
        &mut self,
        number: Number,
        event: Result<Option<RecordedEvent>, HandlerError>,
    ) {
        let Some(id) = self
            .work(number)
            .and_then(|work| Some(work.redriven.as_ref()?.id.clone()))
        else {
            return;
        };
        let event = match event {
            Ok(Some(event)) => event,
            Ok(None) => {
                self.parked.remove(&id);
                self.drop_redriven(number);
                return;
            }
            Err(error) => {
                self.still_dead(&id, chain_of(&error));
                self.drop_redriven(number);
                return;
            }
        };
        let routes: Arc<[usize]> = if id.handler.is_empty() {
            // Nobody has called those with parallel delivery either.
            self.dispatcher.all_routes_of(event.event_type()).into()
        } else {
            match self.names.iter().position(|name| **name == *id.handler) {
                Some(route) => Arc::new([route]),
                None => {
                    let gone = format!(
                        "the group has no handler `{}` any more; discard the dead letter, or bring the handler back",
                        id.handler
                    );
                    self.still_dead(&id, vec![gone]);
                    self.drop_redriven(number);
                    return;
                }
            }
        };
        if let Some(work) = self.work(number) {
            work.event = Some(event);
            work.routes = routes;
        }
        self.ready.push_back(number);
    }

    pub(super) fn drop_redriven(&mut self, number: Number) {
        if let Some(work) = self.redriven.remove(&number) {
            self.leave_lane(work.lane);
            if self.load.remove(1, 0) {
                self.shared.room.notify_one();
            }
        }
    }

    fn still_dead(&mut self, id: &DeadLetterId, errors: Vec<String>) {
        let now = self.shared.clock.now();
        if let Some(mut letter) = self.parked.get(id).cloned() {
            letter.redrive = false;
            letter.errors = errors;
            letter.last_failed_at = now;
            self.retry_in_vain(letter);
        }
    }

    /// Takes back that a dead letter is none any more: what was emitted for it is refused.
    pub(super) fn leave_parked(&mut self, number: Number) {
        let Some(work) = self.redriven.get_mut(&number) else {
            return;
        };
        let Some(redriven) = &mut work.redriven else {
            return;
        };
        let Some(at) = (self.gathered.resolved.iter()).position(|id| *id == redriven.id) else {
            return;
        };
        redriven.is_resolved = true;
        work.uncommitted = work.uncommitted.saturating_sub(1);
        self.gathered.resolved.swap_remove(at);
        if let Some(at) = (self.gathered.waiting.iter()).position(|waiting| *waiting == number) {
            self.gathered.waiting.swap_remove(at);
        }
    }

    /// Looks at dead letters that were read just now, beside those that are not stored yet. Of these the
    /// store decides whether what they follow is still there, and so they are read again afterwards.
    pub(super) fn reloaded(&mut self) {
        let is_undecided =
            |letter: &DeadLetter| letter.reason == DeadLetterReason::Follows && !letter.redrive;
        self.must_load |= self.gathered.parked.iter().any(is_undecided);
        // What was tried in vain meanwhile holds back those of its key that are stored as to be handled.
        let in_vain: Vec<_> = self.gathered.retried.clone();
        for letter in in_vain.iter().filter(|letter| !letter.redrive) {
            self.hold_back_behind(letter);
        }
    }

    pub(super) fn count_dead_letters(&mut self, count: usize) {
        let was_full = self.load.is_full();
        self.load.set_dead_letters(count);
        let is_full = self.load.is_full();
        if is_full && !was_full {
            tracing::error!(
                partition = %self.lease.partition,
                count,
                "there are as many dead letters as there may be: nothing more is read until some are redriven or discarded"
            );
        } else if was_full && !is_full {
            self.shared.room.notify_one();
        }
    }
}
