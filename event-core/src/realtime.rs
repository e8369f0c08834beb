//! Realtime events: sent by Pub/Sub to whoever listens now, and kept nowhere.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use chrono::Utc;
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use uuid::Uuid;

use crate::BoxError;
use crate::clock::derived_id;
use crate::codec::{CodecError, NewEvent};
use crate::event::is_event_type;
use crate::metadata::{ForeignMetadata, Metadata};
use crate::pattern::Pattern;
use crate::recorded::{Position, RecordedEvent};
use crate::store::StoreError;

/// How many realtime events wait for a subscriber before the newest are dropped and counted.
pub const DEFAULT_CAPACITY: usize = 1_024;

/// Sends realtime events and listens to them. At most once: who does not listen misses them, and
/// who listens too slowly is told how many were missed.
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Codec, Realtime, RealtimeItem};
/// # use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event("ai.response.chunk", realtime)]
/// struct ResponseChunk { text: String }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let store = MemoryStore::new();
/// let mut subscription = store.subscribe(&["ai.*".parse()?]).await?;
///
/// let chunk = Codec::default().encode(&ResponseChunk { text: "hel".into() })?;
/// store.publish_realtime(&[chunk]).await?;
///
/// let Some(RealtimeItem::Event(event)) = subscription.next().await else { panic!() };
/// assert_eq!(event.decode::<ResponseChunk>()?.text, "hel");
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Realtime: Send + Sync + 'static {
    /// Sends events to everybody who listens to their types now.
    ///
    /// # Errors
    /// [`StoreError`] where they could not be sent.
    async fn publish_realtime(&self, events: &[NewEvent]) -> Result<(), StoreError>;

    /// Listens to all types that any of the patterns matches, from when it returns. An event that
    /// several of them match comes once.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    async fn subscribe(&self, patterns: &[Pattern]) -> Result<RealtimeSubscription, StoreError>;
}

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq)]
pub enum RealtimeItem {
    /// An event. Its position is [`Position::START`], since it lies nowhere.
    Event(RecordedEvent),
    /// Events that were sent, but did not arrive: the connection was lost, or the subscriber too
    /// slow. What was lost after the last event that did arrive cannot be known.
    Missed {
        /// The channel, which is the event type.
        channel: String,
        /// How many.
        count: u64,
    },
}

/// A stream of realtime events, with a bounded buffer.
pub struct RealtimeSubscription {
    items: mpsc::Receiver<Arrival>,
    shared: Arc<Shared>,
    sequences: Sequences,
    pending: Option<RealtimeItem>,
    flush: Box<dyn Flush>,
    /// Ends the connection behind the stream when the stream is dropped.
    _guard: Box<dyn Send + Sync>,
}

/// What the sending side and the receiving side of a subscription share.
#[derive(Default)]
struct Shared {
    /// How many messages without a sequence number did not fit in the buffer, by channel: nobody
    /// else would count them.
    overflowed: Mutex<HashMap<Box<str>, u64>>,
}

impl Shared {
    fn note_overflow(&self, channel: Box<str>) {
        let mut overflowed = self.overflowed();
        if overflowed.len() < MAX_CHANNELS || overflowed.contains_key(&channel) {
            *overflowed.entry(channel).or_default() += 1;
        }
    }

    fn take_overflow(&self, channel: &str) -> u64 {
        self.overflowed().remove(channel).unwrap_or_default()
    }

    fn overflowed(&self) -> MutexGuard<'_, HashMap<Box<str>, u64>> {
        self.overflowed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// On a channel anybody may say anything, and on any number of channels: what overflows beyond so
/// many goes uncounted.
const MAX_CHANNELS: usize = 65_536;

struct Arrival {
    channel: Box<str>,
    message: Message,
}

/// Brings everything that was sent before now into the buffer. A store hands it to
/// [`RealtimeSubscription::channel`].
///
/// ```
/// use async_trait::async_trait;
/// use event_core::{BoxError, Flush, RealtimeSubscription};
///
/// /// Where delivering is all there is to sending.
/// struct Nothing;
///
/// #[async_trait]
/// impl Flush for Nothing {
///     async fn flush(&self) -> Result<(), BoxError> {
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let (sink, mut subscription) =
///     RealtimeSubscription::channel(16, Box::new(Nothing), Box::new(()));
/// sink.deliver("repository.updated", br#"{"payload":{}}"#);
/// assert_eq!(subscription.drain().await?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Flush: Send + Sync {
    /// Returns when it is there.
    ///
    /// # Errors
    /// Whatever the connection says.
    async fn flush(&self) -> Result<(), BoxError>;
}

/// For where sending is delivering.
pub(crate) struct AlwaysFlushed;

#[async_trait]
impl Flush for AlwaysFlushed {
    async fn flush(&self) -> Result<(), BoxError> {
        Ok(())
    }
}

/// The sending end of a [`RealtimeSubscription`], for stores.
#[derive(Clone)]
pub struct RealtimeSink {
    items: mpsc::Sender<Arrival>,
    shared: Arc<Shared>,
}

impl RealtimeSubscription {
    /// A subscription with room for `capacity` messages, and the end that a store delivers to.
    /// `guard` is dropped with the subscription.
    pub fn channel(
        capacity: usize,
        flush: Box<dyn Flush>,
        guard: Box<dyn Send + Sync>,
    ) -> (RealtimeSink, Self) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let shared = Arc::new(Shared::default());
        let sink = RealtimeSink {
            items: sender,
            shared: Arc::clone(&shared),
        };
        let subscription = Self {
            items: receiver,
            shared,
            sequences: Sequences::default(),
            pending: None,
            flush,
            _guard: guard,
        };
        (sink, subscription)
    }

    /// The next item; `None` when the store has closed.
    pub async fn next(&mut self) -> Option<RealtimeItem> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Everything that was sent before this call, without waiting for more. In a Redis Cluster, what
    /// other clients sent by other nodes may not be there yet.
    ///
    /// # Errors
    /// What the connection says.
    pub async fn drain(&mut self) -> Result<Vec<RealtimeItem>, BoxError> {
        self.flush.flush().await?;
        let mut items = Vec::new();
        items.extend(self.pending.take());
        while let Ok(arrival) = self.items.try_recv() {
            items.extend(self.take(arrival));
            items.extend(self.pending.take());
        }
        Ok(items)
    }

    /// What to hand out for an arrival. An event behind a gap waits in `pending` while the gap is
    /// reported.
    fn take(&mut self, arrival: Arrival) -> Option<RealtimeItem> {
        let Arrival { channel, message } = arrival;
        let mut missed = self.shared.take_overflow(&channel);
        let event = match self.sequences.note(&channel, &message) {
            Noted::Repeated => None,
            Noted::Missed(count) => {
                missed += count;
                Some(RealtimeItem::Event(message.event))
            }
        };
        if missed == 0 {
            return event;
        }
        self.pending = event;
        Some(RealtimeItem::Missed {
            channel: channel.into(),
            count: missed,
        })
    }
}

impl Stream for RealtimeSubscription {
    type Item = RealtimeItem;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RealtimeItem>> {
        let this = self.get_mut();
        if let Some(item) = this.pending.take() {
            return Poll::Ready(Some(item));
        }
        loop {
            match this.items.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(arrival)) => {
                    if let Some(item) = this.take(arrival) {
                        return Poll::Ready(Some(item));
                    }
                }
            }
        }
    }
}

impl RealtimeSink {
    /// Delivers a message as it was published on `channel`. What is no event is reported to the
    /// log and left out: on a channel anybody may say anything.
    pub fn deliver(&self, channel: &str, message: &[u8]) {
        match Message::decode(channel, message) {
            Ok(message) => self.offer(channel, message),
            Err(error) => {
                tracing::warn!(channel, %error, "a message that is no event was left out");
            }
        }
    }

    fn offer(&self, channel: &str, message: Message) {
        let counted = message.numbering().is_some();
        let arrival = Arrival {
            channel: channel.into(),
            message,
        };
        // A message with a sequence number that is dropped here leaves a gap, which is counted
        // when the next one arrives.
        if let Err(TrySendError::Full(arrival)) = self.items.try_send(arrival)
            && !counted
        {
            self.shared.note_overflow(arrival.channel);
        }
    }

    /// Whether nobody listens any more.
    pub fn is_closed(&self) -> bool {
        self.items.is_closed()
    }
}

/// The last sequence number of each publisher on each channel.
#[derive(Default)]
struct Sequences {
    last: HashMap<(Box<str>, Box<str>), u64>,
}

enum Noted {
    /// So many were missed before this one.
    Missed(u64),
    /// This one came before.
    Repeated,
}

/// Publishers come and go; beyond so many the oldest knowledge is given up at once, and gaps of that
/// moment go uncounted.
const MAX_PUBLISHERS: usize = 65_536;

impl Sequences {
    fn note(&mut self, channel: &str, message: &Message) -> Noted {
        let Some((publisher, sequence)) = message.numbering() else {
            return Noted::Missed(0);
        };
        if self.last.len() >= MAX_PUBLISHERS {
            self.last.clear();
        }
        match self
            .last
            .insert((publisher.into(), channel.into()), sequence)
        {
            // The first message heard of a publisher: what came before was before listening.
            None => Noted::Missed(0),
            Some(last) if sequence <= last => {
                self.last.insert((publisher.into(), channel.into()), last);
                Noted::Repeated
            }
            Some(last) => Noted::Missed(sequence - last - 1),
        }
    }
}

/// A message on a channel.
struct Message {
    event: RecordedEvent,
    publisher: Option<Box<str>>,
    sequence: Option<u64>,
}

/// A message as JSON, whoever wrote it.
#[derive(Deserialize)]
struct MessageJson<'a> {
    #[serde(rename = "type")]
    event_type: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
    publisher: Option<Box<str>>,
    sequence: Option<u64>,
}

/// Names that a message has beside the metadata.
const MESSAGE_KEYS: [&str; 4] = ["type", "payload", "publisher", "sequence"];

impl Message {
    /// Who numbers it, and its number.
    fn numbering(&self) -> Option<(&str, u64)> {
        Some((self.publisher.as_deref()?, self.sequence?))
    }

    fn decode(channel: &str, json: &[u8]) -> Result<Self, CodecError> {
        let malformed = |error: serde_json::Error| {
            CodecError::malformed(format!("a message on `{channel}`: {error}"))
        };
        let message: MessageJson<'_> = serde_json::from_slice(json).map_err(malformed)?;
        let mut metadata: ForeignMetadata = serde_json::from_slice(json).map_err(malformed)?;
        for key in MESSAGE_KEYS {
            metadata.extra.remove(key);
        }
        let event_type = message.event_type.unwrap_or_else(|| channel.to_owned());
        if !is_event_type(&event_type) {
            return Err(CodecError::InvalidType { event_type });
        }
        let metadata = metadata.complete(Utc::now(), |given| match given {
            Some(id) => derived_id(&[channel, id]),
            None => Uuid::now_v7(),
        });
        Ok(Self {
            event: RecordedEvent::new(
                event_type,
                message.payload.get(),
                Position::START,
                None,
                metadata,
            ),
            publisher: message.publisher,
            sequence: message.sequence,
        })
    }
}

/// Writes messages, and numbers them by channel.
#[derive(Debug)]
pub struct RealtimePublisher {
    name: String,
    sequences: Mutex<HashMap<String, u64>>,
}

impl Default for RealtimePublisher {
    fn default() -> Self {
        Self {
            name: Uuid::now_v7().to_string(),
            sequences: Mutex::default(),
        }
    }
}

impl RealtimePublisher {
    /// The message of a realtime event, as JSON.
    ///
    /// # Errors
    /// [`CodecError::Encode`] where something of the user's own cannot be written as JSON.
    pub fn encode(&self, event: &NewEvent) -> Result<String, CodecError> {
        let sequence = {
            let mut sequences = self
                .sequences
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match sequences.get_mut(event.event_type()) {
                Some(sequence) => {
                    *sequence += 1;
                    *sequence
                }
                None => {
                    sequences.insert(event.event_type().to_owned(), 1);
                    1
                }
            }
        };
        let head = encode_message_head(event, &self.name)?;
        Ok(format!(r#"{head}","sequence":{sequence}}}"#))
    }
}

/// The message of an event up to the name of its publisher, which is still open: who numbers it may
/// append to the name, and then appends `","sequence":`, the number and a closing brace.
///
/// # Errors
/// As of [`entry::encode_metadata`](crate::codec::entry::encode_metadata).
pub fn encode_message_head(event: &NewEvent, publisher: &str) -> Result<String, CodecError> {
    event.metadata().check()?;

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Head<'a> {
        #[serde(rename = "type")]
        event_type: &'a str,
        payload: &'a RawValue,
        #[serde(flatten)]
        metadata: &'a Metadata,
        publisher: &'a str,
    }

    let write = || {
        let payload = serde_json::from_str::<&RawValue>(event.payload())?;
        serde_json::to_string(&Head {
            event_type: event.event_type(),
            payload,
            metadata: event.metadata(),
            publisher,
        })
    };
    let mut head = write().map_err(|source| CodecError::Encode {
        event_type: event.event_type().to_owned(),
        source,
    })?;
    // The closing brace, and the quotation mark behind the name.
    head.truncate(head.len().saturating_sub(2));
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(capacity: usize) -> (RealtimeSink, RealtimeSubscription) {
        RealtimeSubscription::channel(capacity, Box::new(AlwaysFlushed), Box::new(()))
    }

    fn numbered(sequence: u64) -> String {
        format!(r#"{{"payload":{sequence},"publisher":"p","sequence":{sequence}}}"#)
    }

    async fn told(subscription: &mut RealtimeSubscription) -> Vec<String> {
        let items = subscription.drain().await.unwrap();
        items
            .into_iter()
            .map(|item| match item {
                RealtimeItem::Event(event) => {
                    format!("{} {}", event.event_type(), event.payload())
                }
                RealtimeItem::Missed { channel, count } => format!("{channel} missed {count}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn what_overflows_is_charged_to_its_own_channel() {
        let (sink, mut subscription) = subscription(1);
        sink.deliver("a.x", br#"{"payload":1}"#);
        for _ in 0..3 {
            sink.deliver("b.y", br#"{"payload":2}"#);
        }
        sink.deliver("c.z", br#"{"payload":3}"#);
        assert_eq!(told(&mut subscription).await, ["a.x 1"]);
        sink.deliver("a.x", br#"{"payload":4}"#);
        assert_eq!(told(&mut subscription).await, ["a.x 4"]);
        sink.deliver("b.y", br#"{"payload":5}"#);
        assert_eq!(told(&mut subscription).await, ["b.y missed 3", "b.y 5"]);
        sink.deliver("c.z", br#"{"payload":6}"#);
        assert_eq!(told(&mut subscription).await, ["c.z missed 1", "c.z 6"]);
    }

    #[tokio::test]
    async fn a_repetition_does_not_hide_what_overflowed() {
        let (sink, mut subscription) = subscription(1);
        sink.deliver("a.x", numbered(1).as_bytes());
        assert_eq!(told(&mut subscription).await, ["a.x 1"]);
        sink.deliver("b.y", br#"{"payload":0}"#);
        // Whoever gives no number is not counted by numbers, and neither is half a numbering.
        sink.deliver("a.x", br#"{"payload":0}"#);
        sink.deliver("a.x", br#"{"payload":0,"sequence":2}"#);
        assert_eq!(told(&mut subscription).await, ["b.y 0"]);
        sink.deliver("a.x", numbered(1).as_bytes());
        assert_eq!(told(&mut subscription).await, ["a.x missed 2"]);
        sink.deliver("a.x", numbered(2).as_bytes());
        assert_eq!(told(&mut subscription).await, ["a.x 2"]);
    }
}
