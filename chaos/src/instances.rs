//! The workers' processes, as they are started, killed, frozen and stopped.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

use crate::Plant;

/// How long a worker may take to end when it is asked to.
const ENDS: Duration = Duration::from_secs(20);

/// What all workers have in common.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) url: String,
    pub(crate) lease: Duration,
    pub(crate) slots: bool,
    pub(crate) plant: Option<Plant>,
    pub(crate) logs: PathBuf,
}

/// One worker, of which there is a process after the other.
pub(crate) struct Instance {
    common: Common,
    group: &'static str,
    number: u32,
    starts: AtomicU32,
    child: tokio::sync::Mutex<Option<Child>>,
    /// The pipe that it ends with.
    pipe: Mutex<Option<ChildStdin>>,
    /// Whether it is being frozen or stopped, and so left alone by everything else.
    is_taken: AtomicBool,
    /// How processes have ended that nobody had told to.
    ended: Mutex<Vec<String>>,
}

impl Instance {
    /// Starts a worker.
    pub(crate) async fn start(
        common: &Common,
        group: &'static str,
        number: u32,
    ) -> anyhow::Result<Arc<Self>> {
        let instance = Self {
            common: common.clone(),
            group,
            number,
            starts: AtomicU32::new(0),
            child: tokio::sync::Mutex::default(),
            pipe: Mutex::default(),
            is_taken: AtomicBool::new(false),
            ended: Mutex::default(),
        };
        *instance.child.lock().await = Some(instance.spawn()?);
        Ok(Arc::new(instance))
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = self
            .common
            .logs
            .join(format!("{}-{}.log", self.group, self.number));
        let log = OpenOptions::new().append(true).create(true).open(log)?;
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        // One that keeps its name has its partitions back at once; the others wait for the leases.
        let instance = match self.number {
            0 => "keeps-its-name".to_owned(),
            number => format!("{number}-{start}"),
        };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["worker", "--group", self.group, "--instance", &instance])
            .args(["--url", &self.common.url])
            .args(["--lease", &self.common.lease.as_millis().to_string()]);
        if self.common.slots {
            command.arg("--slots");
        }
        if let Some(plant) = self
            .common
            .plant
            .and_then(|plant| plant.to_possible_value())
        {
            command.args(["--plant", plant.get_name()]);
        }
        let mut child = command
            // It ends when the other end of this pipe does.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // And a group of its own is what the system ends by SIGHUP if whoever started it dies
            // while it is halted.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a worker")?;
        // Whoever waits for a child closes its pipe otherwise.
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        *pipe = child.stdin.take();
        Ok(child)
    }

    /// Whether something may be done to it now; if so, nobody else may until it is let go.
    pub(crate) fn take(&self) -> bool {
        !self.is_taken.swap(true, Ordering::AcqRel)
    }

    fn let_go(&self) {
        self.is_taken.store(false, Ordering::Release);
    }

    /// Kills it, and starts it again. It must have been taken.
    pub(crate) async fn kill(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().await;
        if let Some(child) = &mut *child {
            child.kill().await?;
        }
        *child = Some(self.spawn()?);
        self.let_go();
        Ok(())
    }

    /// Halts it for some time. It must have been taken.
    pub(crate) async fn freeze(&self, duration: Duration) -> anyhow::Result<()> {
        self.signal("STOP").await?;
        sleep(duration).await;
        self.signal("CONT").await?;
        self.let_go();
        Ok(())
    }

    /// Asks it to end, and starts it again. It must have been taken.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        self.end().await?;
        *self.child.lock().await = Some(self.spawn()?);
        self.let_go();
        Ok(())
    }

    /// Asks it to end; `None` where it did not.
    pub(crate) async fn end(&self) -> anyhow::Result<Option<ExitStatus>> {
        self.signal("TERM").await?;
        let mut child = self.child.lock().await;
        let Some(child) = &mut *child else {
            return Ok(None);
        };
        match timeout(ENDS, child.wait()).await {
            Ok(status) => Ok(Some(status?)),
            Err(_) => {
                child.kill().await?;
                Ok(None)
            }
        }
    }

    /// Starts it again if it has ended by itself.
    pub(crate) async fn look_after(&self) -> anyhow::Result<()> {
        if !self.take() {
            return Ok(());
        }
        let mut child = self.child.lock().await;
        if let Some(running) = &mut *child
            && let Some(status) = running.try_wait()?
        {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.push(format!("{self} ended by itself ({status})"));
            *child = Some(self.spawn()?);
        }
        self.let_go();
        Ok(())
    }

    /// How processes have ended that nobody had told to.
    pub(crate) fn ended(&self) -> Vec<String> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.clone()
    }

    async fn signal(&self, name: &str) -> anyhow::Result<()> {
        let child = self.child.lock().await;
        let Some(id) = child.as_ref().and_then(Child::id) else {
            return Ok(());
        };
        // The standard library can send SIGKILL only.
        let status = Command::new("sh")
            .args(["-c", r#"kill "-$0" "$1""#, name, &id.to_string()])
            .status()
            .await?;
        ensure!(status.success(), "cannot send SIG{name} to {self}");
        Ok(())
    }
}

impl std::fmt::Display for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {} of {}", self.number, self.group)
    }
}
