//! `cargo xtask chaos`.

use std::process::ExitCode;

use anyhow::Context;

use crate::cargo::{cargo, exit_code};
use crate::redis_server;

/// Runs the package `chaos` in release mode and ends with its exit code.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let server = redis_server::find_or_install()?;
    let status = cargo(["run", "--release", "--locked", "-p", "chaos", "--"])
        .args(arguments)
        .env(redis_server::VARIABLE, server)
        .status()
        .context("cannot run the chaos program; is Cargo on PATH?")?;
    Ok(exit_code(status))
}
