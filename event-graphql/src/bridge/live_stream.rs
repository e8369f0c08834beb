//! The realtime events of one subscription, in the order in which they arrive.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use metrics::Counter;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::ear::Ear;
use super::error::BridgeError;
use super::heard::Heard;
use super::live::Live;
use super::subscription::{Access, SlowClient, Wants};

/// The realtime events of one subscription. It ends after an error.
pub struct LiveStream<E> {
    /// Nothing after the end.
    hearer: Option<Hearer<E>>,
    revoked: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<E: Send + Sync + 'static> LiveStream<E> {
    pub(crate) fn new(
        ear: Ear<E>,
        wants: Wants<E>,
        revoked: Option<CancellationToken>,
        left_out: Counter,
    ) -> Self {
        let hearer = Hearer {
            ear,
            wants,
            missed: 0,
            left_out,
        };
        Self {
            hearer: Some(hearer),
            revoked: revoked.map(|revoked| Box::pin(revoked.cancelled_owned())),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Live<E>, BridgeError>>> {
        let Some(hearer) = &mut self.hearer else {
            return Poll::Ready(None);
        };
        if let Some(revoked) = &mut self.revoked
            && revoked.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(BridgeError::Revoked)));
        }
        hearer.poll_next(cx).map(Some)
    }
}

impl<E: Send + Sync + 'static> Stream for LiveStream<E> {
    type Item = async_graphql::Result<Live<E>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = ready!(this.poll(cx));
        if let Some(Err(_)) = next {
            *this = Self {
                hearer: None,
                revoked: None,
            };
        }
        Poll::Ready(next.map(|next| next.map_err(BridgeError::into_graphql)))
    }
}

/// Gives what the client wants of what is heard.
struct Hearer<E> {
    ear: Ear<E>,
    wants: Wants<E>,
    /// How many were lost since the last event that the client got.
    missed: u64,
    left_out: Counter,
}

impl<E: Send + Sync + 'static> Hearer<E> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Live<E>, BridgeError>> {
        loop {
            let heard = ready!(self.ear.poll_next(cx));
            let Some(mut live) = self.take(heard)? else {
                continue;
            };
            if self.wants.slow_client == SlowClient::Latest {
                while let Some(heard) = self.ear.try_next() {
                    if let Some(newer) = self.take(heard)? {
                        self.left_out.increment(1);
                        let before = std::mem::replace(&mut live, newer);
                        live.leave_out(before.lost() + 1);
                    }
                }
            }
            return Poll::Ready(Ok(live));
        }
    }

    /// What the client gets of it.
    fn take(&mut self, heard: Result<Heard<E>, u64>) -> Result<Option<Live<E>>, BridgeError> {
        let heard = match heard {
            Ok(Heard::Event(heard)) => heard,
            Ok(Heard::Missed(count)) => {
                self.missed += count;
                return Ok(None);
            }
            Err(_) if self.wants.slow_client == SlowClient::Disconnect => {
                return Err(BridgeError::TooSlow);
            }
            Err(count) => {
                self.missed += count;
                self.left_out.increment(count);
                return Ok(None);
            }
        };
        if !self.wants.accepts(&heard.node) {
            return Ok(None);
        }
        match self.wants.access(Some(&heard.node)) {
            Access::Granted => {}
            Access::Hidden => return Ok(None),
            Access::Revoked => return Err(BridgeError::Revoked),
        }
        Ok(Some(Live::new(heard, std::mem::take(&mut self.missed))))
    }
}
