//! A cluster of servers of a test's own.

use super::builder::free_port_below;
use super::{Aof, Error, RedisServer, field, wait_until};

/// How many slots a cluster has.
const SLOTS: usize = 16_384;

/// How many primaries there are: the fewest of which a majority is left when one is gone.
const PRIMARIES: usize = 3;

/// Each node also listens on the port that is so much higher, for the others.
const BUS: u16 = 10_000;

/// Ports of which the higher ones, too, are given to no outgoing connection.
const HIGHEST_PORT: u16 = 32_000 - BUS;

/// After so many milliseconds without an answer a node is thought to be gone. After half of that, its
/// links to the others are replaced, with all messages that wait in them: where nodes are only slow,
/// because the machine is busy, that must not happen.
const NODE_TIMEOUT: &str = "5000";

/// The same where replicas are to take over.
const NODE_TIMEOUT_WITH_REPLICAS: &str = "1000";

/// How many keys are moved at once.
const KEYS_AT_ONCE: &str = "100";

/// A Redis Cluster of three primaries, with a replica for each where that is asked for.
///
/// What is left of it goes on where a node is gone (`cluster-require-full-coverage no`), and a node is
/// gone after five seconds, or after one where it has a replica.
///
/// ```
/// use event_tests::redis_server::{Error, RedisCluster};
///
/// # fn main() -> Result<(), Error> {
/// let cluster = RedisCluster::start()?;
/// let owner = cluster.owner_of("greeting")?;
/// cluster.node(owner).command(&["SET", "greeting", "hello"])?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RedisCluster {
    /// The primaries first, and then the replica of each.
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Three primaries.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`](super::RedisServerBuilder::start), and [`Error::NoCluster`]
    /// if the nodes do not come to know each other.
    pub fn start() -> Result<Self, Error> {
        Self::of(PRIMARIES, NODE_TIMEOUT)
    }

    /// Three primaries, numbered from 0, and the replica of each, which have the numbers behind.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn with_replicas() -> Result<Self, Error> {
        let cluster = Self::of(2 * PRIMARIES, NODE_TIMEOUT_WITH_REPLICAS)?;
        for number in 0..PRIMARIES {
            let id = cluster.nodes[number].command(&["CLUSTER", "MYID"])?;
            let replica = &cluster.nodes[PRIMARIES + number];
            replica.command(&["CLUSTER", "REPLICATE", id.trim()])?;
        }
        for replica in &cluster.nodes[PRIMARIES..] {
            replica.wait_for_first_copy()?;
        }
        // A primary that does not know yet that somebody copies it, is not failed over.
        cluster.wait("knows its replicas", |node| {
            let slots = node.command(&["CLUSTER", "NODES"])?;
            let is_replica = |line: &&str| line.contains("slave");
            Ok(slots.lines().filter(is_replica).count() == PRIMARIES)
        })?;
        Ok(cluster)
    }

    /// Three primaries, and a node that has no slots yet, whose number is 3.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn with_empty_node() -> Result<Self, Error> {
        Self::of(PRIMARIES + 1, NODE_TIMEOUT)
    }

    fn of(count: usize, node_timeout: &str) -> Result<Self, Error> {
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            let builder = RedisServer::builder()
                .aof(Aof::EverySecond)
                .config("cluster-enabled", "yes")
                .config("cluster-config-file", "nodes.conf")
                .config("cluster-node-timeout", node_timeout)
                .config("cluster-require-full-coverage", "no")
                // A replica stands for election however long it has heard nothing.
                .config("cluster-replica-validity-factor", "0");
            nodes.push(builder.start_on(|| free_port_below(HIGHEST_PORT))?);
        }
        let cluster = Self { nodes };
        for (number, node) in cluster.nodes.iter().enumerate() {
            let epoch = (number + 1).to_string();
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])?;
            if number < PRIMARIES {
                let first = (number * SLOTS / PRIMARIES).to_string();
                let last = ((number + 1) * SLOTS / PRIMARIES - 1).to_string();
                node.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
            }
        }
        for node in &cluster.nodes[1..] {
            let port = node.tcp_address().map_or(0, |address| address.port());
            let port = port.to_string();
            cluster.nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port])?;
        }
        let known = count.to_string();
        cluster.wait("knows all others", |node| {
            let info = node.command(&["CLUSTER", "INFO"])?;
            let is = |name, value| field(&info, name) == Some(value);
            let nodes = node.command(&["CLUSTER", "NODES"])?;
            Ok(is("cluster_state", "ok")
                && is("cluster_slots_ok", "16384")
                && is("cluster_known_nodes", &known)
                && !nodes.contains("handshake"))
        })?;
        cluster.wait_for_agreement()?;
        Ok(cluster)
    }

    /// Waits until something is so on every node that runs.
    fn wait(
        &self,
        what: &'static str,
        mut is_so: impl FnMut(&RedisServer) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        for node in &self.nodes {
            if node.process.is_none() {
                continue;
            }
            wait_until(node.deadline, || is_so(node).unwrap_or(false)).map_err(|waited| {
                Error::NoCluster {
                    what,
                    waited,
                    log: node.end_of_log(),
                }
            })?;
        }
        Ok(())
    }

    /// The address of the first node, for clients.
    pub fn url(&self) -> String {
        self.nodes[0].url()
    }

    /// The addresses of all nodes, for clients.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// All nodes: the primaries first, and then the replica of each, as they were in the beginning.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// A node by its number, counted from 0.
    pub fn node(&self, number: usize) -> &RedisServer {
        &self.nodes[number]
    }

    /// A node that is to be killed or restarted.
    pub fn node_mut(&mut self, number: usize) -> &mut RedisServer {
        &mut self.nodes[number]
    }

    /// Sends a command to each of the primaries.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::command`].
    pub fn on_primaries(&self, words: &[&str]) -> Result<(), Error> {
        for node in &self.nodes[..PRIMARIES] {
            node.command(words)?;
        }
        Ok(())
    }

    /// The slot of a key, as the server computes it.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::command`].
    pub fn slot_of(&self, key: &str) -> Result<usize, Error> {
        let slot = self.nodes[0].command(&["CLUSTER", "KEYSLOT", key])?;
        Ok(slot.trim().parse().unwrap_or(SLOTS))
    }

    /// The number of the node that serves a key, as the nodes see it that run.
    ///
    /// # Errors
    ///
    /// [`Error::NoCluster`] if none serves it within the deadline.
    pub fn owner_of(&self, key: &str) -> Result<usize, Error> {
        for (number, node) in self.nodes.iter().enumerate() {
            // A replica sends to its primary, and so does everybody who is not the owner.
            if node.process.is_some() && node.command(&["EXISTS", key]).is_ok() {
                return Ok(number);
            }
        }
        Err(Error::NoCluster {
            what: "serves the key",
            waited: std::time::Duration::ZERO,
            log: String::new(),
        })
    }

    /// Waits until a node serves a key.
    ///
    /// # Errors
    ///
    /// [`Error::NoCluster`] if that does not happen within the deadline.
    pub fn wait_for_owner(&self, key: &str, number: usize) -> Result<(), Error> {
        let owner = &self.nodes[number];
        wait_until(owner.deadline, || owner.command(&["EXISTS", key]).is_ok()).map_err(|waited| {
            Error::NoCluster {
                what: "serves the key",
                waited,
                log: owner.end_of_log(),
            }
        })
    }

    /// Moves the slot of a key with everything in it to another node, as `redis-cli --cluster reshard`
    /// does. `meanwhile` is called when the slot is moving and nothing has moved yet, and after each
    /// few keys.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::command`].
    pub fn move_slot(
        &self,
        key: &str,
        to: usize,
        mut meanwhile: impl FnMut(),
    ) -> Result<(), Error> {
        let slot = self.slot_of(key)?.to_string();
        let source = &self.nodes[self.owner_of(key)?];
        let target = &self.nodes[to];
        let id = |node: &RedisServer| node.command(&["CLUSTER", "MYID"]);
        let (source_id, target_id) = (id(source)?, id(target)?);
        let port = target.tcp_address().map_or(0, |address| address.port());
        let port = port.to_string();
        target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", source_id.trim()])?;
        source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", target_id.trim()])?;
        meanwhile();
        loop {
            let keys = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, KEYS_AT_ONCE])?;
            let keys: Vec<&str> = keys.lines().collect();
            if keys.is_empty() {
                break;
            }
            for key in keys {
                source.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"])?;
            }
            meanwhile();
        }
        // The target first, so that there is no moment in which nobody serves it.
        for node in [target, source] {
            node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", target_id.trim()])?;
        }
        self.wait_for_agreement()
    }

    /// Waits until all nodes that run say the same of who serves what. A slot that is moved before may
    /// be taken from its new owner, by a node that has heard of the former one last.
    ///
    /// # Errors
    ///
    /// [`Error::NoCluster`] if that does not happen within the deadline.
    pub fn wait_for_agreement(&self) -> Result<(), Error> {
        let view = |node: &RedisServer| {
            let nodes = node.command(&["CLUSTER", "NODES"])?;
            let mut view: Vec<String> = nodes.lines().map(served).collect();
            view.sort_unstable();
            Ok::<_, Error>(view)
        };
        let running = || self.nodes.iter().filter(|node| node.process.is_some());
        let deadline = self.nodes[0].deadline;
        let is_agreed = || {
            let views: Result<Vec<_>, _> = running().map(view).collect();
            views.is_ok_and(|views| views.windows(2).all(|pair| pair[0] == pair[1]))
        };
        wait_until(deadline, is_agreed).map_err(|waited| Error::NoCluster {
            what: "agrees with all others",
            waited,
            log: self.nodes[0].end_of_log(),
        })
    }
}

/// Of a line of `CLUSTER NODES` the node, its epoch and its slots, but not those that are moving.
fn served(line: &str) -> String {
    let words = line.split_whitespace().enumerate();
    let told = words
        .filter(|(index, word)| matches!(index, 0 | 6) || *index >= 8 && !word.starts_with('['));
    let told: Vec<&str> = told.map(|(_, word)| word).collect();
    told.join(" ")
}
