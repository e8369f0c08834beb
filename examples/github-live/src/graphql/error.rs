//! Errors as clients see them: a sentence, and a code for programs.

use std::fmt::Display;

use async_graphql::{Error, ErrorExtensions};

/// An error with a code.
pub(super) fn coded(code: &'static str, error: impl Display) -> Error {
    Error::new(error.to_string()).extend_with(|_, extensions| extensions.set("code", code))
}

/// The store does not answer, so that it is not known what has become of a command.
pub(super) fn uncertain(error: impl Display) -> Error {
    tracing::error!(%error, "it is not known whether something was stored");
    coded(
        "STORE_UNAVAILABLE",
        "it is not known whether this was stored; send it again, with the same id, which does it once",
    )
}

/// The store does not answer. What it says is for the log, as it may name servers.
pub(super) fn unavailable(error: impl Display) -> Error {
    tracing::error!(%error, "a request could not be answered");
    coded(
        "STORE_UNAVAILABLE",
        "the events cannot be read now; ask again in a moment",
    )
}
