//! Removals: values that go, some at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use redis::{Cmd, Pipeline, RedisWrite, Value};

use super::entry::{generation, unreadable};
use super::{CacheError, Shared};
use crate::connection::{Links, Request};
use crate::glob::literal;
use crate::scripts::CACHE_INVALIDATE;
use crate::wire;

const REMOVING: &str = "remove from a cache";
const SCANNING: &str = "scan a cache";

/// Keys that the server looks at in one step. It serves others between two steps: a step must not take
/// longer than what these wait for anyway.
const SCANNED: usize = 20;

/// After so many steps others are left alone for a moment.
const STEPS: usize = 32;

/// For how long.
const PAUSE: Duration = Duration::from_millis(1);

/// Entries that one script looks at: about ten microseconds each, during which the server serves nobody else.
const AT_ONCE: usize = 3;

/// Scripts that are under way at once, where entries lie in several slots.
const UNDER_WAY: usize = 16;

/// How often all keys are gone through at most. While slots move, a key may go from a server that is still to be
/// asked to one that was: it is found in the second pass, since it does not go back. So it is where a server
/// has restarted or was replaced, whose cursors mean nothing to the next.
const PASSES: usize = 2;

impl Shared {
    /// Removes the values of entries that do not know of an event; of all, where no places are given.
    pub(super) async fn remove(
        &self,
        entries: Vec<String>,
        event: &[(String, String)],
    ) -> Result<u64, CacheError> {
        let mut by_slot: BTreeMap<Option<u16>, Vec<String>> = BTreeMap::new();
        for entry in entries {
            let slot = self.parts.connections.slot(&entry);
            by_slot.entry(slot).or_default().push(entry);
        }
        let event = serde_json::json!(event).to_string();
        let batches: Vec<_> = by_slot
            .values()
            .flat_map(|entries| entries.chunks(AT_ONCE))
            .map(|entries| self.remove_some(entries, &event))
            .collect();
        let removals = stream::iter(batches).buffer_unordered(UNDER_WAY);
        removals.try_fold(0, async |all, some| Ok(all + some)).await
    }

    /// Removes entries of one slot.
    async fn remove_some(&self, entries: &[String], event: &str) -> Result<u64, CacheError> {
        let mut command = CACHE_INVALIDATE.call(entries.len(), 2, 256 + 64 * entries.len());
        for entry in entries {
            command.write_arg(entry.as_bytes());
        }
        command.write_arg(event.as_bytes());
        command.write_arg(generation().as_bytes());
        let request = Request::Command(&command);
        let connections = &self.parts.connections;
        let reply = connections.ask(REMOVING, request, Some(&CACHE_INVALIDATE));
        let unreadable = unreadable("EVALSHA cache_invalidate.lua", REMOVING);
        let removed = wire::count(&reply.await?).map_err(&unreadable)?;
        self.invalidated.increment(removed);
        Ok(removed)
    }

    /// Removes the entries whose keys match a pattern, wherever they lie.
    pub(super) async fn remove_matching(
        &self,
        pattern: &str,
        event: &[(String, String)],
    ) -> Result<u64, CacheError> {
        let pattern = format!("{}{pattern}", literal(&self.entries));
        let mut removed = 0;
        for _ in 0..PASSES {
            let before = self.servers().await?;
            for links in self.parts.connections.primaries() {
                removed += self.remove_on(&links, &pattern, event).await?;
            }
            if before.is_some() && before == self.servers().await? {
                break;
            }
        }
        Ok(removed)
    }

    /// Which servers have the keys, and which slots each has; `None` where slots move just now, or they do
    /// not say.
    async fn servers(&self) -> Result<Option<Vec<String>>, CacheError> {
        let mut all = Vec::new();
        for links in self.parts.connections.primaries() {
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("INFO").arg("server");
            if self.parts.connections.is_cluster() {
                pipeline.cmd("CLUSTER").arg("NODES");
            }
            let replies = links.ask(SCANNING, Request::Pipeline(&pipeline), None);
            let replies = wire::array(replies.await?).map_err(unreadable("INFO", SCANNING))?;
            match said(&replies) {
                Some(said) => all.push(said),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// Removes those that one server knows.
    async fn remove_on(
        &self,
        links: &Links,
        pattern: &str,
        event: &[(String, String)],
    ) -> Result<u64, CacheError> {
        let unreadable = unreadable("SCAN", SCANNING);
        let mut removed = 0;
        let mut found = Vec::new();
        let mut cursor = "0".to_owned();
        for step in 1.. {
            let command = scan(&["SCAN", &cursor], pattern);
            let reply = links.ask(SCANNING, Request::Command(&command), None);
            let (next, keys) = page(reply.await?).map_err(&unreadable)?;
            cursor = next;
            for key in keys {
                // Another program may have called its own so.
                if let Ok(key) = String::from_utf8(wire::bytes(key).map_err(&unreadable)?) {
                    found.push(key);
                }
            }
            let is_through = cursor == "0";
            if is_through || found.len() >= AT_ONCE {
                removed += self.remove(std::mem::take(&mut found), event).await?;
            }
            if is_through {
                break;
            }
            if step % STEPS == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(removed)
    }

    /// Removes the entries that have a tag.
    pub(super) async fn remove_tagged(
        &self,
        tag: &str,
        event: &[(String, String)],
    ) -> Result<u64, CacheError> {
        let tag = format!("{}{tag}", self.tags);
        let unreadable = unreadable("ZSCAN", SCANNING);
        let connections = &self.parts.connections;
        let mut removed = 0;
        let mut cursor = "0".to_owned();
        loop {
            // Not in their order: that changes while they are gone through, and one might be missed.
            let command = scan(&["ZSCAN", &tag, &cursor], "*");
            let reply = connections.ask(SCANNING, Request::Command(&command), None);
            let (next, found) = page(reply.await?).map_err(&unreadable)?;
            let mut entries = Vec::new();
            for pair in found.chunks_exact(2) {
                // What another program has put there is no entry of ours.
                if let Ok(entry) = wire::text(&pair[0]) {
                    entries.push(entry.to_owned());
                }
            }
            // They stay under the tag until their time is over: whoever is just about to keep one anew has put it
            // there already.
            removed += self.remove(entries, event).await?;
            if next == "0" {
                return Ok(removed);
            }
            cursor = next;
        }
    }
}

/// What a server says of itself: the run that its cursors are of, and its slots, none of which moves.
fn said(replies: &[Value]) -> Option<String> {
    let mut texts = replies.iter().map(|reply| wire::text(reply).ok());
    let run = texts.next()??;
    let run = run.lines().find_map(|line| line.strip_prefix("run_id:"))?;
    let slots = match texts.next() {
        None => String::new(),
        Some(nodes) => {
            let own = nodes?.lines().find(|line| line.contains("myself"))?;
            own.split(' ').skip(8).collect::<Vec<_>>().join(" ")
        }
    };
    // One that moves stands in brackets.
    (!slots.contains('[')).then(|| format!("{run} {slots}"))
}

/// One step through keys, or through a sorted set.
fn scan(words: &[&str], pattern: &str) -> Cmd {
    let mut command = Cmd::with_capacity(words.len() + 4, 128 + pattern.len());
    for word in words {
        command.write_arg(word.as_bytes());
    }
    command.arg("MATCH").arg(pattern).arg("COUNT").arg(SCANNED);
    command
}

/// Where to go on, and what was found.
fn page(reply: Value) -> Result<(String, Vec<Value>), wire::Unreadable> {
    let [next, found] =
        <[Value; 2]>::try_from(wire::array(reply)?).map_err(|_| "another number of parts")?;
    Ok((wire::text(&next)?.to_owned(), wire::array(found)?))
}
