//! How one client hears what is told to all.

use std::task::{Context, Poll, ready};

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::coop::poll_proceed;
use tokio_util::sync::ReusableBoxFuture;

use super::channel::Place;
use super::heard::Heard;

/// One client's ear. It waits by a future only where there is nothing to be heard.
pub(crate) struct Ear<E> {
    /// Nothing while it waits.
    idle: Option<Receiver<Heard<E>>>,
    waiting: Option<Waiting<E>>,
    _place: Place,
}

type Waiting<E> = ReusableBoxFuture<'static, (Result<Heard<E>, RecvError>, Receiver<Heard<E>>)>;

impl<E: Send + Sync + 'static> Ear<E> {
    pub(crate) fn new(heard: Receiver<Heard<E>>, place: Place) -> Self {
        Self {
            idle: Some(heard),
            waiting: None,
            _place: place,
        }
    }

    /// What was heard next, or how much was left out because the client was too slow. Ends never.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard<E>, u64>> {
        let coop = ready!(poll_proceed(cx));
        if let Some(heard) = self.try_next() {
            coop.made_progress();
            return Poll::Ready(heard);
        }
        if let Some(receiver) = self.idle.take() {
            let next = receive(receiver);
            match &mut self.waiting {
                Some(waiting) => waiting.set(next),
                None => self.waiting = Some(ReusableBoxFuture::new(next)),
            }
        }
        let Some(waiting) = &mut self.waiting else {
            return Poll::Pending;
        };
        let (heard, receiver) = ready!(waiting.poll(cx));
        self.idle = Some(receiver);
        coop.made_progress();
        match heard {
            Ok(heard) => Poll::Ready(Ok(heard)),
            Err(RecvError::Lagged(count)) => Poll::Ready(Err(count)),
            // The channel, which this has a place at, holds what tells.
            Err(RecvError::Closed) => Poll::Pending,
        }
    }

    /// What was heard already.
    pub(crate) fn try_next(&mut self) -> Option<Result<Heard<E>, u64>> {
        match self.idle.as_mut()?.try_recv() {
            Ok(heard) => Some(Ok(heard)),
            Err(TryRecvError::Lagged(count)) => Some(Err(count)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

async fn receive<E>(
    mut receiver: Receiver<Heard<E>>,
) -> (Result<Heard<E>, RecvError>, Receiver<Heard<E>>) {
    let heard = receiver.recv().await;
    (heard, receiver)
}
