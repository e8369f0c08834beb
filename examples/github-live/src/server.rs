//! The server: all routes, and how it starts and stops.

use std::future::Future;
use std::time::Duration;

use async_graphql::{Request, Response};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use event_core::BoxError;
use event_graphql::{GraphqlTransport, Refusal, Session};
use github_webhooks::signature::Secret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::graphql::{LiveSchema, schema};
use crate::live::Live;
use crate::webhook::Webhook;
use crate::{health, page};

/// How long requests that are under way may take when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Whoever is let in.
const AUDIENCE: &str = "everybody";

/// What is executed once for all who ask for it in the same words, and from now on.
const SHARED: [&str; 3] = ["events", "repositoryUpdated", "status"];

/// A server of the service.
pub struct Server {
    live: Live,
    transport: GraphqlTransport<LiveSchema>,
    router: Router,
}

impl Server {
    /// The routes. Deliveries must be signed with `secret`, where there is one.
    pub fn new(live: Live, secret: Option<Secret>) -> Self {
        let schema = schema(live.clone());
        let transport = GraphqlTransport::builder(schema.clone())
            // Everybody is given the same, so that a thousand pages cost what one does.
            .share(SHARED)
            .on_init(|init| async move { let_in(&init.headers) })
            .on_sse(|headers| async move { let_in(&headers) })
            .build();
        let router = Router::new()
            .route("/healthz", get(health::healthz))
            .with_state(live.clone())
            .route("/metrics", get(health::metrics))
            .route("/graphql", post(graphql).with_state(schema))
            .route(
                "/webhooks/github",
                Webhook::new(live.clone(), secret).route(),
            )
            .merge(transport.router())
            .merge(page::routes());
        Self {
            live,
            transport,
            router,
        }
    }

    /// Serves until `shutdown` is ready. Then no more is let in, sockets close with 1012, so that their
    /// clients come again, and what has begun is finished.
    ///
    /// # Errors
    /// What has ended the services, or the listener.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), BoxError> {
        let stopping = CancellationToken::new();
        let closing = stopping.clone().cancelled_owned();
        let listener = self.transport.listener(listener);
        let http = axum::serve(listener, self.router).with_graceful_shutdown(closing);
        let mut http = tokio::spawn(async move { http.await });
        let live = self.live.clone();
        let services = stopping.clone();
        let mut services = tokio::spawn(async move { live.run(services).await });

        let ended_early = tokio::select! {
            () = shutdown => None,
            never = health::keep_up() => match never {},
            ended = &mut services => Some(ended.map_err(BoxError::from).flatten()),
            ended = &mut http => Some(ended.map_err(BoxError::from).and_then(|end| Ok(end?))),
        };
        stopping.cancel();
        self.transport.shutdown().await;
        if !services.is_finished() {
            services.await.map_err(BoxError::from).flatten()?;
        }
        if !http.is_finished() && tokio::time::timeout(DRAIN, &mut http).await.is_err() {
            tracing::warn!("requests were broken off, since they took longer than {DRAIN:?}");
            http.abort();
        }
        ended_early.unwrap_or(Ok(()))
    }
}

/// Queries and mutations over HTTP. A body that is not `application/json` is refused, so that no page of
/// another site can send one unasked.
async fn graphql(State(schema): State<LiveSchema>, Json(request): Json<Request>) -> Json<Response> {
    Json(schema.execute(request).await)
}

/// Lets in who is no browser, and pages of this server: a browser lets any page open a socket to here. All that are
/// let in may see the same.
fn let_in(headers: &HeaderMap) -> Result<Session, Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else {
        return Ok(Session::default().audience(AUDIENCE));
    };
    let of = origin.split_once("://").map(|(_, host)| host);
    match (of, text(header::HOST)) {
        (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host) => {
            Ok(Session::default().audience(AUDIENCE))
        }
        _ => Err(Refusal::Forbidden(format!(
            "pages of {origin} are not let in; serve them from here"
        ))),
    }
}
