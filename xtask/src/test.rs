//! `cargo xtask test`.

use std::process::ExitCode;

use anyhow::Context;

use crate::cargo::{cargo, exit_code};
use crate::redis_server;

/// Runs `cargo test` over the workspace and ends with its exit code.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let server = redis_server::find_or_install()?;
    let test = |options: &[&str], arguments: &[String]| {
        cargo(["test"])
            .args(options)
            .arg("--locked")
            .args(arguments)
            .env(redis_server::VARIABLE, &server)
            .status()
            .context("cannot run cargo test; is Cargo on PATH?")
    };
    if names_a_package(arguments) {
        return Ok(exit_code(test(&["--all-features"], arguments)?));
    }
    // Cargo ignores `--package` beside `--workspace`.
    let status = test(&["--workspace", "--all-features"], arguments)?;
    if !status.success() || !arguments.is_empty() {
        return Ok(exit_code(status));
    }
    // As it comes by default: what is refused without TLS, and how.
    let by_default = ["-p", "event-redis", "--test", "redis", "connect"];
    Ok(exit_code(test(&by_default, &[])?))
}

fn names_a_package(arguments: &[String]) -> bool {
    arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_before_the_arguments_of_the_tests() {
        for (arguments, expected) in [
            (vec![], false),
            (vec!["some_test", "--release"], false),
            (vec!["-p", "event-core"], true),
            (vec!["--release", "-pevent-core"], true),
            (vec!["--package=event-core"], true),
            (vec!["--", "-p"], false),
        ] {
            let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
            assert_eq!(names_a_package(&arguments), expected, "{arguments:?}");
        }
    }
}
