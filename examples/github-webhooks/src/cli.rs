//! The command line.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use event_core::{Backend, BoxError, MemoryStore, Version};
use event_redis::{Durability, RedisStore};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, BufReader};
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::ingest::ingest;
use crate::lines::Lines;
use crate::report::{Report, printable};
use crate::sample;
use crate::service::repo_agent;
use crate::show::show;
use crate::signature::{Secret, Signatures};

/// How much of a file is read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Takes GitHub's webhook deliveries in, and knows from them what became of each repository.
///
/// Without a command, it ingests a sample of its own on memory.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take a file of deliveries in.
    Ingest(Ingest),
    /// Rebuild a repository from its history.
    Show(Show),
}

#[derive(Debug, Default, Args)]
struct Ingest {
    /// The file, one delivery a line; `-` for standard input. Without one, the program's own sample.
    file: Option<PathBuf>,
    /// The Redis server to keep the events in; on memory without.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// The webhook's secret: each delivery of the file must be signed with it. (The sample has its
    /// own.)
    #[arg(long, env = "GITHUB_WEBHOOK_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Report as one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Show {
    /// The repository.
    #[arg(value_name = "OWNER/NAME")]
    repository: String,
    /// The Redis server that the events are kept in.
    #[arg(long, value_name = "URL")]
    redis: String,
    /// Show it as it was at this version.
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    at: Option<Version>,
    /// Show it as one JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs the command that the arguments of this process ask for.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    let done = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let done = runtime.block_on(run_command(cli.command));
            // A read of standard input cannot be broken off, and nobody waits for it any more.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell where standard error is closed, too.
            let _ = writeln!(io::stderr(), "error: {}", printable(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

async fn run_command(command: Option<Command>) -> Result<(), BoxError> {
    match command {
        None => run_ingest(Ingest::default()).await,
        Some(Command::Ingest(command)) => run_ingest(command).await,
        Some(Command::Show(command)) => run_show(command).await,
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .init();
}

async fn run_ingest(command: Ingest) -> Result<(), BoxError> {
    let report = match &command.redis {
        None => ingest_on(MemoryStore::new(), &command).await?,
        Some(url) => ingest_on(connect(url, Durability::default()).await?, &command).await?,
    };
    print(&report, command.json)
}

async fn ingest_on<S: Backend + Clone>(store: S, command: &Ingest) -> Result<Report, BoxError> {
    match command.file.as_deref() {
        None => {
            let signatures = Signatures::WhereGiven(Secret::new(sample::SECRET)?);
            let size = sample::DELIVERIES.len() as u64;
            read_on(
                store,
                sample::DELIVERIES.as_bytes(),
                Some(size),
                &signatures,
            )
            .await
        }
        Some(path) => {
            let signatures = match &command.secret {
                None => Signatures::Unchecked,
                Some(secret) => Signatures::Required(Secret::new(secret)?),
            };
            if path == Path::new("-") {
                let stdin = BufReader::with_capacity(BUFFER_BYTES, tokio::io::stdin());
                return read_on(store, stdin, None, &signatures).await;
            }
            let unreadable = |error| format!("{} cannot be read: {error}", path.display());
            let file = File::open(path).await.map_err(unreadable)?;
            let metadata = file.metadata().await.map_err(unreadable)?;
            if metadata.is_dir() {
                return Err(format!("{} is a folder; give a file", path.display()).into());
            }
            // Of a pipe it is not known.
            let size = Some(metadata.len()).filter(|size| *size > 0);
            let file = BufReader::with_capacity(BUFFER_BYTES, file);
            read_on(store, file, size, &signatures).await
        }
    }
}

async fn read_on<S: Backend + Clone>(
    store: S,
    reader: impl AsyncBufRead + Unpin,
    size: Option<u64>,
    signatures: &Signatures,
) -> Result<Report, BoxError> {
    let service = repo_agent(store.clone())?;
    let bar = progress_bar(size);
    let mut lines = Lines::of(reader);
    let report = ingest(&mut lines, signatures, &service, &store, |progress| {
        if bar.is_hidden() {
            return;
        }
        bar.set_position(progress.bytes);
        bar.set_message(format!(
            "{} accepted, {} rejected",
            progress.accepted, progress.rejected
        ));
    })
    .await;
    bar.finish_and_clear();
    Ok(report?)
}

/// A bar on a terminal, and nothing elsewhere.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:30} {bytes}/{total_bytes} {msg} (ready in {eta})",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn run_show(command: Show) -> Result<(), BoxError> {
    // Nothing is written, so nothing can be lost.
    let store = connect(&command.redis, Durability::Memory).await?;
    let shown = show(store, &command.repository, command.at).await?;
    if command.json {
        print(&shown.repository, true)
    } else {
        write_out(&shown.to_string())
    }
}

/// Any server will do, with a warning in the log: what it loses can be ingested again.
async fn connect(url: &str, durability: Durability) -> Result<RedisStore, BoxError> {
    Ok(RedisStore::builder(url)
        .durability(durability)
        .accept_weaker_durability()
        .connect()
        .await?)
}

fn print<T: Serialize + ToString>(value: &T, json: bool) -> Result<(), BoxError> {
    if json {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        write_out(&text)
    } else {
        write_out(&value.to_string())
    }
}

fn write_out(text: &str) -> Result<(), BoxError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Who reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }
}
