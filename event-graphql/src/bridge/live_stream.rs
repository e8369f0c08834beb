//! The realtime events of one subscription, in the order in which they arrive.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::{BoxStream, StreamExt, unfold};
use tokio_util::sync::CancellationToken;

use super::channel::{ChannelView, Heard};
use super::entry::Entry;
use super::error::BridgeError;
use super::live::Live;
use super::subscription::{Access, SlowClient, Wants};

/// The realtime events of one subscription. It ends after an error.
pub struct LiveStream<E> {
    events: BoxStream<'static, async_graphql::Result<Live<E>>>,
}

impl<E: Send + Sync + 'static> LiveStream<E> {
    pub(crate) fn new(view: ChannelView, wants: Wants<E>, revoked: CancellationToken) -> Self {
        let hearer = Hearer {
            view,
            wants,
            ready: VecDeque::new(),
            missed: 0,
        };
        let events = unfold(Some((hearer, revoked)), |going_on| async move {
            let (mut hearer, revoked) = going_on?;
            let next = tokio::select! {
                biased;
                () = revoked.cancelled() => Err(BridgeError::Revoked),
                next = hearer.next() => next,
            };
            let going_on = next.is_ok().then_some((hearer, revoked));
            Some((next.map_err(BridgeError::into_graphql), going_on))
        });
        Self {
            events: events.boxed(),
        }
    }
}

impl<E> Stream for LiveStream<E> {
    type Item = async_graphql::Result<Live<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(cx)
    }
}

/// Gives what the client wants of what is heard.
struct Hearer<E> {
    view: ChannelView,
    wants: Wants<E>,
    ready: VecDeque<Live<E>>,
    /// How many were lost since the last event that the client got.
    missed: u64,
}

impl<E> Hearer<E> {
    async fn next(&mut self) -> Result<Live<E>, BridgeError> {
        loop {
            while self.wants.slow_client == SlowClient::Latest && self.view.has_more() {
                self.hear().await?;
                self.keep_newest();
            }
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.hear().await?;
        }
    }

    /// Takes in what is heard next.
    async fn hear(&mut self) -> Result<(), BridgeError> {
        match self.view.next().await {
            Ok(Heard::Event(entry)) => self.look_at(&entry)?,
            Ok(Heard::Missed(count)) => self.missed += count,
            Err(_) if self.wants.slow_client == SlowClient::Disconnect => {
                return Err(BridgeError::TooSlow);
            }
            Err(count) => self.missed += count,
        }
        Ok(())
    }

    fn look_at(&mut self, entry: &Entry) -> Result<(), BridgeError> {
        let decoded = self.wants.selection.decode(entry);
        let events = match &*decoded {
            Ok(events) => events,
            Err(error) => {
                // On a channel anybody may say anything, and there is nowhere to look at it again.
                let event_type = entry.event().event_type();
                tracing::warn!(event_type, %error, "a realtime event that does not fit its type was left out");
                self.missed += 1;
                return Ok(());
            }
        };
        for event in events {
            if !self.wants.accepts(event) {
                continue;
            }
            match self.wants.access(Some(event)) {
                Access::Granted => {}
                Access::Hidden => continue,
                Access::Revoked => return Err(BridgeError::Revoked),
            }
            let missed = std::mem::take(&mut self.missed);
            let live = Live::new(Arc::clone(event), entry.event().clone(), missed);
            self.ready.push_back(live);
        }
        Ok(())
    }

    /// Of several events the newest, which tells of the others that they were left out.
    fn keep_newest(&mut self) {
        while self.ready.len() > 1 {
            if let Some(older) = self.ready.pop_front()
                && let Some(next) = self.ready.front_mut()
            {
                next.leave_out(older.lost() + 1);
            }
        }
    }
}
