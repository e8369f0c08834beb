use std::borrow::Cow;

use super::{Element, History, MemoryStore};
use crate::codec::entry::EntryFields;
use crate::recorded::RecordedEvent;
use crate::store::{FeedEntry, Restore, RestoreError};

impl MemoryStore {
    /// Stores recorded events where they lay.
    pub(super) fn restore_all(&self, restore: &Restore) -> Result<(), RestoreError> {
        let (Some(first), Some(newest)) = (restore.entries().first(), restore.entries().last())
        else {
            return Ok(());
        };
        let partition = restore.partition();
        let mut content = self.content();
        restore.check_partition(content.partitions(partition.category()))?;
        let feed = content.feed(partition);
        let head = feed.head();
        let (first, last) = (first.event.position(), newest.event.position());
        if head >= first {
            // It may be the same call again; then all of it is there.
            let is_there = |event: &RecordedEvent| {
                let found = feed.read_at(partition, event.position());
                matches!(found, Some(FeedEntry::Event(found)) if found == *event)
            };
            if restore.entries().iter().all(|entry| is_there(&entry.event)) {
                return Ok(());
            }
            return Err(RestoreError::NotBehind {
                partition: partition.clone(),
                head,
                first,
            });
        }
        for (aggregate, before) in restore.befores() {
            let history = feed.histories.get(aggregate);
            let actual = history.map_or(0, History::version);
            if actual != *before {
                return Err(RestoreError::Version {
                    aggregate: aggregate.clone(),
                    actual,
                    found: before + 1,
                });
            }
        }
        let bytes = |text: &str| Some(Cow::Owned(text.as_bytes().to_vec()));
        for entry in restore.entries() {
            let event = &entry.event;
            if let Some((aggregate, json)) = &entry.element {
                let history = feed.histories.entry(aggregate.clone()).or_default();
                history.elements.push(Element {
                    event_id: event.metadata().event_id,
                    position: event.position(),
                    json: json.clone(),
                });
            }
            let fields = EntryFields {
                event_type: bytes(event.event_type()),
                payload: bytes(event.payload()),
                aggregate: entry.aggregate.as_deref().and_then(bytes),
                metadata: bytes(&entry.metadata),
            };
            feed.entries.push((event.position(), fields));
        }
        feed.head.send_replace(last);
        content.tell_readers();
        Ok(())
    }
}
