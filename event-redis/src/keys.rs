//! Where everything lies.

use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use event_core::{AggregateId, Category, DeadLetterId, ParallelGroup, Partition, ProjectionId};
use redis::{Cmd, RedisWrite};

use crate::gathering::Gathering;

/// The keys of a store.
#[derive(Debug)]
pub(crate) struct Keys {
    prefix: String,
    feeds: RwLock<HashMap<Partition, Arc<FeedKeys>>>,
    /// How many partitions a category has, once that is settled.
    counts: RwLock<HashMap<Category, u32>>,
}

impl Keys {
    pub(crate) fn new(prefix: String) -> Self {
        Self {
            prefix,
            feeds: RwLock::default(),
            counts: RwLock::default(),
        }
    }

    /// The keys of a partition, made once.
    pub(crate) fn of(&self, partition: &Partition) -> Arc<FeedKeys> {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = feeds.get(partition) {
            return Arc::clone(keys);
        }
        drop(feeds);
        let keys = Arc::new(FeedKeys::new(&self.prefix, partition));
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(feeds.entry(partition.clone()).or_insert(keys))
    }

    /// How many partitions a category has, where that is settled.
    pub(crate) fn settled(&self, category: &Category) -> Option<u32> {
        let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        counts.get(category).copied()
    }

    /// Notes how many partitions a category has for good.
    pub(crate) fn settle(&self, category: &Category, count: u32) {
        let mut counts = self.counts.write().unwrap_or_else(PoisonError::into_inner);
        counts.insert(category.clone(), count);
    }

    /// The partition whose feed has this key.
    pub(crate) fn partition_of(&self, feed: &str) -> Option<Partition> {
        let name = feed.strip_prefix(&*self.prefix)?.strip_prefix("events:")?;
        let (category, number) = match name.split_once(':') {
            Some((category, number)) => (category, number.parse().ok()?),
            None => (name, 0),
        };
        let category = Category::new(category.to_owned()).ok()?;
        Some(Partition::new(category, number))
    }

    /// How many partitions a category has. It lies with partition 0.
    pub(crate) fn partitions(&self, category: &Category) -> String {
        format!("{}partitions", self.of(&Partition::from(category)).braced)
    }

    /// The names of all projections.
    pub(crate) fn projections(&self) -> String {
        format!("{}projections", self.prefix)
    }

    /// The versions of a projection.
    pub(crate) fn projection_versions(&self, name: &str) -> String {
        format!("{{{}projection:{name}}}:versions", self.prefix)
    }

    /// The keys of a version of a projection.
    pub(crate) fn projection(&self, id: &ProjectionId) -> ProjectionKeys {
        let (prefix, name, version) = (&self.prefix, id.name(), id.version());
        let braced = format!("{{{prefix}projection:{name}}}:v{version}:");
        ProjectionKeys {
            versions: self.projection_versions(name),
            checkpoints: format!("{braced}checkpoints"),
            names: format!("{braced}keys"),
            holder: format!("{braced}holder"),
            braced,
        }
    }

    /// What the keys of a cache's entries begin with. Each entry has a slot of its own.
    pub(crate) fn cache_entries(&self, cache: &str) -> String {
        format!("{}cache:{cache}:", self.prefix)
    }

    /// What the keys of a cache's tags begin with.
    pub(crate) fn cache_tags(&self, cache: &str) -> String {
        format!("{}cache-tag:{cache}:", self.prefix)
    }

    /// The instances of a group.
    pub(crate) fn members(&self, group: &str) -> String {
        format!("{{{}group:{group}}}:members", self.prefix)
    }

    /// What has changed in a group.
    pub(crate) fn changes(&self, group: &str) -> String {
        format!("{{{}group:{group}}}:changes", self.prefix)
    }
}

/// The keys of one partition. All of them hash to one slot of a cluster, so that one script may touch
/// them together: the braces make it the slot of the bare feed key.
#[derive(Debug)]
pub(crate) struct FeedKeys {
    feed: String,
    /// `{<feed>}:`, which everything else begins with.
    braced: String,
    newer_ids: String,
    older_ids: String,
    format: String,
    published: String,
    delivered: String,
    groups: String,
    trimmed: String,
    adopted: String,
    /// Whether this client has appended to the feed, and so knows that it may.
    opened: AtomicBool,
    /// What this client appends to the feed alone.
    appends: Arc<Gathering>,
}

impl FeedKeys {
    fn new(prefix: &str, partition: &Partition) -> Self {
        let feed = format!("{prefix}events:{partition}");
        let braced = format!("{{{feed}}}:");
        Self {
            newer_ids: format!("{braced}ids:0"),
            older_ids: format!("{braced}ids:1"),
            format: format!("{braced}format"),
            published: format!("{braced}published"),
            delivered: format!("{braced}delivered"),
            groups: format!("{braced}groups"),
            trimmed: format!("{braced}trimmed"),
            adopted: format!("{braced}adopted"),
            feed,
            braced,
            opened: AtomicBool::new(false),
            appends: Arc::default(),
        }
    }

    /// What this client appends to the feed alone.
    pub(crate) fn appends(&self) -> &Arc<Gathering> {
        &self.appends
    }

    /// The stream. It also begins the name of the publisher of what is published on commit.
    pub(crate) fn feed(&self) -> &str {
        &self.feed
    }

    /// Where the newest events lie, by id.
    pub(crate) fn newer_ids(&self) -> &str {
        &self.newer_ids
    }

    /// Where those before them lie.
    pub(crate) fn older_ids(&self) -> &str {
        &self.older_ids
    }

    /// The number of the layout.
    pub(crate) fn format(&self) -> &str {
        &self.format
    }

    /// How many events were published on commit.
    pub(crate) fn published(&self) -> &str {
        &self.published
    }

    /// Up to which number was delivered from each outbox in another slot.
    pub(crate) fn delivered(&self) -> &str {
        &self.delivered
    }

    /// The names of the groups that read the feed.
    pub(crate) fn groups(&self) -> &str {
        &self.groups
    }

    /// Up to where the feed was trimmed away.
    pub(crate) fn trimmed(&self) -> &str {
        &self.trimmed
    }

    /// Which entries of other programs were adopted by the histories of their aggregates.
    pub(crate) fn adopted(&self) -> &str {
        &self.adopted
    }

    /// What the keys of all histories begin with.
    pub(crate) fn history_prefix(&self) -> String {
        format!("{}history:", self.braced)
    }

    /// A history that is being made anew.
    pub(crate) fn staged(&self, name: &str) -> String {
        format!("{}staged:{name}", self.braced)
    }

    /// The numbers that the outboxes of a group are at.
    pub(crate) fn outboxes(&self, group: &str) -> String {
        format!("{}outboxes:{group}", self.braced)
    }

    /// What a group has emitted to a feed in another slot and what is still to be delivered.
    pub(crate) fn outbox(&self, group: &str, target: &FeedKeys) -> String {
        format!("{}outbox:{group}:{}", self.braced, target.feed)
    }

    /// What there is of a group.
    pub(crate) fn group(&self, group: &str) -> GroupKeys {
        let braced = &self.braced;
        GroupKeys {
            progress: format!("{braced}group:{group}"),
            dead: format!("{braced}dead:{group}"),
            dead_order: format!("{braced}dead-order:{group}"),
            dead_raw: format!("{braced}dead-raw:{group}"),
            handlers: format!("{braced}parallel-handlers:{group}"),
        }
    }

    /// What is remembered of the group of a handler with parallel delivery.
    pub(crate) fn parallel(&self, group: &ParallelGroup) -> String {
        format!("{}parallel:{group}", self.braced)
    }

    /// Adds the key of an aggregate's history to a command.
    pub(crate) fn write_history(&self, command: &mut Cmd, aggregate: &AggregateId) {
        self.write_of_aggregate(command, "history:", aggregate);
    }

    /// Adds the key of an aggregate's snapshot to a command.
    pub(crate) fn write_snapshot(&self, command: &mut Cmd, aggregate: &AggregateId) {
        self.write_of_aggregate(command, "snapshot:", aggregate);
    }

    /// Adds the key of a command's receipt to a command.
    pub(crate) fn write_receipt(&self, command: &mut Cmd, aggregate: &AggregateId, id: &str) {
        let (braced, aggregate_type) = (&self.braced, aggregate.aggregate_type());
        let aggregate = aggregate.id();
        // Both ids may be any text: the length tells where the first one ends.
        let length = aggregate.len();
        command.write_arg_fmt(format_args!(
            "{braced}receipt:{aggregate_type}:{length}:{aggregate}:{id}"
        ));
    }

    fn write_of_aggregate(&self, command: &mut Cmd, what: &str, aggregate: &AggregateId) {
        let mut key = command.writer_for_next_arg();
        for part in [
            self.braced.as_str(),
            what,
            aggregate.aggregate_type(),
            ":",
            aggregate.id(),
        ] {
            // It writes to memory, which cannot fail.
            let _ = key.write_all(part.as_bytes());
        }
    }

    pub(crate) fn is_opened(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }

    pub(crate) fn set_opened(&self) {
        self.opened.store(true, Ordering::Relaxed);
    }
}

/// The keys of one version of a projection. All versions of a projection are in one slot.
#[derive(Debug)]
pub(crate) struct ProjectionKeys {
    /// The versions that there are, and which of them is served.
    pub(crate) versions: String,
    /// Up to where each partition is in the state.
    pub(crate) checkpoints: String,
    /// The names of the keys that have something, in order.
    pub(crate) names: String,
    /// The instance that fills the version.
    pub(crate) holder: String,
    braced: String,
}

impl ProjectionKeys {
    /// Adds the keys that every version has.
    pub(crate) fn write_all(&self, command: &mut Cmd) {
        for key in [&self.versions, &self.checkpoints, &self.names, &self.holder] {
            command.write_arg(key.as_bytes());
        }
    }

    /// The document of a key.
    pub(crate) fn document(&self, key: &str) -> String {
        format!("{}document:{key}", self.braced)
    }

    /// The fields of a key.
    pub(crate) fn fields(&self, key: &str) -> String {
        format!("{}fields:{key}", self.braced)
    }

    /// Adds the key of a document to a command.
    pub(crate) fn write_document(&self, command: &mut Cmd, key: &str) {
        command.write_arg_fmt(format_args!("{}document:{key}", self.braced));
    }

    /// Adds the key of fields to a command.
    pub(crate) fn write_fields(&self, command: &mut Cmd, key: &str) {
        command.write_arg_fmt(format_args!("{}fields:{key}", self.braced));
    }
}

/// What there is of a group in one partition.
#[derive(Debug)]
pub(crate) struct GroupKeys {
    /// How far the partition is handled, and who owns it.
    pub(crate) progress: String,
    /// The dead letters, by name.
    pub(crate) dead: String,
    /// Their order, in which each is called as [`Ordered`] writes it.
    pub(crate) dead_order: String,
    /// Their entries as they lay in the feed.
    pub(crate) dead_raw: String,
    /// The names of its handlers with parallel delivery.
    pub(crate) handlers: String,
}

/// Writes a dead letter's name so that the order of the texts is that of the letters.
pub(crate) struct Ordered<'a>(pub(crate) &'a DeadLetterId);

impl fmt::Display for Ordered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeadLetterId { position, handler } = self.0;
        let (milliseconds, sequence) = (position.milliseconds(), position.sequence());
        write!(f, "{milliseconds:020}-{sequence:020}/{handler}")
    }
}

#[cfg(test)]
mod tests {
    use event_core::Position;

    use super::*;

    fn sdlc() -> Category {
        Category::new("sdlc").unwrap()
    }

    #[test]
    fn everything_of_a_feed_is_in_its_slot() {
        let keys = Keys::new("app:".into());
        assert_eq!(keys.partitions(&sdlc()), "{app:events:sdlc}:partitions");
        let keys = keys.of(&sdlc().into());
        assert_eq!(keys.feed(), "app:events:sdlc");
        assert_eq!(keys.newer_ids(), "{app:events:sdlc}:ids:0");
        assert_eq!(keys.older_ids(), "{app:events:sdlc}:ids:1");
        assert_eq!(keys.format(), "{app:events:sdlc}:format");
        assert_eq!(keys.published(), "{app:events:sdlc}:published");
        let group = keys.group("g");
        assert_eq!(group.progress, "{app:events:sdlc}:group:g");
        assert_eq!(group.dead, "{app:events:sdlc}:dead:g");
        assert_eq!(group.dead_order, "{app:events:sdlc}:dead-order:g");
        assert_eq!(group.dead_raw, "{app:events:sdlc}:dead-raw:g");
        assert_eq!(group.handlers, "{app:events:sdlc}:parallel-handlers:g");
        let handler = ParallelGroup {
            group: "g".into(),
            handler: "h".into(),
        };
        assert_eq!(keys.parallel(&handler), "{app:events:sdlc}:parallel:g/h");
        assert_eq!(keys.delivered(), "{app:events:sdlc}:delivered");
        assert_eq!(keys.groups(), "{app:events:sdlc}:groups");
        assert_eq!(keys.trimmed(), "{app:events:sdlc}:trimmed");
        assert_eq!(keys.adopted(), "{app:events:sdlc}:adopted");
        assert_eq!(keys.staged("7"), "{app:events:sdlc}:staged:7");
        assert_eq!(keys.history_prefix(), "{app:events:sdlc}:history:");
        assert_eq!(keys.outboxes("g"), "{app:events:sdlc}:outboxes:g");
        assert_eq!(
            keys.outbox("g", &keys),
            "{app:events:sdlc}:outbox:g:app:events:sdlc"
        );

        let mut command = Cmd::new();
        let aggregate = AggregateId::new(sdlc(), "project", "a}b:c").unwrap();
        keys.write_history(&mut command, &aggregate);
        let redis::Arg::Simple(key) = command.args_iter().next().unwrap() else {
            panic!("a cursor");
        };
        assert_eq!(key, b"{app:events:sdlc}:history:project:a}b:c");
    }

    #[test]
    fn each_partition_is_a_feed_of_its_own() {
        let keys = Keys::new("app:".into()).of(&Partition::new(sdlc(), 3));
        assert_eq!(keys.feed(), "app:events:sdlc:3");
        assert_eq!(keys.format(), "{app:events:sdlc:3}:format");
    }

    #[test]
    fn a_feed_tells_its_partition() {
        let keys = Keys::new("app:".into());
        for partition in [Partition::from(sdlc()), Partition::new(sdlc(), 12)] {
            let feed = keys.of(&partition).feed().to_owned();
            assert_eq!(keys.partition_of(&feed), Some(partition));
        }
        for other in [
            "events:sdlc",
            "app:events:",
            "app:events:sdlc:x",
            "app:sdlc",
        ] {
            assert_eq!(keys.partition_of(other), None, "{other}");
        }
    }

    #[test]
    fn everything_of_a_group_is_in_its_slot() {
        let keys = Keys::new("app:".into());
        assert_eq!(keys.members("g"), "{app:group:g}:members");
        assert_eq!(keys.changes("g"), "{app:group:g}:changes");
    }

    #[test]
    fn everything_of_a_projection_is_in_its_slot() {
        let keys = Keys::new("app:".into());
        assert_eq!(keys.projections(), "app:projections");
        let keys = keys.projection(&ProjectionId::new("pushes", 2).unwrap());
        assert_eq!(keys.versions, "{app:projection:pushes}:versions");
        assert_eq!(keys.checkpoints, "{app:projection:pushes}:v2:checkpoints");
        assert_eq!(keys.names, "{app:projection:pushes}:v2:keys");
        assert_eq!(keys.holder, "{app:projection:pushes}:v2:holder");
        assert_eq!(
            keys.document("a}b"),
            "{app:projection:pushes}:v2:document:a}b"
        );
        assert_eq!(keys.fields("a"), "{app:projection:pushes}:v2:fields:a");
    }

    #[test]
    fn everything_of_a_cache_is_under_the_prefix() {
        let keys = Keys::new("app:".into());
        assert_eq!(keys.cache_entries("views"), "app:cache:views:");
        assert_eq!(keys.cache_tags("views"), "app:cache-tag:views:");
    }

    #[test]
    fn dead_letters_are_ordered_as_texts() {
        let id = |ms, sequence, handler: &str| DeadLetterId {
            position: Position::new(ms, sequence),
            handler: handler.into(),
        };
        let ids = [
            id(9, 10, "b"),
            id(9, 2, "z"),
            id(10, 0, "a"),
            id(9, 10, "a"),
            id(9, 10, ""),
            id(u64::MAX, 0, "a"),
        ];
        let mut by_text = ids.clone();
        by_text.sort_by_key(|id| Ordered(id).to_string());
        let mut by_id = ids;
        by_id.sort();
        assert_eq!(by_text, by_id);
        assert_eq!(
            Ordered(&by_id[0]).to_string(),
            "00000000000000000009-00000000000000000002/z"
        );
    }
}
