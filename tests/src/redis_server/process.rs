//! The server's process, and the watchdog that ends it when its owner cannot.
//!
//! `Drop` ends the server when a test returns or panics. It does not run when the test process is
//! killed, aborts, or keeps the server in a `static`. For these there is a watchdog: a shell that
//! reads from a pipe of which the test process holds the only other end. Whatever ends the test
//! process closes that end, and the watchdog kills the server and removes its folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::Error;

const SHELL: &str = "sh";

/// The first line is the server's process id, a second one says that the server is gone; the end of
/// input instead of it says that its owner is.
const WATCHDOG: &str = r#"
read -r pid || exit 0
read -r _ && exit 0
kill -KILL "-$pid"
rm -rf -- "$1"
"#;

/// Names the process to the watchdog before the server runs in it, so that no moment is left in
/// which the server runs and the watchdog does not know of it.
const SERVER: &str = r#"echo $$; exec "$0" "$@" >&2"#;

/// What a process can be told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    /// Ends it on the spot.
    Kill,
    /// Asks it to end.
    Terminate,
    /// Halts it.
    Stop,
    /// Lets it go on.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Terminate => "TERM",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// A running server with its watchdog. Dropping it kills the server.
#[derive(Debug)]
pub(super) struct Process {
    server: Child,
    watchdog: Watchdog,
}

impl Process {
    /// Runs `binary` with the file `config`, its output appended to `log`.
    ///
    /// `folder` is what the watchdog removes when nobody else can.
    pub(super) fn spawn(
        binary: &Path,
        config: &Path,
        log: File,
        folder: &Path,
    ) -> Result<Self, Error> {
        let watchdog = Watchdog::spawn(folder)?;
        let spawned = watchdog.line.try_clone().and_then(|line| {
            Command::new(SHELL)
                .args(["-c", SERVER])
                .arg(binary)
                .arg(config)
                .stdin(Stdio::null())
                .stdout(line)
                .stderr(log)
                // Ctrl-C in a terminal goes to the whole group of the test process, and the test
                // shall end its servers in its own order. And a group of its own is what lets a
                // signal reach the children a server forks to rewrite its AOF.
                .process_group(0)
                .spawn()
        });
        match spawned {
            Ok(server) => Ok(Self { server, watchdog }),
            Err(source) => {
                watchdog.dismiss();
                Err(Error::Spawn {
                    program: PathBuf::from(SHELL),
                    source,
                })
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.server.id()
    }

    /// How the server ended, if it has.
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.server.try_wait().ok().flatten()
    }

    /// Sends a signal to the server and its children.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let failed = |reason| Error::Signal {
            signal: signal.name(),
            pid: self.pid(),
            reason,
        };
        // The standard library can send SIGKILL only, and there is a shell wherever there is no
        // /bin/kill. Its own `kill` takes a group in this spelling in dash, bash and busybox alike.
        let output = Command::new(SHELL)
            .args(["-c", r#"kill "-$0" "-$1""#, signal.name()])
            .arg(self.pid().to_string())
            .stdin(Stdio::null())
            .output()
            .map_err(|source| failed(source.to_string()))?;
        if output.status.success() {
            Ok(())
        } else {
            let reason = String::from_utf8_lossy(&output.stderr);
            Err(failed(reason.trim().to_owned()))
        }
    }

    /// Whether the operating system has halted the server.
    ///
    /// Where there is no `/proc`, a signal that was sent is taken for one that has arrived.
    pub(super) fn is_halted(&self) -> bool {
        match fs::read_to_string(format!("/proc/{}/stat", self.pid())) {
            // The state follows the name, which is in brackets and may hold brackets itself.
            Ok(stat) => stat
                .rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T')),
            Err(_) => true,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Once its status was asked for, the process id may belong to someone else.
        if self.exit_status().is_none() && self.signal(Signal::Kill).is_err() {
            let _ = self.server.kill();
        }
        // In this order: until it was waited for, nobody else can get the process id which the
        // watchdog would kill.
        self.watchdog.stand_down();
        let _ = self.server.wait();
    }
}

#[derive(Debug)]
struct Watchdog {
    shell: Child,
    line: OwnedFd,
}

impl Watchdog {
    fn spawn(folder: &Path) -> Result<Self, Error> {
        let spawn_error = |source| Error::Spawn {
            program: PathBuf::from(SHELL),
            source,
        };
        let mut shell = Command::new(SHELL)
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Whoever kills the group of the test process shall not kill the watchdog with it.
            .process_group(0)
            .spawn()
            .map_err(spawn_error)?;
        match shell.stdin.take() {
            Some(line) => Ok(Self {
                shell,
                line: line.into(),
            }),
            None => Err(spawn_error(io::Error::other("it was given no input"))),
        }
    }

    /// Ends the watchdog of a server that did not come to run: it has read no process id.
    fn dismiss(mut self) {
        drop(self.line);
        let _ = self.shell.wait();
    }

    /// Ends the watchdog of a server that is gone.
    fn stand_down(&mut self) {
        let told = self
            .line
            .try_clone()
            .and_then(|line| File::from(line).write_all(b"gone\n"));
        if told.is_err() {
            let _ = self.shell.kill();
        }
        let _ = self.shell.wait();
    }
}
