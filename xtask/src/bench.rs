//! `cargo xtask bench`.

use std::path::{self, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use crate::cargo::{cargo, exit_code};
use crate::redis_server;

/// Runs the package `bench` in release mode and ends with its exit code.
pub(crate) fn run(quick: bool, json: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let server = redis_server::find_or_install()?;
    let mut command = cargo(["run", "--release", "--locked", "-p", "bench", "--"]);
    if quick {
        command.arg("--quick");
    }
    if let Some(file) = json {
        // The benchmarks run in the root of the workspace, the user's path starts where the user
        // is.
        let file = path::absolute(&file).with_context(|| format!("cannot resolve {file:?}"))?;
        command.arg("--json").arg(file);
    }
    let status = command
        .env(redis_server::VARIABLE, server)
        .status()
        .context("cannot run the benchmarks; is Cargo on PATH?")?;
    Ok(exit_code(status))
}
