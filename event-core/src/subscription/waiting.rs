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
    callers: Mutex<HashMap<Uuid, Caller>>,
    /// How many there are, so that nobody has to look where nobody waits.
    count: AtomicUsize,
}

/// One who waits, and what was emitted so far: the handlers of an event may be called by several
/// owners of its partition, one after the other.
struct Caller {
    sender: oneshot::Sender<Outcome>,
    emitted: Vec<RecordedEvent>,
}

impl Waiting {
    fn callers(&self) -> MutexGuard<'_, HashMap<Uuid, Caller>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when the handlers of this event are through.
    pub(super) fn outcome_of(&self, event_id: Uuid) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let emitted = Vec::new();
        let mut callers = self.callers();
        callers.insert(event_id, Caller { sender, emitted });
        self.count.store(callers.len(), Ordering::Release);
        receiver
    }

    /// Nobody waits for this event any more.
    pub(super) fn forget(&self, event_id: Uuid) {
        self.remove(event_id);
    }

    fn remove(&self, event_id: Uuid) -> Option<Caller> {
        let mut callers = self.callers();
        let caller = callers.remove(&event_id);
        self.count.store(callers.len(), Ordering::Release);
        caller
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Notes what was emitted for an event, if somebody waits for it.
    pub(super) fn note_emitted(
        &self,
        event_id: Uuid,
        emitted: impl IntoIterator<Item = RecordedEvent>,
    ) {
        if !self.is_empty()
            && let Some(caller) = self.callers().get_mut(&event_id)
        {
            caller.emitted.extend(emitted);
        }
    }

    /// The handlers of an event are through, or one of them has given up.
    pub(super) fn tell(&self, event_id: Uuid, outcome: Result<(), Arc<HandlerFailure>>) {
        if !self.is_empty()
            && let Some(Caller { sender, emitted }) = self.remove(event_id)
        {
            // Who asked may have gone.
            let _ = sender.send(outcome.map(|()| emitted));
        }
    }
}
