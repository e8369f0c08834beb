//! What can be wrong with a subscription, and the codes that clients see.

use std::sync::Arc;

use event_core::{CodecError, Pattern, Position, ReadError, StoreError};

use super::cursor::Cursor;

/// Why a subscription cannot begin, or ends. Clients find [`code`](Self::code) in the `extensions` of the
/// GraphQL error.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The cursor was not made here, or with another secret.
    #[error(
        "the cursor is none of ours; send one as it was received, or none to begin with what is new"
    )]
    CursorInvalid,
    /// The cursor is one of other events.
    #[error("the cursor belongs to another subscription; send the one that came with these events")]
    CursorOfAnotherFeed,
    /// Events that the client has not seen were trimmed away.
    #[error(
        "events behind the cursor were trimmed away up to {first_available}; load the state anew, and subscribe without a cursor"
    )]
    CursorExpired {
        /// From this position on everything is there.
        first_available: Position,
    },
    /// The cursor is ahead of the feed, which has lost what it had.
    #[error(
        "the cursor is ahead of the newest event ({newest}): the server has lost events; load the state anew, and subscribe without a cursor"
    )]
    CursorAhead {
        /// Where the newest event lies.
        newest: Position,
    },
    /// The client was too slow, and wants to be told.
    #[error("the client has fallen behind; subscribe anew with the last cursor")]
    TooSlow,
    /// The client may not see these events.
    #[error("these events may not be seen; ask for the right to")]
    Forbidden,
    /// The client could see these events, and may not any more.
    #[error("the right to see these events was taken away")]
    Revoked,
    /// An event does not fit its type. The subscription goes on behind it.
    #[error("an event does not fit its type; the subscription goes on behind it")]
    Undecodable {
        /// Where to go on.
        cursor: Cursor,
        /// What is wrong with it.
        source: Arc<CodecError>,
    },
    /// The type of the subscription has events of both kinds, or of the other one.
    #[error(
        "`{rust_type}` has {found} events; subscribe to stored ones by `events`, and to realtime ones by `realtime`"
    )]
    WrongKind {
        /// The Rust type.
        rust_type: &'static str,
        /// What it has.
        found: &'static str,
    },
    /// A pattern that does not say in which category to look.
    #[error(
        "`{pattern}` is of no category; begin it with one, such as `github.*`, and give several where events of several are wanted"
    )]
    PatternWithoutCategory {
        /// The pattern.
        pattern: Pattern,
    },
    /// The store does not answer.
    #[error("the store does not answer; subscribe anew in a moment")]
    Store(#[from] ReadError),
}

impl From<StoreError> for BridgeError {
    fn from(error: StoreError) -> Self {
        BridgeError::Store(error.into())
    }
}

impl BridgeError {
    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            BridgeError::CursorInvalid => "CURSOR_INVALID",
            BridgeError::CursorOfAnotherFeed => "CURSOR_OF_ANOTHER_FEED",
            BridgeError::CursorExpired { .. } => "CURSOR_EXPIRED",
            BridgeError::CursorAhead { .. } => "CURSOR_AHEAD",
            BridgeError::TooSlow => "TOO_SLOW",
            BridgeError::Forbidden => "FORBIDDEN",
            BridgeError::Revoked => "REVOKED",
            BridgeError::Undecodable { .. } => "UNDECODABLE",
            BridgeError::WrongKind { .. } | BridgeError::PatternWithoutCategory { .. } => {
                "INTERNAL"
            }
            BridgeError::Store(_) => "STORE_UNAVAILABLE",
        }
    }

    /// What a GraphQL error was made of, where it was made here.
    pub fn of(error: &async_graphql::Error) -> Option<&Self> {
        error.source.as_ref()?.downcast_ref()
    }

    /// The GraphQL error, with its code and what else a client can use.
    pub(crate) fn into_graphql(self) -> async_graphql::Error {
        let mut extensions = async_graphql::ErrorExtensionValues::default();
        extensions.set("code", self.code());
        match &self {
            BridgeError::CursorExpired { first_available } => {
                extensions.set("firstAvailable", first_available.to_string());
            }
            BridgeError::Undecodable { cursor, .. } => extensions.set("cursor", cursor.as_str()),
            _ => {}
        }
        let mut error = async_graphql::Error::new_with_source(self);
        error.extensions = Some(extensions);
        error
    }
}
