//! How much a client may ask for, and how long it is waited for.

use std::time::Duration;

/// How much a client may ask for, and how long it is waited for.
///
/// ```
/// use event_graphql::Limits;
///
/// let limits = Limits {
///     subscriptions: 10,
///     ..Limits::default()
/// };
/// assert_eq!(limits.connections, 10_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many subscriptions one socket may have at a time. One more is answered with an `error` whose
    /// `extensions.code` is `TOO_MANY_SUBSCRIPTIONS`. 100 by default.
    pub subscriptions: usize,
    /// How many sockets and streams of server-sent events a transport may have at a time. One more is
    /// answered with 503 and `TOO_MANY_CONNECTIONS`. 10,000 by default.
    pub connections: u32,
    /// How many bytes a message or request from a client may have. A longer message closes the socket
    /// with 1009 (and drops it from four times as many bytes on, unread); a longer request is answered
    /// with 413. 64 KiB by default.
    pub message_bytes: usize,
    /// How long a socket may be without an acknowledged `connection_init`. Closes with 4408. 3 s by
    /// default.
    pub init_timeout: Duration,
    /// How often a socket is pinged, so that idle clients and what lies between stay connected. 12 s by
    /// default.
    pub ping_interval: Duration,
    /// How long after a ping a socket may be silent before its connection is dropped. 12 s by default.
    pub pong_timeout: Duration,
    /// How long one write may take before its connection is dropped: what holds against clients that
    /// stop reading. A stream of server-sent events ends then; that its connection is closed too is the
    /// [listener's](super::GraphqlTransport::listener) part. 10 s by default.
    pub write_timeout: Duration,
    /// How often a silent stream of server-sent events gets a comment. 15 s by default.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions: 100,
            connections: 10_000,
            message_bytes: 64 * 1024,
            init_timeout: Duration::from_secs(3),
            ping_interval: Duration::from_secs(12),
            pong_timeout: Duration::from_secs(12),
            write_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// Times are added to the present, which must not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What is done again and again is not done without a pause.
const SHORTEST: Duration = Duration::from_millis(1);

impl Limits {
    /// The same with times that can be waited for: from a millisecond to a year.
    pub(super) fn within_reason(self) -> Self {
        let within = |time: Duration| time.clamp(SHORTEST, LONGEST);
        Self {
            init_timeout: within(self.init_timeout),
            ping_interval: within(self.ping_interval),
            pong_timeout: within(self.pong_timeout),
            write_timeout: within(self.write_timeout),
            keep_alive: within(self.keep_alive),
            ..self
        }
    }
}
