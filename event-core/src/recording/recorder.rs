//! Taking a recording from a store.

use std::collections::BTreeSet;
use std::io::Write;

use serde_json::Value;

use super::merge::Merge;
use super::{Recording, RecordingError, RecordingLine};
use crate::codec::CodecError;
use crate::event::Category;
use crate::metadata::Metadata;
use crate::partition::Partition;
use crate::pattern::Pattern;
use crate::positions::Positions;
use crate::recorded::{AggregateRef, RecordedEvent};
use crate::store::{EventStore, FeedEntry};

type Filter<'a> = Box<dyn Fn(&RecordedEvent) -> bool + Send + Sync + 'a>;
type Redact<'a> = Box<dyn Fn(&mut Redaction) + Send + Sync + 'a>;

/// Takes a [`Recording`] from a store: of which categories, from where to where, which events, and
/// without what nobody else may see. Made by [`Recording::of`].
///
/// Entries that are no events are left out, with a warning in the log for each.
#[must_use = "it records nothing before `record` or `record_to`"]
pub struct Recorder<'a> {
    store: &'a dyn EventStore,
    categories: BTreeSet<Category>,
    positions: Positions,
    patterns: Vec<Pattern>,
    filters: Vec<Filter<'a>>,
    redactions: Vec<Redact<'a>>,
}

/// An event that is about to be recorded, to be changed.
#[derive(Clone, Debug)]
pub struct Redaction {
    event_type: Box<str>,
    /// Its payload.
    pub payload: Value,
    /// Its metadata.
    pub metadata: Metadata,
    /// Its aggregate. All events of one aggregate must be given the same other name, and versions must
    /// stay as they are; where the feed has several partitions the name decides which is theirs, so that
    /// another one cannot be restored.
    pub aggregate: Option<AggregateRef>,
}

impl Redaction {
    /// Its type.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }
}

impl<'a> Recorder<'a> {
    pub(super) fn new(store: &'a dyn EventStore) -> Self {
        Self {
            store,
            categories: BTreeSet::new(),
            positions: Positions::all(),
            patterns: Vec::new(),
            filters: Vec::new(),
            redactions: Vec::new(),
        }
    }

    /// Records this category, too.
    pub fn category(mut self, category: Category) -> Self {
        self.categories.insert(category);
        self
    }

    /// Records these categories, too.
    pub fn categories(mut self, categories: impl IntoIterator<Item = Category>) -> Self {
        self.categories.extend(categories);
        self
    }

    /// Records only what lies there. What is appended once it has begun is not recorded in any case.
    pub fn positions(mut self, positions: Positions) -> Self {
        self.positions = positions;
        self
    }

    /// Records only events whose types match this pattern, or another that is given so.
    pub fn matching(mut self, pattern: Pattern) -> Self {
        self.patterns.push(pattern);
        self
    }

    /// Records only events for which `is_wanted` returns true.
    pub fn filter(mut self, is_wanted: impl Fn(&RecordedEvent) -> bool + Send + Sync + 'a) -> Self {
        self.filters.push(Box::new(is_wanted));
        self
    }

    /// Changes each event before it is recorded: takes out what is secret or personal.
    pub fn redact(mut self, redact: impl Fn(&mut Redaction) + Send + Sync + 'a) -> Self {
        self.redactions.push(Box::new(redact));
        self
    }

    /// Records into memory.
    ///
    /// # Errors
    /// [`RecordingError::NoCategory`]; [`RecordingError::Read`] where the store does not answer.
    pub async fn record(self) -> Result<Recording, RecordingError> {
        let mut lines = Vec::new();
        self.each(|line| {
            lines.push(line);
            Ok(())
        })
        .await?;
        Ok(Recording::from_lines(lines))
    }

    /// Records into a file or whatever else can be written, without having all of it in memory; gives the
    /// number of events. Every line is written by itself: give a [`BufWriter`](std::io::BufWriter).
    ///
    /// # Errors
    /// As [`record`](Self::record), and [`RecordingError::Io`] where it cannot be written.
    pub async fn record_to(self, to: &mut (dyn Write + Send)) -> Result<u64, RecordingError> {
        let mut count = 0;
        self.each(|line| {
            count += 1;
            writeln!(to, "{}", line.to_json()?).map_err(RecordingError::Io)
        })
        .await?;
        to.flush().map_err(RecordingError::Io)?;
        Ok(count)
    }

    async fn each(
        self,
        mut record: impl FnMut(RecordingLine) -> Result<(), RecordingError> + Send,
    ) -> Result<(), RecordingError> {
        if self.categories.is_empty() {
            return Err(RecordingError::NoCategory);
        }
        let mut merge = Merge::begin(self.store, &self.categories, self.positions).await?;
        while let Some((partition, entry)) = merge.next().await? {
            match entry {
                FeedEntry::Event(event) if self.is_wanted(&event) => {
                    record(self.line(partition, event)?)?;
                }
                FeedEntry::Event(_) => {}
                FeedEntry::Undecodable { position, error } => {
                    tracing::warn!(%partition, %position, %error, "an entry was not recorded");
                }
            }
        }
        Ok(())
    }

    fn is_wanted(&self, event: &RecordedEvent) -> bool {
        let mut patterns = self.patterns.iter();
        (self.patterns.is_empty() || patterns.any(|pattern| pattern.matches(event.event_type())))
            && self.filters.iter().all(|is_wanted| is_wanted(event))
    }

    fn line(
        &self,
        partition: Partition,
        event: RecordedEvent,
    ) -> Result<RecordingLine, RecordingError> {
        if self.redactions.is_empty() {
            let event = RecordingLine::on_one_line(event);
            return Ok(RecordingLine { partition, event });
        }
        let decode = |source| CodecError::decode::<Value>(event.event_type(), source);
        let payload: Value = serde_json::from_str(event.payload()).map_err(decode)?;
        let mut redaction = Redaction {
            event_type: event.event_type().into(),
            payload: payload.clone(),
            metadata: event.metadata().clone(),
            aggregate: event.aggregate().cloned(),
        };
        for redact in &self.redactions {
            redact(&mut redaction);
        }
        // What was not changed is recorded as it was written.
        let text = if redaction.payload == payload {
            event.payload().into()
        } else {
            redaction.payload.to_string().into_boxed_str()
        };
        let event = RecordedEvent::new(
            redaction.event_type,
            text,
            event.position(),
            redaction.aggregate,
            redaction.metadata,
        );
        let event = RecordingLine::on_one_line(event);
        Ok(RecordingLine { partition, event })
    }
}
