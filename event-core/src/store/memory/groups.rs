//! Groups in memory: as on a server, but that all instances are in one process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Content, Feed, MemoryStore, Prepared};
use crate::codec::entry::EntryFields;
use crate::handler::Start;
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{
    Acquired, Commit, CommitError, Committed, DeadLetter, DeadLetterId, GroupBatch, GroupReader,
    Groups, Lease, Member, Progress, ReadError, Reset, ResetError, StoreError, Wanted,
};

/// What there is of one group.
pub(super) struct GroupContent {
    /// Until when each instance is there.
    members: BTreeMap<String, Instant>,
    partitions: HashMap<Partition, Handling>,
    /// Counts what changed.
    changes: watch::Sender<u64>,
}

impl Default for GroupContent {
    fn default() -> Self {
        Self {
            members: BTreeMap::new(),
            partitions: HashMap::new(),
            changes: watch::Sender::new(0),
        }
    }
}

/// Dead letters with their entries.
type ParkedLetters = BTreeMap<DeadLetterId, (DeadLetter, EntryFields<'static>)>;

/// How a group handles one partition.
#[derive(Default)]
pub(super) struct Handling {
    progress: Progress,
    /// Whether the group is known here. The partition may be owned before that, by instances that only
    /// redrive its dead letters.
    is_open: bool,
    owner: Option<(String, Instant)>,
    epoch: u64,
    /// The number of the last commit of this epoch.
    commit: u64,
    pub(super) dead_letters: ParkedLetters,
}

impl GroupContent {
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn handling(&mut self, partition: &Partition) -> Option<&mut Handling> {
        self.partitions.get_mut(partition)
    }

    pub(super) fn dead_letters(&mut self, partition: &Partition) -> &mut ParkedLetters {
        let handling = self.partitions.entry(partition.clone()).or_default();
        &mut handling.dead_letters
    }

    /// After which position it needs the entries of a partition; `None` where it reads none in order.
    pub(super) fn needs_after(&self, partition: &Partition) -> Option<Position> {
        let handling = self.partitions.get(partition)?;
        let Progress {
            checkpoint, open, ..
        } = &handling.progress;
        let open = open.iter().map(|open| open.position.before());
        let needed = open.chain([*checkpoint]).min();
        needed.filter(|_| handling.is_open)
    }

    fn members(&self, now: Instant) -> Vec<Member> {
        let members = self.members.iter();
        members
            .map(|(instance, until)| Member {
                instance: instance.clone(),
                remaining: until.saturating_duration_since(now),
            })
            .collect()
    }

    /// Forgets instances that have not said for too long that they are there.
    fn expire(&mut self, now: Instant) {
        let before = self.members.len();
        self.members.retain(|_, until| *until > now);
        if self.members.len() != before {
            self.changed();
        }
    }
}

impl Handling {
    fn begin_after(&mut self, position: Position) {
        self.is_open = true;
        self.progress = Progress {
            checkpoint: position,
            reached: position,
            ..Progress::default()
        };
    }

    fn is_owned_by(&self, lease: &Lease) -> bool {
        self.epoch == lease.epoch
            && self
                .owner
                .as_ref()
                .is_some_and(|(owner, _)| **owner == *lease.instance)
    }
}

impl Content {
    pub(super) fn group(&mut self, group: &str) -> &mut GroupContent {
        self.groups.entry(group.to_owned()).or_default()
    }

    fn owned(&mut self, lease: &Lease) -> Option<&mut Handling> {
        self.group(&lease.group)
            .handling(&lease.partition)
            .filter(|handling| handling.is_owned_by(lease))
    }

    /// The head of a feed; [`Position::START`] where there is none.
    pub(super) fn head(&self, partition: &Partition) -> Position {
        self.feeds
            .get(partition)
            .map_or(Position::START, Feed::head)
    }

    /// How many entries of a feed lie after a position.
    pub(super) fn count_after(&self, partition: &Partition, position: Position) -> u64 {
        let count = self.feeds.get(partition).map_or(0, |feed| {
            let is_before = |(at, _): &(Position, _)| *at <= position;
            feed.entries.len() - feed.entries.partition_point(is_before)
        });
        count as u64
    }

    /// Whether a group reads a partition in order, as far as is known.
    pub(super) fn is_open(&mut self, group: &str, partition: &Partition) -> bool {
        let handling = self.group(group).handling(partition);
        handling.is_some_and(|handling| handling.is_open)
    }

    /// The position after which a group begins.
    pub(super) fn start_of(
        &self,
        partition: &Partition,
        start: Start,
    ) -> Result<Position, StoreError> {
        let position = match start {
            Start::Beginning => Position::START,
            Start::Now => return Ok(self.head(partition)),
            Start::After(position) => position.min(self.head(partition)),
        };
        self.expect_available(partition, position)?;
        Ok(position)
    }

    pub(super) fn entry(&self, partition: &Partition, position: Position) -> EntryFields<'static> {
        let Some(feed) = self.feeds.get(partition) else {
            return EntryFields::default();
        };
        feed.entries
            .binary_search_by_key(&position, |(at, _)| *at)
            .map_or_else(|_| EntryFields::default(), |at| feed.entries[at].1.clone())
    }
}

#[async_trait]
impl Groups for MemoryStore {
    async fn join(
        &self,
        group: &str,
        instance: &str,
        lease: Duration,
    ) -> Result<Vec<Member>, StoreError> {
        let now = Instant::now();
        let mut content = self.content();
        let group = content.group(group);
        group.expire(now);
        if group
            .members
            .insert(instance.to_owned(), now + lease)
            .is_none()
        {
            group.changed();
        }
        Ok(group.members(now))
    }

    async fn leave(&self, group: &str, instance: &str) -> Result<(), StoreError> {
        let mut content = self.content();
        let group = content.group(group);
        if group.members.remove(instance).is_some() {
            group.changed();
        }
        Ok(())
    }

    async fn members(&self, group: &str) -> Result<Vec<Member>, StoreError> {
        let now = Instant::now();
        let mut content = self.content();
        let group = content.group(group);
        group.expire(now);
        Ok(group.members(now))
    }

    async fn reset(
        &self,
        group: &str,
        partition: &Partition,
        reset: Reset,
    ) -> Result<(), ResetError> {
        let now = Instant::now();
        let mut content = self.content();
        let to = match reset {
            Reset::Forget => None,
            Reset::MoveTo(start) => Some(content.start_of(partition, start)?),
        };
        let handling = content
            .group(group)
            .partitions
            .entry(partition.clone())
            .or_default();
        if let Some((owner, until)) = &handling.owner
            && *until > now
        {
            return Err(ResetError::Owned {
                group: group.to_owned(),
                partition: partition.clone(),
                owner: owner.clone(),
                remaining: until.saturating_duration_since(now),
            });
        }
        handling.owner = None;
        // Whoever has owned the partition, and comes back, can write nothing.
        handling.epoch += 1;
        let is_open = handling.is_open;
        match to {
            None => {
                handling.is_open = false;
                handling.progress = Progress::default();
                handling.dead_letters.clear();
            }
            Some(position) => handling
                .dead_letters
                .retain(|id, _| id.position <= position),
        }
        let is_read_in_parallel = content.parallel.reset(group, partition, to);
        // Where only handlers with parallel delivery read the feed there is nothing else to move.
        if let Some(position) = to
            && (is_open || !is_read_in_parallel)
            && let Some(handling) = content.group(group).handling(partition)
        {
            handling.begin_after(position);
        }
        Ok(())
    }

    async fn open(
        &self,
        group: &str,
        partition: &Partition,
        start: Start,
    ) -> Result<Progress, StoreError> {
        let mut content = self.content();
        let from = content.start_of(partition, start);
        let handling = content
            .group(group)
            .partitions
            .entry(partition.clone())
            .or_default();
        if !handling.is_open && handling.progress.reached == Position::START {
            handling.begin_after(from?);
        }
        Ok(handling.progress.clone())
    }

    async fn acquire(
        &self,
        group: &str,
        partition: &Partition,
        instance: &str,
        lease: Duration,
    ) -> Result<Acquired, StoreError> {
        let now = Instant::now();
        let mut content = self.content();
        let head = content.head(partition);
        let handling = content
            .group(group)
            .partitions
            .entry(partition.clone())
            .or_default();
        if let Some((owner, until)) = &handling.owner
            && owner != instance
            && *until > now
        {
            return Ok(Acquired::No {
                remaining: until.saturating_duration_since(now),
            });
        }
        let history_lost = head < handling.progress.checkpoint;
        if history_lost {
            handling.progress = Progress {
                checkpoint: head,
                reached: head,
                ..Progress::default()
            };
        }
        handling.owner = Some((instance.to_owned(), now + lease));
        handling.epoch += 1;
        handling.commit = 0;
        Ok(Acquired::Yes {
            lease: Lease {
                group: group.into(),
                partition: partition.clone(),
                instance: instance.into(),
                epoch: handling.epoch,
            },
            progress: handling.progress.clone(),
            history_lost,
        })
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<bool, StoreError> {
        let until = Instant::now() + duration;
        let mut content = self.content();
        Ok(match content.owned(lease) {
            Some(handling) => {
                handling.owner = Some((lease.instance.to_string(), until));
                true
            }
            None => false,
        })
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut content = self.content();
        if let Some(handling) = content.owned(lease) {
            handling.owner = None;
            content.group(&lease.group).changed();
        }
        Ok(())
    }

    async fn commit(&self, lease: &Lease, commit: &Commit) -> Result<Committed, CommitError> {
        let mut content = self.content();
        let lost = || CommitError::LeaseLost {
            group: Arc::clone(&lease.group),
            partition: lease.partition.clone(),
        };
        let handling = content.owned(lease).ok_or_else(lost)?;
        if commit.number <= handling.commit {
            return Ok(Committed {
                emitted: Vec::new(),
                dead_letters: handling.dead_letters.len(),
            });
        }
        let mut writes = Vec::new();
        let mut refused = Vec::new();
        for (index, appends) in commit.emitted.iter().enumerate() {
            for append in appends {
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
            return Err(CommitError::Refused { refused });
        }

        // From here on nothing fails.
        let mut emitted = vec![Vec::new(); commit.emitted.len()];
        for (index, append, partition, prepared) in writes {
            let fresh = vec![None; append.events().len()];
            match self.write(&mut content, &partition, append, prepared, &fresh) {
                Ok(appended) => emitted[index].push(appended),
                Err(error) => tracing::warn!(%error, "an event was stored, but not published"),
            }
        }
        let mut parked = Vec::new();
        for letter in &commit.parked {
            let raw = content.entry(&lease.partition, letter.position);
            parked.push((letter.id(), (letter.clone(), raw)));
        }
        let handling = content.owned(lease).ok_or_else(lost)?;
        handling.commit = commit.number;
        handling.progress = commit.progress.clone();
        // First: what follows one that was tried in vain must stay behind it.
        for letter in &commit.retried {
            if let Some((old, _)) = handling.dead_letters.get_mut(&letter.id()) {
                *old = letter.clone();
            }
        }
        let follows: HashMap<_, _> = commit.follows.iter().map(|(id, of)| (id, of)).collect();
        for (id, (mut letter, raw)) in parked {
            if let Some(followed) = follows.get(&id) {
                let followed = handling.dead_letters.get(*followed);
                letter.redrive |= followed.is_none_or(|(followed, _)| followed.redrive);
            }
            handling.dead_letters.insert(id, (letter, raw));
        }
        for id in &commit.resolved {
            handling.dead_letters.remove(id);
        }
        Ok(Committed {
            emitted,
            dead_letters: handling.dead_letters.len(),
        })
    }

    async fn lag(&self, group: &str, partition: &Partition) -> Result<u64, StoreError> {
        let mut content = self.content();
        let (reached, open) = content
            .group(group)
            .handling(partition)
            .map_or((Position::START, 0), |handling| {
                (handling.progress.reached, handling.progress.open.len())
            });
        Ok(content.count_after(partition, reached) + open as u64)
    }

    async fn owner(
        &self,
        group: &str,
        partition: &Partition,
    ) -> Result<Option<String>, StoreError> {
        let now = Instant::now();
        let mut content = self.content();
        let owner = content
            .group(group)
            .handling(partition)
            .and_then(|handling| handling.owner.clone());
        Ok(owner
            .filter(|(_, until)| *until > now)
            .map(|(owner, _)| owner))
    }

    async fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, StoreError> {
        let mut content = self.content();
        let changes = content.group(group).changes.subscribe();
        let told = *changes.borrow();
        Ok(Box::new(MemoryGroupReader {
            store: self.clone(),
            changes,
            told,
            written: content.written.subscribe(),
        }))
    }
}

struct MemoryGroupReader {
    store: MemoryStore,
    changes: watch::Receiver<u64>,
    /// How many changes the caller knows of.
    told: u64,
    written: watch::Receiver<u64>,
}

#[async_trait]
impl GroupReader for MemoryGroupReader {
    async fn next(&mut self, wanted: &[Wanted]) -> Result<GroupBatch, ReadError> {
        loop {
            // Both senders live in the store, which this reader keeps: they cannot close.
            // Looked at once: what comes after it is seen the next time.
            let changes = *self.changes.borrow_and_update();
            let changed = changes != self.told;
            self.written.mark_unchanged();
            let mut batch = GroupBatch {
                entries: Vec::new(),
                changed,
            };
            {
                let content = self.store.content();
                for wish in wanted {
                    if let Some(feed) = content.feeds.get(&wish.partition) {
                        let entries = feed.read(&wish.partition, wish.after, wish.limit);
                        if !entries.is_empty() {
                            batch.entries.push((wish.partition.clone(), entries));
                        }
                    }
                }
            }
            if batch.changed || !batch.entries.is_empty() {
                self.told = changes;
                return Ok(batch);
            }
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.written.changed() => {}
            }
        }
    }
}
