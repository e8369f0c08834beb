//! One running operation.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_graphql::{Response, ServerError, Value};
use futures::stream::{BoxStream, CatchUnwind, Stream, StreamExt};

use super::share::Result;
use super::{Resume, refusal};

/// What an operation gives.
pub(super) enum Given {
    /// The subscription has begun behind this cursor, and has nothing to give yet.
    Begun(String),
    /// A result, and the cursor that was noted for it.
    Next(Box<Response>, Option<String>),
    /// A result that other clients get too.
    Shared(Arc<Result>),
    /// It was not begun, or its resolver panicked. Nothing comes after it.
    Error(Vec<ServerError>),
}

/// The results of one running operation. It outlives neither a panic nor an error of the request.
pub(super) struct Running(Source);

enum Source {
    Executed {
        responses: CatchUnwind<AssertUnwindSafe<BoxStream<'static, Response>>>,
        resume: Option<Resume>,
        /// Whether something was given: a result, or where it has begun.
        begun: bool,
    },
    Shared(BoxStream<'static, Given>),
}

impl Running {
    pub(super) fn new(responses: BoxStream<'static, Response>, resume: Option<Resume>) -> Self {
        Self(Source::Executed {
            responses: AssertUnwindSafe(responses).catch_unwind(),
            resume,
            begun: false,
        })
    }

    /// What another execution gives.
    pub(super) fn of(results: BoxStream<'static, Given>) -> Self {
        Self(Source::Shared(results))
    }
}

impl Stream for Running {
    type Item = Given;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Given>> {
        let (responses, resume, begun) = match &mut self.0 {
            Source::Shared(results) => return results.poll_next_unpin(cx),
            Source::Executed {
                responses,
                resume,
                begun,
            } => (responses, resume, begun),
        };
        let Poll::Ready(polled) = responses.poll_next_unpin(cx) else {
            let began = resume.as_ref().filter(|_| !*begun).and_then(Resume::began);
            *begun |= began.is_some();
            return began.map_or(Poll::Pending, |cursor| {
                Poll::Ready(Some(Given::Begun(cursor)))
            });
        };
        let first = !std::mem::replace(begun, true);
        Poll::Ready(polled.map(|caught| match caught {
            Ok(response) if first && is_request_error(&response) => Given::Error(response.errors),
            Ok(response) => Given::Next(Box::new(response), resume.as_ref().and_then(Resume::take)),
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
