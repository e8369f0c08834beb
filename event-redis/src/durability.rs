//! What the server must keep of what it has acknowledged.

use std::fmt;
#[cfg(feature = "cluster")]
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_core::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;

#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
use crate::connection::{Connector, Links, Request};
use crate::error::{
    ConnectError, Remedy, UnexpectedReply, Weakness, boxed, refused, remedy, unavailable,
};
use crate::scripts::Script;
use crate::wire;

/// What the server must keep of what it has acknowledged. Its settings are looked at when
/// connecting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// What fits in memory, for as long as the server runs.
    Memory,
    /// All but the last two seconds, should the server or its machine end at once
    /// (`appendfsync everysec` may be one second late).
    #[default]
    EverySecond,
    /// Everything: it is on the disk before it is acknowledged (`appendfsync always`).
    Fsync,
    /// As [`EverySecond`](Durability::EverySecond), and each append is confirmed by so many
    /// replicas. A failover may still choose a replica that is not among them.
    Replicated(u32),
}

impl Durability {
    /// The `appendfsync` that is needed, if any.
    fn appendfsync(self) -> Option<&'static str> {
        match self {
            Durability::Memory => None,
            Durability::EverySecond | Durability::Replicated(_) => Some("everysec"),
            Durability::Fsync => Some("always"),
        }
    }

    /// How many replicas are needed.
    pub(crate) fn replicas(self) -> u32 {
        match self {
            Durability::Replicated(count) => count,
            _ => 0,
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Memory => f.write_str("`Durability::Memory`"),
            Durability::EverySecond => f.write_str("`Durability::EverySecond`"),
            Durability::Fsync => f.write_str("`Durability::Fsync`"),
            Durability::Replicated(count) => write!(f, "`Durability::Replicated({count})`"),
        }
    }
}

/// Makes sure that the server is new enough; says whether it is a node of a cluster.
pub(crate) async fn check_version(
    connector: &Connector,
    connection: &mut MultiplexedConnection,
) -> Result<bool, ConnectError> {
    let info = info(connector, connection, "server").await?;
    let redis = field(&info, "redis_version").unwrap_or("0");
    // Valkey also says which Redis it is compatible with, which tells less.
    let (name, version, needed) = match field(&info, "valkey_version") {
        Some(version) => ("Valkey", version, (7, 2)),
        None => ("Redis", redis, (7, 0)),
    };
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found: (u32, u32) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    if found < needed {
        return Err(ConnectError::TooOld {
            address: connector.address().to_string(),
            found: format!("{name} {version}"),
        });
    }
    let mode = field(&info, "redis_mode").or_else(|| field(&info, "server_mode"));
    Ok(mode == Some("cluster"))
}

/// Everything that stands against a durability.
pub(crate) async fn weaknesses(
    connector: &Connector,
    connection: &mut MultiplexedConnection,
    durability: Durability,
) -> Result<Vec<Weakness>, ConnectError> {
    let mut weaknesses = Vec::new();
    let mut command = redis::cmd("CONFIG");
    command
        .arg("GET")
        .arg("maxmemory-policy")
        .arg("appendonly")
        .arg("appendfsync");
    match ask(connection, &command).await {
        Ok(settings) => {
            let settings = settings_of(settings);
            let setting = |name: &str| {
                settings
                    .iter()
                    .find(|(key, _)| key == name)
                    .map_or("", |(_, value)| value)
            };
            let policy = setting("maxmemory-policy");
            if policy != "noeviction" {
                weaknesses.push(Weakness::Evicts {
                    policy: policy.to_owned(),
                });
            }
            if let Some(needed) = durability.appendfsync() {
                let found = setting("appendfsync");
                if setting("appendonly") != "yes" {
                    weaknesses.push(Weakness::NoAppendOnlyFile);
                }
                if found != needed && found != "always" {
                    weaknesses.push(Weakness::SyncsTooRarely {
                        found: found.to_owned(),
                        needed,
                    });
                }
            }
        }
        // Some providers have taken the command away.
        Err(error) if remedy(&error) == Remedy::Nothing => weaknesses.push(Weakness::Unknown {
            answer: boxed(error).to_string(),
            user: connector.user().to_owned(),
        }),
        Err(error) => return Err(failed(connector, "CONFIG GET", error)),
    }
    let needed = durability.replicas();
    if needed > 0 {
        let info = info(connector, connection, "replication").await?;
        let found = field(&info, "connected_slaves")
            .and_then(|count| count.parse().ok())
            .unwrap_or(0);
        if found < needed {
            weaknesses.push(Weakness::TooFewReplicas { found, needed });
        }
    }
    Ok(weaknesses)
}

async fn info(
    connector: &Connector,
    connection: &mut MultiplexedConnection,
    section: &str,
) -> Result<String, ConnectError> {
    let mut command = redis::cmd("INFO");
    command.arg(section);
    let reply = ask(connection, &command)
        .await
        .map_err(|error| failed(connector, "INFO", error))?;
    Ok(match &reply {
        Value::VerbatimString { text, .. } => text.clone(),
        reply => String::from_utf8_lossy(wire::slice(reply).unwrap_or_default()).into_owned(),
    })
}

async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, RedisError> {
    match connection.send_packed_command(command).await? {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

/// Why a question about the server was not answered: it refuses, or it has gone meanwhile.
pub(crate) fn failed(
    connector: &Connector,
    command: &'static str,
    error: RedisError,
) -> ConnectError {
    let address = connector.address().to_string();
    match remedy(&error) {
        Remedy::Nothing => ConnectError::Refused {
            address,
            command,
            source: boxed(error),
        },
        _ => ConnectError::Unreachable {
            address,
            source: boxed(error),
        },
    }
}

/// As [`failed`], where the store has asked again already.
#[cfg(feature = "cluster")]
pub(crate) fn not_done(
    connector: &Connector,
    command: &'static str,
    error: StoreError,
) -> ConnectError {
    let address = connector.address().to_string();
    match error {
        StoreError::Refused { source, .. } | StoreError::Forgotten { source, .. } => {
            ConnectError::Refused {
                address,
                command,
                source,
            }
        }
        StoreError::Unavailable { source, .. } => ConnectError::Unreachable { address, source },
        // Nothing is read of a feed while connecting.
        error @ StoreError::FeedTrimmed { .. } => ConnectError::Refused {
            address,
            command,
            source: error.into(),
        },
    }
}

/// A field of the text that `INFO` answers with.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key == name).then_some(value.trim()))
}

/// The names and values that `CONFIG GET` answers with.
fn settings_of(reply: Value) -> Vec<(String, String)> {
    let text = |value: &Value| {
        String::from_utf8_lossy(wire::slice(value).unwrap_or_default()).into_owned()
    };
    wire::array(reply)
        .unwrap_or_default()
        .chunks_exact(2)
        .map(|pair| (text(&pair[0]), text(&pair[1])))
        .collect()
}

/// How long an append waits for replicas.
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections on which appends wait for replicas. `WAIT` holds up everything behind it, so that
/// each of them serves one append at a time.
pub(crate) const REPLICATED_CONNECTIONS: usize = 8;

/// Appends that replicas confirm.
#[derive(Debug)]
pub(crate) struct Replication {
    wanted: u32,
    confirming: Confirming,
    turn: AtomicUsize,
    patience: Duration,
}

/// Where appends are confirmed.
#[derive(Debug)]
enum Confirming {
    Server(Vec<Mutex<Links>>),
    #[cfg(feature = "cluster")]
    Cluster(Arc<Cluster>),
}

impl Replication {
    pub(crate) fn new(connector: &Connector, wanted: u32, patience: Duration) -> Self {
        let links = (0..REPLICATED_CONNECTIONS)
            .map(|_| Mutex::new(Links::new(connector, 1, patience)))
            .collect();
        Self::by(Confirming::Server(links), wanted, patience)
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn of_cluster(cluster: &Arc<Cluster>, wanted: u32, patience: Duration) -> Self {
        Self::by(Confirming::Cluster(Arc::clone(cluster)), wanted, patience)
    }

    fn by(confirming: Confirming, wanted: u32, patience: Duration) -> Self {
        Self {
            wanted,
            confirming,
            turn: AtomicUsize::new(0),
            patience,
        }
    }

    pub(crate) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Calls a script, and says how many replicas have what it wrote.
    pub(crate) async fn ask(
        &self,
        operation: &'static str,
        command: Cmd,
        script: &Script,
    ) -> Result<(Value, u32), StoreError> {
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.wanted)
            .arg(REPLICATION_TIMEOUT.as_millis() as u64);
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(command).add_command(wait);

        let request = Request::Pipeline(&pipeline);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let reply = match &self.confirming {
            Confirming::Server(links) => {
                let links = timeout(self.patience, links[turn % links.len()].lock())
                    .await
                    .map_err(|_| unavailable(operation, self.patience, None))?;
                links.ask(operation, request, Some(script)).await?
            }
            #[cfg(feature = "cluster")]
            Confirming::Cluster(cluster) => {
                cluster
                    .ask_confirmed(turn, operation, request, script)
                    .await?
            }
        };
        let mut replies = wire::array(reply).unwrap_or_default().into_iter();
        match (replies.next(), replies.next()) {
            (Some(Value::ServerError(error)), _) | (_, Some(Value::ServerError(error))) => {
                Err(refused(operation, error.into()))
            }
            (Some(reply), Some(Value::Int(reached))) => {
                Ok((reply, u32::try_from(reached).unwrap_or_default()))
            }
            _ => Err(UnexpectedReply::form("WAIT", "not a number").refused(operation)),
        }
    }
}
