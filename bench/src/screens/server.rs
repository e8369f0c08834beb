//! What the clients connect to: the framework's transport, and axum's sockets with nothing behind them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_graphql::{Context, EmptyMutation, Object, Result, Schema, SimpleObject, Subscription};
use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocketUpgrade};
use axum::routing::get;
use event_core::{Backend, Event};
use event_graphql::{Edge, EventSubscriptionBridge, GraphqlTransport};
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::client::Socket;
use crate::bare::Follower;

/// How long to wait for what should happen at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many messages a bare client may be behind.
const WINDOW: usize = 4_096;

const FILLING: &str = "The quick brown fox jumps over the lazy dog, and the dog, which has seen \
                       quicker foxes than this one, does not so much as look up from its mat.";

/// What the screens show.
#[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
#[event("screen.shown")]
pub(crate) struct Screened {
    number: usize,
    due: u64,
    text: String,
}

impl Screened {
    pub(crate) fn new(number: usize, due: u64) -> Self {
        let text = FILLING.to_owned();
        Self { number, due, text }
    }
}

/// A message of a bare socket, about as long as ours.
pub(super) fn bare_message(number: usize, due: u64, bytes: usize) -> String {
    let text = format!(r#"{{"number":{number},"due":{due},"text":"#);
    let filling = bytes.saturating_sub(text.len() + 3);
    format!(r#"{text}"{}"}}"#, "x".repeat(filling))
}

/// Of a message of either kind.
pub(super) fn number_and_due(message: &[u8]) -> anyhow::Result<(usize, u64)> {
    let text = std::str::from_utf8(message)?;
    let behind = |name: &str| {
        let (_, value) = text.split_once(name)?;
        value.split([',', '}']).next()
    };
    let number = behind(r#""number":"#).context("a message without a number")?;
    let due = behind(r#""due":"#).context("a message without a time")?;
    Ok((number.parse()?, due.parse()?))
}

struct Query;

#[Object]
impl Query {
    async fn nothing(&self) -> bool {
        true
    }
}

struct Subscriptions;

#[Subscription]
impl Subscriptions {
    async fn shown(&self, ctx: &Context<'_>) -> Result<impl Stream<Item = Result<Edge<Screened>>>> {
        let bridge = ctx.data::<EventSubscriptionBridge>()?;
        let shown = bridge.events::<Screened>().resume(ctx).subscribe().await;
        ctx.data::<Arc<AtomicUsize>>()?
            .fetch_add(1, Ordering::SeqCst);
        shown
    }
}

/// Serves until it is dropped.
pub(super) struct Server {
    address: SocketAddr,
    begun: Arc<AtomicUsize>,
    broadcast: broadcast::Sender<Utf8Bytes>,
    _serving: JoinSet<std::io::Result<()>>,
}

impl Server {
    pub(super) async fn start(store: impl Backend) -> anyhow::Result<Self> {
        let begun = Arc::<AtomicUsize>::default();
        let schema = Schema::build(Query, EmptyMutation, Subscriptions)
            .data(EventSubscriptionBridge::new(store))
            .data(Arc::clone(&begun))
            .finish();
        let transport = GraphqlTransport::builder(schema).share(["shown"]).build();
        let broadcast = broadcast::Sender::new(WINDOW);
        let app = transport.router().merge(bare_router(broadcast.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // The same connections for both.
        let listener = transport.listener(listener);
        let mut serving = JoinSet::new();
        serving.spawn(axum::serve(listener, app).into_future());
        Ok(Self {
            address,
            begun,
            broadcast,
            _serving: serving,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client that has subscribed.
    pub(super) async fn subscriber(&self) -> anyhow::Result<Socket> {
        subscriber(self.address).await
    }

    /// Waits until subscriptions have begun.
    pub(super) async fn begun(&self) -> anyhow::Result<()> {
        until(|| self.begun.load(Ordering::SeqCst) > 0).await
    }

    pub(super) async fn bare_listeners(&self, count: usize) -> anyhow::Result<()> {
        until(|| self.broadcast.receiver_count() >= count).await
    }

    /// Sends to all bare clients.
    pub(super) fn broadcast(&self, text: &str) -> anyhow::Result<()> {
        self.broadcast
            .send(text.into())
            .context("no bare client is there")?;
        Ok(())
    }

    /// Sends what is added to a feed to all bare clients.
    pub(super) fn broadcast_feed(&self, mut follower: Follower) -> JoinSet<anyhow::Result<()>> {
        let broadcast = self.broadcast.clone();
        let mut following = JoinSet::new();
        following.spawn(async move {
            loop {
                for payload in follower.next().await? {
                    let text = String::from_utf8(payload)?;
                    broadcast
                        .send(text.into())
                        .context("no bare client is there")?;
                }
            }
        });
        following
    }
}

/// A client that has subscribed, and whose subscription is being done.
pub(super) async fn subscriber(address: SocketAddr) -> anyhow::Result<Socket> {
    let mut socket = Socket::connect(address, "/graphql/ws").await?;
    socket.say(r#"{"type":"connection_init"}"#).await?;
    socket.next().await?;
    let query = "subscription { shown { node { number due text } cursor } }";
    let subscribe = json!({ "type": "subscribe", "id": "1", "payload": { "query": query } });
    socket.say(&subscribe.to_string()).await?;
    socket.say(r#"{"type":"ping"}"#).await?;
    let pong = socket.next().await?;
    ensure!(
        pong.windows(4).any(|text| text == b"pong"),
        "what came is {}",
        String::from_utf8_lossy(pong)
    );
    Ok(socket)
}

fn bare_router(broadcast: broadcast::Sender<Utf8Bytes>) -> Router {
    let bare = move |upgrade: WebSocketUpgrade| {
        let mut heard = broadcast.subscribe();
        async move {
            let upgrade = upgrade.protocols(["graphql-transport-ws"]);
            upgrade.on_upgrade(move |mut socket| async move {
                while let Ok(text) = heard.recv().await {
                    if socket.send(Message::Text(text)).await.is_err() {
                        break;
                    }
                }
            })
        }
    };
    Router::new().route("/bare", get(bare))
}

async fn until(so: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        ensure!(Instant::now() < deadline, "the clients do not come");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
