//! What clients cost that hear nothing. The server is a process of its own, so that the clients' memory is not
//! counted.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use event_redis::RedisStore;

use super::server::{Server, subscriber};
use crate::start_server;

/// Clients that are there before memory is looked at, so that what all need is there.
const FIRST: usize = 100;

/// The bytes that each of so many clients costs.
pub(super) async fn client_bytes(clients: usize) -> anyhow::Result<f64> {
    let redis = start_server()?;
    let mut process = Process::start(&redis.unix_url().context("the server has no unix socket")?)?;
    let address = process.line()?.parse()?;
    let mut sockets = Vec::with_capacity(FIRST + clients);
    for _ in 0..FIRST {
        sockets.push(subscriber(address).await?);
    }
    let before = process.memory()?;
    for _ in 0..clients {
        sockets.push(subscriber(address).await?);
    }
    let bytes = process.memory()? - before;
    Ok(bytes / clients as f64)
}

struct Process {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(url: &str) -> anyhow::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["serve", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start another process")?;
        let input = process.stdin.take().context("it has no input")?;
        let output = process.stdout.take().context("it has no output")?;
        Ok(Self {
            process,
            input,
            output: BufReader::new(output),
        })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Its resident memory in bytes.
    fn memory(&mut self) -> anyhow::Result<f64> {
        self.input.write_all(b"memory\n")?;
        Ok(self.line()?.parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What that process does: it says its address, and then how much memory it has, as often as it is asked; it ends
/// with who has started it.
pub(crate) async fn serve(url: &str) -> anyhow::Result<()> {
    let store = RedisStore::builder(url).connect().await?;
    let server = Server::start(store).await?;
    let address: SocketAddr = server.address();
    println!("{address}");
    tokio::task::spawn_blocking(|| {
        for line in std::io::stdin().lines() {
            line?;
            println!("{}", resident()?);
        }
        anyhow::Ok(())
    })
    .await??;
    Ok(())
}

fn resident() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("there is no /proc")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("the system does not tell the resident memory")?;
    let kibibytes = line.trim().trim_end_matches("kB").trim();
    Ok(kibibytes.parse::<u64>()? * 1_024)
}
