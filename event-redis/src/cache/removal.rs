//! Removals: values that go, some at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use redis::{Cmd, Pipeline, RedisWrite, Value};

use super::entry::{generation, unreadable};
use super::{CacheError, Shared};
use crate::connection::{Links, Request};
use crate::glob::literal;
use crate::scripts::{CACHE_INVALIDATE, CACHE_UNTAG};
use crate::wire;

const REMOVING: &str = "remove from a cache";
const SCANNING: &str = "scan a cache";
const UNTAGGING: &str = "untag entries of a cache";

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

/// What has come of some entries.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// How many values were removed.
    pub(super) removed: u64,
    /// The entries that are still there.
    there: Vec<String>,
}

impl Shared {
    /// Removes the values of entries that do not know of an event; of all, where no places are given.
    pub(super) async fn remove(
        &self,
        entries: Vec<String>,
        event: &[(String, String)],
    ) -> Result<Removal, CacheError> {
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
        let all = removals.try_fold(Removal::default(), async |mut all, some| {
            all.removed += some.removed;
            all.there.extend(some.there);
            Ok(all)
        });
        all.await
    }

    /// Removes entries of one slot.
    async fn remove_some(&self, entries: &[String], event: &str) -> Result<Removal, CacheError> {
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
        let values = wire::array(reply.await?).map_err(&unreadable)?;
        let [removed, there] =
            <[Value; 2]>::try_from(values).map_err(|_| unreadable("another number of parts"))?;
        let removed = wire::count(&removed).map_err(&unreadable)?;
        self.invalidated.increment(removed);
        let mut removal = Removal {
            removed,
            there: Vec::new(),
        };
        for number in wire::array(there).map_err(&unreadable)? {
            let number = wire::count(&number).map_err(&unreadable)?;
            let index = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
            let entry = index.and_then(|index| entries.get(index));
            let entry = entry.ok_or_else(|| unreadable("a number of no entry"))?;
            removal.there.push(entry.clone());
        }
        Ok(removal)
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
                removed += self
                    .remove(std::mem::take(&mut found), event)
                    .await?
                    .removed;
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
            let mut scores = BTreeMap::new();
            for pair in found.chunks_exact(2) {
                let score = wire::slice(&pair[1]).map_err(&unreadable)?.to_vec();
                // What another program has put there is no entry of ours.
                if let Ok(entry) = wire::text(&pair[0]) {
                    scores.insert(entry.to_owned(), score);
                }
            }
            let removal = self.remove(scores.keys().cloned().collect(), event).await?;
            removed += removal.removed;
            for entry in &removal.there {
                scores.remove(entry);
            }
            // Last: what this does not come to is found when the event is handled again.
            let gone: Vec<_> = scores.into_iter().collect();
            for gone in gone.chunks(AT_ONCE) {
                self.untag(&tag, gone).await?;
            }
            if next == "0" {
                return Ok(removed);
            }
            cursor = next;
        }
    }

    async fn untag(&self, tag: &str, gone: &[(String, Vec<u8>)]) -> Result<(), CacheError> {
        let mut command = CACHE_UNTAG.call(1, 2 * gone.len(), 128 + 96 * gone.len());
        command.write_arg(tag.as_bytes());
        for (entry, score) in gone {
            command.write_arg(entry.as_bytes());
            command.write_arg(score);
        }
        let request = Request::Command(&command);
        let connections = &self.parts.connections;
        connections
            .ask(UNTAGGING, request, Some(&CACHE_UNTAG))
            .await?;
        Ok(())
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
