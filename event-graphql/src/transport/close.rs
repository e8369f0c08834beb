//! Why the server closes a socket.

use axum::extract::ws::{CloseFrame, Message};

/// A reason of a close frame has at most so many bytes (RFC 6455, 5.5).
const REASON_BYTES: usize = 123;

/// The code with which the server closes a socket.
///
/// Those from 4400 on are of [graphql-transport-ws], the others of [RFC 6455] and its registry.
///
/// [graphql-transport-ws]: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
/// [RFC 6455]: https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// A message is longer than [`Limits::message_bytes`](super::Limits::message_bytes).
    TooLong = 1009,
    /// The service restarts: connect again.
    ServiceRestart = 1012,
    /// A message is none of the protocol.
    InvalidMessage = 4400,
    /// `subscribe` came before `connection_ack`.
    Unauthorized = 4401,
    /// [`on_init`](super::GraphqlTransportBuilder::on_init) refused the client.
    Forbidden = 4403,
    /// The client does not speak `graphql-transport-ws`.
    SubprotocolNotAcceptable = 4406,
    /// No `connection_init` was acknowledged in [time](super::Limits::init_timeout).
    InitTimeout = 4408,
    /// A subscription with this id is running.
    SubscriberExists = 4409,
    /// `connection_init` came twice.
    TooManyInits = 4429,
}

impl CloseCode {
    /// The code as it is sent.
    pub const fn code(self) -> u16 {
        self as u16
    }

    pub(super) fn because(self, reason: impl Into<String>) -> Close {
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        Close { code: self, reason }
    }
}

/// A close frame: its code, and a sentence.
#[derive(Debug)]
pub(super) struct Close {
    code: CloseCode,
    reason: String,
}

impl Close {
    pub(super) fn code(&self) -> u16 {
        self.code.code()
    }
}

impl From<Close> for Message {
    fn from(close: Close) -> Self {
        Message::Close(Some(CloseFrame {
            code: close.code.code(),
            reason: close.reason.into(),
        }))
    }
}
