//! What an event was made for: causation and correlation, which flow by themselves.

use crate::metadata::Metadata;
use crate::recorded::RecordedEvent;

/// The event that is being handled, as those made meanwhile name it.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    // Most handlers make no events, so nothing is copied out of it before one does.
    event: RecordedEvent,
}

tokio::task_local! {
    static CAUSE: Cause;
}

impl Cause {
    pub(crate) fn of(event: &RecordedEvent) -> Self {
        Self {
            event: event.clone(),
        }
    }

    /// Runs `work`; every event that is encoded in it has this cause.
    pub(crate) async fn during<F: Future>(self, work: F) -> F::Output {
        CAUSE.scope(self, work).await
    }

    /// Writes the present cause, if there is one, into the metadata of an event made now.
    pub(crate) fn apply(metadata: &mut Metadata) {
        // An error only says that nothing is being handled, and then there is no cause.
        let _ = CAUSE.try_with(|cause| {
            let cause = cause.event.metadata();
            metadata.causation_id = Some(cause.event_id.to_string());
            metadata.correlation_id.clone_from(&cause.correlation_id);
            metadata.traceparent.clone_from(&cause.traceparent);
        });
    }
}
