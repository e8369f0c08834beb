//! Benchmarks: what the framework reaches on Redis, beside the ceiling that bare commands of the
//! same client reach on the same server in the same run.
//!
//! What a row's two sides do is written at the head of its module.

mod append;
mod bare;
mod chain;
mod deliveries;
mod dispatch;
mod drain;
mod emit;
mod execute;
mod feed;
mod hearing;
mod invalidate;
mod kept;
mod latency;
mod load;
mod memory;
mod order;
mod plan;
mod projection;
mod propagate;
mod realtime;
mod replay;
mod report;
mod rounds;
mod running;
mod screens;
mod takeover;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};
use event_tests::RedisServer;
use event_tests::redis_server::{Aof, Listen};

use plan::Plan;
use report::Report;

/// Measures the framework against bare Redis commands.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Measure less, within a minute.
    #[arg(long)]
    quick: bool,
    /// Write the rows to this file, too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only rows whose names begin so; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// What other processes of this program do, which it starts itself.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Own { url: String },
    #[command(hide = true)]
    Serve { url: String },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let plan = Plan::new(arguments.quick, arguments.only);
    // Two workers for both sides. This thread only waits: whatever is measured is spawned.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;

    match &arguments.part {
        Some(Part::Own { url }) => return runtime.block_on(takeover::own(url)),
        Some(Part::Serve { url }) => return runtime.block_on(screens::serve(url)),
        None => {}
    }
    let start = Instant::now();
    let mut report = Report::begin();
    runtime.block_on(measure(&plan, &mut report))?;
    println!("measured in {:.0} s", start.elapsed().as_secs_f64());
    match arguments.json {
        None => Ok(()),
        Some(path) => report.write_json(&path),
    }
}

async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    append::measure(plan, report).await?;
    load::measure(plan, report).await?;
    execute::measure(plan, report).await?;
    kept::measure(plan, report).await?;
    feed::measure(plan, report).await?;
    drain::measure(plan, report).await?;
    projection::measure(plan, report).await?;
    emit::measure(plan, report).await?;
    propagate::measure(plan, report).await?;
    chain::measure(plan, report).await?;
    takeover::measure(plan, report).await?;
    realtime::measure(plan, report).await?;
    hearing::measure(plan, report).await?;
    screens::measure(plan, report).await?;
    invalidate::measure(plan, report).await?;
    memory::measure(plan, report).await?;
    dispatch::measure(plan, report).await?;
    replay::measure(plan, report).await
}

/// An empty server: each group of rows has its own, so that none inherits the other's data.
fn start_server() -> anyhow::Result<RedisServer> {
    RedisServer::builder()
        .listen(Listen::Unix)
        .aof(Aof::EverySecond)
        // A rewrite of the AOF would hit whichever side happens to be measured.
        .config("auto-aof-rewrite-percentage", "0")
        .start()
        .context("cannot start a server")
}
