//! `cargo xtask ci`: what must hold before a merge, but for the tests.
//!
//! The tests are left to `cargo xtask test`, so that continuous integration runs the very command
//! that the README gives to everybody else.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::cargo::cargo;
use crate::msrv;

/// Runs every step in order and stops at the first that fails.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    step("fmt", || succeed(&mut cargo(["fmt", "--all", "--check"])))?;
    step("clippy", || {
        succeed(cargo(["clippy", "--workspace", "--all-targets"]).args([
            "--all-features",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("clippy, event-redis without features", || {
        succeed(
            cargo(["clippy", "-p", "event-redis", "--all-targets"])
                .args(["--locked", "--", "-D", "warnings"]),
        )
    })?;
    step("docs", || {
        succeed(
            cargo(["doc", "--workspace", "--no-deps", "--all-features"])
                .arg("--locked")
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    })?;
    step("msrv", msrv::check)?;
    Ok(ExitCode::SUCCESS)
}

fn step(name: &str, run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    eprintln!("==> {name}");
    let start = Instant::now();
    run().with_context(|| {
        format!("the step `{name}` failed: correct what it says above, then run it again")
    })?;
    eprintln!(
        "==> {name} passed in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().context("cannot run Cargo")?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}
