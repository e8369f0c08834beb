//! `cargo xtask test-python`.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use crate::cargo::{cargo, exit_code, workspace_root};
use crate::redis_server;

/// The version of Python's Redis client that the test is written for.
const CLIENT: &str = "redis==6.4.0";

/// Runs the test that needs Python, with its Redis client in an environment of its own.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let server = redis_server::find_or_install()?;
    let environment = workspace_root().join("target/python");
    let python = environment.join("bin/python");
    if !python.exists() {
        announce_and_run(
            Command::new("python3")
                .arg("-m")
                .arg("venv")
                .arg(&environment),
        )?;
    }
    announce_and_run(Command::new(&python).args(["-m", "pip", "install", "--quiet", CLIENT]))?;
    let status = cargo([
        "test",
        "-p",
        "event-tests",
        "--test",
        "other_language",
        "--locked",
    ])
    .env("PYTHON", Path::new(&python))
    .env(redis_server::VARIABLE, server)
    .status()
    .context("cannot run cargo test; is Cargo on PATH?")?;
    Ok(exit_code(status))
}

fn announce_and_run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("running {command:?}");
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}; install Python 3 with venv and pip"))?;
    if !status.success() {
        bail!("{command:?} failed; see what it says above");
    }
    Ok(())
}
