use std::collections::HashSet;
use std::fmt;

use crate::codec::{CodecError, NewEvent, entry};
use crate::event::{Category, is_event_type};
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, Version};
use crate::store::{AppendError, Limits, MAX_COMMAND_ID_BYTES, Receipt};
use crate::token::Token;

/// At which version an aggregate must be for an append to be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// At any, and it need not exist.
    #[default]
    Any,
    /// It must not exist.
    NoStream,
    /// It must exist, at any version.
    Exists,
    /// It must be at this version; 0 is as [`NoStream`](Expected::NoStream).
    Exact(Version),
}

impl Expected {
    /// Whether an aggregate at `version` (0 where it does not exist) is as expected.
    pub fn accepts(&self, version: Version) -> bool {
        match self {
            Expected::Any => true,
            Expected::NoStream => version == 0,
            Expected::Exists => version > 0,
            Expected::Exact(expected) => version == *expected,
        }
    }

    /// The one version that is accepted, if there is only one.
    pub fn exact(&self) -> Option<Version> {
        match self {
            Expected::Any | Expected::Exists => None,
            Expected::NoStream => Some(0),
            Expected::Exact(version) => Some(*version),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Any => f.write_str("any version"),
            Expected::NoStream => f.write_str("no aggregate"),
            Expected::Exists => f.write_str("an existing aggregate"),
            Expected::Exact(version) => write!(f, "version {version}"),
        }
    }
}

/// Where events are appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a feed alone: they belong to no aggregate.
    Feed(Category),
    /// To an aggregate, and so to the feed of its category.
    Aggregate(AggregateId),
}

impl Target {
    /// The category whose feed the events lie in.
    pub fn category(&self) -> &Category {
        match self {
            Target::Feed(category) => category,
            Target::Aggregate(aggregate) => aggregate.category(),
        }
    }
}

/// Events to be stored together or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    target: Target,
    expected: Expected,
    events: Vec<NewEvent>,
    receipt: Option<Receipt>,
}

impl Append {
    /// Events of an aggregate.
    pub fn to(aggregate: AggregateId, expected: Expected, events: Vec<NewEvent>) -> Self {
        Self {
            target: Target::Aggregate(aggregate),
            expected,
            events,
            receipt: None,
        }
    }

    /// Events of one category that belong to no aggregate.
    pub fn to_feed(category: Category, events: Vec<NewEvent>) -> Self {
        Self {
            target: Target::Feed(category),
            expected: Expected::Any,
            events,
            receipt: None,
        }
    }

    /// Stores it once for a command: where its receipt is kept already, it is
    /// [`AppendError::AlreadyDone`]. For [`EventStore::append`](crate::EventStore::append) alone.
    pub fn once(mut self, receipt: Receipt) -> Self {
        self.receipt = Some(receipt);
        self
    }

    /// Where to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The aggregate, if it is one.
    pub fn aggregate(&self) -> Option<&AggregateId> {
        match &self.target {
            Target::Feed(_) => None,
            Target::Aggregate(aggregate) => Some(aggregate),
        }
    }

    /// What is expected of it.
    pub fn expected(&self) -> Expected {
        self.expected
    }

    /// The events.
    pub fn events(&self) -> &[NewEvent] {
        &self.events
    }

    /// The receipt that is kept of it, if one is.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// The partition that its events lie in, of the `count` that the feed has.
    ///
    /// # Errors
    /// [`AppendError::SeveralPartitions`] where events of no aggregate lie in several.
    pub fn partition(&self, count: u32) -> Result<Partition, AppendError> {
        let category = match &self.target {
            Target::Aggregate(aggregate) => {
                return Ok(Partition::of_aggregate(aggregate, count));
            }
            Target::Feed(category) => category,
        };
        let mut partitions = self
            .events
            .iter()
            .map(|event| Partition::of_event(category.clone(), event, count));
        let first = partitions
            .next()
            .unwrap_or_else(|| Partition::from(category));
        if count > 1 && partitions.any(|other| other != first) {
            return Err(AppendError::SeveralPartitions {
                category: category.to_string(),
            });
        }
        Ok(first)
    }

    /// Makes sure that the store may take it, and encodes each event's metadata (whose size has a
    /// limit, too).
    ///
    /// # Errors
    /// Every [`AppendError`] that can be told without the store's content.
    pub fn check(&self, limits: &Limits) -> Result<Vec<String>, AppendError> {
        if self.events.is_empty() {
            return Err(AppendError::NoEvents);
        }
        if self.events.len() > limits.events_per_append {
            return Err(AppendError::TooManyEvents {
                count: self.events.len(),
                limit: limits.events_per_append,
            });
        }
        let category = self.target.category();
        if matches!(self.target, Target::Feed(_)) && self.expected != Expected::Any {
            return Err(AppendError::ExpectedOfFeed {
                category: category.to_string(),
                expected: self.expected,
            });
        }
        if let Some(Receipt { command_id, .. }) = &self.receipt {
            let bytes = command_id.len();
            if matches!(self.target, Target::Feed(_)) {
                return Err(AppendError::ReceiptOfFeed {
                    category: category.to_string(),
                });
            }
            if !(1..=MAX_COMMAND_ID_BYTES).contains(&bytes) {
                return Err(AppendError::InvalidCommandId { bytes });
            }
        }
        if self.events.len() > 1 {
            let mut ids = HashSet::with_capacity(self.events.len());
            for event in &self.events {
                let event_id = event.metadata().event_id;
                if !ids.insert(event_id) {
                    return Err(AppendError::RepeatedId { event_id });
                }
            }
        }
        self.events
            .iter()
            .map(|event| check_event(event, category, limits))
            .collect()
    }
}

fn check_event(
    event: &NewEvent,
    category: &Category,
    limits: &Limits,
) -> Result<String, AppendError> {
    let event_type = event.event_type();
    if !is_event_type(event_type) {
        return Err(CodecError::InvalidType {
            event_type: event_type.to_owned(),
        }
        .into());
    }
    if event.is_realtime() {
        return Err(AppendError::NotStored {
            event_type: event_type.to_owned(),
        });
    }
    if !event_type
        .strip_prefix(category.as_str())
        .is_some_and(|rest| rest.starts_with('.'))
    {
        return Err(AppendError::OtherCategory {
            event_type: event_type.to_owned(),
            category: category.to_string(),
        });
    }
    if event.payload().len() > limits.payload_bytes {
        return Err(AppendError::PayloadTooLarge {
            event_type: event_type.to_owned(),
            bytes: event.payload().len(),
            limit: limits.payload_bytes,
        });
    }
    let metadata = entry::encode_metadata(event)?;
    if metadata.len() > limits.metadata_bytes {
        return Err(AppendError::MetadataTooLarge {
            event_type: event_type.to_owned(),
            bytes: metadata.len(),
            limit: limits.metadata_bytes,
        });
    }
    Ok(metadata)
}

/// What an append has stored, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Each of its events.
    pub events: Vec<AppendedEvent>,
    /// The partition that they lie in, as far as the store says it.
    pub partition: Option<Partition>,
}

impl Appended {
    /// The version of the aggregate after the last of them; 0 where there is no aggregate.
    pub fn version(&self) -> Version {
        self.events.last().map_or(0, |event| event.version)
    }

    /// The position of the last of them.
    pub fn position(&self) -> Position {
        self.events
            .last()
            .map_or(Position::START, |event| event.position)
    }

    /// What must be reached to know of them.
    pub fn token(&self) -> Token {
        let mut token = Token::default();
        let last = self.events.iter().map(|event| event.position).max();
        if let (Some(partition), Some(last)) = (&self.partition, last) {
            token.reach(partition.clone(), last);
        }
        token
    }
}

/// Where an event lies now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedEvent {
    /// Its position in the feed.
    pub position: Position,
    /// Its version in the aggregate; 0 where there is none.
    pub version: Version,
    /// Whether it lay there before: the append was a repetition.
    pub repeated: bool,
}
