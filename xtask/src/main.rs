//! The workspace's own commands.
//!
//! ```text
//! cargo xtask test [-- ARGS]            all tests, with a Redis server that is found or installed
//! cargo xtask ci                        everything else that must hold before a merge
//! cargo xtask test-python               a service in Python beside one in Rust
//! cargo xtask test-web [ARGS]          real clients of the web, and a browser
//! cargo xtask bench [--quick] [--json FILE]
//! cargo xtask chaos [ARGS]              kills services under load, and looks for what is lost
//! ```

mod bench;
mod cargo;
mod chaos;
mod ci;
mod msrv;
mod package_manager;
mod python;
mod redis_server;
mod test;
mod web;

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
    /// Run the clients that the web has, and a browser, against servers of ours; gets Node.js, its packages and
    /// Chromium where they are not there.
    TestWeb {
        /// Arguments for `node`, before the files: `--test-name-pattern=idle`, and files instead of all.
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        arguments: Vec<String>,
    },
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
    /// Kill, freeze and cut off services under load, and then read from the feeds whether anything is
    /// missing, doubled or out of order; `cargo xtask chaos --help` shows what can be chosen.
    #[command(disable_help_flag = true)]
    Chaos {
        /// Arguments of the program: `--seed 7 --kills 50`.
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        arguments: Vec<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Test { arguments } => test::run(&arguments),
        Command::TestPython => python::run(),
        Command::TestWeb { arguments } => web::run(&arguments),
        Command::Ci => ci::run(),
        Command::Bench { quick, json } => bench::run(quick, json),
        Command::Chaos { arguments } => chaos::run(&arguments),
    }
}
