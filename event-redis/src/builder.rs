//! What can be chosen of a store, and connecting.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use event_core::{Backlogs, Backpressure, Category, DEFAULT_CAPACITY, Limits};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, ServerErrorKind};
use tokio::time::{Instant, sleep};

#[cfg(feature = "cluster")]
use crate::cluster::{self, Cluster, Means};
use crate::commit::Checks;
#[cfg(feature = "cluster")]
use crate::connection::Request;
use crate::connection::{Connections, Connector, Links, next_pause, pauses};
use crate::durability::{self, Durability, Replication};
use crate::error::{ConnectError, Remedy, boxed, is_denied, remedy};
use crate::keys::Keys;
use crate::partitions;
use crate::realtime::Publishing;
#[cfg(feature = "cluster")]
use crate::scripts::PARTITIONS;
use crate::store::{Parts, RedisStore};

/// How long something is tried again before it is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait for a server that does not answer. Who starts a program wants to know soon.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// How long each of the questions about the server may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

const RECORDING: &str = "EVALSHA partitions.lua";

/// What there is at the URL.
enum Found {
    Server,
    #[cfg(feature = "cluster")]
    Cluster(Arc<Cluster>),
}

/// Makes a [`RedisStore`]. Made by [`RedisStore::builder`].
#[must_use = "nothing is connected before `connect` is called"]
pub struct RedisStoreBuilder {
    url: String,
    other_nodes: Vec<String>,
    root_certificate: Option<Vec<u8>>,
    prefix: String,
    connections: usize,
    limits: Limits,
    durability: Durability,
    accepts_weaker: bool,
    patience: Duration,
    partitions: BTreeMap<Category, u32>,
    checks: Checks,
    shares_slots: bool,
    publish_on_commit: HashSet<Category>,
    backlogs: Backlogs,
    realtime_capacity: usize,
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the URL, which may hold a password.
        f.debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("connections", &self.connections)
            .field("limits", &self.limits)
            .field("durability", &self.durability)
            .field("accepts_weaker", &self.accepts_weaker)
            .field("patience", &self.patience)
            .field("partitions", &self.partitions)
            .field("publish_on_commit", &self.publish_on_commit)
            .field("realtime_capacity", &self.realtime_capacity)
            .finish_non_exhaustive()
    }
}

impl RedisStoreBuilder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            other_nodes: Vec::new(),
            root_certificate: None,
            prefix: String::new(),
            connections: 1,
            limits: Limits::default(),
            durability: Durability::default(),
            accepts_weaker: false,
            patience: PATIENCE,
            partitions: BTreeMap::new(),
            checks: Checks {
                epoch: true,
                number: true,
                delivered: true,
            },
            shares_slots: true,
            publish_on_commit: HashSet::new(),
            backlogs: Backlogs::default(),
            realtime_capacity: DEFAULT_CAPACITY,
        }
    }

    /// The URL of another node of the same cluster, for when the first does not answer. One is enough
    /// to find all others. Where nodes are given, the server must be a node of a cluster.
    ///
    /// ```no_run
    /// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = event_redis::RedisStore::builder("redis://redis-1:6379/")
    ///     .node("redis://redis-2:6379/")
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "cluster")]
    pub fn node(mut self, url: impl Into<String>) -> Self {
        self.other_nodes.push(url.into());
        self
    }

    /// Begins every key with `prefix`, so that several applications can share a server. Channels of
    /// realtime events have no prefix.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Trusts a `rediss://` server by this certificate of an authority, in PEM, and not by those that
    /// the machine trusts. For one more authority beside those, the machine's own settings are the
    /// place; and the variable `SSL_CERT_FILE` names another file of certificates to trust.
    ///
    /// ```no_run
    /// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = event_redis::RedisStore::builder("rediss://redis.internal:6380/")
    ///     .root_certificate(std::fs::read("/etc/redis/ca.pem")?)
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Shares the work among so many connections; 1 by default, which is enough for most. Readers
    /// that follow a feed, and subscribers of realtime events, have one each beside these.
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count.max(1);
        self
    }

    /// How large an append may be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What the server must keep of what it has acknowledged.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Uses a server that cannot promise the durability, and only logs a warning.
    pub fn accept_weaker_durability(mut self) -> Self {
        self.accepts_weaker = true;
        self
    }

    /// How long something is tried again before it is an error; 30 seconds by default.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Spreads the events of a category over so many partitions, which are handled side by side. It is
    /// recorded when connecting, and never changes afterwards: a category that has events already
    /// keeps the number it has.
    pub fn partitions(mut self, category: Category, count: u32) -> Self {
        self.partitions.insert(category, count.max(1));
        self
    }

    /// Leaves a fault for tests that must find it: commits whatever the epoch of the lease is.
    #[doc(hidden)]
    pub fn without_epoch_check(mut self) -> Self {
        self.checks.epoch = false;
        self
    }

    /// Leaves a fault for tests that must find it: stores a commit that is repeated once more.
    #[doc(hidden)]
    pub fn without_commit_numbers(mut self) -> Self {
        self.checks.number = false;
        self
    }

    /// Leaves a fault for tests that must find it: stores what lies in an outbox whether or not it was
    /// delivered already.
    #[doc(hidden)]
    pub fn without_delivery_marks(mut self) -> Self {
        self.checks.delivered = false;
        self
    }

    /// Has each feed lie in a slot of its own, as it may in a cluster, so that what comes of that can be
    /// tested on one server.
    #[doc(hidden)]
    pub fn without_shared_slots(mut self) -> Self {
        self.shares_slots = false;
        self
    }

    /// Sends each event of a category by Pub/Sub, too, when it is stored.
    pub fn publish_on_commit(mut self, category: Category) -> Self {
        self.publish_on_commit.insert(category);
        self
    }

    /// Holds the producers of a category back while a group is too far behind.
    pub fn backpressure(mut self, rule: Backpressure) -> Self {
        self.backlogs = self.backlogs.with(rule);
        self
    }

    /// How many realtime events wait for a subscriber before the newest are dropped and counted;
    /// [`DEFAULT_CAPACITY`] by default.
    pub fn realtime_capacity(mut self, capacity: usize) -> Self {
        self.realtime_capacity = capacity;
        self
    }

    /// Connects, and looks whether the server can be used.
    ///
    /// # Errors
    /// [`ConnectError`], within a few seconds.
    pub async fn connect(mut self) -> Result<RedisStore, ConnectError> {
        if self.prefix.contains(['{', '}']) {
            return Err(ConnectError::InvalidPrefix {
                prefix: self.prefix,
            });
        }
        let certificate = self.root_certificate.take();
        let connector = Connector::new(&self.url, certificate.clone())?;
        let others = self.other_nodes.iter();
        let others = others.map(|url| Connector::new(url, certificate.clone()));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        let keys = Keys::new(std::mem::take(&mut self.prefix));
        let start = Instant::now();
        let found = loop {
            let error = match self.check(&connector, &others, &keys).await {
                Ok(found) => break found,
                Err(error) => error,
            };
            // A server that goes away while it is asked may be back at once.
            let is_gone = matches!(error, ConnectError::Unreachable { .. });
            if !is_gone || start.elapsed() >= CONNECT_PATIENCE.min(self.patience) {
                return Err(error);
            }
        };

        let wanted = self.durability.replicas();
        let (connections, replication) = match found {
            Found::Server => {
                let links = Links::new(&connector, self.connections, self.patience);
                let replication =
                    (wanted > 0).then(|| Replication::new(&connector, wanted, self.patience));
                (Connections::Server(Arc::new(links)), replication)
            }
            #[cfg(feature = "cluster")]
            Found::Cluster(cluster) => {
                let replication =
                    (wanted > 0).then(|| Replication::of_cluster(&cluster, wanted, self.patience));
                (Connections::Cluster(cluster), replication)
            }
        };
        Ok(RedisStore::new(Parts {
            keys,
            limits: self.limits,
            connections: Arc::new(connections),
            replication,
            checks: self.checks,
            shares_slots: self.shares_slots,
            publish_on_commit: self.publish_on_commit,
            backlogs: self.backlogs,
            publishing: Publishing::default(),
            realtime_capacity: self.realtime_capacity,
            patience: self.patience,
            connector,
        }))
    }

    /// Looks whether the server can be used, and what it is.
    async fn check(
        &self,
        connector: &Connector,
        others: &[Connector],
        keys: &Keys,
    ) -> Result<Found, ConnectError> {
        let mut first_error = None;
        for connector in [connector].into_iter().chain(others) {
            match self.first_connection(connector).await {
                Ok(connection) => {
                    let is_one_of_several = !others.is_empty();
                    return self
                        .check_on(connector, connection, is_one_of_several, others, keys)
                        .await;
                }
                Err(error @ ConnectError::Unreachable { .. }) => {
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_error.unwrap_or_else(|| ConnectError::Unreachable {
            address: connector.address().to_string(),
            source: "no connection could be made".into(),
        }))
    }

    async fn check_on(
        &self,
        connector: &Connector,
        mut connection: MultiplexedConnection,
        is_one_of_several: bool,
        others: &[Connector],
        keys: &Keys,
    ) -> Result<Found, ConnectError> {
        let address = || connector.address().to_string();
        if durability::check_version(connector, &mut connection).await? {
            #[cfg(feature = "cluster")]
            return self
                .check_cluster(connector, connection, others, keys)
                .await;
            #[cfg(not(feature = "cluster"))]
            {
                let _ = others;
                return Err(ConnectError::WithoutCluster { address: address() });
            }
        }
        if is_one_of_several {
            return Err(ConnectError::NoCluster { address: address() });
        }
        self.check_durability(connector, &mut connection).await?;
        for (category, wanted) in &self.partitions {
            let found = partitions::record(&mut connection, keys, category, *wanted)
                .await
                .map_err(|error| durability::failed(connector, RECORDING, error))?;
            self.check_partitions(category, *wanted, found)?;
        }
        Ok(Found::Server)
    }

    /// Looks at every primary of a cluster.
    #[cfg(feature = "cluster")]
    async fn check_cluster(
        &self,
        connector: &Connector,
        mut connection: MultiplexedConnection,
        others: &[Connector],
        keys: &Keys,
    ) -> Result<Found, ConnectError> {
        let failed = |error| durability::failed(connector, "CLUSTER SLOTS", error);
        let slots = cluster::ask(connector, &mut connection)
            .await
            .map_err(failed)?;
        for primary in slots.primaries(connector).map_err(failed)? {
            let mut connection = self.first_connection(&primary).await?;
            durability::check_version(&primary, &mut connection).await?;
            self.check_durability(&primary, &mut connection).await?;
        }
        let means = Means {
            first: connector.clone(),
            others: others.to_vec(),
            connections: self.connections,
            confirming: match self.durability.replicas() {
                0 => 0,
                _ => durability::REPLICATED_CONNECTIONS,
            },
            patience: self.patience,
        };
        let cluster = Cluster::new(means, slots);
        for (category, wanted) in &self.partitions {
            let command = partitions::recording(keys, category, *wanted);
            let reply = cluster
                .ask("partitions", Request::Command(&command), Some(&PARTITIONS))
                .await
                .map_err(|error| durability::not_done(connector, RECORDING, error))?;
            let found = partitions::recorded(keys, category, &reply);
            self.check_partitions(category, *wanted, found)?;
        }
        Ok(Found::Cluster(Arc::new(cluster)))
    }

    async fn check_durability(
        &self,
        connector: &Connector,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), ConnectError> {
        let weaknesses = durability::weaknesses(connector, connection, self.durability).await?;
        if weaknesses.is_empty() {
            return Ok(());
        }
        let error = ConnectError::TooWeak {
            address: connector.address().to_string(),
            durability: self.durability,
            weaknesses,
        };
        if !self.accepts_weaker {
            return Err(error);
        }
        tracing::warn!("accepted: {error}");
        Ok(())
    }

    fn check_partitions(
        &self,
        category: &Category,
        wanted: u32,
        found: u32,
    ) -> Result<(), ConnectError> {
        if found == wanted {
            return Ok(());
        }
        Err(ConnectError::Partitions {
            category: category.clone(),
            wanted,
            found,
        })
    }

    async fn first_connection(
        &self,
        connector: &Connector,
    ) -> Result<MultiplexedConnection, ConnectError> {
        let start = Instant::now();
        let mut pauses = pauses();
        loop {
            let error = match connector.connect(CHECK_TIMEOUT).await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            let address = connector.address().to_string();
            if is_denied(&error) {
                return Err(ConnectError::Denied {
                    address,
                    source: boxed(error),
                });
            }
            if remedy(&error) == Remedy::Nothing {
                return Err(ConnectError::Refused {
                    address,
                    command: "PING",
                    source: boxed(error),
                });
            }
            // A server that is loading its data does answer, and will be ready.
            let is_loading = error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading);
            let patience = if is_loading {
                self.patience
            } else {
                CONNECT_PATIENCE.min(self.patience)
            };
            let pause = next_pause(&mut pauses);
            if start.elapsed() + pause >= patience {
                return Err(ConnectError::Unreachable {
                    address,
                    source: boxed(error),
                });
            }
            sleep(pause).await;
        }
    }
}
