//! Who is let in, and what those hear who are not.

use std::sync::Arc;

use async_graphql::{Data, Response, ServerError};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;

/// A client that was let in.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// What resolvers find in their context.
    pub data: Arc<Data>,
    /// The payload of `connection_ack`, for WebSockets.
    pub ack: Option<serde_json::Value>,
    /// Clients of the same audience may see the same, whoever they are: they share the results of subscriptions for
    /// which the transport [says so](super::GraphqlTransportBuilder::share). `None`: with nobody.
    pub audience: Option<String>,
}

impl Session {
    /// A session of which everybody is, where nobody is asked who they are.
    pub(super) fn public() -> Self {
        Self {
            audience: Some(String::new()),
            ..Self::default()
        }
    }

    /// This session, of an audience.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }
}

impl From<Data> for Session {
    fn from(data: Data) -> Self {
        Self {
            data: Arc::new(data),
            ..Self::default()
        }
    }
}

/// Why a client is not let in.
///
/// The sentence goes to the client: over a WebSocket as the reason of the close code 4403, otherwise as
/// a GraphQL error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not known who the client is: 401 over HTTP, code `UNAUTHENTICATED`.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    /// The client is known, and has no right: 403 over HTTP, code `FORBIDDEN`.
    #[error("forbidden: {0}")]
    Forbidden(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> axum::response::Response {
        let (status, code) = match self {
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "FORBIDDEN"),
        };
        (status, body(code, &self.to_string())).into_response()
    }
}

/// Why there is no place for a connection: 503.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Unavailable {
    #[error("the service restarts: connect again")]
    ServiceRestart,
    #[error("there are too many connections: try again later")]
    TooManyConnections,
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> axum::response::Response {
        let code = match self {
            Self::ServiceRestart => "SERVICE_RESTART",
            Self::TooManyConnections => "TOO_MANY_CONNECTIONS",
        };
        let retry = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
        let body = body(code, &self.to_string());
        (StatusCode::SERVICE_UNAVAILABLE, retry, body).into_response()
    }
}

/// An error with a code that a program can read.
pub(super) fn error(code: &str, message: &str) -> ServerError {
    let mut error = ServerError::new(message, None);
    error.extensions.get_or_insert_default().set("code", code);
    error
}

/// The body of an answer that has just this error.
pub(super) fn body(code: &str, message: &str) -> Json<Response> {
    Json(Response::from_errors(vec![error(code, message)]))
}
