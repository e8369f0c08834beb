//! Appends to one feed that come while others are under way go together, in one call of the script.
//!
//! A call costs the server most of what it does, whatever the number of events. While few appends
//! are under way each has a call of its own. Those beyond wait until one of the calls is answered, and
//! whoever has waited the longest takes all of them along. There is no task in between: who appends
//! does it himself, for the others too.
//!
//! It rests on appends being recognised by the ids of their events: where a call does not come to a
//! good end, or whoever made it goes away, each of the others appends by itself, as if for the second time.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_core::{Append, AppendError, Appended, StoreError};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::append::OPERATION;
use crate::error::{copy, unavailable};

/// So many calls are under way at once before the others wait.
const CALLS: usize = 4;

/// What goes together has so many events at most, and so many bytes of payload.
const MOST_EVENTS: usize = 256;
const MOST_BYTES: usize = 256 * 1024;

/// The appends to one feed. It holds nothing but what those who wait have handed over themselves.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: usize,
    waiting: VecDeque<Waiting>,
}

/// An append, and what its metadata is as it is stored.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) append: Append,
    pub(crate) metadata: Vec<String>,
}

/// One who waits.
#[derive(Debug)]
struct Waiting {
    checked: Checked,
    turn: oneshot::Sender<Turn>,
}

/// What becomes of one who waits. Where nothing does, he goes by himself.
#[derive(Debug)]
enum Turn {
    /// His append went with others.
    Gone(Result<Appended, AppendError>),
    /// He makes the next call, for others too.
    Lead(Lead),
}

/// The right to make a call. Dropped, it goes to those who wait.
#[derive(Debug)]
pub(crate) struct Lead {
    gathering: Arc<Gathering>,
    others: Vec<Waiting>,
}

/// How an append goes.
pub(crate) enum Way {
    /// It makes a call, with what the others have handed over.
    Lead(Lead),
    /// It went with another call, and that is what came of it.
    Gone(Result<Appended, AppendError>),
    /// It makes a call of its own, beside those that are counted.
    Alone,
}

impl Gathering {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn where so many calls are under way already.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        patience: Duration,
        checked: impl FnOnce() -> Checked,
    ) -> Way {
        let turn = {
            let mut state = self.state();
            if state.calls < CALLS {
                state.calls += 1;
                return Way::Lead(Lead {
                    gathering: Arc::clone(self),
                    others: Vec::new(),
                });
            }
            // Those who have gone away make room before there is more.
            if state.waiting.len() == state.waiting.capacity() {
                state.waiting.retain(|waiting| !waiting.turn.is_closed());
            }
            let (sender, turn) = oneshot::channel();
            state.waiting.push_back(Waiting {
                checked: checked(),
                turn: sender,
            });
            turn
        };
        match timeout(patience, turn).await {
            Ok(Ok(Turn::Gone(outcome))) => Way::Gone(outcome),
            Ok(Ok(Turn::Lead(lead))) => Way::Lead(lead),
            Ok(Err(_)) => Way::Alone,
            Err(_) => Way::Gone(Err(unavailable(OPERATION, patience, None).into())),
        }
    }

    /// Gives the right to make a call to whoever has waited the longest.
    fn pass_on(self: &Arc<Self>) {
        let (first, others) = {
            let mut state = self.state();
            let Some(first) = state.next() else {
                state.calls -= 1;
                return;
            };
            let others = state.take_along(&first.checked.append);
            (first, others)
        };
        let gathering = Arc::clone(self);
        // If he goes away at this moment, it is dropped, and so goes to the next one.
        let _ = first.turn.send(Turn::Lead(Lead { gathering, others }));
    }
}

impl State {
    /// The next one who has not gone away.
    fn next(&mut self) -> Option<Waiting> {
        while let Some(waiting) = self.waiting.pop_front() {
            if !waiting.turn.is_closed() {
                return Some(waiting);
            }
        }
        None
    }

    /// Those behind that may go together with an append, in their order.
    fn take_along(&mut self, first: &Append) -> Vec<Waiting> {
        let mut others = Vec::new();
        let mut ids = HashSet::new();
        let (mut events, mut bytes) = (0, 0);
        let mut fits = |append: &Append| {
            events += append.events().len();
            bytes += payload_bytes(append);
            // The script tells an id that it knows from before from one that is new, and takes it that
            // one call has none twice.
            let mut new = append
                .events()
                .iter()
                .map(|event| event.metadata().event_id);
            events <= MOST_EVENTS && bytes <= MOST_BYTES && new.all(|id| ids.insert(id))
        };
        if !fits(first) {
            return others;
        }
        while let Some(next) = self.next() {
            if !fits(&next.checked.append) {
                self.waiting.push_front(next);
                break;
            }
            others.push(next);
        }
        others
    }
}

impl Lead {
    /// What goes into the call: an append with all events, and their metadata as it is stored. The first
    /// ones are those of whoever makes the call. `None` where nobody goes with him.
    pub(crate) fn together(&self, append: &Append, metadata: &[String]) -> Option<Checked> {
        if self.others.is_empty() {
            return None;
        }
        let (mut events, mut all_metadata) = (append.events().to_vec(), metadata.to_vec());
        for Waiting { checked, .. } in &self.others {
            events.extend_from_slice(checked.append.events());
            all_metadata.extend_from_slice(&checked.metadata);
        }
        Some(Checked {
            append: Append::to_feed(append.target().category().clone(), events),
            metadata: all_metadata,
        })
    }

    /// Tells the others what came of the call, and gives what came of it for the first ones; `None`
    /// where each is to try by himself, who may have an error of his own then.
    pub(crate) fn tell(
        mut self,
        outcome: Result<Appended, AppendError>,
    ) -> Option<Result<Appended, AppendError>> {
        let others = std::mem::take(&mut self.others);
        // The next call is not to wait for this.
        drop(self);
        match outcome {
            Ok(Appended {
                mut events,
                partition,
            }) => {
                for Waiting { checked, turn } in others.into_iter().rev() {
                    let first = events.len().saturating_sub(checked.append.events().len());
                    let events = events.split_off(first);
                    // Who has gone away does not want to know.
                    let partition = partition.clone();
                    let _ = turn.send(Turn::Gone(Ok(Appended { events, partition })));
                }
                Some(Ok(Appended { events, partition }))
            }
            // They have waited just as long.
            Err(AppendError::Store(error @ StoreError::Unavailable { .. })) => {
                for Waiting { turn, .. } in others {
                    let _ = turn.send(Turn::Gone(Err(copy(&error).into())));
                }
                Some(Err(error.into()))
            }
            Err(_) => None,
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.gathering.pass_on();
    }
}

fn payload_bytes(append: &Append) -> usize {
    let events = append.events().iter();
    events.map(|event| event.payload().len()).sum()
}

/// Whether an append may go together with others.
pub(crate) fn may_gather(append: &Append) -> bool {
    append.aggregate().is_none()
        && append.events().len() <= MOST_EVENTS
        && payload_bytes(append) <= MOST_BYTES
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use event_core::{Category, Clock, Ids, Metadata, NewEvent};
    use futures::FutureExt;

    use super::*;

    fn checked() -> Checked {
        let metadata = Metadata::new(Ids::random().next(), Clock::system().now());
        let event = NewEvent::from_parts("sdlc.phase.changed", "1", metadata).unwrap();
        let category = Category::new("sdlc").unwrap();
        Checked {
            append: Append::to_feed(category, vec![event]),
            metadata: vec![String::new()],
        }
    }

    #[tokio::test]
    async fn those_who_have_gone_away_do_not_pile_up() {
        let gathering = Arc::new(Gathering::default());
        let patience = Duration::from_secs(60);
        let mut leads = Vec::new();
        for _ in 0..CALLS {
            match gathering.enter(patience, checked).await {
                Way::Lead(lead) => leads.push(lead),
                _ => panic!("nobody calls yet"),
            }
        }
        for _ in 0..10_000 {
            let mut waiting = Box::pin(gathering.enter(patience, checked));
            let polled = futures::poll!(waiting.as_mut());
            assert!(matches!(polled, Poll::Pending));
        }
        assert!(gathering.state().waiting.len() <= 8);
        drop(leads);
        assert_eq!(gathering.state().calls, 0);
        let next = gathering.enter(patience, checked).now_or_never();
        assert!(matches!(next, Some(Way::Lead(_))));
    }
}
