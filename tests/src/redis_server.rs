//! A Redis server of a test's own, which can be killed, frozen and restarted.
//!
//! Everything that starts a real server goes through this module. Calls block, so that they can be
//! used from any test and any benchmark; in asynchronous code they are short enough to be called as
//! they are, or go through `spawn_blocking`.
//!
//! ```
//! use event_tests::RedisServer;
//! use event_tests::redis_server::{Aof, Error};
//!
//! # fn main() -> Result<(), Error> {
//! let mut server = RedisServer::builder().aof(Aof::Always).start()?;
//! server.command(&["SET", "greeting", "hello"])?;
//! server.kill();
//! server.restart()?;
//! assert_eq!(server.command(&["GET", "greeting"])?, "hello");
//! # Ok(())
//! # }
//! ```

mod binary;
mod builder;
mod cluster;
mod connection;
mod error;
mod process;

#[cfg(test)]
mod tests;

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use builder::{Aof, Listen, RedisServerBuilder};
pub use cluster::RedisCluster;
use connection::{Address, Reply};
pub use error::Error;
use process::{Process, Signal};

/// How long to wait before a condition is looked at again: nothing tells when a server starts to
/// answer.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How long one try to reach a server that is starting may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How many lines of a server's log an error quotes.
const QUOTED_LINES: usize = 25;

/// A Redis server with a folder of its own.
///
/// The server is killed and its folder removed when this value is dropped, and also when the test
/// process panics, exits, aborts or is killed itself. It may therefore be kept in a `static`.
#[derive(Debug)]
pub struct RedisServer {
    // Before the folder, since fields are dropped in this order and a running server writes to it.
    process: Option<Process>,
    folder: TempDir,
    binary: PathBuf,
    tcp_address: Option<SocketAddr>,
    socket_path: Option<PathBuf>,
    deadline: Duration,
    /// Where in the log the current process begins.
    log_start: u64,
}

impl RedisServer {
    /// A server on a free TCP port, which syncs its AOF every second.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`].
    pub fn start() -> Result<Self, Error> {
        Self::builder().start()
    }

    /// A server to be described before it starts.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::new()
    }

    /// The address for clients: `redis://127.0.0.1:PORT/` if it listens on TCP, else
    /// `redis+unix:///PATH`.
    ///
    /// It stays the same over [`restart`](Self::restart).
    pub fn url(&self) -> String {
        match self.tcp_address {
            Some(address) => format!("redis://{address}/"),
            None => self.unix_url().unwrap_or_default(),
        }
    }

    /// The address of its unix socket, `redis+unix:///PATH`, if it listens on one.
    pub fn unix_url(&self) -> Option<String> {
        self.socket_path
            .as_deref()
            .map(|path| format!("redis+unix://{}", percent_encoded(path)))
    }

    /// Its TCP address, if it listens on one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp_address
    }

    /// The path of its unix socket, if it listens on one.
    pub fn socket_path(&self) -> Option<&Path> {
        self.socket_path.as_deref()
    }

    /// The folder that holds its configuration, log and AOF.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id, unless it was killed or stopped.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Everything it has logged, over all restarts.
    ///
    /// # Errors
    ///
    /// [`Error::Folder`] if the log cannot be read.
    pub fn log(&self) -> Result<String, Error> {
        let path = self.log_path();
        match fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(source) => Err(Error::Folder { path, source }),
        }
    }

    /// Sends one command on a connection of its own, and returns the reply as `redis-cli --raw`
    /// prints it: arrays one element a line, nothing for nil.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the server answers with an error, [`Error::Connection`] if it does not
    /// answer within its deadline, [`Error::NotRunning`] after [`kill`](Self::kill) or
    /// [`stop`](Self::stop).
    pub fn command(&self, words: &[&str]) -> Result<String, Error> {
        if self.process.is_none() {
            return Err(Error::NotRunning);
        }
        self.ask(words, self.deadline)
    }

    /// Kills it with `SIGKILL`, frozen or not. Its folder stays.
    ///
    /// Does nothing if it is not running.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it with `SIGTERM` to write out what it has and to end, and waits until it has. Its
    /// folder stays.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], or [`Error::StillRunning`] if it has not ended within its deadline.
    pub fn stop(&mut self) -> Result<(), Error> {
        let deadline = self.deadline;
        let process = self.process.as_mut().ok_or(Error::NotRunning)?;
        let pid = process.pid();
        process.signal(Signal::Terminate)?;
        wait_until(deadline, || process.exit_status().is_some())
            .map_err(|waited| Error::StillRunning { pid, waited })?;
        self.process = None;
        Ok(())
    }

    /// Starts it again with the same address, configuration and folder, and waits until it has
    /// read its AOF and answers. If it still runs, it is [stopped](Self::stop) first.
    ///
    /// # Errors
    ///
    /// As [`stop`](Self::stop) and [`RedisServerBuilder::start`].
    pub fn restart(&mut self) -> Result<(), Error> {
        if self.process.is_some() {
            self.stop()?;
        }
        self.launch()
    }

    /// Halts it with `SIGSTOP`, and waits until it is halted: connections stay open and nothing is
    /// answered any more.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], [`Error::Signal`], or [`Error::StillRunning`] if it is not halted
    /// within its deadline.
    pub fn freeze(&self) -> Result<(), Error> {
        let process = self.process.as_ref().ok_or(Error::NotRunning)?;
        process.signal(Signal::Stop)?;
        wait_until(self.deadline, || process.is_halted()).map_err(|waited| Error::StillRunning {
            pid: process.pid(),
            waited,
        })
    }

    /// Lets it go on after [`freeze`](Self::freeze), and waits until it answers again.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], [`Error::Signal`], or [`Error::Connection`] if it does not answer
    /// within its deadline.
    pub fn thaw(&self) -> Result<(), Error> {
        let process = self.process.as_ref().ok_or(Error::NotRunning)?;
        process.signal(Signal::Continue)?;
        self.command(&["PING"]).map(drop)
    }

    /// Starts the process, and waits until it and no other server answers.
    fn launch(&mut self) -> Result<(), Error> {
        let path = self.log_path();
        let opened = OpenOptions::new().append(true).create(true).open(&path);
        let (log, length) = opened
            .and_then(|log| log.metadata().map(|metadata| (log, metadata.len())))
            .map_err(|source| Error::Folder { path, source })?;
        self.log_start = length;
        let config = self.folder().join(builder::CONFIG_FILE);
        let mut process = Process::spawn(&self.binary, &config, log, self.folder())?;

        let mut exited = None;
        let mut answer = "none".to_owned();
        let ready = wait_until(self.deadline, || {
            exited = process.exit_status();
            exited.is_some()
                || match self.is_answered_by(process.pid()) {
                    Ok(own) => own,
                    Err(error) => {
                        answer = error.to_string();
                        false
                    }
                }
        });
        match (exited, ready) {
            (Some(status), _) => Err(Error::Exited {
                status,
                log: self.end_of_log(),
            }),
            (None, Err(waited)) => Err(Error::NotReady {
                waited,
                answer,
                log: self.end_of_log(),
            }),
            (None, Ok(())) => {
                self.process = Some(process);
                Ok(())
            }
        }
    }

    /// Whether what answers at the address is the process `pid`: another server may have taken the
    /// port, and ours is about to end because of it.
    fn is_answered_by(&self, pid: u32) -> Result<bool, Error> {
        // INFO is answered while the AOF is still being read, PING is not.
        self.ask(&["PING"], PING_TIMEOUT)?;
        let info = self.ask(&["INFO", "server"], PING_TIMEOUT)?;
        Ok(field(&info, "process_id") == Some(pid.to_string().as_str()))
    }

    /// Waits until a replica has its first copy of the primary's data.
    fn wait_for_first_copy(&self) -> Result<(), Error> {
        wait_until(self.deadline, || {
            self.ask(&["INFO", "replication"], PING_TIMEOUT)
                .is_ok_and(|info| field(&info, "master_link_status") == Some("up"))
        })
        .map_err(|waited| Error::NotReplicating {
            waited,
            log: self.end_of_log(),
        })
    }

    fn ask(&self, words: &[&str], timeout: Duration) -> Result<String, Error> {
        let address = match (&self.socket_path, self.tcp_address) {
            (Some(path), _) => Address::Unix(path),
            (None, Some(address)) => Address::Tcp(address),
            (None, None) => return Err(Error::NotRunning),
        };
        match connection::ask(address, words, timeout) {
            Ok(Reply::Text(text)) => Ok(text),
            Ok(Reply::Error(message)) => Err(Error::Refused {
                command: words.first().copied().unwrap_or_default().to_owned(),
                message,
            }),
            Err(source) => Err(Error::Connection {
                address: self.url(),
                source,
            }),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder().join("redis.log")
    }

    /// The last lines the current process has logged, for an error that must not fail itself.
    fn end_of_log(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(0).min(log.len());
        let log = String::from_utf8_lossy(&log[start..]);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }
}

/// Looks at a condition until it holds, or returns how long it has not.
fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<(), Duration> {
    let start = Instant::now();
    while !condition() {
        let waited = start.elapsed();
        if waited >= deadline {
            return Err(waited);
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// A field of the text that `INFO` answers with.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// A path as it stands in a URL: `TMPDIR` may hold spaces.
fn percent_encoded(path: &Path) -> String {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|&byte| match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
