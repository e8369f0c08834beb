//! The events of one subscription, in the order of their feed.
//!
//! A client has no queue. It has a position in each partition, and takes what comes next from the
//! reader's ring when it is asked for it. What is no longer there it reads from the store, a page at a time. So a
//! client costs the same however slow it is, and there is no seam: both are looked up by position.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use event_core::{FeedEntry, Position, ReadError, StoreError, Token};
use futures::Stream;
use futures::future::select_all;
use futures::stream::{BoxStream, StreamExt, unfold};
use tokio_util::sync::CancellationToken;

use super::EventSubscriptionBridge;
use super::cursor::Cursor;
use super::edge::Edge;
use super::entry::Entry;
use super::error::BridgeError;
use super::feed::FeedView;
use super::ring::Look;
use super::subscription::{Access, SlowClient, Wants};
use crate::transport::Resume;

/// How many entries a client takes at once from memory.
const BATCH: usize = 64;

/// How many entries a client reads at once from the store: at first, and at most.
const PAGES: (usize, usize) = (16, 64);

/// About how many bytes of payload a page is to have.
const PAGE_BYTES: usize = 256 * 1024;

/// How long to wait before asking a store again that has failed: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The events of one subscription. It ends after an error, but for [`BridgeError::Undecodable`].
pub struct EventStream<E> {
    edges: BoxStream<'static, async_graphql::Result<Edge<E>>>,
    resume: Option<Resume>,
}

impl<E: Send + Sync + 'static> EventStream<E> {
    pub(crate) fn new(
        follower: Follower<E>,
        revoked: CancellationToken,
        resume: Option<Resume>,
    ) -> Self {
        let begun = Some((follower, revoked));
        let edges = unfold(begun, |going_on| async move {
            let (mut follower, revoked) = going_on?;
            let next = tokio::select! {
                biased;
                () = revoked.cancelled() => Err(BridgeError::Revoked),
                next = follower.next() => next,
            };
            let goes_on = matches!(next, Ok(_) | Err(BridgeError::Undecodable { .. }));
            let going_on = goes_on.then_some((follower, revoked));
            Some((next.map_err(BridgeError::into_graphql), going_on))
        });
        Self {
            edges: edges.boxed(),
            resume,
        }
    }
}

impl<E> Stream for EventStream<E> {
    type Item = async_graphql::Result<Edge<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.edges.poll_next_unpin(cx);
        if let (Poll::Ready(Some(next)), Some(resume)) = (&next, &self.resume) {
            // What is made of an event is resolved before the next one is asked for, or says so by an edge.
            match next {
                Ok(edge) => resume.note(edge.cursor_behind().as_str()),
                Err(error) => {
                    if let Some(BridgeError::Undecodable { cursor, .. }) = BridgeError::of(error) {
                        resume.note(cursor.as_str());
                    }
                }
            }
        }
        next
    }
}

/// How far a client has come in one partition.
pub(crate) struct Part {
    view: FeedView,
    /// Everything up to here is done with.
    at: Position,
    /// What comes next.
    taken: VecDeque<Arc<Entry>>,
    /// The number of what follows in memory, once the client has been there.
    number: Option<u64>,
    /// How many entries to read next from the store.
    page: usize,
}

impl Part {
    pub(crate) fn new(view: FeedView, at: Position) -> Self {
        Self {
            view,
            at,
            taken: VecDeque::new(),
            number: None,
            page: PAGES.0,
        }
    }

    /// Takes what comes next from memory or from the store; `false` where there is nothing yet.
    async fn take(
        &mut self,
        slow_client: SlowClient,
        missed: &mut u64,
    ) -> Result<bool, BridgeError> {
        let limit = match slow_client {
            SlowClient::Latest => usize::MAX,
            _ => BATCH,
        };
        match self.view.after(self.at, limit) {
            None => return Ok(false),
            Some(Look::UpToDate(number)) => {
                self.number = Some(number);
                return Ok(false);
            }
            Some(Look::Next(entries, number)) => {
                self.number = Some(number);
                self.taken = entries.into();
            }
            Some(Look::Behind(first)) => match (slow_client, self.number) {
                // What was never in memory for it is history, which it has asked for.
                (SlowClient::CatchUp, _) | (_, None) => self.take_page().await?,
                (SlowClient::Disconnect, Some(_)) => return Err(BridgeError::TooSlow),
                (SlowClient::DropOldest | SlowClient::Latest, Some(number)) => {
                    *missed += first.saturating_sub(number);
                    self.at = self.view.floor().unwrap_or(self.at).max(self.at);
                    self.number = Some(first);
                }
            },
        }
        Ok(true)
    }

    async fn take_page(&mut self) -> Result<(), BridgeError> {
        // Once it has come so far, all the rest is in memory.
        let floor = self.view.floor();
        let entries = self.read_page().await?;
        let count = entries.len().max(1);
        let (mut bytes, mut last) = (0, None);
        for entry in entries {
            last = Some(entry.position());
            if let FeedEntry::Event(event) = entry {
                bytes += event.payload().len();
                self.taken.push_back(Arc::new(Entry::new(event)));
            }
        }
        // As many as fit, if the next ones are as long.
        let fitting = PAGE_BYTES * count / bytes.max(1);
        self.page = fitting.clamp(1, (self.page * 2).min(PAGES.1));
        if self.taken.is_empty()
            && let Some(reached) = last.or(floor)
        {
            self.at = reached.max(self.at);
        }
        Ok(())
    }

    /// Asks the store until it answers.
    async fn read_page(&self) -> Result<Vec<FeedEntry>, BridgeError> {
        let mut pause = PAUSES.0;
        loop {
            match self.view.page(self.at, self.page).await {
                Ok(entries) => return Ok(entries),
                Err(ReadError::Store(StoreError::FeedTrimmed {
                    first_available, ..
                })) => return Err(BridgeError::CursorExpired { first_available }),
                Err(ReadError::Store(StoreError::Unavailable { .. })) => {
                    tracing::warn!(partition = %self.view.partition(), "a client waits for the store to answer");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Goes through the partitions in turns, and gives what the client wants of them.
pub(crate) struct Follower<E> {
    bridge: EventSubscriptionBridge,
    wants: Wants<E>,
    parts: Vec<Part>,
    /// Whose turn it is.
    turn: usize,
    ready: VecDeque<Edge<E>>,
    missed: u64,
}

impl<E: Send + Sync + 'static> Follower<E> {
    pub(crate) fn new(bridge: EventSubscriptionBridge, wants: Wants<E>, parts: Vec<Part>) -> Self {
        Self {
            bridge,
            wants,
            parts,
            turn: 0,
            ready: VecDeque::new(),
            missed: 0,
        }
    }

    async fn next(&mut self) -> Result<Edge<E>, BridgeError> {
        loop {
            if let Some(edge) = self.ready.pop_front() {
                return Ok(edge);
            }
            let mut something = false;
            for _ in 0..self.parts.len() {
                let index = self.turn % self.parts.len();
                self.turn = index + 1;
                if self.advance(index).await? {
                    something = true;
                }
                if !self.ready.is_empty() {
                    break;
                }
            }
            if !something {
                let turns = self.parts.iter_mut().map(|part| Box::pin(part.view.turn()));
                select_all(turns).await;
            }
        }
    }

    /// Looks at what comes next in a partition; `false` where there is nothing yet.
    async fn advance(&mut self, index: usize) -> Result<bool, BridgeError> {
        let Some(part) = self.parts.get_mut(index) else {
            return Ok(false);
        };
        if part.taken.is_empty() && !part.take(self.wants.slow_client, &mut self.missed).await? {
            return Ok(false);
        }
        // A client that wants nothing of a busy feed lets others have their turn, too.
        tokio::task::coop::consume_budget().await;
        let newest_only = self.wants.slow_client == SlowClient::Latest;
        while let Some(entry) = self
            .parts
            .get_mut(index)
            .and_then(|part| part.taken.pop_front())
        {
            self.look_at(index, &entry)?;
            if newest_only && self.ready.len() > 1 {
                self.missed += self.ready.drain(..self.ready.len() - 1).count() as u64;
            } else if !newest_only && !self.ready.is_empty() {
                break;
            }
        }
        if let Some(edge) = self.ready.front_mut() {
            let missed = std::mem::take(&mut self.missed);
            self.bridge.metrics().left_out.increment(missed);
            edge.leave_out(missed);
        }
        Ok(true)
    }

    /// Puts what the client wants of an entry in `ready`, and is done with it.
    fn look_at(&mut self, index: usize, entry: &Entry) -> Result<(), BridgeError> {
        let decoded = self.wants.selection.decode(entry);
        let before = match &*decoded {
            Ok(events) if events.len() > 1 => Some(self.cursor(None)),
            _ => None,
        };
        if let Some(part) = self.parts.get_mut(index) {
            part.at = entry.event().position();
        }
        let events = match &*decoded {
            Ok(events) => events,
            Err(source) => {
                return Err(BridgeError::Undecodable {
                    cursor: self.cursor(Some(entry)),
                    source: Arc::clone(source),
                });
            }
        };
        for (number, event) in events.iter().enumerate() {
            if !self.wants.accepts(event) {
                continue;
            }
            match self.wants.access(Some(event)) {
                Access::Granted => {}
                Access::Hidden => continue,
                Access::Revoked => return Err(BridgeError::Revoked),
            }
            // Of several that one entry is read as, only behind the last is everything done.
            let cursor = match &before {
                Some(before) if number + 1 < events.len() => before.clone(),
                _ => self.cursor(Some(entry)),
            };
            let (node, recorded) = (Arc::clone(event), entry.event().clone());
            self.ready.push_back(Edge::new(node, recorded, cursor));
        }
        Ok(())
    }

    /// Where the client has come to. Where there is one partition, all clients share the cursor behind an
    /// entry.
    pub(crate) fn cursor(&self, behind: Option<&Entry>) -> Cursor {
        let make = || {
            let mut token = Token::default();
            for part in &self.parts {
                token.reach(part.view.partition().clone(), part.at);
            }
            self.bridge.signer().cursor(&token)
        };
        match behind {
            Some(entry) if self.parts.len() == 1 => entry.cursor(make).clone(),
            _ => make(),
        }
    }
}
