//! The command `github-webhooks`. Everything it does is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    github_webhooks::cli::run()
}
