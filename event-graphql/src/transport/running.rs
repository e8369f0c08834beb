//! One running operation.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_graphql::{Response, ServerError, Value};
use futures::stream::{BoxStream, CatchUnwind, Stream, StreamExt};

use super::refusal;

/// What an operation gives.
pub(super) enum Given {
    /// A result.
    Next(Response),
    /// It was not begun, or its resolver panicked. Nothing comes after it.
    Error(Vec<ServerError>),
}

/// The results of one running operation. It outlives neither a panic nor an error of the request.
pub(super) struct Running {
    responses: CatchUnwind<AssertUnwindSafe<BoxStream<'static, Response>>>,
    begun: bool,
}

impl Running {
    pub(super) fn new(responses: BoxStream<'static, Response>) -> Self {
        Self {
            responses: AssertUnwindSafe(responses).catch_unwind(),
            begun: false,
        }
    }
}

impl Stream for Running {
    type Item = Given;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Given>> {
        let first = !self.begun;
        let polled = std::task::ready!(self.responses.poll_next_unpin(cx));
        self.begun = true;
        Poll::Ready(polled.map(|caught| match caught {
            Ok(response) if first && is_request_error(&response) => Given::Error(response.errors),
            Ok(response) => Given::Next(response),
            Err(_) => {
                tracing::error!("a resolver panicked, and its operation is ended");
                let message = "the operation failed by a mistake of the server";
                Given::Error(vec![refusal::error("INTERNAL", message)])
            }
        }))
    }
}

/// Whether the operation was not executed at all: such an error has no path.
fn is_request_error(response: &Response) -> bool {
    response.data == Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.is_empty())
}
