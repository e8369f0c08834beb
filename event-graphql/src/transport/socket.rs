//! One WebSocket from its upgrade to its end.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::{Executor, Request};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt};
use tokio::time::{
    Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at,
};

use super::close::{Close, CloseCode};
use super::outbox::{NotBegun, Outbox};
use super::protocol::{ClientMessage, Payload, SUBPROTOCOL, ServerMessage};
use super::running::Given;
use super::{Init, Refusal, Session, Shared, refusal};
use crate::metrics;

/// A socket that waits has this much of a buffer, and more only while a message needs it.
const BUFFER_BYTES: usize = 4 * 1024;

/// How many results, and bytes, go out at once, where so many are ready: in the time that one of them may take.
/// The client is heard in between.
const BATCH: (usize, usize) = (32, 16 * 1024);

/// A message that is a little too long is read, so that the client hears why its socket is closed.
const READ_FACTOR: usize = 4;

/// Answers the request for a socket, and serves it in a task of its own.
pub(super) async fn upgrade<E: Executor>(
    shared: Arc<Shared<E>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let permit = match shared.admit() {
        Ok(permit) => permit,
        Err(unavailable) => return unavailable.into_response(),
    };
    let longest = shared.limits.message_bytes.saturating_mul(READ_FACTOR);
    upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(longest)
        .max_frame_size(longest)
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .on_upgrade(move |socket| async move {
            let open = shared.sockets.open();
            Connection::new(shared, headers, socket).serve().await;
            drop((open, permit));
        })
}

/// Why a socket ends.
enum End {
    /// The server closes it and says why.
    Close(Close),
    /// The client closed it, or is not there any more.
    Gone,
}

impl From<Close> for End {
    fn from(close: Close) -> Self {
        Self::Close(close)
    }
}

/// How far the handshake is.
enum Handshake {
    /// Nothing came.
    Awaited,
    /// The hook decides.
    Asked(BoxFuture<'static, Result<Session, Refusal>>),
    /// The client was let in.
    Acknowledged(Arc<Session>),
}

impl Handshake {
    /// Waits for the hook, if it was asked.
    async fn answer(&mut self) -> Result<Session, Refusal> {
        match self {
            Self::Asked(answer) => answer.await,
            Self::Awaited | Self::Acknowledged(_) => std::future::pending().await,
        }
    }
}

struct Connection<E> {
    shared: Arc<Shared<E>>,
    headers: HeaderMap,
    socket: WebSocket,
    handshake: Handshake,
    /// When the handshake must be done.
    init_due: Instant,
    pings: Interval,
    /// When the answer to a ping must be there.
    pong_due: Option<Instant>,
    outbox: Outbox,
}

impl<E: Executor> Connection<E> {
    fn new(shared: Arc<Shared<E>>, headers: HeaderMap, socket: WebSocket) -> Self {
        let limits = &shared.limits;
        let now = Instant::now();
        let mut pings = interval_at(now + limits.ping_interval, limits.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            headers,
            socket,
            handshake: Handshake::Awaited,
            init_due: now + limits.init_timeout,
            pings,
            pong_due: None,
            outbox: Outbox::new(limits.subscriptions),
            shared,
        }
    }

    async fn serve(mut self) {
        let end = self.talk().await;
        let Self {
            shared,
            mut socket,
            outbox,
            handshake,
            ..
        } = self;
        // What ran for the client ends now, not when the client answers the close frame.
        drop((outbox, handshake));
        if let End::Close(close) = end {
            metrics::closed(close.code());
            let within = Instant::now() + shared.limits.write_timeout;
            let closing = async {
                if socket.send(close.into()).await.is_ok() {
                    // Unread bytes at the end of a connection would reset it, and the frame be lost.
                    while let Some(Ok(_)) = socket.recv().await {}
                }
            };
            if timeout_at(within, closing).await.is_err() {
                tracing::debug!("a client did not answer a close frame, and was dropped");
            }
        }
    }

    /// Talks until the end.
    async fn talk(&mut self) -> End {
        if self.socket.protocol().is_none() {
            let reason = format!("Subprotocol not acceptable, ask for {SUBPROTOCOL}");
            return CloseCode::SubprotocolNotAcceptable.because(reason).into();
        }
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
        }
    }

    /// Waits for one thing to happen, and answers it. The client is heard before time is up for it, and
    /// results come last: a hot subscription holds nothing else up.
    async fn turn(&mut self) -> Result<(), End> {
        let acknowledged = matches!(self.handshake, Handshake::Acknowledged(_));
        let pong_due = self.pong_due.unwrap_or(self.init_due);
        tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => {
                Err(CloseCode::ServiceRestart.because("Service restart").into())
            }
            heard = self.socket.recv() => match heard {
                Some(Ok(message)) => self.hear(message).await,
                Some(Err(_)) | None => Err(End::Gone),
            },
            answer = self.handshake.answer() => self.acknowledge(answer).await,
            () = sleep_until(self.init_due), if !acknowledged => {
                Err(CloseCode::InitTimeout.because("Connection initialisation timeout").into())
            }
            () = sleep_until(pong_due), if self.pong_due.is_some() => {
                tracing::debug!("a client did not answer a ping, and was dropped");
                metrics::dropped();
                Err(End::Gone)
            }
            _ = self.pings.tick() => {
                self.pong_due.get_or_insert(Instant::now() + self.shared.limits.pong_timeout);
                self.write(Message::Ping(Default::default())).await
            }
            (id, given) = self.outbox.next() => self.put(id, given).await,
        }
    }

    async fn hear(&mut self, message: Message) -> Result<(), End> {
        // Whoever talks is there.
        self.pong_due = None;
        let text = match message {
            Message::Text(text) => text,
            // The library below answers pings.
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            Message::Close(_) => return Err(End::Gone),
            Message::Binary(_) => {
                return Err(CloseCode::InvalidMessage
                    .because("Message is not text")
                    .into());
            }
        };
        let most = self.shared.limits.message_bytes;
        if text.len() > most {
            let reason = format!("Message is longer than {most} bytes");
            return Err(CloseCode::TooLong.because(reason).into());
        }
        match serde_json::from_str(&text) {
            Ok(ClientMessage::ConnectionInit { payload }) => self.init(payload),
            Ok(ClientMessage::Subscribe { id, payload }) => self.subscribe(&id, *payload).await,
            Ok(ClientMessage::Complete { id }) => {
                self.outbox.stop(&id);
                Ok(())
            }
            Ok(ClientMessage::Ping { payload }) => {
                let payload = payload.as_ref();
                self.say(&ServerMessage::Pong { payload }).await
            }
            Ok(ClientMessage::Pong {}) => Ok(()),
            Err(error) => {
                let reason = format!("Invalid message: {error}");
                Err(CloseCode::InvalidMessage.because(reason).into())
            }
        }
    }

    fn init(
        &mut self,
        payload: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> Result<(), End> {
        let Handshake::Awaited = self.handshake else {
            let reason = "Too many initialisation requests";
            return Err(CloseCode::TooManyInits.because(reason).into());
        };
        let init = Init {
            headers: std::mem::take(&mut self.headers),
            payload: payload.map(Into::into),
        };
        self.handshake = Handshake::Asked((self.shared.on_init)(init));
        Ok(())
    }

    async fn acknowledge(&mut self, answer: Result<Session, Refusal>) -> Result<(), End> {
        match answer {
            Ok(session) => {
                let session = Arc::new(session);
                self.handshake = Handshake::Acknowledged(Arc::clone(&session));
                let payload = session.ack.as_ref();
                self.say(&ServerMessage::ConnectionAck { payload }).await
            }
            Err(refusal) => Err(CloseCode::Forbidden.because(refusal.to_string()).into()),
        }
    }

    async fn subscribe(&mut self, id: &str, request: Request) -> Result<(), End> {
        let Handshake::Acknowledged(session) = &self.handshake else {
            return Err(CloseCode::Unauthorized.because("Unauthorized").into());
        };
        if id.is_empty() {
            return Err(CloseCode::InvalidMessage
                .because("Invalid message: empty id")
                .into());
        }
        match self.outbox.may_begin(id) {
            Ok(()) => {
                let running = self.shared.run(request, session, None);
                self.outbox.begin(id, running);
                Ok(())
            }
            Err(NotBegun::Exists) => {
                let reason = format!("Subscriber for {id} already exists");
                Err(CloseCode::SubscriberExists.because(reason).into())
            }
            Err(NotBegun::TooMany) => {
                let message = format!(
                    "this socket may have {} subscriptions at a time: complete one first",
                    self.shared.limits.subscriptions
                );
                let error = refusal::error("TOO_MANY_SUBSCRIPTIONS", &message);
                let payload = &[error];
                self.say(&ServerMessage::Error { id, payload }).await
            }
        }
    }

    /// Writes what an operation gives, and what others have ready, in their turns; then all of it goes out.
    async fn put(&mut self, id: Arc<str>, given: Option<Given>) -> Result<(), End> {
        let within = self.shared.limits.write_timeout;
        let mut next = Some((id, given));
        let mut messages = Vec::new();
        let mut bytes = 0;
        while let Some((id, given)) = next.take() {
            if let Some(message) = self.message(&id, given.as_ref())? {
                if let Message::Text(text) = &message {
                    bytes += text.len();
                }
                messages.push(message);
            }
            if messages.len() < BATCH.0 && bytes < BATCH.1 {
                next = self.outbox.next().now_or_never();
            }
        }
        let writing = async {
            for message in messages {
                self.socket.feed(message).await?;
            }
            self.socket.flush().await
        };
        in_time(within, writing).await
    }

    fn message(&self, id: &str, given: Option<&Given>) -> Result<Option<Message>, End> {
        let message = match given {
            // The protocol has no place for it.
            Some(Given::Begun(_)) => return Ok(None),
            Some(Given::Next(response, _)) => {
                self.shared.sockets.results.increment(1);
                let payload = Payload::Response(response);
                ServerMessage::Next { id, payload }
            }
            Some(Given::Shared(result)) => {
                self.shared.sockets.results.increment(1);
                let payload = Payload::Json(&result.json);
                ServerMessage::Next { id, payload }
            }
            Some(Given::Error(payload)) => ServerMessage::Error { id, payload },
            None => ServerMessage::Complete { id },
        };
        written(&message).map(Some)
    }

    async fn say(&mut self, message: &ServerMessage<'_>) -> Result<(), End> {
        self.write(written(message)?).await
    }

    async fn write(&mut self, message: Message) -> Result<(), End> {
        let within = self.shared.limits.write_timeout;
        in_time(within, self.socket.send(message)).await
    }
}

fn written(message: &ServerMessage<'_>) -> Result<Message, End> {
    match serde_json::to_string(message) {
        Ok(text) => Ok(Message::Text(text.into())),
        Err(error) => {
            tracing::error!(%error, "a response cannot be written as JSON, and its socket is dropped");
            Err(End::Gone)
        }
    }
}

/// Gives a client up that does not take what is written within so long.
async fn in_time(
    within: Duration,
    writing: impl Future<Output = Result<(), axum::Error>>,
) -> Result<(), End> {
    match timeout(within, writing).await {
        Ok(written) => written.map_err(|_| End::Gone),
        Err(_) => {
            tracing::debug!("a client stopped reading, and was dropped");
            metrics::dropped();
            Err(End::Gone)
        }
    }
}
