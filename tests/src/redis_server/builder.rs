//! What a server is started with.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Error, RedisServer, binary};

/// The name of the configuration in the server's folder.
pub(super) const CONFIG_FILE: &str = "redis.conf";

/// How long a server may take for anything: also when every core is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(30);

/// How many ports are tried, each of which somebody else may be faster to take.
const PORT_ATTEMPTS: usize = 20;

/// Ports below those which Linux and macOS give to outgoing connections. A client that tries again
/// and again to reach a killed server would otherwise be given that server's own port in the end,
/// connect to itself, and keep the server from coming back.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// The most bytes of a socket's path, with the final NUL left out: macOS has less than Linux.
const SOCKET_PATH_LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// When the server writes what it was told to its append-only file, and syncs it to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aof {
    /// Never: a restart begins with nothing.
    Off,
    /// `appendfsync everysec`. A killed server may lose the last two seconds, also of what it had
    /// acknowledged.
    #[default]
    EverySecond,
    /// `appendfsync always`: what was acknowledged is there after a restart.
    Always,
}

/// Where the server listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// On a free port of 127.0.0.1.
    #[default]
    Tcp,
    /// On a socket in its folder, which takes less of the processor.
    Unix,
    /// On both.
    Both,
}

/// Describes a server that is to be started.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start` is called"]
pub struct RedisServerBuilder {
    aof: Aof,
    listen: Listen,
    primary: Option<SocketAddr>,
    config: Vec<(String, String)>,
    deadline: Duration,
}

impl RedisServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            aof: Aof::default(),
            listen: Listen::default(),
            primary: None,
            config: Vec::new(),
            deadline: DEADLINE,
        }
    }

    /// When the append-only file is written; every second by default.
    pub fn aof(mut self, aof: Aof) -> Self {
        self.aof = aof;
        self
    }

    /// Where it listens; on TCP by default.
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listen = listen;
        self
    }

    /// A line of `redis.conf`, after those written by this builder: `("maxmemory", "10mb")`,
    /// `("client-output-buffer-limit", "pubsub 1mb 1mb 1")`. A value with a space that is one
    /// argument needs quotes of its own.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((name.into(), value.into()));
        self
    }

    /// Makes it a replica of `primary`; [`start`](Self::start) then waits for the first copy of its
    /// data.
    ///
    /// # Errors
    ///
    /// [`Error::PrimaryWithoutTcp`] if `primary` listens on a unix socket only.
    pub fn replica_of(mut self, primary: &RedisServer) -> Result<Self, Error> {
        self.primary = Some(primary.tcp_address().ok_or(Error::PrimaryWithoutTcp)?);
        Ok(self)
    }

    /// How long a start, a command, a stop or a freeze may take; 30 seconds by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// The program is what `REDIS_SERVER_BIN` names, else `redis-server` or `valkey-server` on
    /// `PATH`.
    ///
    /// # Errors
    ///
    /// Every error says what to do. Those of a server that does not come up, [`Error::Exited`] and
    /// [`Error::NotReady`], quote the end of its log.
    pub fn start(self) -> Result<RedisServer, Error> {
        self.start_on(free_port)
    }

    /// As [`start`](Self::start), on the ports of `next_port`.
    pub(super) fn start_on(
        self,
        mut next_port: impl FnMut() -> Option<u16>,
    ) -> Result<RedisServer, Error> {
        let binary = binary::find()?;
        let folder = tempfile::Builder::new()
            .prefix("redis-")
            .tempdir()
            .map_err(|source| Error::Folder {
                path: std::env::temp_dir(),
                source,
            })?;
        let socket_path = match self.listen {
            Listen::Tcp => None,
            Listen::Unix | Listen::Both => Some(socket_path(folder.path())?),
        };
        let mut server = RedisServer {
            process: None,
            folder,
            binary,
            tcp_address: None,
            socket_path,
            deadline: self.deadline,
            log_start: 0,
        };
        for _ in 0..PORT_ATTEMPTS {
            server.tcp_address = match self.listen {
                Listen::Unix => None,
                Listen::Tcp | Listen::Both => match next_port() {
                    Some(port) => Some((Ipv4Addr::LOCALHOST, port).into()),
                    None => continue,
                },
            };
            self.write_config(&server)?;
            match server.launch() {
                Err(Error::Exited { log, .. }) if log.contains("Address already in use") => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    if self.primary.is_some() {
                        server.wait_for_first_copy()?;
                    }
                    return Ok(server);
                }
            }
        }
        Err(Error::NoFreePort {
            attempts: PORT_ATTEMPTS,
        })
    }

    fn write_config(&self, server: &RedisServer) -> Result<(), Error> {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| text.push_str(&format!("{name} {value}\n"));

        line("dir", &quoted(server.folder()));
        line("bind", "127.0.0.1");
        let port = server.tcp_address.map_or(0, |address| address.port());
        line("port", &port.to_string());
        if let Some(path) = &server.socket_path {
            line("unixsocket", &quoted(path));
        }
        line("save", "\"\"");
        match self.aof {
            Aof::Off => line("appendonly", "no"),
            Aof::EverySecond => {
                line("appendonly", "yes");
                line("appendfsync", "everysec");
            }
            Aof::Always => {
                line("appendonly", "yes");
                line("appendfsync", "always");
            }
        }
        // By default a primary waits 5 seconds for more replicas before it copies its data to one.
        line("repl-diskless-sync-delay", "0");
        if let Some(primary) = self.primary {
            line("replicaof", &format!("{} {}", primary.ip(), primary.port()));
        }
        for (name, value) in &self.config {
            line(name, value);
        }

        let path = server.folder().join(CONFIG_FILE);
        fs::write(&path, text).map_err(|source| Error::Folder { path, source })
    }
}

/// A path as one argument of a line of `redis.conf`.
fn quoted(path: &Path) -> String {
    let escaped = path
        .to_string_lossy()
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    format!("\"{escaped}\"")
}

fn socket_path(folder: &Path) -> Result<PathBuf, Error> {
    let path = folder.join("redis.sock");
    if path.as_os_str().len() > SOCKET_PATH_LIMIT {
        return Err(Error::SocketPathTooLong {
            path,
            limit: SOCKET_PATH_LIMIT,
        });
    }
    Ok(path)
}

/// A random port that nobody listens on at the moment.
fn free_port() -> Option<u16> {
    free_port_below(PORTS.end)
}

pub(super) fn free_port_below(end: u16) -> Option<u16> {
    // The standard library has no random numbers but the seeds of its hash maps.
    let random = RandomState::new().hash_one(());
    let span = u64::from(end - PORTS.start);
    let port = PORTS.start + u16::try_from(random % span).ok()?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    Some(port)
}
