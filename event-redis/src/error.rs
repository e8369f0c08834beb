//! What can go wrong, and what to do about it. The client's own error types stay in here.

use std::fmt;
use std::time::Duration;

use event_core::{BoxError, Category, StoreError};
use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::durability::Durability;

/// A store that could not be connected to, or that may not be used.
#[derive(thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be read.
    #[error(
        "the URL of the Redis server cannot be read ({reason}); write redis://HOST:PORT/DATABASE, rediss://… for TLS, or redis+unix:///PATH"
    )]
    InvalidUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// A `rediss://` URL, without the feature for it.
    #[error(
        "{address} asks for TLS, which this program was built without; enable the feature `tls` of event-redis"
    )]
    WithoutTls {
        /// The address.
        address: String,
    },
    /// A certificate that cannot be used.
    #[error(
        "the root certificate cannot be used ({reason}); give it as PEM, and the URL as rediss://HOST:PORT"
    )]
    InvalidCertificate {
        /// What is wrong with it.
        reason: String,
    },
    /// A prefix of keys with braces.
    #[error(
        "the prefix `{prefix}` has braces, which in Redis Cluster would part a feed from its histories; leave them out"
    )]
    InvalidPrefix {
        /// The prefix.
        prefix: String,
    },
    /// A node of a cluster, without the feature for it.
    #[error(
        "{address} is a node of a cluster, for which this program was not built; enable the feature `cluster` of event-redis"
    )]
    WithoutCluster {
        /// The address.
        address: String,
    },
    /// Several URLs, and a server that is no node of a cluster.
    #[error(
        "{address} is not a node of a cluster, so that it cannot be one of several; give its URL alone, or set `cluster-enabled yes` in redis.conf"
    )]
    NoCluster {
        /// The address.
        address: String,
    },
    /// Nothing answers.
    #[error("nothing answers at {address}; start a redis-server there, or give another URL")]
    Unreachable {
        /// The address.
        address: String,
        /// What the last try ended with.
        source: BoxError,
    },
    /// The server does not let the user in.
    #[error(
        "{address} does not let the user in; give the right user and password in the URL, as redis://USER:PASSWORD@HOST"
    )]
    Denied {
        /// The address.
        address: String,
        /// The server's answer.
        source: BoxError,
    },
    /// The server answers that it will not.
    #[error("{address} refuses `{command}`; see its answer")]
    Refused {
        /// The address.
        address: String,
        /// What was asked.
        command: &'static str,
        /// The server's answer.
        source: BoxError,
    },
    /// The server is too old.
    #[error("{address} is {found}; at least Redis 7.0 or Valkey 7.2 is needed, so update it")]
    TooOld {
        /// The address.
        address: String,
        /// The server's name and version.
        found: String,
    },
    /// A category has another number of partitions than is asked for.
    #[error(
        "the feed of `{category}` has {found} partitions, and {wanted} are asked for; that never changes once it is settled, so ask for {found}, or use a category of another name"
    )]
    Partitions {
        /// The category.
        category: Category,
        /// How many are asked for.
        wanted: u32,
        /// How many there are.
        found: u32,
    },
    /// The server cannot keep what it is asked to keep.
    #[error(
        "{address} cannot promise {durability}: {}; or accept that: call `accept_weaker_durability()` on the store's builder, `RedisStore::builder(…)`",
        List(weaknesses)
    )]
    TooWeak {
        /// The address.
        address: String,
        /// What is asked of it.
        durability: Durability,
        /// Everything that stands against it.
        weaknesses: Vec<Weakness>,
    },
}

/// As [`Display`](fmt::Display), with the sources: a `main` that returns an error, and a test that
/// unwraps one, print this, and the sentence is for those who read it there.
impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = std::error::Error::source(self);
        let mut said = String::new();
        while let Some(error) = source {
            // The client's errors say what theirs do.
            let text = error.to_string();
            if text != said {
                write!(f, "\n  because: {text}")?;
            }
            said = text;
            source = error.source();
        }
        Ok(())
    }
}

/// Why a server may lose what it has acknowledged, and the setting to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    /// It may evict keys when memory is short.
    #[error(
        "its maxmemory-policy is `{policy}`, so it may evict events when memory is short; run `CONFIG SET maxmemory-policy noeviction` and write `maxmemory-policy noeviction` in redis.conf"
    )]
    Evicts {
        /// The policy.
        policy: String,
    },
    /// It writes no append-only file.
    #[error(
        "it writes no append-only file; run `CONFIG SET appendonly yes` and write `appendonly yes` in redis.conf"
    )]
    NoAppendOnlyFile,
    /// It syncs the append-only file too rarely.
    #[error(
        "its appendfsync is `{found}`; run `CONFIG SET appendfsync {needed}` and write `appendfsync {needed}` in redis.conf"
    )]
    SyncsTooRarely {
        /// What it is set to.
        found: String,
        /// What it must be set to.
        needed: &'static str,
    },
    /// It has too few replicas.
    #[error(
        "it has {found} of {needed} replicas; run `REPLICAOF` with its host and port on more servers, and write `replicaof` in their redis.conf"
    )]
    TooFewReplicas {
        /// How many it has.
        found: u32,
        /// How many it must have.
        needed: u32,
    },
    /// It does not show its settings, so nothing is known.
    #[error(
        "its settings cannot be read ({answer}); allow the user `CONFIG GET`, as with `ACL SETUSER {user} +config|get`"
    )]
    Unknown {
        /// The server's answer.
        answer: String,
        /// The user.
        user: String,
    },
}

/// Several things in one sentence.
struct List<'a>(&'a [Weakness]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, weakness) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; and ")?;
            }
            weakness.fmt(f)?;
        }
        Ok(())
    }
}

/// What the server says that is neither what was asked for nor an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnexpectedReply {
    /// Not what the command is documented to reply.
    #[error("the server's reply is not what `{command}` replies: {what}")]
    Form {
        command: &'static str,
        what: &'static str,
    },
    /// Written by a program of another age.
    #[error(
        "the feed `{feed}` is in format {format}, and this program knows format 1; update the program"
    )]
    Format { feed: String, format: String },
    /// A permission is missing.
    #[error(
        "the user may not use `{command}` on the keys of `{feed}`; allow it with `ACL SETUSER`, and then try again"
    )]
    Forbidden { feed: String, command: String },
    /// Somebody has reset a group while an instance that was not heard of worked for it.
    #[error(
        "the group `{group}` of the feed `{feed}` was reset while this instance worked for it, and is to be opened anew"
    )]
    Forgotten { feed: String, group: String },
    /// The server's own answer to one of several writes.
    #[error("the feed `{feed}` cannot be written: {answer}")]
    Failed { feed: String, answer: String },
    /// A record that somebody else has written or changed.
    #[error(
        "the record {id} of the outbox `{outbox}` cannot be read: it is {what}; nothing behind it is delivered until somebody corrects or removes it"
    )]
    Record {
        outbox: String,
        id: String,
        what: &'static str,
    },
    /// A dead letter that somebody else has written or changed.
    #[error("the dead letter of `{feed}` that begins with `{beginning}` is not in the stored form")]
    DeadLetter {
        feed: String,
        beginning: String,
        source: serde_json::Error,
    },
}

impl UnexpectedReply {
    pub(crate) fn form(command: &'static str, what: &'static str) -> Self {
        Self::Form { command, what }
    }

    pub(crate) fn refused(self, operation: &'static str) -> StoreError {
        StoreError::Refused {
            operation,
            source: Box::new(self),
        }
    }
}

/// What to do about an error of the client or the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Connect anew, and then ask again.
    Reconnect,
    /// Ask again a little later.
    Wait,
    /// Make the script known, and ask again.
    LoadScript,
    /// Another node of the cluster has the slot: ask that.
    AskElsewhere,
    /// None: the same answer would come again.
    Nothing,
}

pub(crate) fn remedy(error: &RedisError) -> Remedy {
    match error.kind() {
        // The last is what a name without an address ends with.
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::InvalidClientConfig => Remedy::Reconnect,
        ErrorKind::Server(
            // A replica, or a server that is about to become one: the name may soon stand for
            // another server.
            ServerErrorKind::ReadOnly
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::BusyLoading,
        ) => Remedy::Reconnect,
        ErrorKind::Server(ServerErrorKind::TryAgain) => Remedy::Wait,
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => Remedy::AskElsewhere,
        ErrorKind::Server(ServerErrorKind::NoScript) => Remedy::LoadScript,
        ErrorKind::Server(ServerErrorKind::ResponseError)
            if error
                .detail()
                .is_some_and(|detail| detail.contains("max number of clients")) =>
        {
            Remedy::Reconnect
        }
        ErrorKind::Extension => match error.code() {
            Some("BUSY" | "NOREPLICAS" | "MISCONF") => Remedy::Wait,
            // A blocked reader whose server has become a replica.
            Some("UNBLOCKED") => Remedy::Reconnect,
            _ => Remedy::Nothing,
        },
        _ => Remedy::Nothing,
    }
}

/// Whether the server does not let the user in.
pub(crate) fn is_denied(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// What an error says, for users: an answer of the server in the server's own words.
pub(crate) fn boxed(error: RedisError) -> BoxError {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}").into(),
        (Some(code), None) => code.into(),
        _ => Box::new(error),
    }
}

pub(crate) fn refused(operation: &'static str, error: RedisError) -> StoreError {
    StoreError::Refused {
        operation,
        source: boxed(error),
    }
}

pub(crate) fn unavailable(
    operation: &'static str,
    waited: Duration,
    error: Option<RedisError>,
) -> StoreError {
    StoreError::Unavailable {
        operation,
        waited,
        source: match error {
            Some(error) => boxed(error),
            None => "no connection could be made in this time".into(),
        },
    }
}

/// One failure for each of those it befell.
pub(crate) fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable {
            operation,
            waited,
            source,
        } => StoreError::Unavailable {
            operation,
            waited: *waited,
            source: source.to_string().into(),
        },
        StoreError::FeedTrimmed {
            partition,
            first_available,
        } => StoreError::FeedTrimmed {
            partition: partition.clone(),
            first_available: *first_available,
        },
        StoreError::Refused { operation, source } | StoreError::Forgotten { operation, source } => {
            StoreError::Refused {
                operation,
                source: source.to_string().into(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_the_sentence_and_its_sources() {
        let error = ConnectError::Refused {
            address: "redis://h".into(),
            command: "PING",
            source: "NOPERM no".into(),
        };
        assert_eq!(
            format!("{error:?}"),
            "redis://h refuses `PING`; see its answer\n  because: NOPERM no"
        );
        let error = ConnectError::InvalidPrefix {
            prefix: "{a}".into(),
        };
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}
