//! The bridge from feeds and channels to subscriptions of clients.

mod any_event;
mod channel;
mod cursor;
mod ear;
mod edge;
mod entry;
mod error;
mod feed;
mod handlers_first;
mod heard;
mod live;
mod live_stream;
mod ring;
mod selection;
mod stream;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use event_core::{Backend, Category, Event, Pattern, ReadError, Service, Token};

pub use any_event::AnyEvent;
pub use cursor::Cursor;
pub use edge::Edge;
pub use error::BridgeError;
pub use feed::{Listening, News};
pub use live::Live;
pub use live_stream::LiveStream;
pub use stream::EventStream;
pub use subscription::{Access, EventSubscription, Persistent, Realtime, SlowClient};

use channel::Channels;
use cursor::Signer;
use feed::Feeds;
use handlers_first::HandlersFirst;
use ring::Window;
use selection::Selection;

use crate::loader::Invalidates;
use crate::metrics::BridgeMetrics;

/// What cursors are signed with where nobody gives a secret. It tells what was made up from what was
/// received, but keeps nobody from making one on purpose.
const PUBLIC_SECRET: &[u8] = b"event-graphql cursor";

/// Gives events to the clients of a process. Each partition that somebody looks at is read once, whatever
/// the number of clients, and each event is decoded once; what nobody looks at is not read. A clone is the same bridge.
///
/// ```
/// use async_graphql::{Context, EmptyMutation, Object, Result, Schema, SimpleObject, Subscription};
/// use event_core::prelude::*;
/// use event_graphql::{Cursor, Edge, EventSubscriptionBridge};
/// use futures::{Stream, StreamExt};
/// # use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
/// #[event("repository.updated", key = repository)]
/// struct RepositoryUpdated { repository: String, stars: u32 }
///
/// struct Query;
///
/// #[Object]
/// impl Query {
///     async fn version(&self) -> u32 { 1 }
/// }
///
/// struct Subscriptions;
///
/// #[Subscription]
/// impl Subscriptions {
///     async fn repository_updated(
///         &self,
///         ctx: &Context<'_>,
///         repository: String,
///         after: Option<Cursor>,
///     ) -> Result<impl Stream<Item = Result<Edge<RepositoryUpdated>>>> {
///         ctx.data::<EventSubscriptionBridge>()?
///             .events::<RepositoryUpdated>()
///             .filter(move |event| event.repository == repository)
///             .after(after)
///             // Streams of server-sent events go on where they were.
///             .resume(ctx)
///             .subscribe()
///             .await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let store = MemoryStore::new();
/// let bridge = EventSubscriptionBridge::new(store.clone());
/// let schema = Schema::build(Query, EmptyMutation, Subscriptions).data(bridge).finish();
///
/// let mut responses = schema.execute_stream(
///     r#"subscription { repositoryUpdated(repository: "octo/hello") { node { stars } cursor } }"#,
/// );
/// let service = Service::builder("github").store(store).build()?;
/// let (first, published) = tokio::join!(responses.next(), service.publish(RepositoryUpdated {
///     repository: "octo/hello".into(),
///     stars: 7,
/// }));
/// published?;
/// let data = first.ok_or("nothing came")?.data.into_json()?;
/// assert_eq!(data["repositoryUpdated"]["node"]["stars"], 7);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EventSubscriptionBridge {
    inner: Arc<Inner>,
}

struct Inner {
    feeds: Arc<Feeds>,
    channels: Arc<Channels>,
    signer: Signer,
    metrics: BridgeMetrics,
}

/// Settings of an [`EventSubscriptionBridge`].
#[must_use = "a bridge is made by `build`"]
pub struct BridgeBuilder {
    store: Arc<dyn Backend>,
    secret: Vec<u8>,
    window: Window,
    first: Option<HandlersFirst>,
}

impl EventSubscriptionBridge {
    /// A bridge from this store.
    pub fn new(store: impl Backend) -> Self {
        Self::builder(store).build()
    }

    /// A bridge from this store, with settings.
    pub fn builder(store: impl Backend) -> BridgeBuilder {
        BridgeBuilder {
            store: Arc::new(store),
            secret: Vec::new(),
            window: Window {
                entries: 4_096,
                bytes: 16 * 1024 * 1024,
            },
            first: None,
        }
    }

    /// A subscription to all stored events of type `E`. Nothing happens before
    /// [`subscribe`](EventSubscription::subscribe).
    pub fn events<E: Event>(&self) -> EventSubscription<E> {
        EventSubscription::new(self.clone(), Selection::of_type())
    }

    /// A subscription to all stored events whose types match one of the patterns, as they are: such as
    /// `["github.*".parse()?, "repository.*".parse()?]`. Each must begin with a category. Nothing happens before
    /// [`subscribe`](EventSubscription::subscribe).
    pub fn matching(
        &self,
        patterns: impl IntoIterator<Item = Pattern>,
    ) -> EventSubscription<AnyEvent> {
        EventSubscription::new(self.clone(), Selection::matching(patterns))
    }

    /// A subscription to all realtime events of type `E`. All clients that want the same types share one
    /// subscription at the store, which begins with the first of them and ends with the last. Nothing happens before
    /// [`subscribe`](EventSubscription::subscribe).
    ///
    /// ```
    /// use event_core::prelude::*;
    /// use event_graphql::EventSubscriptionBridge;
    /// use futures::StreamExt;
    /// # use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize, Event)]
    /// #[event("ai.response.chunk", realtime)]
    /// struct ResponseChunk { session: String, text: String }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let store = MemoryStore::new();
    /// let bridge = EventSubscriptionBridge::new(store.clone());
    /// let chunks = bridge.realtime::<ResponseChunk>().filter(|chunk| chunk.session == "s-1");
    /// let mut chunks = chunks.subscribe().await.map_err(|error| error.message)?;
    ///
    /// let service = Service::builder("assistant").store(store).build()?;
    /// service.publish(ResponseChunk { session: "s-1".into(), text: "hel".into() }).await?;
    /// let chunk = chunks.next().await.ok_or("it has ended")?.map_err(|error| error.message)?;
    /// assert_eq!((chunk.event().text.as_str(), chunk.lost()), ("hel", 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn realtime<E: Event>(&self) -> EventSubscription<E, Realtime> {
        EventSubscription::new(self.clone(), Selection::of_type())
    }

    /// A subscription to all realtime events whose types match one of the patterns, as they are.
    pub fn realtime_matching(
        &self,
        patterns: impl IntoIterator<Item = Pattern>,
    ) -> EventSubscription<AnyEvent, Realtime> {
        EventSubscription::new(self.clone(), Selection::matching(patterns))
    }

    /// The cursor of who has seen everything up to `token`. A query gives it along with a state, so that its client
    /// can subscribe from exactly there. The token must have each partition of the subscription, and no other.
    pub fn cursor(&self, token: &Token) -> Cursor {
        self.signer().cursor(token)
    }

    /// Has `tell` called with every event that is stored in these categories from when this returns,
    /// before any client of this bridge gets it, until what is returned is dropped. It must not block. This is how
    /// caches know what is no longer true.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store does not answer.
    pub async fn listen(
        &self,
        categories: impl IntoIterator<Item = Category>,
        tell: impl Fn(News<'_>) + Send + Sync + 'static,
    ) -> Result<Listening, ReadError> {
        let categories = categories.into_iter().collect();
        self.feeds().listen(categories, tell).await
    }

    /// Has a cache forget what events of these categories invalidate, before any client of this bridge gets them,
    /// until what is returned is dropped.
    ///
    /// # Errors
    /// [`ReadError::Store`] where the store does not answer.
    pub async fn invalidate(
        &self,
        categories: impl IntoIterator<Item = Category>,
        cache: impl Invalidates + 'static,
    ) -> Result<Listening, ReadError> {
        let cache = Arc::new(cache);
        let loaded_before = Arc::clone(&cache);
        let listening = self
            .listen(categories, move |news| match news {
                News::Gap => cache.clear(),
                News::Event(event) => {
                    if let Err(error) = cache.apply(event) {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(
                            error,
                            "an event cannot be read; the cache forgets everything"
                        );
                    }
                }
            })
            .await?;
        // What was loaded before may be older than what has been told.
        loaded_before.clear();
        Ok(listening)
    }

    /// How many partitions are read, and how many sets of realtime events are listened to, now.
    pub fn readers(&self) -> usize {
        self.feeds().readers() + self.channels().listeners()
    }

    /// How many look at something now: one for each partition of each subscription, and one for each subscription
    /// to realtime events.
    pub fn clients(&self) -> usize {
        self.feeds().clients() + self.channels().clients()
    }

    /// How many realtime events that somebody listened to have not arrived at this process, since the bridge was
    /// made. What was lost after the last one that did arrive is not known yet.
    pub fn missed(&self) -> u64 {
        self.channels().missed()
    }

    /// How far the partitions that are read have been read.
    pub fn positions(&self) -> Token {
        self.feeds().positions()
    }

    pub(crate) fn feeds(&self) -> &Arc<Feeds> {
        &self.inner.feeds
    }

    pub(crate) fn channels(&self) -> &Arc<Channels> {
        &self.inner.channels
    }

    pub(crate) fn metrics(&self) -> &BridgeMetrics {
        &self.inner.metrics
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.inner.signer
    }
}

impl BridgeBuilder {
    /// What cursors are signed with. All instances that a client may come back to must have the same. Without it, or
    /// where it is empty, cursors are still checked, but whoever knows this library can make them:
    /// [`build`](Self::build) warns of that in the log.
    pub fn cursor_secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = secret.into();
        self
    }

    /// How far clients may be behind and still be served from memory, for each partition: entries, and bytes of
    /// all of them; and how many realtime events. Default: 4,096 and 16 MiB.
    pub fn window(mut self, entries: usize, bytes: usize) -> Self {
        self.window = Window { entries, bytes };
        self
    }

    /// Clients get an event only when the handlers of this service's group that take events in order are through with
    /// it, whichever instance runs them: those that invalidate caches that processes share, say. That is waited for so
    /// long at most; then clients get it all the same, with a warning in the log, and what comes before the group
    /// has come so far they get at once. What the group does not read is not waited for, and neither are realtime events.
    pub fn handlers_first(mut self, service: Service, at_most: Duration) -> Self {
        self.first = Some(HandlersFirst::new(service, at_most));
        self
    }

    /// The bridge. Where there is no [secret](Self::cursor_secret), a warning goes to the log.
    pub fn build(self) -> EventSubscriptionBridge {
        let secret: &[u8] = if self.secret.is_empty() {
            tracing::warn!(
                "cursors are signed without a secret, so anybody can make them; give one by cursor_secret()"
            );
            PUBLIC_SECRET
        } else {
            &self.secret
        };
        let signer = Signer::new(secret);
        let metrics = BridgeMetrics::default();
        let inner = Inner {
            channels: Channels::new(
                Arc::clone(&self.store),
                self.window.entries,
                metrics.clone(),
            ),
            feeds: Feeds::new(self.store, self.window, self.first, metrics.clone()),
            metrics,
            signer,
        };
        EventSubscriptionBridge {
            inner: Arc::new(inner),
        }
    }
}
