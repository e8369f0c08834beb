//! Trimming and repair in memory.

use async_trait::async_trait;

use super::{Content, Element, Feed, History, MemoryStore};
use crate::codec::entry::EntryFields;
use crate::codec::history;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, RecordedEvent, Version};
use crate::snapshot::Snapshot;
use crate::store::{
    CompactError, Compacted, HeldBack, HistoryPage, Maintenance, StoreError, Swapped, TrimPolicy,
    Trimmed,
};

impl Content {
    /// Whoever needs the oldest entries of a partition.
    fn furthest_behind(&self, partition: &Partition) -> Option<HeldBack> {
        let groups = self.groups.iter();
        let in_order = groups.filter_map(|(name, group)| {
            let needs_after = group.needs_after(partition)?;
            Some((name.clone(), needs_after))
        });
        let readers = in_order.chain(self.parallel.need_after(partition));
        let held_back = readers.map(|(by, needs_after)| HeldBack { by, needs_after });
        let projections = self.projection_checkpoints(partition);
        let held_back = held_back.chain(HeldBack::of_projections(projections));
        held_back.min_by(|a, b| (a.needs_after, &a.by).cmp(&(b.needs_after, &b.by)))
    }

    /// Nothing that lies after a position may be trimmed away.
    pub(super) fn expect_available(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<(), StoreError> {
        match self.feeds.get(partition) {
            Some(feed) if after < feed.trimmed => Err(StoreError::FeedTrimmed {
                partition: partition.clone(),
                first_available: feed.trimmed.next(),
            }),
            _ => Ok(()),
        }
    }
}

impl Feed {
    pub(super) fn compact(
        &mut self,
        aggregate: &AggregateId,
        snapshot: &Snapshot,
        first_kept: Version,
    ) -> Result<Compacted, CompactError> {
        let history = self.histories.get_mut(aggregate);
        let history = history.ok_or_else(|| CompactError::NotFound {
            aggregate: aggregate.clone(),
        })?;
        let is_of = |history: &History, snapshot: &Snapshot| {
            let own = history.at(snapshot.version);
            own.is_some_and(|element| element.event_id == snapshot.event_id)
        };
        if !is_of(history, snapshot) {
            return Err(CompactError::OtherHistory {
                aggregate: aggregate.clone(),
                version: snapshot.version,
            });
        }
        let kept = self.snapshots.get(aggregate);
        if let Some(kept) = kept
            && kept.state_version > snapshot.state_version
        {
            return Err(CompactError::NewerState {
                aggregate: aggregate.clone(),
                kept: kept.state_version,
                known: snapshot.state_version,
            });
        }
        let is_newer = kept.is_some_and(|kept| {
            kept.state_version == snapshot.state_version
                && kept.version >= snapshot.version
                && is_of(history, kept)
        });
        if !is_newer {
            self.snapshots.insert(aggregate.clone(), snapshot.clone());
        }
        // The snapshot's own event stays: by that it is known whose state it is.
        let first_kept = first_kept.min(snapshot.version);
        let removed = first_kept.saturating_sub(history.dropped + 1);
        let count = usize::try_from(removed).unwrap_or(usize::MAX);
        history.elements.drain(..count.min(history.elements.len()));
        history.dropped += removed;
        Ok(Compacted {
            removed,
            first_available: history.dropped + 1,
        })
    }
}

impl Feed {
    /// Whether the history of an aggregate has an entry of the feed, or had it before it was compacted.
    fn knows(&self, aggregate: &AggregateId, event: &RecordedEvent) -> bool {
        if self.adopted.contains_key(&event.position()) {
            return true;
        }
        let claimed = event.aggregate().map_or(0, |own| own.version);
        match self.histories.get(aggregate) {
            Some(history) if claimed > 0 => {
                let has_it = |element: &Element| element.event_id == event.metadata().event_id;
                claimed <= history.dropped || history.at(claimed).is_some_and(has_it)
            }
            _ => false,
        }
    }
}

fn element(event: &RecordedEvent, version: Version) -> Result<Element, StoreError> {
    let json = history::encode_recorded(event, version).map_err(|error| StoreError::Refused {
        operation: "adopt_events",
        source: error.into(),
    })?;
    Ok(Element {
        event_id: event.metadata().event_id,
        position: event.position(),
        json,
    })
}

/// What the fields of an entry take.
fn bytes_of(fields: &EntryFields<'_>) -> u64 {
    [
        &fields.event_type,
        &fields.payload,
        &fields.aggregate,
        &fields.metadata,
    ]
    .into_iter()
    .flatten()
    .map(|field| field.len() as u64)
    .sum()
}

#[async_trait]
impl Maintenance for MemoryStore {
    async fn trim_partition(
        &self,
        partition: &Partition,
        policy: &TrimPolicy,
    ) -> Result<Trimmed, StoreError> {
        let now = u64::try_from(self.clock.now().timestamp_millis()).unwrap_or_default();
        let oldest = policy.age().map_or(0, |age| {
            now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
        });
        let mut content = self.content();
        let furthest = content.furthest_behind(partition);
        let feed = content.feed(partition);
        let mut left = feed.entries.len() as u64;
        let mut bytes_left: u64 = feed
            .entries
            .iter()
            .map(|(_, fields)| bytes_of(fields))
            .sum();
        let mut removed = 0;
        let mut held_back_by = None;
        for (position, fields) in &feed.entries {
            let may_go = policy.entries().is_some_and(|most| left > most)
                || policy.bytes().is_some_and(|most| bytes_left > most)
                || position.milliseconds() < oldest;
            if !may_go {
                break;
            }
            if let Some(needed) = &furthest
                && *position > needed.needs_after
            {
                held_back_by = Some(needed.clone());
                break;
            }
            feed.trimmed = *position;
            left -= 1;
            bytes_left -= bytes_of(fields);
            feed.adopted.remove(position);
            removed += 1;
        }
        feed.entries.drain(..removed);
        Ok(Trimmed {
            partition: partition.clone(),
            removed: removed as u64,
            first_available: feed.trimmed.next(),
            held_back_by,
        })
    }

    async fn first_available(&self, partition: &Partition) -> Result<Position, StoreError> {
        let content = self.content();
        let trimmed = content.feeds.get(partition).map(|feed| feed.trimmed);
        Ok(trimmed.unwrap_or(Position::START).next())
    }

    async fn histories(
        &self,
        partition: &Partition,
        _: Option<&str>,
    ) -> Result<HistoryPage, StoreError> {
        let content = self.content();
        let feed = content.feeds.get(partition);
        let aggregates =
            feed.map_or_else(Vec::new, |feed| feed.histories.keys().cloned().collect());
        Ok(HistoryPage {
            aggregates,
            next: None,
        })
    }

    async fn missing_in_history(
        &self,
        partition: &Partition,
        events: &[RecordedEvent],
    ) -> Result<Vec<Position>, StoreError> {
        let mut content = self.content();
        let feed = content.feed(partition);
        let missing = events.iter().filter(|event| {
            let aggregate = event.aggregate_id().ok().flatten();
            // Of what is trimmed away meanwhile it is not known any more whether it was adopted.
            aggregate.is_some_and(|aggregate| !feed.knows(&aggregate, event))
                && feed.read_at(partition, event.position()).is_some()
        });
        Ok(missing.map(RecordedEvent::position).collect())
    }

    async fn adopt_events(
        &self,
        partition: &Partition,
        events: &[RecordedEvent],
    ) -> Result<u64, StoreError> {
        let mut content = self.content();
        let feed = content.feed(partition);
        let mut adopted = 0;
        for event in events {
            let Ok(Some(aggregate)) = event.aggregate_id() else {
                continue;
            };
            if feed.read_at(partition, event.position()).is_none() || feed.knows(&aggregate, event)
            {
                continue;
            }
            let version = feed.histories.get(&aggregate).map_or(0, History::version) + 1;
            let element = element(event, version)?;
            feed.adopted.insert(event.position(), version);
            let history = feed.histories.entry(aggregate).or_default();
            history.elements.push(element);
            adopted += 1;
        }
        Ok(adopted)
    }

    async fn adopted_versions(
        &self,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<Vec<Option<Version>>, StoreError> {
        let mut content = self.content();
        let adopted = &content.feed(partition).adopted;
        let versions = positions.iter().map(|at| adopted.get(at).copied());
        Ok(versions.collect())
    }

    async fn stage_history(
        &self,
        aggregate: &AggregateId,
        staging: &str,
        events: &[(Version, RecordedEvent)],
    ) -> Result<(), StoreError> {
        let elements = events
            .iter()
            .map(|(version, event)| element(event, *version));
        let elements = elements.collect::<Result<Vec<_>, _>>()?;
        let mut content = self.content();
        let staged = &mut content.feed_of(aggregate).staged;
        let staged = staged.entry(staging.to_owned()).or_default();
        let follows_on = staged.len() as u64 + 1;
        if events
            .first()
            .is_some_and(|(first, _)| *first == follows_on)
        {
            staged.extend(elements);
        }
        Ok(())
    }

    async fn swap_history(
        &self,
        aggregate: &AggregateId,
        staging: &str,
        read_to: Position,
        version: Version,
    ) -> Result<Swapped, StoreError> {
        let mut content = self.content();
        let count = content.partitions(aggregate.category());
        let partition = Partition::of_aggregate(aggregate, count);
        let feed = content.feed(&partition);
        let staged = feed.staged.get(staging).map_or(0, Vec::len);
        if staged as u64 != version {
            return Ok(Swapped::Lost);
        }
        let goes_on = feed
            .read(&partition, read_to, usize::MAX)
            .into_iter()
            .filter_map(|entry| entry.into_event().ok()?.aggregate_id().ok()?)
            .any(|other| other == *aggregate);
        if goes_on {
            return Ok(Swapped::ReadOn);
        }
        let current = feed.histories.get(aggregate).map_or(0, History::version);
        if current > version {
            return Ok(Swapped::Newer { version: current });
        }
        let elements = feed.staged.remove(staging).unwrap_or_default();
        let history = History {
            dropped: 0,
            elements,
        };
        feed.histories.insert(aggregate.clone(), history);
        Ok(Swapped::Done)
    }

    async fn discard_staged(
        &self,
        aggregate: &AggregateId,
        staging: &str,
    ) -> Result<(), StoreError> {
        self.content().feed_of(aggregate).staged.remove(staging);
        Ok(())
    }
}
