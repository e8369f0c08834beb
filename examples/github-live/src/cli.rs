//! The command line.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use event_core::{Backend, BoxError, MemoryStore, shutdown_signal};
use event_redis::{ConnectError, RedisStore};
use github_webhooks::signature::Secret;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use uuid::Uuid;

use crate::health::record_metrics;
use crate::live::{Live, Settings};
use crate::server::Server;

/// The repository service with a face: GitHub's webhooks in, GraphQL and a live page out.
///
/// Without arguments it keeps its events in memory, and plays a sample, so that there is something to see.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: std::net::IpAddr,
    /// The port; 0 for any that is free.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The Redis server to keep the events in; in memory without.
    #[arg(long, value_name = "URL", env = "GITHUB_LIVE_REDIS")]
    redis: Option<String>,
    /// Take Redis even if its settings may lose what it has acknowledged.
    #[arg(long, requires = "redis")]
    accept_weaker_durability: bool,
    /// The webhook's secret: deliveries must be signed with it. Without one, anybody may deliver.
    #[arg(long, env = "GITHUB_WEBHOOK_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// What cursors are signed with, the same in all instances.
    #[arg(long, env = "GITHUB_LIVE_CURSOR_SECRET", hide_env_values = true)]
    cursor_secret: Option<String>,
    /// Play the sample's deliveries: by default in memory, and not on Redis.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    sample: Option<bool>,
    /// Seconds from one delivery of the sample to the next.
    #[arg(long, value_name = "SECONDS", default_value = "1.5", value_parser = seconds)]
    pace: Duration,
    /// Keep an index of events by correlation, which costs memory with each event.
    #[arg(long)]
    correlation_index: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Runs the server that the arguments of this process ask for.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    let served = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(serve(cli)),
        Err(error) => Err(error.into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell where standard error is closed, too.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(cli: Cli) -> Result<(), BoxError> {
    // Before the store connects, so that nothing goes unrecorded.
    record_metrics()?;
    match cli.redis.clone() {
        None => {
            let mut cli = cli;
            // Its events are gone with it, and so are the cursors that it gave: who comes with one is told.
            cli.cursor_secret = Some(Uuid::new_v4().to_string());
            serve_on(MemoryStore::new(), cli).await
        }
        Some(url) => {
            let mut store = RedisStore::builder(url);
            if cli.accept_weaker_durability {
                store = store.accept_weaker_durability();
            }
            let store = store.connect().await.map_err(explained)?;
            serve_on(store, cli).await
        }
    }
}

async fn serve_on(store: impl Backend + Clone, cli: Cli) -> Result<(), BoxError> {
    let secret = cli.secret.as_deref().map(Secret::new).transpose()?;
    if secret.is_none() {
        tracing::warn!("no secret is set, so anybody may deliver; give the webhook's by --secret");
    }
    let has_sample = cli.sample.unwrap_or(cli.redis.is_none());
    let settings = Settings {
        sample: has_sample.then_some(cli.pace),
        correlation_index: cli.correlation_index,
        cursor_secret: cli.cursor_secret,
        ..Settings::default()
    };
    let live = Live::new(store, settings).await?;
    let address = SocketAddr::new(cli.host, cli.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; give another --port"))?;
    let address = listener.local_addr()?;
    // Whoever started it may read the port here.
    writeln!(io::stdout(), "listening on http://{address}/")?;
    Server::new(live, secret)
        .serve(listener, shutdown_signal())
        .await
}

/// The error, and what it says of the builder in the words of the command line.
fn explained(error: ConnectError) -> BoxError {
    match error {
        ConnectError::TooWeak { .. } => format!(
            "{error}. Here: begin it as `redis-server --appendonly yes`, or give --accept-weaker-durability"
        )
        .into(),
        error => error.into(),
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
        .init();
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
