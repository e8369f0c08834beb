//! One client's subscription, and what it asks for.

use std::marker::PhantomData;
use std::sync::Arc;

use async_graphql::Context;
use event_core::Partition;
use tokio_util::sync::CancellationToken;

use super::EventSubscriptionBridge;
use super::cursor::Cursor;
use super::error::BridgeError;
use super::live_stream::LiveStream;
use super::selection::Selection;
use super::stream::{EventStream, Follower, Part};
use crate::transport::Resume;

/// Marks a subscription to events that lie in feeds.
#[derive(Debug)]
pub enum Persistent {}

/// Marks a subscription to events that are sent to whoever listens, and kept nowhere.
#[derive(Debug)]
pub enum Realtime {}

/// What becomes of a client that is so slow that what it has not seen yet is no longer in memory. Realtime
/// events lie nowhere else: there, [`CatchUp`](Self::CatchUp) is the same as [`DropOldest`](Self::DropOldest).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowClient {
    /// It gets everything: it is served from the store, at its own pace, until it has caught up.
    #[default]
    CatchUp,
    /// It goes on with the oldest that is in memory, and is told how much was left out.
    DropOldest,
    /// It gets the newest only, each time that it asks, and is told how much was left out.
    Latest,
    /// Its subscription ends with [`BridgeError::TooSlow`].
    Disconnect,
}

/// What a client may do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// See it.
    Granted,
    /// Not see this one.
    Hidden,
    /// See nothing more: the subscription ends, with [`BridgeError::Forbidden`] where it begins, and with
    /// [`BridgeError::Revoked`] later.
    Revoked,
}

type Filter<E> = Arc<dyn Fn(&E) -> bool + Send + Sync>;
type Authorize<E> = Arc<dyn Fn(Option<&E>) -> Access + Send + Sync>;

/// A subscription, being made: to stored events by [`EventSubscriptionBridge::events`], to realtime events by
/// [`EventSubscriptionBridge::realtime`].
#[must_use = "nothing happens before `subscribe`"]
pub struct EventSubscription<E, K = Persistent> {
    bridge: EventSubscriptionBridge,
    wants: Wants<E>,
    after: Option<Cursor>,
    resume: Option<Resume>,
    revoked: Option<CancellationToken>,
    kind: PhantomData<fn() -> K>,
}

/// Which events a client gets.
pub(crate) struct Wants<E> {
    pub(crate) selection: Arc<Selection<E>>,
    filter: Option<Filter<E>>,
    authorize: Option<Authorize<E>>,
    pub(crate) slow_client: SlowClient,
}

impl<E> Wants<E> {
    /// What the client may do with this event, or with any where there is none yet.
    pub(crate) fn access(&self, event: Option<&E>) -> Access {
        match &self.authorize {
            None => Access::Granted,
            Some(authorize) => authorize(event),
        }
    }

    pub(crate) fn accepts(&self, event: &E) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter(event))
    }
}

impl<E: Send + Sync + 'static, K> EventSubscription<E, K> {
    pub(crate) fn new(bridge: EventSubscriptionBridge, selection: Selection<E>) -> Self {
        Self {
            bridge,
            wants: Wants {
                selection: Arc::new(selection),
                filter: None,
                authorize: None,
                slow_client: SlowClient::default(),
            },
            after: None,
            resume: None,
            revoked: None,
            kind: PhantomData,
        }
    }

    /// Only events for which it is true. What is left out costs the client nothing, and its cursor moves on.
    pub fn filter(mut self, filter: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        self.wants.filter = Some(match self.wants.filter.take() {
            None => Arc::new(filter),
            Some(first) => Arc::new(move |event| first(event) && filter(event)),
        });
        self
    }

    /// Asked once with `None` when the subscription begins, and then with each event that the client would
    /// get. It must not block.
    pub fn authorize(
        mut self,
        authorize: impl Fn(Option<&E>) -> Access + Send + Sync + 'static,
    ) -> Self {
        self.wants.authorize = Some(Arc::new(authorize));
        self
    }

    /// Ends the subscription with [`BridgeError::Revoked`] as soon as `revoked` is cancelled, whether there are
    /// events or not.
    pub fn until_revoked(mut self, revoked: CancellationToken) -> Self {
        self.revoked = Some(revoked);
        self
    }

    /// What becomes of the client when it is too slow.
    pub fn slow_client(mut self, slow_client: SlowClient) -> Self {
        self.wants.slow_client = slow_client;
        self
    }

    fn check_access(&self) -> Result<(), BridgeError> {
        let revoked = self.revoked.as_ref();
        let is_revoked = revoked.is_some_and(CancellationToken::is_cancelled);
        if is_revoked || self.wants.access(None) != Access::Granted {
            return Err(BridgeError::Forbidden);
        }
        Ok(())
    }
}

impl<E: Send + Sync + 'static> EventSubscription<E> {
    /// Begins behind a cursor: first what has happened since, then what happens. Without one, it begins
    /// with what happens after [`subscribe`](Self::subscribe).
    pub fn after(mut self, cursor: Option<Cursor>) -> Self {
        self.after = cursor;
        self
    }

    /// Begins where a client of server-sent events was when its connection broke, which it says by
    /// `Last-Event-ID`. That counts more than [`after`](Self::after), since such a client sends the same request again.
    /// Whatever a resolver makes of the events, the cursor behind each is the `id:` of its response.
    /// It also lets clients [share](crate::GraphqlTransportBuilder::share) what is executed, and go on by themselves.
    pub fn resume(mut self, ctx: &Context<'_>) -> Self {
        self.resume = ctx.data_opt::<Resume>().cloned();
        self
    }

    /// Begins.
    ///
    /// # Errors
    /// A GraphQL error made of a [`BridgeError`]: of a cursor that is none or cannot be gone on from, of a right
    /// that is missing, or of a store that does not answer.
    pub async fn subscribe(self) -> async_graphql::Result<EventStream<E>> {
        self.begin().await.map_err(BridgeError::into_graphql)
    }

    async fn begin(self) -> Result<EventStream<E>, BridgeError> {
        self.check_access()?;
        let last = self.resume.as_ref().and_then(Resume::last_event_id);
        let after = last.map(Cursor::new).or(self.after.clone());
        if let (Some(_), Some(resume)) = (&after, &self.resume) {
            resume.keep_private();
        }
        let partitions = self.partitions().await?;
        let cursor = match &after {
            None => None,
            Some(cursor) => Some(self.bridge.signer().positions(cursor, &partitions)?),
        };
        let mut parts = Vec::with_capacity(partitions.len());
        for (index, partition) in partitions.iter().enumerate() {
            // The reader runs from here on, so that there is no gap behind the end that is asked for next.
            let view = self.bridge.feeds().look(partition);
            let newest = self.bridge.feeds().store().head(partition).await?;
            let begin = cursor
                .as_ref()
                .and_then(|cursor| cursor.get(index))
                .copied();
            if begin.is_some_and(|begin| begin > newest) {
                return Err(BridgeError::CursorAhead { newest });
            }
            parts.push(Part::new(view, begin.unwrap_or(newest)));
        }
        let follower = Follower::new(self.bridge, self.wants, parts);
        if let Some(resume) = &self.resume {
            resume.begin(follower.cursor(None).as_str());
        }
        let revoked = self.revoked.unwrap_or_default();
        Ok(EventStream::new(follower, revoked, self.resume))
    }

    /// Where the events lie, in an order of its own.
    async fn partitions(&self) -> Result<Vec<Partition>, BridgeError> {
        let mut partitions = Vec::new();
        for category in self.wants.selection.categories()? {
            let count = self.bridge.feeds().store().partitions(&category).await?;
            partitions.extend((0..count).map(|number| Partition::new(category.clone(), number)));
        }
        Ok(partitions)
    }
}

impl<E: Send + Sync + 'static> EventSubscription<E, Realtime> {
    /// Begins with what is sent after this returns.
    ///
    /// # Errors
    /// A GraphQL error made of a [`BridgeError`]: of a right that is missing, or of a store that does not answer.
    pub async fn subscribe(self) -> async_graphql::Result<LiveStream<E>> {
        self.begin().await.map_err(BridgeError::into_graphql)
    }

    async fn begin(self) -> Result<LiveStream<E>, BridgeError> {
        self.check_access()?;
        let patterns = self.wants.selection.patterns()?;
        let selection = &self.wants.selection;
        let ear = self.bridge.channels().listen(patterns, selection).await?;
        let left_out = self.bridge.metrics().left_out.clone();
        Ok(LiveStream::new(ear, self.wants, self.revoked, left_out))
    }
}
