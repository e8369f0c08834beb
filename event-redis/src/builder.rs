//! What can be chosen of a store, and connecting.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use event_core::{Backlogs, Backpressure, Category, DEFAULT_CAPACITY, Limits};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, ServerErrorKind};
use tokio::time::{Instant, sleep};

use crate::commit::Checks;
use crate::connection::{Connections, Connector, next_pause, pauses};
use crate::durability::{self, Durability, Replication};
use crate::error::{ConnectError, Remedy, boxed, is_denied, remedy};
use crate::keys::Keys;
use crate::partitions;
use crate::realtime::Publishing;
use crate::store::{Parts, RedisStore};

/// How long something is tried again before it is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait for a server that does not answer. Who starts a program wants to know soon.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// How long each of the questions about the server may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes a [`RedisStore`]. Made by [`RedisStore::builder`].
#[must_use = "nothing is connected before `connect` is called"]
pub struct RedisStoreBuilder {
    url: String,
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
        let connector = Connector::new(&self.url, self.root_certificate.take())?;
        let keys = Keys::new(std::mem::take(&mut self.prefix));
        let start = Instant::now();
        while let Err(error) = self.check(&connector, &keys).await {
            // A server that goes away while it is asked may be back at once.
            let is_gone = matches!(error, ConnectError::Unreachable { .. });
            if !is_gone || start.elapsed() >= CONNECT_PATIENCE.min(self.patience) {
                return Err(error);
            }
        }

        let wanted = self.durability.replicas();
        let connections = Connections::new(&connector, self.connections, self.patience);
        Ok(RedisStore::new(Parts {
            keys,
            limits: self.limits,
            connections: Arc::new(connections),
            replication: (wanted > 0).then(|| Replication::new(&connector, wanted, self.patience)),
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

    /// Looks whether the server can be used.
    async fn check(&self, connector: &Connector, keys: &Keys) -> Result<(), ConnectError> {
        let mut connection = self.first_connection(connector).await?;
        durability::check_version(connector, &mut connection).await?;
        let weaknesses =
            durability::weaknesses(connector, &mut connection, self.durability).await?;
        if !weaknesses.is_empty() {
            let error = ConnectError::TooWeak {
                address: connector.address().to_string(),
                durability: self.durability,
                weaknesses,
            };
            if !self.accepts_weaker {
                return Err(error);
            }
            tracing::warn!("accepted: {error}");
        }
        for (category, wanted) in &self.partitions {
            let found = partitions::record(&mut connection, keys, category, *wanted)
                .await
                .map_err(|error| durability::failed(connector, "EVALSHA partitions.lua", error))?;
            if found != *wanted {
                return Err(ConnectError::Partitions {
                    category: category.clone(),
                    wanted: *wanted,
                    found,
                });
            }
        }
        Ok(())
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
