//! GraphQL over server-sent events: one request, one stream.

use std::sync::Arc;

use async_graphql::parser::types::OperationType;
use async_graphql::{Executor, Request, Response as GraphqlResponse};
use axum::extract::Request as HttpRequest;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::refusal::Unavailable;
use super::running::Given;
use super::{Resume, Session, Shared, refusal};

const EVENT_STREAM: &str = "text/event-stream";

/// Answers a request with the stream of its results.
pub(super) async fn serve<E: Executor>(shared: Arc<Shared<E>>, http: HttpRequest) -> Response {
    answer(shared, http).await.unwrap_or_else(|refused| refused)
}

async fn answer<E: Executor>(
    shared: Arc<Shared<E>>,
    http: HttpRequest,
) -> Result<Response, Response> {
    let headers = http.headers().clone();
    if !accepts_events(&headers) {
        let message = "only streams of events are given here: accept text/event-stream";
        return Err(refuse(
            StatusCode::NOT_ACCEPTABLE,
            "NOT_ACCEPTABLE",
            message,
        ));
    }
    let permit = shared.admit().map_err(IntoResponse::into_response)?;
    let last_event_id = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let asking = async {
        // Nobody has their request read, who is not let in.
        let session = (shared.on_sse)(headers)
            .await
            .map_err(IntoResponse::into_response)?;
        let request = read(http, shared.limits.message_bytes).await?;
        Ok((session, request))
    };
    let (session, request) = tokio::select! {
        biased;
        () = shared.shutdown.cancelled() => {
            return Err(Unavailable::ServiceRestart.into_response());
        }
        asked = timeout(shared.limits.init_timeout, asking) => asked.map_err(|_| {
            let message = "the request was not complete in time";
            refuse(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", message)
        })??,
    };

    let resume = Resume::new(last_event_id);
    let stream = EventStream {
        request,
        resume,
        session: Arc::new(session),
        permit,
    };
    let keep_alive = KeepAlive::new().interval(shared.limits.keep_alive);
    let (events, body) = mpsc::channel(1);
    tokio::spawn(stream.run(shared, events));
    let body = stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        match body.recv().await {
            Some(Part::Next(event)) => Some((Ok(event), Some(body))),
            // A browser does not dispatch an event that has no line of data.
            Some(Part::Complete) => {
                Some((Ok(Event::default().event("complete").data("null")), None))
            }
            Some(Part::End) => None,
            // The task gave up. An error cuts the connection, so that the client notices.
            None => Some((Err(Cut), None)),
        }
    });
    // nginx gathers a body before it passes it on, unless it is told not to.
    let unbuffered = [("x-accel-buffering", "no")];
    Ok((unbuffered, Sse::new(body).keep_alive(keep_alive)).into_response())
}

/// A part of the body.
enum Part {
    /// A result.
    Next(Event),
    /// The operation is at its end, and the client hears of it.
    Complete,
    /// The service restarts. The client is to come again, and so hears of no end.
    End,
}

#[derive(Debug, thiserror::Error)]
#[error("the stream was cut: the client stopped reading, or a mistake of the server ended it")]
struct Cut;

/// A request whose results are streamed.
struct EventStream {
    request: Request,
    resume: Resume,
    session: Arc<Session>,
    permit: OwnedSemaphorePermit,
}

impl EventStream {
    /// Gives one event after the other, each when the one before is taken. A client that takes none
    /// within the write timeout is dropped.
    async fn run<E: Executor>(self, shared: Arc<Shared<E>>, events: mpsc::Sender<Part>) {
        let Self {
            request,
            resume,
            session,
            permit,
        } = self;
        let open = shared.streams.open();
        let mut running = shared.run(request, &session, Some(resume));
        loop {
            let room = match timeout(shared.limits.write_timeout, events.reserve()).await {
                Ok(Ok(room)) => room,
                Ok(Err(_)) => break,
                Err(_) => {
                    tracing::debug!("a client stopped reading, and was dropped");
                    break;
                }
            };
            let given = tokio::select! {
                biased;
                () = shared.shutdown.cancelled() => {
                    room.send(Part::End);
                    break;
                }
                () = events.closed() => break,
                given = running.next() => given,
            };
            let Some(given) = given else {
                room.send(Part::Complete);
                break;
            };
            let is_result = !matches!(given, Given::Begun(_));
            match event(given) {
                Ok(event) => {
                    shared.streams.results.increment(u64::from(is_result));
                    room.send(Part::Next(event));
                }
                Err(error) => {
                    tracing::error!(%error, "a response cannot be written as JSON, and its stream is cut");
                    break;
                }
            }
        }
        drop((running, open, permit));
    }
}

/// The event `next` with a result, and the cursor that was noted for it; where nothing has come yet, the cursor alone.
fn event(given: Given) -> Result<Event, axum::Error> {
    let event = Event::default().event("next");
    let (event, cursor) = match given {
        // A client keeps the id of what has no data, and takes it for nothing otherwise.
        Given::Begun(cursor) => (Event::default(), Some(cursor)),
        Given::Next(response, cursor) => (event.json_data(*response)?, cursor),
        // JSON has no line breaks but in what was written for eyes.
        Given::Shared(result) => (event.data(result.json.get()), result.cursor.clone()),
        Given::Error(errors) => (event.json_data(GraphqlResponse::from_errors(errors))?, None),
    };
    Ok(match cursor {
        Some(cursor) => event.id(cursor),
        None => event,
    })
}

fn accepts_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .flat_map(|accept| accept.split(','))
        .any(|range| range.split(';').next().unwrap_or_default().trim() == EVENT_STREAM)
}

/// The request that a client sent, of at most `most` bytes.
async fn read(http: HttpRequest, most: usize) -> Result<Request, Response> {
    let malformed = |message: &str| refuse(StatusCode::BAD_REQUEST, "BAD_REQUEST", message);
    let too_long = || {
        let message = format!("a request may have {most} bytes");
        refuse(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LONG", &message)
    };
    if http.method() == Method::GET {
        let query = http.uri().query().unwrap_or_default();
        if query.len() > most {
            return Err(too_long());
        }
        let mut request = async_graphql::http::parse_query_string(query)
            .map_err(|error| malformed(&error.to_string()))?;
        if mutates(&mut request) {
            let message = "a mutation is taken by POST alone";
            return Err(refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "METHOD_NOT_ALLOWED",
                message,
            ));
        }
        return Ok(request);
    }
    let is_json = http
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        let message = "send the request as application/json";
        return Err(refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            message,
        ));
    }
    let body = axum::body::to_bytes(http.into_body(), most)
        .await
        .map_err(|_| too_long())?;
    serde_json::from_slice(&body).map_err(|error| malformed(&error.to_string()))
}

/// Whether a document has a mutation. One that cannot be parsed is refused when it is executed.
fn mutates(request: &mut Request) -> bool {
    request.parsed_query().is_ok_and(|document| {
        document
            .operations
            .iter()
            .any(|(_, operation)| operation.node.ty == OperationType::Mutation)
    })
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, refusal::body(code, message)).into_response()
}
