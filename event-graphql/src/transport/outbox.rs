//! The operations of one socket, which take turns.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{AbortHandle, Abortable, FuturesUnordered, Stream, StreamExt, StreamFuture};

use super::running::{Given, Running};

/// The operations of one socket, which take turns.
///
/// It holds no results: an operation is polled when the socket can write, and has its next turn after all
/// others that are ready. A slow client is felt by the sources of its subscriptions in this way.
pub(super) struct Outbox {
    limit: usize,
    /// Those that the client knows.
    running: HashMap<Arc<str>, AbortHandle>,
    /// Those that run, first woken first served, and those that were stopped until their next turn.
    turns: FuturesUnordered<StreamFuture<Turn>>,
}

/// Why an operation is not begun.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotBegun {
    /// One with its id runs.
    Exists,
    /// There are too many.
    TooMany,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            running: HashMap::new(),
            turns: FuturesUnordered::new(),
        }
    }

    /// Whether an operation with this id may begin. Those that were stopped count, once there are as many
    /// of them again as may run, until they are dropped at their turn.
    pub(super) fn may_begin(&self, id: &str) -> Result<(), NotBegun> {
        if self.running.contains_key(id) {
            Err(NotBegun::Exists)
        } else if self.running.len() >= self.limit || self.turns.len() >= self.limit * 2 {
            Err(NotBegun::TooMany)
        } else {
            Ok(())
        }
    }

    pub(super) fn begin(&mut self, id: &str, running: Running) {
        let (stop, registration) = AbortHandle::new_pair();
        let id: Arc<str> = id.into();
        self.running.insert(Arc::clone(&id), stop);
        let running = Abortable::new(running, registration);
        self.turns.push(Turn { id, running }.into_future());
    }

    /// Stops an operation, if it runs. Nothing comes of it from now on.
    pub(super) fn stop(&mut self, id: &str) {
        if let Some(stop) = self.running.remove(id) {
            stop.abort();
        }
    }

    /// Waits for what is to be written next: what an operation gives, or nothing at its end. Nothing is
    /// lost when this is dropped.
    pub(super) async fn next(&mut self) -> (Arc<str>, Option<Given>) {
        while let Some((given, turn)) = self.turns.next().await {
            if turn.running.is_aborted() {
                continue;
            }
            let id = Arc::clone(&turn.id);
            match given {
                Some(Given::Begun(_) | Given::Next(..) | Given::Shared(_)) => {
                    self.turns.push(turn.into_future())
                }
                Some(Given::Error(_)) | None => drop(self.running.remove(&id)),
            }
            return (id, given);
        }
        std::future::pending().await
    }
}

struct Turn {
    id: Arc<str>,
    running: Abortable<Running>,
}

impl Stream for Turn {
    type Item = Given;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Given>> {
        self.running.poll_next_unpin(cx)
    }
}
