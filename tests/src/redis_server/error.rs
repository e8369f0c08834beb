//! What can go wrong with a server of a test.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a server could not be started, reached or signalled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither the environment nor `PATH` names a server.
    #[error(
        "no redis-server or valkey-server on PATH: run the tests by `cargo xtask test`, which \
         installs one, or set REDIS_SERVER_BIN to the path of one"
    )]
    NoBinary,

    /// `REDIS_SERVER_BIN` is set to something that cannot be run.
    #[error(
        "REDIS_SERVER_BIN is set to {path:?}, which is no executable file: correct it, or unset \
         it to take redis-server from PATH"
    )]
    NotExecutable {
        /// What the variable holds.
        path: PathBuf,
    },

    /// The server's folder, or a file in it, could not be written or read.
    #[error("cannot use {path:?}: {source}; check the space and the rights there, or set TMPDIR")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The path of the unix socket is longer than the operating system takes.
    #[error(
        "the socket path {path:?} is longer than the {limit} bytes a unix socket may have: set \
         TMPDIR to a shorter folder, or listen on TCP"
    )]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// The most bytes it may have.
        limit: usize,
    },

    /// No TCP port was free, or each was taken before the server could bind it.
    #[error(
        "found no free TCP port in {attempts} attempts: end the servers that are left over, or \
         listen on a unix socket"
    )]
    NoFreePort {
        /// How many ports were tried.
        attempts: usize,
    },

    /// The operating system did not start the process.
    #[error("cannot start {program:?}: {source}; check that it is installed and may be run")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The server ended by itself before it answered.
    #[error(
        "the server ended ({status}) before it answered: correct what its log complains of\n{log}"
    )]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },

    /// The server runs, but did not get ready in time.
    #[error(
        "the server was not ready after {waited:?} (its last answer: {answer}): see its log for \
         what it was doing, or give it a longer `deadline`\n{log}"
    )]
    NotReady {
        /// How long was waited.
        waited: Duration,
        /// The last answer, or why there was none.
        answer: String,
        /// The end of its log.
        log: String,
    },

    /// The replica runs, but has no copy of its primary's data yet.
    #[error(
        "the replica had no copy of its primary's data after {waited:?}: see whether the primary \
         runs and is not frozen, or give it a longer `deadline`\n{log}"
    )]
    NotReplicating {
        /// How long was waited.
        waited: Duration,
        /// The end of its log.
        log: String,
    },

    /// A replica was to follow a server that has no TCP port.
    #[error(
        "a replica reaches its primary by TCP only: start the primary with `Listen::Tcp` or \
         `Listen::Both`"
    )]
    PrimaryWithoutTcp,

    /// The server was killed or stopped before.
    #[error("the server is not running: call `restart` first")]
    NotRunning,

    /// The nodes of a cluster have not become one, or one does not serve what it should.
    #[error(
        "no node of the cluster {what} after {waited:?}: see whether its port plus 10000 is free; \
         its log ends with:\n{log}"
    )]
    NoCluster {
        /// What is not so.
        what: &'static str,
        /// How long was waited.
        waited: Duration,
        /// The end of a node's log.
        log: String,
    },

    /// The server still runs, although it was told to end or to halt.
    #[error(
        "the server (process {pid}) still ran {waited:?} after it was told to end or to halt: \
         `thaw` it first if it is frozen, or `kill` it"
    )]
    StillRunning {
        /// Its process id.
        pid: u32,
        /// How long was waited.
        waited: Duration,
    },

    /// A signal could not be sent.
    #[error(
        "cannot send SIG{signal} to the server (process {pid}): {reason}; see with `log` whether \
         it ended by itself"
    )]
    Signal {
        /// The signal's name, without `SIG`.
        signal: &'static str,
        /// The server's process id.
        pid: u32,
        /// What was answered.
        reason: String,
    },

    /// The server could not be reached, or did not answer in time.
    #[error("no answer from {address}: {source}; see whether the server is frozen or was killed")]
    Connection {
        /// Where it should listen.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },

    /// The server answered the command with an error.
    #[error("the server refused {command}: {message}")]
    Refused {
        /// The name of the command.
        command: String,
        /// The server's own words, which begin with a code such as `ERR` or `WRONGTYPE`.
        message: String,
    },
}
