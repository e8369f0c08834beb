//! `POST /webhooks/github`: deliveries in.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use event_core::InvalidCategory;
use github_webhooks::delivery::{Delivery, DeliveryError};
use github_webhooks::inlet::{Inlet, InletError};
use github_webhooks::signature::{Secret, SignatureError};
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use crate::live::Live;

/// GitHub sends payloads of at most 25 MB.
const MOST_BYTES: usize = 25 * 1024 * 1024;

/// How long a delivery may take: GitHub waits for ten seconds.
const PATIENCE: Duration = Duration::from_secs(8);

const EVENT: &str = "x-github-event";
const DELIVERY: &str = "x-github-delivery";
const SIGNATURE: &str = "x-hub-signature-256";

/// Where deliveries come in, and what they must be signed with.
#[derive(Clone)]
pub struct Webhook {
    live: Live,
    secret: Option<Secret>,
}

impl Webhook {
    /// Takes deliveries in; those that are signed with `secret`, or all without one.
    pub fn new(live: Live, secret: Option<Secret>) -> Self {
        Self { live, secret }
    }

    /// The route.
    pub fn route<S: Clone + Send + Sync + 'static>(self) -> MethodRouter<S> {
        post(receive)
            .layer(DefaultBodyLimit::max(MOST_BYTES))
            .with_state(self)
    }

    /// Stores a delivery, and gives the id of its event.
    async fn take(&self, headers: &HeaderMap, body: &[u8]) -> Result<Uuid, WebhookError> {
        // Nothing of a delivery is looked at before it is known who sent it.
        if let Some(secret) = &self.secret {
            let signature = text(headers, SIGNATURE).ok_or(SignatureError::Missing)?;
            secret.verify(body, signature)?;
        }
        let kind = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(WebhookError::ContentType);
        }
        let name = text(headers, EVENT).ok_or(WebhookError::NoEvent)?;
        let delivery = text(headers, DELIVERY).map(str::to_owned);
        let delivery = Delivery::received(name, delivery, body)?;
        let event_id = delivery.event_id();
        Inlet::new(&**self.live.store())?.take(&delivery).await?;
        Ok(event_id)
    }
}

async fn receive(
    State(webhook): State<Webhook>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let taken = match body {
        // One that is given up may be stored all the same. Delivered again, it is the same event.
        Ok(body) => timeout(PATIENCE, webhook.take(&headers, &body))
            .await
            .unwrap_or(Err(WebhookError::TooLate)),
        Err(rejection) => Err(rejection.into()),
    };
    match taken {
        Ok(event_id) => {
            (StatusCode::ACCEPTED, Json(json!({ "eventId": event_id }))).into_response()
        }
        Err(error) => error.into_response(),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?;
    (!value.is_empty()).then_some(value)
}

/// A request that was not taken in.
#[derive(Debug, thiserror::Error)]
enum WebhookError {
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("set the webhook's content type to application/json")]
    ContentType,
    #[error("the header X-GitHub-Event is missing; it says which event this is")]
    NoEvent,
    #[error(
        "the body is longer than {MOST_BYTES} bytes, and GitHub sends payloads of at most 25 MB"
    )]
    TooLong,
    #[error("the store does not answer")]
    TooLate,
    #[error("the body could not be read: {0}")]
    Body(BytesRejection),
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    #[error(transparent)]
    Inlet(InletError),
    #[error(transparent)]
    Category(#[from] InvalidCategory),
}

impl From<InletError> for WebhookError {
    fn from(error: InletError) -> Self {
        match error {
            InletError::Delivery(error) => Self::Delivery(error),
            error => Self::Inlet(error),
        }
    }
}

impl From<BytesRejection> for WebhookError {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLong,
            _ => Self::Body(rejection),
        }
    }
}

impl WebhookError {
    /// The status, and a word for programs.
    fn code(&self) -> (StatusCode, &'static str) {
        use DeliveryError as D;
        match self {
            Self::Signature(SignatureError::Missing) => {
                (StatusCode::UNAUTHORIZED, "SIGNATURE_MISSING")
            }
            Self::Signature(_) => (StatusCode::UNAUTHORIZED, "SIGNATURE_WRONG"),
            Self::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "CONTENT_TYPE"),
            Self::NoEvent => (StatusCode::BAD_REQUEST, "NO_EVENT"),
            Self::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "TOO_LONG"),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "BODY"),
            Self::Delivery(D::NotUtf8(_) | D::NotJson(_) | D::Payload(_) | D::OddPayload) => {
                (StatusCode::BAD_REQUEST, "NOT_JSON")
            }
            Self::Delivery(D::OddName { .. } | D::NoName) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "UNKNOWN_EVENT")
            }
            Self::Delivery(D::OddAction { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "UNKNOWN_ACTION")
            }
            Self::Delivery(_) => (StatusCode::UNPROCESSABLE_ENTITY, "NO_DELIVERY"),
            Self::TooLate => (StatusCode::SERVICE_UNAVAILABLE, "STORE_UNAVAILABLE"),
            Self::Inlet(error) if error.is_of_store() => {
                (StatusCode::SERVICE_UNAVAILABLE, "STORE_UNAVAILABLE")
            }
            Self::Inlet(_) => (StatusCode::UNPROCESSABLE_ENTITY, "REFUSED"),
            Self::Category(_) => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        }
    }
}

impl IntoResponse for WebhookError {
    fn into_response(self) -> Response {
        let (status, code) = self.code();
        let message = if status.is_server_error() {
            // What the store says is for the log, as it may name servers.
            tracing::error!(error = %self, "a delivery was not stored");
            "it is not known whether the delivery was stored; deliver it again, which stores it once".to_owned()
        } else {
            self.to_string()
        };
        let body = json!({ "error": { "code": code, "message": message } });
        (status, Json(body)).into_response()
    }
}
