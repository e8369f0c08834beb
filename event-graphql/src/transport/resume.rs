//! Where a client left off.

use std::sync::{Arc, Mutex, PoisonError};

/// Where a client of server-sent events left off, and where it is now.
///
/// Each such request has one in its data: `ctx.data_opt::<Resume>()`. A browser that was cut off sends
/// the `id:` of the last event that it saw, as `Last-Event-ID`. A subscription begins after
/// [that](Self::last_event_id), and [notes](Self::note) the cursor of each item while it is resolved.
///
/// A clone is the same place.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_event_id: Option<String>,
    noted: Mutex<Option<String>>,
}

impl Resume {
    pub(super) fn new(last_event_id: Option<String>) -> Self {
        let noted = Mutex::default();
        Self {
            inner: Arc::new(Inner {
                last_event_id,
                noted,
            }),
        }
    }

    /// The `id:` of the last event that the client saw, from its header `Last-Event-ID`.
    pub fn last_event_id(&self) -> Option<&str> {
        self.inner.last_event_id.as_deref()
    }

    /// Makes `cursor` the `id:` of the response that is being resolved. The last one counts.
    ///
    /// An `id:` is one line. A cursor with a line break or a NUL is left out, with a warning in the log.
    pub fn note(&self, cursor: &str) {
        if cursor.contains(['\r', '\n', '\0']) {
            tracing::warn!(
                cursor,
                "a cursor with a line break or a NUL cannot be an id"
            );
            return;
        }
        *self.noted() = Some(cursor.to_owned());
    }

    /// The cursor that was noted since this was asked last.
    pub(super) fn take(&self) -> Option<String> {
        self.noted().take()
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.inner
            .noted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
