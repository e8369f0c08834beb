//! GraphQL over WebSocket and server-sent events.

mod limits;
mod listener;
mod refusal;
mod resume;

mod close;
mod protocol;

mod outbox;
mod running;
mod share;
mod socket;
mod sse;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_graphql::Executor;
use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{MethodRouter, get};
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use refusal::Unavailable;
use share::Shares;

use crate::metrics::ConnectionMetrics;

pub use close::CloseCode;
pub use limits::Limits;
pub use listener::TransportListener;
pub use refusal::{Refusal, Session};
pub use resume::Resume;

/// What a WebSocket client said of itself in its `connection_init`.
#[derive(Clone, Debug)]
pub struct Init {
    /// The headers of the HTTP request that asked for the socket.
    pub headers: HeaderMap,
    /// The payload of `connection_init`.
    pub payload: Option<serde_json::Value>,
}

type Hook<T> = Arc<dyn Fn(T) -> BoxFuture<'static, Result<Session, Refusal>> + Send + Sync>;

/// Serves a GraphQL schema by WebSocket and by server-sent events.
///
/// - [`ws`](Self::ws): the protocol [`graphql-transport-ws`][ws], which the clients `graphql-ws`, Apollo
///   and urql speak. Queries and mutations work over it as well.
/// - [`sse`](Self::sse): [GraphQL over server-sent events][sse] in its "distinct connections mode". A
///   resolver that has a cursor gives it to [`Resume`], and a client that comes again has it there.
///
/// Nothing is queued without bound. A subscription is asked for its next result only when the one before
/// is written, so a slow client slows its own subscriptions down and nobody else's. The subscriptions of
/// one socket take turns: a hot one does not starve a quiet one. See [`Limits`] for all that is limited.
///
/// A clone is cheap and shares all.
///
/// ```
/// use async_graphql::{Data, EmptyMutation, Object, Schema, Subscription};
/// use event_graphql::{GraphqlTransport, Refusal};
/// use futures::Stream;
///
/// struct Query;
///
/// #[Object]
/// impl Query {
///     async fn answer(&self) -> i32 {
///         42
///     }
/// }
///
/// struct Ticks;
///
/// #[Subscription]
/// impl Ticks {
///     async fn ticks(&self) -> impl Stream<Item = i32> {
///         futures::stream::iter(0..3)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let transport = GraphqlTransport::builder(Schema::new(Query, EmptyMutation, Ticks))
///     .on_init(|init| async move {
///         match init.payload.as_ref().and_then(|payload| payload["token"].as_str()) {
///             Some("secret") => Ok(Data::default()),
///             _ => Err(Refusal::Forbidden("send the token in connection_init".into())),
///         }
///     })
///     .on_sse(|headers| async move {
///         match headers.get("authorization").and_then(|token| token.to_str().ok()) {
///             Some("Bearer secret") => Ok(Data::default()),
///             _ => Err(Refusal::Unauthenticated("send the token as a header".into())),
///         }
///     })
///     .build();
///
/// let app = axum::Router::new()
///     .route("/graphql/ws", transport.ws())
///     .route("/graphql/stream", transport.sse());
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let listener = transport.listener(listener);
/// let server = tokio::spawn(async move { axum::serve(listener, app).await });
///
/// // When the process is told to stop: sockets close with 1012, and clients come again elsewhere.
/// transport.shutdown().await;
/// # server.abort();
/// # Ok(())
/// # }
/// ```
///
/// [ws]: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
/// [sse]: https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md
pub struct GraphqlTransport<E> {
    shared: Arc<Shared<E>>,
}

/// What all connections of a transport share.
struct Shared<E> {
    executor: E,
    limits: Limits,
    on_init: Hook<Init>,
    on_sse: Hook<HeaderMap>,
    shutdown: CancellationToken,
    /// One permit for each connection that there may be.
    connections: Arc<Semaphore>,
    shares: Shares,
    sockets: ConnectionMetrics,
    streams: ConnectionMetrics,
}

impl<E> Clone for GraphqlTransport<E> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<E> fmt::Debug for GraphqlTransport<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphqlTransport")
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

impl<E: Executor> GraphqlTransport<E> {
    /// Begins a transport for `executor`, which is a [`Schema`](async_graphql::Schema) as a rule.
    pub fn builder(executor: E) -> GraphqlTransportBuilder<E> {
        GraphqlTransportBuilder {
            executor,
            limits: Limits::default(),
            on_init: None,
            on_sse: None,
            shutdown: CancellationToken::new(),
            share: Vec::new(),
        }
    }

    /// The route for WebSockets: `GET` with an upgrade and the subprotocol `graphql-transport-ws`.
    ///
    /// A browser sends its cookies with an upgrade that any page asks for: a hook that trusts cookies
    /// must look at the `Origin` among the headers too.
    pub fn ws<S: Clone + Send + Sync + 'static>(&self) -> MethodRouter<S> {
        let shared = Arc::clone(&self.shared);
        get(move |headers, upgrade| socket::upgrade(Arc::clone(&shared), headers, upgrade))
    }

    /// The route for server-sent events: `GET` or `POST`, with `Accept: text/event-stream`.
    ///
    /// Mutations are taken by `POST` alone, whose body must say that it is `application/json`: a page of
    /// another site cannot send that unasked.
    pub fn sse<S: Clone + Send + Sync + 'static>(&self) -> MethodRouter<S> {
        let shared = Arc::clone(&self.shared);
        let handler = move |request| sse::serve(Arc::clone(&shared), request);
        get(handler.clone()).post(handler)
    }

    /// Both routes: `/graphql/ws` and `/graphql/stream`. Either takes queries and mutations, too. A client that sends
    /// those by themselves needs a route for them, which is a line in axum:
    ///
    /// ```
    /// # use async_graphql::{EmptyMutation, EmptySubscription, Object, Request, Response, Schema};
    /// use axum::Json;
    /// use axum::extract::State;
    /// use axum::routing::post;
    /// use event_graphql::GraphqlTransport;
    /// # struct Query;
    /// # #[Object]
    /// # impl Query {
    /// #     async fn answer(&self) -> i32 {
    /// #         42
    /// #     }
    /// # }
    /// # type MySchema = Schema<Query, EmptyMutation, EmptySubscription>;
    ///
    /// async fn graphql(State(schema): State<MySchema>, Json(request): Json<Request>) -> Json<Response> {
    ///     Json(schema.execute(request).await)
    /// }
    ///
    /// # let schema = Schema::new(Query, EmptyMutation, EmptySubscription);
    /// let transport = GraphqlTransport::builder(schema.clone()).build();
    /// let app = transport.router().route("/graphql", post(graphql).with_state(schema));
    /// # let _: axum::Router = app;
    /// ```
    pub fn router(&self) -> Router {
        Router::new()
            .route("/graphql/ws", self.ws())
            .route("/graphql/stream", self.sse())
    }

    /// Connections of `listener`, for `axum::serve`, whose messages go out at once (`TCP_NODELAY`), and which are closed
    /// when a client takes nothing within the [write timeout](Limits::write_timeout), whatever it has asked for.
    pub fn listener(&self, listener: TcpListener) -> TransportListener {
        TransportListener::new(listener, self.shared.limits.write_timeout)
    }

    /// How many executions are [shared](GraphqlTransportBuilder::share) now.
    pub fn shared_executions(&self) -> usize {
        self.shared.shares.len()
    }

    /// Closes all sockets with 1012 (service restart), ends all streams of server-sent events, and waits
    /// until they are gone. What comes afterwards is answered with 503.
    ///
    /// A client that does not answer holds this up by the [write timeout](Limits::write_timeout).
    pub async fn shutdown(&self) {
        self.shared.shutdown.cancel();
        // All permits are back when all connections are gone. The semaphore is never closed.
        let _all = self
            .shared
            .connections
            .acquire_many(self.shared.limits.connections)
            .await;
    }
}

impl<E> Shared<E> {
    /// A place for one more connection.
    fn admit(&self) -> Result<OwnedSemaphorePermit, Unavailable> {
        if self.shutdown.is_cancelled() {
            return Err(Unavailable::ServiceRestart);
        }
        Arc::clone(&self.connections)
            .try_acquire_owned()
            .map_err(|_| Unavailable::TooManyConnections)
    }
}

/// Settings of a [`GraphqlTransport`] before it is built.
#[must_use = "call `build`"]
pub struct GraphqlTransportBuilder<E> {
    executor: E,
    limits: Limits,
    on_init: Option<Hook<Init>>,
    on_sse: Option<Hook<HeaderMap>>,
    shutdown: CancellationToken,
    share: Vec<String>,
}

impl<E> fmt::Debug for GraphqlTransportBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphqlTransportBuilder")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<E: Executor> GraphqlTransportBuilder<E> {
    /// Sets all limits and times at once.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets what decides on the `connection_init` of a WebSocket.
    ///
    /// `hook` gives the [`Data`](async_graphql::Data) that resolvers of this socket see, or a
    /// [`Session`] with a payload for `connection_ack` as well. A [`Refusal`] closes the socket with 4403.
    /// It has [`Limits::init_timeout`] to answer. Without any hook everybody is let in; with one for server-sent
    /// events alone, nobody is let in here.
    pub fn on_init<F, Fut, S>(mut self, hook: F) -> Self
    where
        F: Fn(Init) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, Refusal>> + Send + 'static,
        S: Into<Session>,
    {
        self.on_init = Some(boxed(hook));
        self
    }

    /// Sets what decides on a request for server-sent events, by its headers.
    ///
    /// `hook` gives the [`Data`](async_graphql::Data) that resolvers see. A [`Refusal`] is answered with
    /// 401 or 403. It has [`Limits::init_timeout`] to answer. Without any hook everybody is let in; with one for
    /// WebSockets alone, nobody is let in here.
    pub fn on_sse<F, Fut, S>(mut self, hook: F) -> Self
    where
        F: Fn(HeaderMap) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, Refusal>> + Send + 'static,
        S: Into<Session>,
    {
        self.on_sse = Some(boxed(hook));
        self
    }

    /// Has subscriptions to these fields, by the names they have in the schema, executed once for all clients of
    /// one [audience](Session::audience) that ask for them by the same document with the same variables. Without a
    /// hook, all clients are of one audience. They are executed with the data of whoever came first: what resolvers
    /// read of it, rights and what revokes them included, must be the same for the whole audience.
    ///
    /// That is right where a field gives everybody who asks the same, whenever they ask: what a bridge gives from
    /// now on, say, but not what begins with a state. A subscription of the [bridge](crate::EventSubscription)
    /// that calls [`resume`](crate::EventSubscription::resume) and is given a cursor runs by itself. A client that
    /// falls more than 128 results behind goes on by itself, from its own cursor (those 128 are in memory for each
    /// execution, as long as it runs); where the field has no
    /// cursors its subscription ends with the error code `TOO_SLOW`.
    pub fn share<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.share.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Begins the shutdown when `token` is cancelled. [`GraphqlTransport::shutdown`] cancels a child of
    /// it, and waits.
    pub fn shutdown_token(mut self, token: &CancellationToken) -> Self {
        self.shutdown = token.child_token();
        self
    }

    /// The transport.
    pub fn build(self) -> GraphqlTransport<E> {
        let (on_init, on_sse) = match (self.on_init, self.on_sse) {
            (None, None) => (everybody(), everybody()),
            (on_init, on_sse) => (
                on_init.unwrap_or_else(nobody),
                on_sse.unwrap_or_else(nobody),
            ),
        };
        let connections = Semaphore::new(self.limits.connections as usize);
        GraphqlTransport {
            shared: Arc::new(Shared {
                executor: self.executor,
                limits: self.limits.within_reason(),
                on_init,
                on_sse,
                shutdown: self.shutdown,
                connections: Arc::new(connections),
                shares: Shares::new(self.share),
                sockets: ConnectionMetrics::new("websocket"),
                streams: ConnectionMetrics::new("sse"),
            }),
        }
    }
}

fn boxed<T, F, Fut, S>(hook: F) -> Hook<T>
where
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<S, Refusal>> + Send + 'static,
    S: Into<Session>,
{
    Arc::new(move |asked| {
        let answer = hook(asked);
        Box::pin(async move { answer.await.map(Into::into) })
    })
}

fn everybody<T>() -> Hook<T> {
    Arc::new(|_| Box::pin(async { Ok(Session::public()) }))
}

/// Where one way in is guarded, the other is not open.
fn nobody<T>() -> Hook<T> {
    Arc::new(|_| {
        let refusal = "nobody is let in this way: the server has no hook for it";
        Box::pin(async move { Err(Refusal::Unauthenticated(refusal.into())) })
    })
}
