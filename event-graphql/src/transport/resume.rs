//! Where a client left off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Where a client left off, and where it is now.
///
/// Each request for server-sent events has one in its data, and so has each execution that is
/// [shared](super::GraphqlTransportBuilder::share): `ctx.data_opt::<Resume>()`. A browser that was cut off sends
/// the `id:` of the last event that it saw, as `Last-Event-ID`. A subscription begins after
/// [that](Self::last_event_id), and [notes](Self::note) the cursor of each item while it is resolved.
/// [`EventSubscription::resume`](crate::EventSubscription::resume) does all of that.
///
/// A clone is the same place.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_event_id: Option<String>,
    places: Mutex<Places>,
    private: CancellationToken,
}

#[derive(Debug, Default)]
struct Places {
    /// The cursor of the item that is being resolved.
    noted: Option<String>,
    /// Where the subscription has begun.
    began: Option<String>,
    /// Behind it lies what comes next.
    at: Option<String>,
}

impl Resume {
    pub(super) fn new(last_event_id: Option<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                last_event_id,
                ..Inner::default()
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
        self.places().noted = Some(cursor.to_owned());
    }

    /// Says that the subscription begins behind `cursor`, where it begins now. A client that shares it, and falls
    /// behind before it has got anything, goes on from there.
    pub fn begin(&self, cursor: &str) {
        let mut places = self.places();
        places.began = Some(cursor.to_owned());
        places.at = Some(cursor.to_owned());
    }

    /// Says that the subscription begins elsewhere than now, so that it cannot be shared with who comes later.
    pub fn keep_private(&self) {
        self.inner.private.cancel();
    }

    /// The cursor that was noted since this was asked last.
    pub(super) fn take(&self) -> Option<String> {
        self.places().noted.take()
    }

    /// Behind this cursor lies what comes next.
    pub(super) fn at(&self) -> Option<String> {
        self.places().at.clone()
    }

    /// Where the subscription has begun.
    pub(super) fn began(&self) -> Option<String> {
        self.places().began.clone()
    }

    /// Behind this cursor lies what comes next; where there is none, nobody can go on by himself any more.
    pub(super) fn move_to(&self, cursor: Option<&str>) {
        let mut places = self.places();
        places.at = cursor.map(str::to_owned);
        if cursor.is_none() {
            places.began = None;
        }
    }

    /// Cancelled where it cannot be shared.
    pub(super) fn private(&self) -> &CancellationToken {
        &self.inner.private
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.inner
            .places
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
