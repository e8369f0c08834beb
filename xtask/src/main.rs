//! The workspace's own commands.
//!
//! ```text
//! cargo xtask test [-- ARGS]            all tests, with a Redis server that is found or installed
//! cargo xtask ci                        everything else that must hold before a merge
//! cargo xtask test-python               a service in Python beside one in Rust
//! cargo xtask bench [--quick] [--json FILE]
//! ```

mod bench;
mod cargo;
mod ci;
mod msrv;
mod package_manager;
mod python;
mod redis_server;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The workspace's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all tests, with a Redis server that is found or else installed.
    Test {
        /// Arguments for `cargo test`: `-- -p event-core`, `-- some_test -- --nocapture`.
        #[arg(last = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
    /// Run a service in Python beside one in Rust; gets Python's Redis client by pip.
    TestPython,
    /// Check formatting, lints, docs and the stated Rust version; the tests are `cargo xtask test`.
    Ci,
    /// Run the benchmarks in release mode, with a Redis server that is found or else installed.
    Bench {
        /// Measure less, for rough figures sooner.
        #[arg(long)]
        quick: bool,
        /// Write the figures to this file as well.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Test { arguments } => test::run(&arguments),
        Command::TestPython => python::run(),
        Command::Ci => ci::run(),
        Command::Bench { quick, json } => bench::run(quick, json),
    }
}
