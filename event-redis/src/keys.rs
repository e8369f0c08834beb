//! Where everything lies.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use event_core::{AggregateId, Category};
use redis::{Cmd, RedisWrite};

/// The keys of a store.
#[derive(Debug)]
pub(crate) struct Keys {
    prefix: String,
    feeds: RwLock<HashMap<Category, Arc<FeedKeys>>>,
}

impl Keys {
    pub(crate) fn new(prefix: String) -> Self {
        Self {
            prefix,
            feeds: RwLock::default(),
        }
    }

    /// The keys of a category's feed, made once.
    pub(crate) fn of(&self, category: &Category) -> Arc<FeedKeys> {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = feeds.get(category) {
            return Arc::clone(keys);
        }
        drop(feeds);
        let keys = Arc::new(FeedKeys::new(&self.prefix, category));
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(feeds.entry(category.clone()).or_insert(keys))
    }
}

/// The keys of one feed. All of them hash to one slot of a cluster, so that one script may touch
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
    /// Whether this client has appended to the feed, and so knows that it may.
    opened: AtomicBool,
}

impl FeedKeys {
    fn new(prefix: &str, category: &Category) -> Self {
        let feed = format!("{prefix}events:{category}");
        let braced = format!("{{{feed}}}:");
        Self {
            newer_ids: format!("{braced}ids:0"),
            older_ids: format!("{braced}ids:1"),
            format: format!("{braced}format"),
            published: format!("{braced}published"),
            feed,
            braced,
            opened: AtomicBool::new(false),
        }
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

    /// How far a group has handled the feed.
    pub(crate) fn checkpoint(&self, group: &str) -> String {
        format!("{}checkpoint:{group}", self.braced)
    }

    /// Adds the key of an aggregate's history to a command.
    pub(crate) fn write_history(&self, command: &mut Cmd, aggregate: &AggregateId) {
        let mut key = command.writer_for_next_arg();
        for part in [
            self.braced.as_str(),
            "history:",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_a_feed_is_in_its_slot() {
        let keys = Keys::new("app:".into()).of(&Category::new("sdlc").unwrap());
        assert_eq!(keys.feed(), "app:events:sdlc");
        assert_eq!(keys.newer_ids(), "{app:events:sdlc}:ids:0");
        assert_eq!(keys.older_ids(), "{app:events:sdlc}:ids:1");
        assert_eq!(keys.format(), "{app:events:sdlc}:format");
        assert_eq!(keys.published(), "{app:events:sdlc}:published");
        assert_eq!(keys.checkpoint("g"), "{app:events:sdlc}:checkpoint:g");

        let mut command = Cmd::new();
        let category = Category::new("sdlc").unwrap();
        let aggregate = AggregateId::new(category, "project", "a}b:c").unwrap();
        keys.write_history(&mut command, &aggregate);
        let redis::Arg::Simple(key) = command.args_iter().next().unwrap() else {
            panic!("a cursor");
        };
        assert_eq!(key, b"{app:events:sdlc}:history:project:a}b:c");
    }
}
