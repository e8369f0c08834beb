//! The groups of handlers with parallel delivery, in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Content, MemoryStore, Prepared};
use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{
    Consumer, FeedEntry, Finish, FinishError, Finished, ParallelGroup, ParallelGroups, ParallelLag,
    ParallelReader, ReadError, StoreError, Taken,
};

/// What there is of each group in each partition.
#[derive(Default)]
pub(super) struct ParallelContent(HashMap<(ParallelGroup, Partition), Deliveries>);

impl ParallelContent {
    /// Forgets what was delivered to the handlers of a group in a partition, or moves them; tells whether
    /// there are some.
    pub(super) fn reset(
        &mut self,
        group: &str,
        partition: &Partition,
        to: Option<Position>,
    ) -> bool {
        let mut are_some = false;
        for ((own, of), deliveries) in &mut self.0 {
            if &*own.group == group && of == partition {
                are_some |= deliveries.is_open;
                *deliveries = Deliveries {
                    is_open: to.is_some() && deliveries.is_open,
                    up_to: to.unwrap_or(Position::START),
                    was_reset: true,
                    ..Deliveries::default()
                };
            }
        }
        are_some
    }

    /// After which position each handler needs the entries of a partition.
    pub(super) fn need_after<'a>(
        &'a self,
        partition: &'a Partition,
    ) -> impl Iterator<Item = (String, Position)> + 'a {
        let own = self
            .0
            .iter()
            .filter(move |((_, of), deliveries)| of == partition && deliveries.is_open);
        own.map(|((group, _), deliveries)| {
            let pending = deliveries.pending.keys().next().map(|first| first.before());
            let needed = pending.map_or(deliveries.up_to, |first| first.min(deliveries.up_to));
            (group.to_string(), needed)
        })
    }
}

/// What was delivered of one partition.
#[derive(Default)]
struct Deliveries {
    /// Whether the group is known here.
    is_open: bool,
    /// Everything up to here.
    up_to: Position,
    pending: BTreeMap<Position, Pending>,
    /// Whether the group was ever reset.
    was_reset: bool,
    /// When each consumer has done something last.
    consumers: BTreeMap<String, Instant>,
}

/// An entry that is not handled yet.
struct Pending {
    consumer: String,
    /// Since when nobody has kept it alive; `None` where it was given up.
    since: Option<Instant>,
}

impl Pending {
    fn is_idle_for(&self, idle: Duration, now: Instant) -> bool {
        self.since
            .is_none_or(|since| now.saturating_duration_since(since) >= idle)
    }
}

impl Deliveries {
    fn is_pending_for(&self, position: Position, consumer: &Consumer) -> bool {
        self.pending
            .get(&position)
            .is_some_and(|pending| *pending.consumer == *consumer.instance)
    }

    fn see(&mut self, consumer: &Consumer) {
        self.consumers
            .insert(consumer.instance.to_string(), Instant::now());
    }

    fn touch(&mut self, consumer: &Consumer, positions: &[Position], since: Option<Instant>) {
        self.see(consumer);
        for position in positions {
            if let Some(pending) = self.pending.get_mut(position)
                && *pending.consumer == *consumer.instance
            {
                pending.since = since;
            }
        }
    }
}

impl Content {
    fn deliveries(&mut self, group: &ParallelGroup, partition: &Partition) -> &mut Deliveries {
        let key = (group.clone(), partition.clone());
        self.parallel.0.entry(key).or_default()
    }

    fn feed_entries(&self, partition: &Partition, positions: &[Position]) -> Vec<FeedEntry> {
        let Some(feed) = self.feeds.get(partition) else {
            return Vec::new();
        };
        positions
            .iter()
            .filter_map(|position| feed.read_at(partition, *position))
            .collect()
    }

    fn lag_of(&self, partition: &Partition, deliveries: Option<&Deliveries>) -> ParallelLag {
        let up_to = deliveries.map_or(Position::START, |deliveries| deliveries.up_to);
        let pending = deliveries.map_or(0, |deliveries| deliveries.pending.len()) as u64;
        ParallelLag {
            lag: self.count_after(partition, up_to) + pending,
            pending,
        }
    }

    /// How far the handlers of a group that is furthest behind is so; `None` where there are none.
    pub(super) fn parallel_backlog(&self, group: &str, partition: &Partition) -> Option<u64> {
        let own = self.parallel.0.iter().filter(|((own, of), deliveries)| {
            &*own.group == group && of == partition && deliveries.is_open
        });
        own.map(|(_, deliveries)| self.lag_of(partition, Some(deliveries)).lag)
            .max()
    }

    fn take(&mut self, consumer: &Consumer, partition: &Partition, limit: usize) -> Vec<FeedEntry> {
        let deliveries = self.deliveries(&consumer.group, partition);
        deliveries.see(consumer);
        if !deliveries.is_open {
            return Vec::new();
        }
        let after = deliveries.up_to;
        let entries = self
            .feeds
            .get(partition)
            .map_or_else(Vec::new, |feed| feed.read(partition, after, limit));
        let since = Some(Instant::now());
        let deliveries = self.deliveries(&consumer.group, partition);
        for entry in &entries {
            deliveries.up_to = entry.position();
            let consumer = consumer.instance.to_string();
            let pending = Pending { consumer, since };
            deliveries.pending.insert(entry.position(), pending);
        }
        entries
    }
}

#[async_trait]
impl ParallelGroups for MemoryStore {
    async fn open_parallel(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        start: Start,
    ) -> Result<(), StoreError> {
        let mut content = self.content();
        let up_to = content.start_of(partition, start);
        let deliveries = content.deliveries(group, partition);
        if !deliveries.is_open {
            deliveries.up_to = up_to?;
            deliveries.is_open = true;
        }
        Ok(())
    }

    async fn parallel_reader(
        &self,
        consumer: &Consumer,
        partitions: &[Partition],
    ) -> Result<Box<dyn ParallelReader>, StoreError> {
        Ok(Box::new(MemoryParallelReader {
            store: self.clone(),
            consumer: consumer.clone(),
            partitions: partitions.to_vec(),
            left_out: Vec::new(),
            written: self.content().written.subscribe(),
        }))
    }

    async fn take_back(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        let mut content = self.content();
        let deliveries = content.deliveries(&consumer.group, partition);
        let own: Vec<_> = deliveries
            .pending
            .iter()
            .filter(|(position, pending)| {
                **position > after && *pending.consumer == *consumer.instance
            })
            .map(|(position, _)| *position)
            .take(limit)
            .collect();
        deliveries.touch(consumer, &own, Some(Instant::now()));
        Ok(content.feed_entries(partition, &own))
    }

    async fn claim(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        idle: Duration,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        let now = Instant::now();
        let mut content = self.content();
        let deliveries = content.deliveries(&consumer.group, partition);
        deliveries.see(consumer);
        let mut claimed = Vec::new();
        let idle = deliveries
            .pending
            .iter_mut()
            .filter(|(_, pending)| pending.is_idle_for(idle, now))
            .take(limit);
        for (position, pending) in idle {
            pending.consumer = consumer.instance.to_string();
            pending.since = Some(now);
            claimed.push(*position);
        }
        Ok(content.feed_entries(partition, &claimed))
    }

    async fn keep_alive(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<(), StoreError> {
        self.content().deliveries(&consumer.group, partition).touch(
            consumer,
            positions,
            Some(Instant::now()),
        );
        Ok(())
    }

    async fn let_go(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        positions: &[Position],
    ) -> Result<(), StoreError> {
        self.content()
            .deliveries(&consumer.group, partition)
            .touch(consumer, positions, None);
        Ok(())
    }

    async fn finish(
        &self,
        consumer: &Consumer,
        partition: &Partition,
        finish: &Finish,
    ) -> Result<Finished, FinishError> {
        let mut content = self.content();
        let mut emitted = Vec::with_capacity(finish.emitted.len());
        let mut writes = Vec::new();
        let mut refused = Vec::new();
        for (index, emits) in finish.emitted.iter().enumerate() {
            let is_ours = content
                .deliveries(&consumer.group, partition)
                .is_pending_for(emits.position, consumer);
            emitted.push(is_ours.then(Vec::new));
            if !is_ours {
                continue;
            }
            for append in &emits.appends {
                let prepared = Prepared::new(append, &self.limits)
                    .and_then(|prepared| Ok((content.partition_of(append)?, prepared)));
                match prepared {
                    Ok((partition, prepared)) => writes.push((index, append, partition, prepared)),
                    Err(error) => {
                        refused.push((index, error));
                        break;
                    }
                }
            }
        }
        if !refused.is_empty() {
            return Err(FinishError::Refused { refused });
        }

        // From here on nothing fails.
        for (index, append, partition, prepared) in writes {
            let fresh = vec![None; append.events().len()];
            match self.write(&mut content, &partition, append, prepared, &fresh) {
                Ok(appended) => emitted[index].get_or_insert_default().push(appended),
                Err(error) => tracing::warn!(%error, "an event was stored, but not published"),
            }
        }
        let mut parked = Vec::new();
        for letter in &finish.parked {
            let deliveries = content.deliveries(&consumer.group, partition);
            if deliveries.is_pending_for(letter.position, consumer) {
                deliveries.pending.remove(&letter.position);
                let raw = content.entry(partition, letter.position);
                parked.push((letter.id(), (letter.clone(), raw)));
            }
        }
        let deliveries = content.deliveries(&consumer.group, partition);
        deliveries.see(consumer);
        for position in &finish.done {
            // It is done, whoever has claimed it; but not if it was taken before a reset.
            if !deliveries.was_reset || deliveries.is_pending_for(*position, consumer) {
                deliveries.pending.remove(position);
            }
        }
        for (emits, stored) in finish.emitted.iter().zip(&emitted) {
            if stored.is_some() {
                deliveries.pending.remove(&emits.position);
            }
        }
        let letters = content.group(&consumer.group.group).dead_letters(partition);
        letters.extend(parked);
        Ok(Finished {
            emitted,
            dead_letters: letters.len(),
        })
    }

    async fn is_finished(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        positions: RangeInclusive<Position>,
    ) -> Result<bool, StoreError> {
        let mut content = self.content();
        let head = content.head(partition);
        let deliveries = content.deliveries(group, partition);
        let is_delivered = deliveries.up_to >= head.min(*positions.end());
        Ok(is_delivered && deliveries.pending.range(positions).next().is_none())
    }

    async fn parallel_lag(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
    ) -> Result<ParallelLag, StoreError> {
        let content = self.content();
        let of_group = content.parallel.0.get(&(group.clone(), partition.clone()));
        Ok(content.lag_of(partition, of_group))
    }

    async fn leave_parallel(
        &self,
        consumer: &Consumer,
        partition: &Partition,
    ) -> Result<(), StoreError> {
        let mut content = self.content();
        let deliveries = content.deliveries(&consumer.group, partition);
        let pending = &deliveries.pending;
        if pending
            .values()
            .all(|pending| *pending.consumer != *consumer.instance)
        {
            deliveries.consumers.remove(&*consumer.instance);
        }
        Ok(())
    }

    async fn remove_consumers(
        &self,
        group: &ParallelGroup,
        partition: &Partition,
        idle: Duration,
    ) -> Result<usize, StoreError> {
        let now = Instant::now();
        let mut content = self.content();
        let Deliveries {
            pending, consumers, ..
        } = content.deliveries(group, partition);
        let before = consumers.len();
        consumers.retain(|name, seen| {
            now.saturating_duration_since(*seen) < idle
                || pending.values().any(|pending| pending.consumer == *name)
        });
        Ok(before - consumers.len())
    }
}

struct MemoryParallelReader {
    store: MemoryStore,
    consumer: Consumer,
    partitions: Vec<Partition>,
    left_out: Vec<Partition>,
    written: watch::Receiver<u64>,
}

impl MemoryParallelReader {
    fn take_now(&mut self, limit: usize) -> Taken {
        self.written.mark_unchanged();
        let mut content = self.store.content();
        let entries = self
            .partitions
            .iter()
            .filter(|partition| !self.left_out.contains(partition))
            .map(|partition| {
                let entries = content.take(&self.consumer, partition, limit);
                (partition.clone(), entries)
            })
            .filter(|(_, entries)| !entries.is_empty())
            .collect();
        Taken {
            entries,
            torn: Vec::new(),
        }
    }
}

#[async_trait]
impl ParallelReader for MemoryParallelReader {
    async fn take(&mut self, limit: usize, wait: Duration) -> Result<Taken, ReadError> {
        let deadline = Instant::now() + wait;
        loop {
            let taken = self.take_now(limit);
            if !taken.entries.is_empty() || wait.is_zero() {
                return Ok(taken);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // The sender lives in the store, which this reader keeps: it cannot close.
            if timeout(left, self.written.changed()).await.is_err() {
                return Ok(taken);
            }
        }
    }

    fn is_taking(&self, _: &Partition) -> bool {
        // A call takes nothing before it gives it.
        false
    }

    fn leave_out(&mut self, partitions: &[Partition]) {
        self.left_out = partitions.to_vec();
    }

    async fn close(&mut self) -> Result<Taken, ReadError> {
        Ok(Taken::default())
    }
}
