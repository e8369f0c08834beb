//! Errors as clients see them: a sentence, and a code for programs.

use std::fmt::Display;

use async_graphql::{Error, ErrorExtensions};
use uuid::Uuid;

/// An error with a code.
pub(super) fn coded(code: &'static str, error: impl Display) -> Error {
    Error::new(error.to_string()).extend_with(|_, extensions| extensions.set("code", code))
}

/// The store does not answer, so that it is not known what has become of a command.
pub(super) fn uncertain(error: impl Display, command_id: Uuid) -> Error {
    tracing::error!(%error, %command_id, "it is not known whether a command was stored");
    let message = "it is not known whether this was stored; send it again with the `commandId` in `extensions`, which does it once";
    coded("STORE_UNAVAILABLE", message)
        .extend_with(|_, extensions| extensions.set("commandId", command_id.to_string()))
}

/// The store does not answer. What it says is for the log, as it may name servers.
pub(super) fn unavailable(error: impl Display) -> Error {
    tracing::error!(%error, "a request could not be answered");
    coded(
        "STORE_UNAVAILABLE",
        "the events cannot be read now; ask again in a moment",
    )
}
