//! The command `github-live`. Everything it does is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    github_live::cli::run()
}
