//! What the ceilings share: the bare client, as somebody would use it who writes for one program
//! only what that program needs.
//!
//! No ceiling is held back. Connections are set up as the framework's own, with the larger buffers
//! that let many callers share one; commands and replies are bytes and [`redis::Value`], without the
//! client's own conversions; and nothing is checked but that the server did what it was asked.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail};
use event_tests::RedisServer;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, RedisWrite, Script, Value};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};

use crate::order::{ItemAdded, OrderEvent, Placed};

/// As the framework's connections have them.
const QUEUED_COMMANDS: usize = 1_024;
const GATHERED_BYTES: usize = 64 * 1024;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(8);

/// The framework's own script, byte for byte.
const APPEND: &str = include_str!("../../event-redis/src/scripts/append.lua");

pub(crate) fn client(server: &RedisServer) -> anyhow::Result<Client> {
    let url = server.unix_url().context("the server has no unix socket")?;
    Ok(Client::open(url)?)
}

pub(crate) async fn connect(server: &RedisServer) -> anyhow::Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_pipeline_buffer_size(QUEUED_COMMANDS)
        .set_write_backpressure_boundary(GATHERED_BYTES);
    let connection = client(server)?
        .get_multiplexed_async_connection_with_config(&config)
        .await;
    connection.context("cannot connect the bare client")
}

/// Sends a command; an error of the server's is an error.
pub(crate) async fn ask(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> anyhow::Result<Value> {
    match connection.send_packed_command(command).await? {
        Value::ServerError(error) => bail!("the server refuses: {error}"),
        value => Ok(value),
    }
}

/// Empties the server, so that each round begins with nothing.
pub(crate) async fn flush(connection: &mut MultiplexedConnection) -> anyhow::Result<()> {
    ask(connection, redis::cmd("FLUSHALL").arg("SYNC")).await?;
    Ok(())
}

/// An array; nil is an empty one.
pub(crate) fn array(value: Value) -> anyhow::Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        other => bail!("not an array: {other:?}"),
    }
}

/// A text.
pub(crate) fn bytes(value: &Value) -> anyhow::Result<&[u8]> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => bail!("not a text: {other:?}"),
    }
}

/// The entries of the only stream in a reply to XREAD.
pub(crate) fn entries(reply: Value) -> anyhow::Result<Vec<Value>> {
    match array(reply)?.into_iter().next() {
        None => Ok(Vec::new()),
        Some(stream) => {
            let entries = array(stream)?.into_iter().nth(1);
            array(entries.context("a stream without entries")?)
        }
    }
}

/// The id of an entry.
pub(crate) fn id(entry: &Value) -> anyhow::Result<&[u8]> {
    match entry {
        Value::Array(parts) => bytes(parts.first().context("an entry without an id")?),
        other => bail!("not an entry: {other:?}"),
    }
}

/// The command that adds an event of no aggregate to a feed.
pub(crate) fn add(feed: &str, event_type: &str, payload: &str, metadata: &str) -> Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(feed).arg("*");
    command.arg("type").arg(event_type);
    command.arg("payload").arg(payload);
    command.arg("metadata").arg(metadata);
    command
}

/// Follows a feed by XREAD BLOCK, on a connection of its own: nothing else can be asked on it while it
/// is blocked.
pub(crate) struct Follower {
    connection: MultiplexedConnection,
    feed: &'static str,
    after: Vec<u8>,
}

impl Follower {
    pub(crate) async fn connect(server: &RedisServer, feed: &'static str) -> anyhow::Result<Self> {
        Ok(Self {
            connection: connect(server).await?,
            feed,
            after: b"0-0".to_vec(),
        })
    }

    /// The payloads of what comes next, as [`add`] has added it.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(256).arg("BLOCK").arg(5_000);
        command.arg("STREAMS").arg(self.feed).arg(&self.after);
        let mut payloads = Vec::new();
        for entry in entries(ask(&mut self.connection, &command).await?)? {
            self.after = id(&entry)?.to_vec();
            let fields = array(entry)?.into_iter().nth(1).unwrap_or(Value::Nil);
            // type, payload and metadata, each behind its name.
            let payload = array(fields)?.into_iter().nth(3);
            payloads.push(bytes(&payload.context("an entry without a payload")?)?.to_vec());
        }
        Ok(payloads)
    }
}

/// What the append script takes of one event.
pub(crate) struct Arguments<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) payload: &'a str,
    pub(crate) metadata: &'a str,
    pub(crate) tail: &'a str,
}

/// The append script, as the server knows it.
#[derive(Clone)]
pub(crate) struct AppendScript {
    hash: String,
}

impl AppendScript {
    pub(crate) async fn load(connection: &mut MultiplexedConnection) -> anyhow::Result<Self> {
        ask(connection, redis::cmd("SCRIPT").arg("LOAD").arg(APPEND)).await?;
        Ok(Self {
            hash: Script::new(APPEND).get_hash().to_owned(),
        })
    }

    /// The call that appends events to an aggregate at a version, as the framework calls it.
    pub(crate) fn call<'a>(
        &self,
        feed: &str,
        order: &str,
        version: u64,
        events: impl ExactSizeIterator<Item = Arguments<'a>>,
    ) -> Cmd {
        let count = events.len();
        let mut command = Cmd::with_capacity(9 + 5 * count, 256 + 640 * count);
        command.write_arg(b"EVALSHA");
        command.write_arg(self.hash.as_bytes());
        command.write_arg(b"2");
        command.write_arg(feed.as_bytes());
        command.write_arg(history_key(feed, order).as_bytes());
        command.write_arg_fmt(version);
        command.write_arg(b"0");
        command.write_arg(b"");
        command.write_arg_fmt(format_args!(
            r#"{{"type":"order","id":"{order}","version":"#
        ));
        for event in events {
            command.write_arg(event.event_id.as_bytes());
            command.write_arg(event.event_type.as_bytes());
            command.write_arg(event.payload.as_bytes());
            command.write_arg(event.metadata.as_bytes());
            command.write_arg(event.tail.as_bytes());
        }
        command
    }
}

/// Makes sure that the append script has stored the events.
pub(crate) fn expect_stored(reply: &Value) -> anyhow::Result<()> {
    match reply {
        Value::Array(values) if values.first() == Some(&Value::Int(0)) => Ok(()),
        other => bail!("the events are not stored: {other:?}"),
    }
}

pub(crate) fn history_key(feed: &str, order: &str) -> String {
    format!("{{{feed}}}:history:order:{order}")
}

/// An element of a history, read in one pass into the event of its type: what somebody writes by
/// hand who knows the stored form, and has these two types.
pub(crate) struct Element {
    pub(crate) version: u64,
    pub(crate) event: OrderEvent,
}

impl Element {
    pub(crate) fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an element of a history")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Element, A::Error> {
                let incomplete = || A::Error::custom("an element is incomplete");
                let form: u8 = array.next_element()?.ok_or_else(incomplete)?;
                if form != 1 {
                    return Err(A::Error::custom("an element of another form"));
                }
                let version = array.next_element()?.ok_or_else(incomplete)?;
                array.next_element::<IgnoredAny>()?;
                let event = match array.next_element::<&str>()?.ok_or_else(incomplete)? {
                    "order.placed" => array.next_element::<Placed>()?.map(OrderEvent::Placed),
                    "order.item_added" => array
                        .next_element::<ItemAdded>()?
                        .map(OrderEvent::ItemAdded),
                    other => return Err(A::Error::custom(format_args!("unknown type {other}"))),
                };
                let event = event.ok_or_else(incomplete)?;
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element { version, event })
            }
        }

        deserializer.deserialize_seq(ElementVisitor)
    }
}
