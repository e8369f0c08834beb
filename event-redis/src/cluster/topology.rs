//! Which node serves which slot, as far as is known.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, Pipeline, RedisError, Value};

use super::{Means, Node, SLOTS};
use crate::connection::Connector;
use crate::wire::{self, Unreadable};

/// What the server answers to `CLUSTER SLOTS`, as far as primaries go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    ranges: Vec<Range>,
    /// Grows with each failover: a node that has missed one knows of an older one.
    epoch: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    place: Place,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
}

/// Asks a node who serves which slot.
pub(crate) async fn ask(
    connector: &Connector,
    connection: &mut MultiplexedConnection,
) -> Result<Slots, RedisError> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("CLUSTER").arg("SLOTS");
    pipeline.cmd("CLUSTER").arg("INFO");
    let replies = connection.send_packed_commands(&pipeline, 0, 2).await?;
    let mut replies = replies.into_iter();
    let slots = match (replies.next(), replies.next()) {
        (Some(Value::ServerError(error)), _) | (_, Some(Value::ServerError(error))) => {
            return Err(error.into());
        }
        (Some(slots), Some(info)) => Slots::parse(slots, &info, connector.host()),
        _ => Err("too few replies"),
    };
    match slots {
        Ok(slots) if slots.ranges.is_empty() => {
            Err((ErrorKind::Io, "no node of the cluster serves any slot").into())
        }
        Ok(slots) => Ok(slots),
        Err(what) => Err((ErrorKind::Parse, "CLUSTER SLOTS", what.to_owned()).into()),
    }
}

impl Slots {
    /// `asked` is the host of the node that has answered, for nodes that do not know their own.
    fn parse(reply: Value, info: &Value, asked: &str) -> Result<Self, Unreadable> {
        let epoch = wire::text(info)?
            .lines()
            .find_map(|line| line.strip_prefix("cluster_current_epoch:"))
            .and_then(|epoch| epoch.trim().parse().ok())
            .ok_or("no cluster_current_epoch")?;
        let mut ranges = Vec::new();
        for range in wire::array(reply)? {
            let range = wire::array(range)?;
            let [first, last, primary, ..] = range.as_slice() else {
                return Err("a range with too few parts");
            };
            let slot = |value| {
                let slot = u16::try_from(wire::count(value)?).ok();
                slot.filter(|slot| *slot < SLOTS).ok_or("no slot")
            };
            let Value::Array(primary) = primary else {
                return Err("a node that is no array");
            };
            let [host, port, ..] = primary.as_slice() else {
                return Err("a node with too few parts");
            };
            let host = match host {
                Value::Nil => asked,
                host => match wire::text(host)? {
                    "" => asked,
                    // It says of itself that nobody knows where it is.
                    "?" => continue,
                    host => host,
                },
            };
            ranges.push(Range {
                first: slot(first)?,
                last: slot(last)?,
                place: Place {
                    host: host.to_owned(),
                    port: u16::try_from(wire::count(port)?).map_err(|_| "no port")?,
                },
            });
        }
        Ok(Self { ranges, epoch })
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What makes connections to each of the primaries.
    pub(crate) fn primaries(&self, connector: &Connector) -> Result<Vec<Connector>, RedisError> {
        let mut places: Vec<&Place> = Vec::new();
        for Range { place, .. } in &self.ranges {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        let connectors = places.into_iter();
        connectors
            .map(|place| connector.at(&place.host, place.port))
            .collect()
    }
}

/// Which node serves which slot.
#[derive(Clone, Default)]
pub(crate) struct Topology {
    nodes: Vec<(Place, Arc<Node>)>,
    /// For each slot which of the nodes.
    owners: Vec<Option<u16>>,
    /// The newest epoch that a node has told of.
    epoch: u64,
}

impl Topology {
    pub(crate) fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        let index = *self.owners.get(usize::from(slot))?;
        let (_, node) = self.nodes.get(usize::from(index?))?;
        Some(node)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().map(|(_, node)| node)
    }

    /// Those that serve slots.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &Arc<Node>> {
        let indices: BTreeSet<usize> = self
            .owners
            .iter()
            .flatten()
            .map(|index| usize::from(*index))
            .collect();
        indices
            .into_iter()
            .filter_map(|index| self.nodes.get(index))
            .map(|(_, node)| node)
    }

    /// The node at a place, if it is known.
    pub(crate) fn known(&self, host: &str, port: u16) -> Option<&Arc<Node>> {
        let mut known = self.nodes.iter();
        let known = known.find(|(place, _)| place.port == port && place.host == host);
        known.map(|(_, node)| node)
    }

    /// The node at a place, which is connected to if it was not known.
    pub(crate) fn node(
        &self,
        host: &str,
        port: u16,
        means: &Means,
    ) -> Result<Arc<Node>, RedisError> {
        match self.known(host, port) {
            Some(node) => Ok(Arc::clone(node)),
            // A node leaves its host out where it does not know it.
            None if host.is_empty() => means.node_at(means.first.host(), port),
            None => means.node_at(host, port),
        }
    }

    /// Whether it is what a node says.
    pub(crate) fn says(&self, slots: &Slots) -> bool {
        let mut places = vec![None; usize::from(SLOTS)];
        for Range { first, last, place } in &slots.ranges {
            for owner in places
                .iter_mut()
                .take(usize::from(*last) + 1)
                .skip(usize::from(*first))
            {
                *owner = Some(place);
            }
        }
        let known = self.owners.iter().map(|index| {
            let (place, _) = self.nodes.get(usize::from((*index)?))?;
            Some(place)
        });
        self.epoch == slots.epoch && self.owners.len() == places.len() && known.eq(places)
    }

    /// What a node says. The nodes that were known already keep their connections.
    pub(crate) fn with(&self, slots: Slots, means: &Means) -> Self {
        let mut nodes: Vec<(Place, Arc<Node>)> = Vec::new();
        let mut owners = vec![None; usize::from(SLOTS)];
        for Range { first, last, place } in slots.ranges {
            let known = nodes.iter().position(|(other, _)| *other == place);
            let index = match known {
                Some(index) => index,
                None => {
                    let node = match self.node(&place.host, place.port, means) {
                        Ok(node) => node,
                        Err(error) => {
                            tracing::warn!(host = place.host, port = place.port, %error, "a node of the cluster cannot be used");
                            continue;
                        }
                    };
                    nodes.push((place, node));
                    nodes.len() - 1
                }
            };
            let index = u16::try_from(index).ok();
            for owner in owners
                .iter_mut()
                .take(usize::from(last) + 1)
                .skip(usize::from(first))
            {
                *owner = index;
            }
        }
        Self {
            nodes,
            owners,
            epoch: slots.epoch,
        }
    }

    /// The same, and a node that has no slots.
    pub(crate) fn with_node(&self, host: &str, port: u16, node: Arc<Node>) -> Self {
        let mut topology = self.clone();
        let host = host.to_owned();
        topology.nodes.push((Place { host, port }, node));
        topology
    }

    /// The same, but for the owner of one slot.
    pub(crate) fn with_owner(&self, slot: u16, host: &str, port: u16, node: Arc<Node>) -> Self {
        let is_node = |(_, one): &(Place, Arc<Node>)| Arc::ptr_eq(one, &node);
        let (mut topology, index) = match self.nodes.iter().position(is_node) {
            Some(index) => (self.clone(), index),
            None => (self.with_node(host, port, node), self.nodes.len()),
        };
        if let Some(owner) = topology.owners.get_mut(usize::from(slot)) {
            *owner = u16::try_from(index).ok();
        }
        topology
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = |host, port| Value::Array(vec![host, Value::Int(port)]);
        let replica = node(text("replica"), 1);
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            node(host, port),
            replica,
        ])
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn info() -> Value {
        text("cluster_state:ok\r\ncluster_current_epoch:6\r\ncluster_my_epoch:2\r\n")
    }

    fn slots(ranges: Vec<Value>) -> Slots {
        Slots::parse(Value::Array(ranges), &info(), "asked").unwrap()
    }

    fn means() -> Means {
        Means {
            first: Connector::new("redis://seed:7", None).unwrap(),
            others: Vec::new(),
            connections: 1,
            confirming: 0,
            patience: Duration::from_secs(1),
        }
    }

    fn address(topology: &Topology, slot: u16) -> Option<String> {
        let node = topology.owner(slot)?;
        Some(node.links.connector().address().to_string())
    }

    #[test]
    fn a_node_that_does_not_know_its_host_is_where_it_was_asked() {
        let slots = slots(vec![
            range(0, 1, Value::Nil, 5),
            range(2, 3, text(""), 6),
            range(4, 5, text("?"), 7),
            range(6, 16_383, text("b"), 8),
        ]);
        let places = slots
            .ranges
            .iter()
            .map(|range| (range.place.host.as_str(), range.place.port));
        assert!(places.eq([("asked", 5), ("asked", 6), ("b", 8)]));
        assert!(
            Slots::parse(
                Value::Array(vec![range(0, 16_384, text("a"), 1)]),
                &info(),
                ""
            )
            .is_err()
        );
    }

    #[tokio::test]
    async fn nodes_that_stay_keep_their_connections() {
        let means = means();
        let before = vec![range(0, 99, text("a"), 1), range(100, 16_383, text("b"), 1)];
        let topology = Topology::default().with(slots(before), &means);
        let at = |topology: &Topology, slot| address(topology, slot).unwrap_or_default();
        assert_eq!(at(&topology, 99), "redis://a:1");
        assert_eq!(at(&topology, 100), "redis://b:1");

        let after = || {
            slots(vec![
                range(0, 9, text("c"), 1),
                range(10, 199, text("b"), 1),
            ])
        };
        assert!(!topology.says(&after()));
        let later = topology.with(after(), &means);
        assert!(later.says(&after()));
        assert_eq!(at(&later, 0), "redis://c:1");
        let (old, new) = (topology.owner(100).unwrap(), later.owner(10).unwrap());
        assert!(Arc::ptr_eq(old, new));
        assert_eq!(address(&later, 200), None);

        let node = later.node("d", 1, &means).unwrap();
        let moved = later.with_owner(200, "d", 1, node);
        assert_eq!(at(&moved, 200), "redis://d:1");
        assert_eq!(at(&moved, 10), "redis://b:1");
        assert!(moved.known("d", 1).is_some());
    }
}
