//! What lies in Redis, by plain commands: nothing here knows the framework but for the names of its
//! keys.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Value, cmd};
use serde::Deserialize;

use crate::events::{GROUPS, PARTITIONS};

/// How many entries are read at once.
const PAGE: usize = 5_000;

/// The fields of a stream's entry.
type Fields = Vec<(String, String)>;

/// One partition of a feed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Feed {
    pub(crate) key: String,
    pub(crate) entries: Vec<Entry>,
    /// The elements of each history, by its key.
    pub(crate) histories: BTreeMap<String, Vec<Element>>,
}

/// An element of a history: its version, and the event's id.
pub(crate) type Element = (u64, String);

/// An event as it lies in its feed.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) position: String,
    pub(crate) event_type: String,
    pub(crate) payload: String,
    pub(crate) event_id: String,
    pub(crate) cause: Option<String>,
    pub(crate) aggregate: Option<Version>,
}

/// Which event of an aggregate an entry is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Version {
    #[serde(rename = "type")]
    pub(crate) aggregate_type: String,
    pub(crate) id: String,
    pub(crate) version: u64,
}

/// How far a group has come in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) group: &'static str,
    pub(crate) feed: String,
    pub(crate) head: String,
    pub(crate) checkpoint: String,
    pub(crate) reached: String,
    pub(crate) open: String,
    pub(crate) dead_letters: u64,
    /// How many records are in its outboxes.
    pub(crate) on_the_way: u64,
    /// What XINFO GROUPS says.
    pub(crate) lag: Option<i64>,
}

impl Progress {
    /// Whether everything there is is handled.
    pub(crate) fn is_at_head(&self) -> bool {
        let is_handled = self.checkpoint == self.head && self.reached == self.head;
        is_handled && self.open == "[]" && self.on_the_way == 0
    }
}

/// Reads what lies in Redis.
pub(crate) struct Reader {
    connection: MultiplexedConnection,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    event_id: String,
    causation_id: Option<String>,
}

impl Reader {
    /// Connects to the server itself.
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = Client::open(url)?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Self { connection })
    }

    /// All feeds, whole.
    pub(crate) async fn feeds(&mut self) -> anyhow::Result<Vec<Feed>> {
        let mut feeds = Vec::new();
        for (category, count) in PARTITIONS {
            for number in 0..count {
                let key = key_of(category, number);
                let entries = self.entries(&key).await?;
                let histories = self.histories(&key).await?;
                feeds.push(Feed {
                    key,
                    entries,
                    histories,
                });
            }
        }
        Ok(feeds)
    }

    async fn histories(&mut self, feed: &str) -> anyhow::Result<BTreeMap<String, Vec<Element>>> {
        let keys: Vec<String> = cmd("KEYS")
            .arg(format!("{{{feed}}}:history:*"))
            .query_async(&mut self.connection)
            .await?;
        let mut histories = BTreeMap::new();
        for key in keys {
            let elements: Vec<String> = cmd("LRANGE")
                .arg(&key)
                .arg(&["0", "-1"])
                .query_async(&mut self.connection)
                .await?;
            let elements = elements.iter().map(|element| self::element(element));
            let elements = elements.collect::<Option<_>>();
            histories.insert(key.clone(), elements.context(key)?);
        }
        Ok(histories)
    }

    /// How many records are in the outboxes of a group for a partition.
    async fn on_the_way(&mut self, group: &str, feed: &str) -> anyhow::Result<u64> {
        let targets: Vec<String> = cmd("HKEYS")
            .arg(format!("{{{feed}}}:outboxes:{group}"))
            .query_async(&mut self.connection)
            .await?;
        let mut count = 0;
        for target in targets {
            let outbox = format!("{{{feed}}}:outbox:{group}:{target}");
            let length: u64 = cmd("XLEN")
                .arg(outbox)
                .query_async(&mut self.connection)
                .await?;
            count += length;
        }
        Ok(count)
    }

    async fn entries(&mut self, key: &str) -> anyhow::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut from = "-".to_owned();
        loop {
            let page: Vec<(String, Fields)> = cmd("XRANGE")
                .arg(key)
                .arg(&from)
                .arg("+")
                .arg("COUNT")
                .arg(PAGE)
                .query_async(&mut self.connection)
                .await?;
            let Some((last, _)) = page.last() else {
                return Ok(entries);
            };
            from = format!("({last}");
            for (position, fields) in page {
                let entry = entry(&position, fields);
                entries.push(entry.with_context(|| format!("{key} at {position}"))?);
            }
        }
    }

    /// How far all groups have come.
    pub(crate) async fn progress(&mut self) -> anyhow::Result<Vec<Progress>> {
        let mut all = Vec::new();
        for (group, category) in GROUPS {
            let count = PARTITIONS.iter().find(|(name, _)| *name == category);
            for number in 0..count.map_or(1, |(_, count)| *count) {
                let feed = key_of(category, number);
                let on_the_way = self.on_the_way(group, &feed).await?;
                let connection = &mut self.connection;
                let stored: HashMap<String, String> = cmd("HGETALL")
                    .arg(format!("{{{feed}}}:group:{group}"))
                    .query_async(connection)
                    .await?;
                let of = |name: &str| stored.get(name).cloned().unwrap_or_default();
                let dead_letters = cmd("HLEN")
                    .arg(format!("{{{feed}}}:dead:{group}"))
                    .query_async(connection)
                    .await?;
                let newest: Vec<(String, Fields)> = cmd("XREVRANGE")
                    .arg(&feed)
                    .arg(&["+", "-", "COUNT", "1"])
                    .query_async(connection)
                    .await?;
                let groups: Value = cmd("XINFO")
                    .arg("GROUPS")
                    .arg(&feed)
                    .query_async(connection)
                    .await
                    .unwrap_or(Value::Nil);
                all.push(Progress {
                    group,
                    head: newest
                        .first()
                        .map_or_else(|| "0-0".into(), |(at, _)| at.clone()),
                    checkpoint: of("checkpoint"),
                    reached: of("reached"),
                    open: of("open"),
                    dead_letters,
                    on_the_way,
                    lag: lag_of(&groups, group),
                    feed,
                });
            }
        }
        Ok(all)
    }
}

fn key_of(category: &str, number: u32) -> String {
    match number {
        0 => format!("events:{category}"),
        number => format!("events:{category}:{number}"),
    }
}

fn entry(position: &str, fields: Fields) -> anyhow::Result<Entry> {
    let mut fields: HashMap<_, _> = fields.into_iter().collect();
    let mut take = |name: &str| fields.remove(name).with_context(|| format!("no {name}"));
    let metadata: Metadata = serde_json::from_str(&take("metadata")?)?;
    let aggregate = take("aggregate").ok();
    let aggregate = aggregate.map(|aggregate| serde_json::from_str(&aggregate));
    Ok(Entry {
        position: position.to_owned(),
        event_type: take("type")?,
        payload: take("payload")?,
        event_id: metadata.event_id,
        cause: metadata.causation_id,
        aggregate: aggregate.transpose()?,
    })
}

fn element(json: &str) -> Option<Element> {
    let values: Vec<serde_json::Value> = serde_json::from_str(json).ok()?;
    Some((
        values.get(1)?.as_u64()?,
        values.get(2)?.as_str()?.to_owned(),
    ))
}

fn lag_of(groups: &Value, group: &str) -> Option<i64> {
    let groups: Vec<HashMap<String, Value>> = redis::from_redis_value(groups.clone()).ok()?;
    let is_own = |said: &&HashMap<String, Value>| {
        said.get("name")
            .and_then(|name| redis::from_redis_value::<String>(name.clone()).ok())
            .is_some_and(|name| name == group)
    };
    let own = groups.iter().find(is_own)?;
    redis::from_redis_value(own.get("lag")?.clone()).ok()
}
