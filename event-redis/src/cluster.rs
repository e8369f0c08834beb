//! A cluster: which node serves which slot, and asking that one.
//!
//! The client library has a connection to clusters, too. We do not use it: while it refreshes what it
//! knows of the slots it sends nothing to any node, and the refresh waits for nodes that do not answer.
//! Tried with redis 1.8.1 and one of three nodes frozen: a slot that moved between the two others held
//! up all requests to these for 5.0 s, its whole response timeout, and for 0.06 s here. It also asks
//! again by itself, without knowing of our patience, and blocking readers would need connections of
//! their own in any case. So each primary has [`Links`] of its own, which are supervised as those to a
//! single server, and a task that is never waited for learns who serves what:
//!
//! - `MOVED` tells the new owner of one slot, and is believed at once
//! - whatever else goes wrong, and a reply that takes its time, has the task ask all nodes, of which
//!   the first counts that knows of the newest epoch
//! - whoever waits for a node that has been replaced leaves it at once: it may come back, and believe
//!   for a moment that it is what it was
//! - `ASK` sends one request, and only that one, to the node that a slot is moving to

mod topology;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crc::{CRC_16_XMODEM, Crc};
use event_core::StoreError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{Arg, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::{sleep, timeout, timeout_at};

use crate::connection::{AbortOnDrop, Attempts, Connector, Link, Links, Live, Request};
use crate::error::{Remedy, refused, remedy};
use crate::scripts::Script;
pub(crate) use topology::ask;
use topology::{Slots, Topology};

/// The checksum by which keys are spread over slots.
const CHECKSUM: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// The pause before it is asked again who serves which slot.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// How long a node may take to say who serves which slot.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is asked where nothing is in doubt: readers wait for long, and notice nothing.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3);

/// How often somebody who waits for a node has it looked whether another has taken its place.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The slot of a key: that of what stands in its first braces, if anything does.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let find = |byte, bytes: &[u8]| bytes.iter().position(|found| *found == byte);
    let tag = find(b'{', key).and_then(|open| {
        let rest = &key[open + 1..];
        find(b'}', rest).map(|close| &rest[..close])
    });
    let hashed = match tag {
        Some(tag) if !tag.is_empty() => tag,
        _ => key,
    };
    CHECKSUM.checksum(hashed) % SLOTS
}

/// The slot of the first key of a command; `None` where it has none. It knows the commands that a store
/// sends.
fn slot_of(command: &Cmd) -> Option<u16> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => b"",
    });
    let key = match words.next()? {
        b"EVALSHA" => words.nth(2),
        b"XINFO" => words.nth(1),
        b"XREADGROUP" => {
            // Behind the names of the group and of the consumer.
            words.nth(2)?;
            words.find(|word| *word == b"STREAMS")?;
            words.next()
        }
        b"PUBLISH" | b"TIME" | b"WAIT" => None,
        _ => words.next(),
    };
    key.map(slot)
}

impl Request<'_> {
    /// The slot that it concerns, if any.
    fn slot(&self) -> Option<u16> {
        match self {
            Request::Command(command) => slot_of(command),
            Request::Pipeline(pipeline) => pipeline.cmd_iter().find_map(slot_of),
        }
    }

    /// Asks a node that a slot is moving to.
    async fn send_asking(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Value, RedisError> {
        let commands: Vec<&Cmd> = match self {
            Request::Command(command) => vec![command],
            Request::Pipeline(pipeline) => pipeline.cmd_iter().collect(),
        };
        // It holds for the next command alone.
        let mut asking = Pipeline::with_capacity(2 * commands.len());
        for command in commands {
            asking.cmd("ASKING").add_command(command.clone());
        }
        let replies = match Request::Pipeline(&asking).send(connection).await? {
            Value::Array(replies) => replies.into_iter().skip(1).step_by(2),
            other => return Ok(other),
        };
        match self {
            Request::Pipeline(_) => Ok(Value::Array(replies.collect())),
            Request::Command(_) => match replies.last() {
                Some(Value::ServerError(error)) => Err(error.into()),
                Some(reply) => Ok(reply),
                None => Err((ErrorKind::Parse, "no reply").into()),
            },
        }
    }
}

/// A primary.
pub(crate) struct Node {
    links: Arc<Links>,
    /// Links on which appends wait for replicas, each of which serves one append at a time.
    confirming: Vec<AsyncMutex<Links>>,
}

/// How a cluster is connected to.
pub(crate) struct Means {
    /// That by which it was found, and the others that were given, for when no node that is known
    /// answers any more.
    pub(crate) first: Connector,
    pub(crate) others: Vec<Connector>,
    /// How many links there are to each node.
    pub(crate) connections: usize,
    /// And how many on which appends wait for replicas.
    pub(crate) confirming: usize,
    pub(crate) patience: Duration,
}

impl Means {
    fn node_at(&self, host: &str, port: u16) -> Result<Arc<Node>, RedisError> {
        let connector = self.first.at(host, port)?;
        let links = |count| Links::new(&connector, count, self.patience);
        Ok(Arc::new(Node {
            links: Arc::new(links(self.connections)),
            confirming: (0..self.confirming)
                .map(|_| AsyncMutex::new(links(1)))
                .collect(),
        }))
    }
}

/// What the callers and the task share.
struct Shared {
    means: Means,
    topology: watch::Sender<Arc<Topology>>,
    doubted: Notify,
    /// The node by which messages are published, for as long as it is there.
    voice: Mutex<Option<Arc<Node>>>,
}

/// The primaries of a cluster.
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    refresher: Mutex<Option<AbortOnDrop>>,
}

/// Which links of a node are asked.
#[derive(Clone, Copy)]
enum Which {
    Next,
    First,
    Confirming(usize),
}

impl Cluster {
    pub(crate) fn new(means: Means, slots: Slots) -> Self {
        let topology = Topology::default().with(slots, &means);
        let cluster = Self {
            shared: Arc::new(Shared {
                topology: watch::Sender::new(Arc::new(topology)),
                means,
                doubted: Notify::new(),
                voice: Mutex::new(None),
            }),
            refresher: Mutex::new(None),
        };
        cluster.keep_refreshed();
        cluster
    }

    /// The node that serves a slot, as far as is known.
    fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        self.shared.topology.borrow().owner(slot).cloned()
    }

    /// Links to the node that serves a slot, as far as is known.
    pub(crate) fn serving(&self, slot: Option<u16>) -> Result<Arc<Links>, RedisError> {
        let owner = match slot {
            Some(slot) => self.owner(slot),
            None => self.shared.voice(),
        };
        match owner {
            Some(node) => Ok(Arc::clone(&node.links)),
            None => Err(unserved(slot)),
        }
    }

    /// Links to every node that serves slots, as far as is known.
    pub(crate) fn primaries(&self) -> Vec<Arc<Links>> {
        let topology = Arc::clone(&self.shared.topology.borrow());
        let owners = topology.owners();
        owners.map(|node| Arc::clone(&node.links)).collect()
    }

    /// Links to the node that a slot is moving to, where an error says so.
    pub(crate) fn moving_to(&self, error: &RedisError) -> Option<Arc<Links>> {
        let is_moving = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
        let node = is_moving.then(|| self.redirected(error)).flatten()?;
        Some(Arc::clone(&node.links))
    }

    /// Waits until another node serves a slot.
    pub(crate) async fn left(&self, slot: u16, links: &Arc<Links>) {
        let mut topologies = self.shared.topology.subscribe();
        let is_left = |topology: &Arc<Topology>| {
            let owner = topology.owner(slot);
            owner.is_some_and(|owner| !Arc::ptr_eq(&owner.links, links))
        };
        if topologies.wait_for(is_left).await.is_err() {
            std::future::pending().await
        }
    }

    /// Learns from an error: the owner of a slot, or that what is known may be wrong.
    pub(crate) fn learn(&self, error: &RedisError) {
        let is_moved = error.kind() == ErrorKind::Server(ServerErrorKind::Moved);
        let is_noted = is_moved && self.shared.note_owner(error).is_some();
        if !is_noted {
            self.doubt();
        }
    }

    /// The node that an error names.
    fn redirected(&self, error: &RedisError) -> Option<Arc<Node>> {
        let (_, host, port) = redirection(error)?;
        let shared = &self.shared;
        let mut named = None;
        shared.topology.send_if_modified(|topology| {
            named = topology.known(host, port).cloned();
            if named.is_some() {
                return false;
            }
            // One that has no slots yet. It is kept, so that it is not connected to each time.
            named = topology.node(host, port, &shared.means).ok();
            if let Some(node) = &named {
                let node = Arc::clone(node);
                *topology = Arc::new(topology.with_node(host, port, node));
            }
            named.is_some()
        });
        named
    }

    /// Has it looked who serves what.
    fn doubt(&self) {
        self.keep_refreshed();
        self.shared.doubted.notify_one();
    }

    /// Starts the task, if it does not run: at first, or after the runtime it ran on has ended.
    fn keep_refreshed(&self) {
        let mut refresher = self
            .refresher
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if refresher.as_ref().is_none_or(|task| task.0.is_finished()) {
            let task = refresh(Arc::clone(&self.shared));
            *refresher = Some(AbortOnDrop(tokio::spawn(task)));
        }
    }

    /// Asks the node that serves the first key; any, where there is none.
    pub(crate) async fn ask(
        &self,
        operation: &'static str,
        request: Request<'_>,
        script: Option<&Script>,
    ) -> Result<Value, StoreError> {
        self.ask_on(Which::Next, operation, request, script).await
    }

    /// Asks for what has no key, always the same node while it is there.
    pub(crate) async fn ask_in_order(
        &self,
        operation: &'static str,
        request: Request<'_>,
    ) -> Result<Value, StoreError> {
        self.ask_on(Which::First, operation, request, None).await
    }

    /// Asks on one of the links on which appends wait for replicas.
    pub(crate) async fn ask_confirmed(
        &self,
        turn: usize,
        operation: &'static str,
        request: Request<'_>,
        script: &Script,
    ) -> Result<Value, StoreError> {
        let which = Which::Confirming(turn);
        self.ask_on(which, operation, request, Some(script)).await
    }

    async fn ask_on(
        &self,
        which: Which,
        operation: &'static str,
        request: Request<'_>,
        script: Option<&Script>,
    ) -> Result<Value, StoreError> {
        let slot = request.slot();
        let mut attempts = Attempts::new(operation, self.shared.means.patience);
        let mut moving_to: Option<Arc<Node>> = None;
        loop {
            let (node, is_asking) = match moving_to.take() {
                Some(node) => (node, true),
                None => match slot.map_or_else(|| self.shared.voice(), |slot| self.owner(slot)) {
                    Some(node) => (node, false),
                    None => {
                        self.doubt();
                        attempts.pause(unserved(slot)).await?;
                        continue;
                    }
                },
            };
            let links;
            let link = match which {
                Which::Next => node.links.next(),
                Which::First => node.links.first(),
                Which::Confirming(turn) => {
                    let turn = turn % node.confirming.len().max(1);
                    let Some(confirming) = node.confirming.get(turn) else {
                        return Err(attempts.over());
                    };
                    let Ok(locked) = timeout_at(attempts.deadline(), confirming.lock()).await
                    else {
                        return Err(attempts.over());
                    };
                    links = locked;
                    links.first()
                }
            };
            let Some(mut live) = self.connected(slot, &node, link, &mut attempts).await? else {
                continue;
            };
            let sent = if is_asking {
                request.send_asking(&mut live.connection).await
            } else {
                tokio::select! {
                    biased;
                    sent = request.send(&mut live.connection) => sent,
                    () = self.replaced(slot, &node) => continue,
                }
            };
            let error = match sent {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match remedy(&error) {
                Remedy::Nothing => return Err(refused(operation, error)),
                Remedy::AskElsewhere => {
                    if error.kind() == ErrorKind::Server(ServerErrorKind::Ask) {
                        if let Request::Pipeline(pipeline) = &request
                            && pipeline.len() > 1
                        {
                            return Box::pin(self.ask_each(which, operation, pipeline)).await;
                        }
                        moving_to = self.redirected(&error);
                    } else {
                        self.learn(&error);
                    }
                    attempts.again(error).await?;
                }
                Remedy::Reconnect => {
                    // What the node has said itself is no sign of a broken connection.
                    if !matches!(error.kind(), ErrorKind::Server(_)) {
                        link.report(live.number, error.clone());
                    }
                    self.doubt();
                    attempts.pause(error).await?;
                }
                Remedy::Wait => attempts.pause(error).await?,
                Remedy::LoadScript => {
                    if let Some(script) = script {
                        live.load(script).await;
                    }
                    attempts.again(error).await?;
                }
            }
        }
    }

    /// Asks the commands of a pipeline one by one: while a slot moves, one of its keys may be here, and
    /// another there.
    async fn ask_each(
        &self,
        which: Which,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<Value, StoreError> {
        let mut replies = Vec::with_capacity(pipeline.len());
        for command in pipeline.cmd_iter() {
            let mut one = Pipeline::with_capacity(1);
            one.add_command(command.clone());
            let reply = self.ask_on(which, operation, Request::Pipeline(&one), None);
            match reply.await? {
                Value::Array(reply) => replies.extend(reply),
                other => replies.push(other),
            }
        }
        Ok(Value::Array(replies))
    }

    /// Waits, for a request that takes its time, until another node serves the slot.
    async fn replaced(&self, slot: Option<u16>, node: &Arc<Node>) {
        let Some(slot) = slot else {
            return std::future::pending().await;
        };
        sleep(LOOK_AGAIN).await;
        let doubting = async {
            loop {
                self.doubt();
                sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! {
            () = self.left(slot, &node.links) => {}
            () = doubting => {}
        }
    }

    /// The connection of a link, as soon as there is one; `None` where another node is to be asked
    /// meanwhile.
    async fn connected(
        &self,
        slot: Option<u16>,
        node: &Arc<Node>,
        link: &Link,
        attempts: &mut Attempts,
    ) -> Result<Option<Live>, StoreError> {
        if let Some(live) = link.live() {
            return Ok(Some(live));
        }
        let elsewhere = async {
            match slot {
                Some(slot) => self.left(slot, &node.links).await,
                // Any other will do.
                None => sleep(LOOK_AGAIN).await,
            }
        };
        let doubting = async {
            loop {
                self.doubt();
                sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! {
            biased;
            live = link.wait(attempts) => live.map(Some),
            () = elsewhere => Ok(None),
            () = doubting => Ok(None),
        }
    }

    /// What makes connections to the node by which messages are published.
    pub(crate) fn voice(&self) -> Connector {
        match self.shared.voice() {
            Some(node) => node.links.connector().clone(),
            None => self.shared.means.first.clone(),
        }
    }
}

impl Shared {
    /// The node by which messages are published: the same for as long as it is there, so that they
    /// keep their order.
    fn voice(&self) -> Option<Arc<Node>> {
        let topology = Arc::clone(&self.topology.borrow());
        let mut voice = self.voice.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is not connected to yet is not given up: who subscribes connects sooner.
        let is_kept = |node: &Arc<Node>| {
            let is_known = topology.nodes().any(|one| Arc::ptr_eq(one, node));
            is_known && !node.links.first().is_broken()
        };
        if !voice.as_ref().is_some_and(is_kept) {
            let mut nodes = topology.nodes();
            let there = nodes.find(|node| node.links.first().live().is_some());
            *voice = there.or_else(|| topology.nodes().next()).cloned();
        }
        voice.clone()
    }

    /// Notes the owner of a slot that an error names.
    fn note_owner(&self, error: &RedisError) -> Option<()> {
        let (slot, host, port) = redirection(error)?;
        let mut is_noted = None;
        self.topology.send_if_modified(|topology| {
            let Ok(node) = topology.node(host, port, &self.means) else {
                return false;
            };
            is_noted = Some(());
            let owner = topology.owner(slot);
            let is_news = owner.is_none_or(|owner| !Arc::ptr_eq(owner, &node));
            if is_news {
                *topology = Arc::new(topology.with_owner(slot, host, port, node));
            }
            is_news
        });
        is_noted
    }
}

/// The slot, the host and the port that an error names.
fn redirection(error: &RedisError) -> Option<(u16, &str, u16)> {
    let (place, slot) = error.redirect_node()?;
    let (host, port) = place.rsplit_once(':')?;
    Some((slot, host, port.parse().ok()?))
}

fn unserved(slot: Option<u16>) -> RedisError {
    let what = match slot {
        Some(slot) => format!("slot {slot}"),
        None => "any slot".to_owned(),
    };
    (ErrorKind::Io, "no node of the cluster serves", what).into()
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topology = Arc::clone(&self.shared.topology.borrow());
        f.debug_struct("Cluster")
            .field("nodes", &topology.nodes().count())
            .field("patience", &self.shared.means.patience)
            .finish_non_exhaustive()
    }
}

/// Asks who serves what whenever that is in doubt.
async fn refresh(shared: Arc<Shared>) {
    loop {
        // Without a doubt it is time.
        let _ = timeout(REFRESH_INTERVAL, shared.doubted.notified()).await;
        match newest(&shared).await {
            Some(slots) => shared.topology.send_if_modified(|topology| {
                let is_news = !topology.says(&slots);
                if is_news {
                    tracing::info!("the cluster has changed");
                    *topology = Arc::new(topology.with(slots, &shared.means));
                }
                is_news
            }),
            None => {
                tracing::warn!("no node says who serves which slot; trying again");
                false
            }
        };
        sleep(REFRESH_PAUSE).await;
    }
}

/// What the first says that knows of the newest epoch: of the nodes to which there is a connection, else
/// of all.
async fn newest(shared: &Shared) -> Option<Slots> {
    let topology = Arc::clone(&shared.topology.borrow());
    let answers = topology
        .nodes()
        .filter_map(|node| Some((node.links.connector(), node.links.first().live()?)))
        .map(|(connector, mut live)| async move {
            let asking = topology::ask(connector, &mut live.connection);
            timeout(REFRESH_TIMEOUT, asking).await.ok()?.ok()
        });
    if let Some(slots) = first_of(topology.epoch(), answers.collect()).await {
        return Some(slots);
    }
    // Names may stand for other servers by now.
    let connectors = topology.nodes().map(|node| node.links.connector());
    let answers = connectors
        .chain([&shared.means.first])
        .chain(&shared.means.others)
        .map(|connector| async move {
            let asking = async {
                let mut connection = connector.connect(REFRESH_TIMEOUT).await?;
                topology::ask(connector, &mut connection).await
            };
            timeout(REFRESH_TIMEOUT, asking).await.ok()?.ok()
        });
    first_of(topology.epoch(), answers.collect()).await
}

/// The first answer of an epoch, or a newer one; where there is none, the newest there is: the cluster
/// may have been made anew.
async fn first_of(
    epoch: u64,
    mut answers: FuturesUnordered<impl Future<Output = Option<Slots>>>,
) -> Option<Slots> {
    let mut older: Option<Slots> = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Some(slots) if slots.epoch() >= epoch => return Some(slots),
            Some(slots)
                if older
                    .as_ref()
                    .is_none_or(|older| older.epoch() < slots.epoch()) =>
            {
                older = Some(slots);
            }
            _ => {}
        }
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12_182);
        // What stands in the first braces counts, unless that is nothing.
        assert_eq!(slot(b"{events:shop}:history:a}b"), slot(b"events:shop"));
        assert_eq!(slot(b"a{b}{c}"), slot(b"b"));
        assert_ne!(slot(b"a{}b"), slot(b""));
        assert_ne!(slot(b"a{}{b}"), slot(b"b"));
        assert_eq!(slot(b"a{b"), CHECKSUM.checksum(b"a{b") % SLOTS);
        assert_eq!(slot(b"{{b}}"), slot(b"{b"));
    }

    #[test]
    fn a_command_is_for_the_slot_of_its_first_key() {
        let of = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            slot_of(&command)
        };
        let key = Some(slot(b"k"));
        assert_eq!(of(&["EVALSHA", "hash", "2", "k", "l", "m"]), key);
        assert_eq!(of(&["EVALSHA", "hash", "0"]), None);
        assert_eq!(of(&["XINFO", "STREAM", "k"]), key);
        assert_eq!(of(&["XRANGE", "k", "-", "+"]), key);
        let taking = [
            "XREADGROUP",
            "GROUP",
            "STREAMS",
            "STREAMS",
            "COUNT",
            "1",
            "STREAMS",
            "k",
            ">",
        ];
        assert_eq!(of(&taking), key);
        assert_eq!(of(&["PUBLISH", "k", "message"]), None);
        assert_eq!(of(&["TIME"]), None);

        let mut pipeline = Pipeline::new();
        pipeline.cmd("TIME").cmd("XLEN").arg("k");
        assert_eq!(Request::Pipeline(&pipeline).slot(), key);
    }
}
