//! Fills the report from a server.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use event_core::shutdown_signal;
use event_redis::RedisStore;
use sqlite_report::{Report, service};

/// Keeps a sales report in SQLite, filled from the feed of orders.
#[derive(Parser)]
struct Arguments {
    /// The server whose orders are taken in.
    #[arg(long, value_name = "URL")]
    redis: String,
    /// The database that the report lies in.
    #[arg(long, value_name = "FILE")]
    database: PathBuf,
    /// For how many milliseconds another process leaves the work to this one after it was killed.
    #[arg(long, default_value_t = 10_000)]
    lease: u64,
    /// Take in what there is, print the report and end.
    #[arg(long)]
    once: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter("info")
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let report = Report::open(&arguments.database)?;
    let store = RedisStore::connect(arguments.redis).await?;
    let service = service(
        store,
        report.clone(),
        Duration::from_millis(arguments.lease),
    )?;
    if !arguments.once {
        service.run_until(shutdown_signal()).await?;
        return Ok(());
    }
    service.run_until_idle().await?;
    for line in report.lines()? {
        println!(
            "{}: {} orders, {} cents",
            line.customer, line.orders, line.cents
        );
    }
    Ok(())
}
