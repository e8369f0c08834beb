//! Who waits for the handlers of an event to be through.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::dispatcher::HandlerFailure;
use crate::recorded::RecordedEvent;

/// What handlers emitted for an event, or why one failed.
pub(crate) type Outcome = Result<Vec<RecordedEvent>, Arc<HandlerFailure>>;

/// The callers of `dispatch`, by the event they wait for.
#[derive(Default)]
pub(super) struct Waiting {
    senders: Mutex<HashMap<Uuid, oneshot::Sender<Outcome>>>,
    /// How many there are, so that nobody has to look where nobody waits.
    count: AtomicUsize,
}

impl Waiting {
    fn senders(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<Outcome>>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when the handlers of this event are through.
    pub(super) fn outcome_of(&self, event_id: Uuid) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let mut senders = self.senders();
        senders.insert(event_id, sender);
        self.count.store(senders.len(), Ordering::Release);
        receiver
    }

    /// Nobody waits for this event any more.
    pub(super) fn forget(&self, event_id: Uuid) -> Option<oneshot::Sender<Outcome>> {
        let mut senders = self.senders();
        let sender = senders.remove(&event_id);
        self.count.store(senders.len(), Ordering::Release);
        sender
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    pub(super) fn waits_for(&self, event_id: Uuid) -> bool {
        !self.is_empty() && self.senders().contains_key(&event_id)
    }

    pub(super) fn tell(&self, event_id: Uuid, outcome: Outcome) {
        if !self.is_empty()
            && let Some(sender) = self.forget(event_id)
        {
            // Who asked may have gone.
            let _ = sender.send(outcome);
        }
    }
}
