//! Realtime events by Pub/Sub.
//!
//! Publishing goes through one task, so that messages reach the server in the order of their
//! numbers. Each subscription has a connection of its own, on which the server speaks unasked
//! (RESP3); it is replaced when it breaks, and what was missed meanwhile shows in the numbers.
//!
//! In a cluster every node hears everything. A store publishes through one node, for as long as that
//! is there, and subscribes to the same one, so that its own messages keep their order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use event_core::{
    BoxError, Flush, NewEvent, Pattern, RealtimePublisher, RealtimeSink, RealtimeSubscription,
    StoreError, metrics,
};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, PushInfo, PushKind, RedisError, RedisWrite, Value};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::connection::{
    Attempts, Connections, Connector, PING_INTERVAL, Request, next_pause, pauses, ping,
};
use crate::error::{Remedy, boxed, refused, remedy, unavailable};
use crate::store::Parts;
use crate::wire;

const PUBLISH: &str = "publish";
const SUBSCRIBE: &str = "subscribe";

/// Calls of publish that wait for the task.
const QUEUED_BATCHES: usize = 1_024;

/// Calls whose messages are sent together.
const SENT_TOGETHER: usize = 128;

/// Numbers the messages and sends them in this order.
#[derive(Default)]
pub(crate) struct Publishing {
    publisher: RealtimePublisher,
    /// Held while messages are numbered and queued, which must not be parted.
    order: Mutex<()>,
    queue: Mutex<Option<mpsc::Sender<Batch>>>,
}

/// The messages of one call.
struct Batch {
    messages: Vec<Cmd>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Publishing {
    /// The queue to the task, which is started if it does not run: at first, or after the runtime
    /// it ran on has ended.
    fn queue(&self, connections: &Arc<Connections>) -> mpsc::Sender<Batch> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match &*queue {
            Some(sender) if !sender.is_closed() => sender.clone(),
            _ => {
                let (sender, batches) = mpsc::channel(QUEUED_BATCHES);
                // It ends when the store, which has the sender, is dropped.
                tokio::spawn(send_batches(Arc::clone(connections), batches));
                queue.insert(sender).clone()
            }
        }
    }

    fn encode(&self, events: &[NewEvent]) -> Result<Vec<Cmd>, StoreError> {
        events
            .iter()
            .map(|event| {
                let message =
                    self.publisher
                        .encode(event)
                        .map_err(|error| StoreError::Refused {
                            operation: PUBLISH,
                            source: Box::new(error),
                        })?;
                let channel = event.event_type();
                let mut command = Cmd::with_capacity(3, 8 + channel.len() + message.len());
                command.write_arg(b"PUBLISH");
                command.write_arg(channel.as_bytes());
                command.write_arg(message.as_bytes());
                Ok(command)
            })
            .collect()
    }
}

/// Sends events to everybody who listens now.
pub(crate) async fn publish(parts: &Parts, events: &[NewEvent]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let publishing = &parts.publishing;
    let queue = publishing.queue(&parts.connections);
    let lost = || unavailable(PUBLISH, parts.patience, None);
    let place = timeout(parts.patience, queue.reserve())
        .await
        .map_err(|_| lost())?
        .map_err(|_| lost())?;
    let (done, outcome) = oneshot::channel();
    {
        let _order = publishing
            .order
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let messages = publishing.encode(events)?;
        place.send(Batch { messages, done });
    }
    // Where the task has ended, whether they were sent is not known, and at most once is promised.
    outcome.await.unwrap_or_else(|_| Err(lost()))
}

/// Sends what is queued, as much together as there is.
async fn send_batches(connections: Arc<Connections>, mut queue: mpsc::Receiver<Batch>) {
    let mut batches = Vec::with_capacity(SENT_TOGETHER);
    while queue.recv_many(&mut batches, SENT_TOGETHER).await > 0 {
        let mut pipeline = Pipeline::new();
        let mut callers = Vec::with_capacity(batches.len());
        for batch in batches.drain(..) {
            callers.push((batch.messages.len(), batch.done));
            for message in batch.messages {
                pipeline.add_command(message);
            }
        }
        let outcome = connections
            .ask_in_order(PUBLISH, Request::Pipeline(&pipeline))
            .await;
        // A caller that has gone away does not want to know.
        match outcome.map(|replies| wire::array(replies).unwrap_or_default()) {
            Ok(replies) => {
                let mut replies = replies.into_iter();
                for (count, done) in callers {
                    let failure = replies.by_ref().take(count).find_map(|reply| match reply {
                        Value::ServerError(error) => Some(refused(PUBLISH, error.into())),
                        _ => None,
                    });
                    let _ = done.send(failure.map_or(Ok(()), Err));
                }
            }
            Err(error) => {
                for (_, done) in callers {
                    let _ = done.send(Err(copy(&error)));
                }
            }
        }
    }
}

/// One failure for each of those it befell.
fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable {
            operation,
            waited,
            source,
        } => StoreError::Unavailable {
            operation,
            waited: *waited,
            source: source.to_string().into(),
        },
        StoreError::FeedTrimmed {
            partition,
            first_available,
        } => StoreError::FeedTrimmed {
            partition: partition.clone(),
            first_available: *first_available,
        },
        StoreError::Refused { operation, source } | StoreError::Forgotten { operation, source } => {
            StoreError::Refused {
                operation,
                source: source.to_string().into(),
            }
        }
    }
}

/// Listens to all types that any of the patterns matches.
pub(crate) async fn subscribe(
    parts: &Parts,
    patterns: &[Pattern],
) -> Result<RealtimeSubscription, StoreError> {
    let (state, mut states) = watch::channel(Listening::No(None));
    let (guard, dropped) = oneshot::channel::<()>();
    let flush = RedisFlush {
        states: states.clone(),
        patience: parts.patience,
    };
    let (sink, subscription) =
        RealtimeSubscription::channel(parts.realtime_capacity, Box::new(flush), Box::new(guard));
    let listener = Listener {
        connections: Arc::clone(&parts.connections),
        channels: Arc::new(Channels::new(patterns)),
        sink,
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = dropped => {}
            () = listener.listen(state) => {}
        }
    });

    let mut attempts = Attempts::new(SUBSCRIBE, parts.patience);
    connected(&mut states, &mut attempts).await?;
    Ok(subscription)
}

/// Whether a subscription's connection is there.
enum Listening {
    Yes(MultiplexedConnection),
    No(Option<RedisError>),
}

/// The connection of a subscription, as soon as it listens.
async fn connected(
    states: &mut watch::Receiver<Listening>,
    attempts: &mut Attempts,
) -> Result<MultiplexedConnection, StoreError> {
    loop {
        match &*states.borrow_and_update() {
            Listening::Yes(connection) => return Ok(connection.clone()),
            Listening::No(Some(error)) => attempts.note(error)?,
            Listening::No(None) => {}
        }
        let changed = timeout(attempts.left(), states.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Err(attempts.over());
        }
    }
}

/// What is listened to.
struct Channels {
    exact: BTreeSet<String>,
    patterns: Vec<Pattern>,
}

impl Channels {
    fn new(patterns: &[Pattern]) -> Self {
        let texts = |exact| {
            patterns
                .iter()
                .filter(move |pattern| pattern.is_exact() == exact)
        };
        let patterns: BTreeSet<Pattern> = texts(false).cloned().collect();
        Self {
            exact: texts(true)
                .map(|pattern| pattern.as_str().to_owned())
                .collect(),
            patterns: patterns.into_iter().collect(),
        }
    }

    /// Whether a message on `channel` that came because of `pattern` is the one to deliver: the
    /// server sends one for the channel itself and one for each pattern that matches.
    fn is_first(&self, pattern: &[u8], channel: &str) -> bool {
        !self.exact.contains(channel)
            && self
                .patterns
                .iter()
                .find(|pattern| pattern.matches(channel))
                .is_some_and(|first| first.as_str().as_bytes() == pattern)
    }

    /// Delivers a message, unless it comes for a second time.
    fn deliver(&self, sink: &RealtimeSink, push: &PushInfo) {
        let (pattern, channel, message) = match (&push.kind, push.data.as_slice()) {
            (PushKind::Message, [channel, message]) => (None, channel, message),
            (PushKind::PMessage, [pattern, channel, message]) => (Some(pattern), channel, message),
            _ => return,
        };
        let (Ok(channel), Ok(message)) = (wire::slice(channel), wire::slice(message)) else {
            return;
        };
        // Event types are ASCII: what is not UTF-8 is none.
        let Ok(channel) = std::str::from_utf8(channel) else {
            return;
        };
        let is_first = match pattern.map(wire::slice) {
            None => true,
            Some(pattern) => pattern.is_ok_and(|pattern| self.is_first(pattern, channel)),
        };
        if is_first {
            sink.deliver(channel, message);
        }
    }
}

/// The connection of one subscription.
struct Listener {
    connections: Arc<Connections>,
    channels: Arc<Channels>,
    sink: RealtimeSink,
}

impl Listener {
    /// Listens, and connects again where the connection is lost, without end.
    async fn listen(self, state: watch::Sender<Listening>) {
        let mut pauses = pauses();
        let mut is_lost = false;
        loop {
            let lost = Arc::new(Notify::new());
            // In a cluster, another one may be there.
            let connector = self.connections.listening();
            match self.connect(&connector, Arc::clone(&lost)).await {
                Ok(mut connection) => {
                    pauses = crate::connection::pauses();
                    if std::mem::replace(&mut is_lost, true) {
                        metrics::reconnects(&connector.address().to_string()).increment(1);
                    }
                    state.send_replace(Listening::Yes(connection.clone()));
                    loop {
                        tokio::select! {
                            () = lost.notified() => break,
                            () = sleep(PING_INTERVAL) => {
                                if ping(&mut connection).await.is_err() {
                                    break;
                                }
                            }
                        }
                    }
                    state.send_replace(Listening::No(None));
                    tracing::warn!(address = %connector.address(), "a subscription's connection is lost; connecting again");
                }
                Err(error) => {
                    tracing::debug!(address = %connector.address(), %error, "cannot subscribe; trying again");
                    state.send_replace(Listening::No(Some(error)));
                }
            }
            sleep(next_pause(&mut pauses)).await;
        }
    }

    async fn connect(
        &self,
        connector: &Connector,
        lost: Arc<Notify>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let (channels, sink) = (Arc::clone(&self.channels), self.sink.clone());
        let deliver = move |push: PushInfo| -> Result<(), std::convert::Infallible> {
            match push.kind {
                PushKind::Disconnection => lost.notify_one(),
                _ => channels.deliver(&sink, &push),
            }
            Ok(())
        };
        let mut connection = connector.connect_for_pushes(deliver).await?;
        if !self.channels.exact.is_empty() {
            let exact: Vec<&str> = self.channels.exact.iter().map(String::as_str).collect();
            connection.subscribe(exact).await?;
        }
        if !self.channels.patterns.is_empty() {
            let patterns = self.channels.patterns.iter().map(Pattern::as_str);
            connection.psubscribe(patterns.collect::<Vec<_>>()).await?;
        }
        Ok(connection)
    }
}

/// What the server sends before it answers a PING has been delivered when the answer is here.
struct RedisFlush {
    states: watch::Receiver<Listening>,
    patience: Duration,
}

#[async_trait]
impl Flush for RedisFlush {
    async fn flush(&self) -> Result<(), BoxError> {
        let mut states = self.states.clone();
        let mut attempts = Attempts::new(SUBSCRIBE, self.patience);
        loop {
            let mut connection = connected(&mut states, &mut attempts).await?;
            match ping(&mut connection).await {
                Ok(()) => return Ok(()),
                Err(error) if remedy(&error) == Remedy::Nothing => return Err(boxed(error)),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_patterns_match_comes_once() {
        let patterns = ["a.*", "a.b", "a.b.*", "*.c"].map(|text| text.parse().unwrap());
        let channels = Channels::new(&patterns);
        let delivered = |channel: &str| {
            let by_pattern = ["a.*", "a.b.*", "*.c"].iter().filter(|pattern| {
                // The server only sends for patterns that match.
                pattern.parse::<Pattern>().unwrap().matches(channel)
                    && channels.is_first(pattern.as_bytes(), channel)
            });
            usize::from(channels.exact.contains(channel)) + by_pattern.count()
        };
        for channel in ["a.b", "a.c", "a.b.c", "a.x", "b.c"] {
            assert_eq!(delivered(channel), 1, "{channel}");
        }
        assert_eq!(delivered("b.x"), 0);
    }
}
