//! Connecting: addresses, and what a server must promise.

use std::time::Duration;

use event_core::{AppendError, EventStore, Expected, StoreError};
use event_redis::{ConnectError, Durability, RedisStore, Weakness};
use event_tests::RedisServer;
use event_tests::redis_server::{Aof, Listen};

use crate::support::{builder, numbered, server, soon, store, to, until};

fn with(aof: Aof) -> RedisServer {
    RedisServer::builder().aof(aof).start().unwrap()
}

/// The weaknesses that a server is refused for, and what the error says.
async fn refusal(server: &RedisServer, durability: Durability) -> (Vec<Weakness>, String) {
    let error = builder(server)
        .durability(durability)
        .connect()
        .await
        .unwrap_err();
    let message = error.to_string();
    let ConnectError::TooWeak { weaknesses, .. } = error else {
        panic!("{error:?}");
    };
    // Whoever accepts it may use it all the same.
    let accepted = builder(server)
        .durability(durability)
        .accept_weaker_durability()
        .connect()
        .await;
    accepted.unwrap();
    (weaknesses, message)
}

#[tokio::test]
async fn a_server_is_reached_by_tcp_and_by_its_socket() {
    let server = RedisServer::builder().listen(Listen::Both).start().unwrap();
    for (n, url) in [server.url(), server.unix_url().unwrap()]
        .into_iter()
        .enumerate()
    {
        let store = RedisStore::connect(url).await.unwrap();
        let append = to("gothic", Expected::Exact(n as u64), numbered(&[n as u32]));
        store.append(&append).await.unwrap();
    }
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "2");
}

#[tokio::test]
async fn a_database_is_chosen_by_the_url() {
    let server = server();
    let store = RedisStore::connect(format!("{}3", server.url()))
        .await
        .unwrap();
    let append = to("gothic", Expected::Any, numbered(&[1]));
    store.append(&append).await.unwrap();
    assert!(
        server
            .command(&["INFO", "keyspace"])
            .unwrap()
            .contains("db3:")
    );
}

#[tokio::test]
async fn where_nothing_answers_the_error_says_what_to_do() {
    let mut server = with(Aof::Off);
    server.kill();
    let connecting = RedisStore::connect(server.url());
    let error = soon("an error", connecting).await.unwrap_err();
    let address = server.url().trim_end_matches('/').to_owned();
    assert_eq!(
        error.to_string(),
        format!("nothing answers at {address}; start a redis-server there, or give another URL")
    );
    let error = RedisStore::connect("redis+unix:///nowhere/redis.sock").await;
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("redis+unix:///nowhere/redis.sock"),
        "{message}"
    );
}

#[tokio::test]
async fn secrets_of_the_url_are_not_printed() {
    let server = with(Aof::Off);
    server
        .command(&["CONFIG", "SET", "requirepass", "geheim"])
        .unwrap();
    let url = |secret: &str| {
        server
            .url()
            .replace("redis://", &format!("redis://:{secret}@"))
    };
    let builder = RedisStore::builder(url("secret"));
    assert!(!format!("{builder:?}").contains("secret"));
    for url in [url("secret"), server.url()] {
        let error = RedisStore::connect(url).await.unwrap_err();
        let ConnectError::Denied { .. } = error else {
            panic!("{error:?}");
        };
        assert!(
            !format!("{error:?} {error}").contains("secret"),
            "{error:?}"
        );
    }
    let accepted = RedisStore::builder(url("geheim")).accept_weaker_durability();
    let store = accepted.connect().await.unwrap();
    assert!(!format!("{store:?}").contains("geheim"));
}

#[tokio::test]
async fn what_is_no_url_or_prefix_is_refused() {
    for url in [
        "",
        "nonsense",
        "http://localhost",
        "redis://localhost/x",
        "redis://h:port",
    ] {
        let error = RedisStore::connect(url).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::InvalidUrl { .. }),
            "{url}: {error:?}"
        );
    }
    let error = RedisStore::builder("redis://localhost").prefix("{a}:");
    let error = error.connect().await.unwrap_err();
    assert!(
        matches!(error, ConnectError::InvalidPrefix { .. }),
        "{error:?}"
    );
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn without_the_feature_a_tls_url_names_it() {
    let error = RedisStore::connect("rediss://user:secret@example.com:6380/1")
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "rediss://example.com:6380 asks for TLS, which this program was built without; enable the feature `tls` of event-redis"
    );
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn with_the_feature_a_tls_url_is_understood() {
    // The server does not speak TLS, so that the greeting fails: but it is tried.
    let url = server().url().replace("redis://", "rediss://");
    let error = RedisStore::connect(url).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let server = with(Aof::Always);
    server
        .command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .unwrap();
    for durability in [
        Durability::Memory,
        Durability::EverySecond,
        Durability::Fsync,
    ] {
        let (weaknesses, message) = refusal(&server, durability).await;
        let policy = "allkeys-lru".to_owned();
        assert_eq!(weaknesses, [Weakness::Evicts { policy }]);
        assert!(
            message.contains("`CONFIG SET maxmemory-policy noeviction`"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_server_without_a_file_is_refused() {
    let server = with(Aof::Off);
    let (weaknesses, message) = refusal(&server, Durability::EverySecond).await;
    assert_eq!(weaknesses, [Weakness::NoAppendOnlyFile]);
    assert!(message.contains("`CONFIG SET appendonly yes`"), "{message}");
    assert!(
        message.contains("`appendonly yes` in redis.conf"),
        "{message}"
    );
    let (weaknesses, _) = refusal(&server, Durability::Fsync).await;
    assert_eq!(weaknesses.len(), 2);
    // Memory needs none.
    builder(&server)
        .durability(Durability::Memory)
        .connect()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_syncs_too_rarely_is_refused() {
    let server = with(Aof::EverySecond);
    store(&server).await;
    let (weaknesses, message) = refusal(&server, Durability::Fsync).await;
    assert_eq!(
        weaknesses,
        [Weakness::SyncsTooRarely {
            found: "everysec".into(),
            needed: "always"
        }]
    );
    assert!(
        message.contains("`CONFIG SET appendfsync always`"),
        "{message}"
    );
    server
        .command(&["CONFIG", "SET", "appendfsync", "no"])
        .unwrap();
    let (_, message) = refusal(&server, Durability::EverySecond).await;
    assert!(
        message.contains("`CONFIG SET appendfsync everysec`"),
        "{message}"
    );
    server
        .command(&["CONFIG", "SET", "appendfsync", "always"])
        .unwrap();
    for durability in [Durability::Fsync, Durability::EverySecond] {
        builder(&server)
            .durability(durability)
            .connect()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_server_that_hides_its_settings_is_refused() {
    let server = with(Aof::Always);
    let rules = [
        "ACL", "SETUSER", "app", "on", "nopass", "~*", "&*", "+@all", "-config",
    ];
    server.command(&rules).unwrap();
    let url = server.url().replace("redis://", "redis://app:x@");
    let error = RedisStore::connect(url.clone()).await.unwrap_err();
    let message = error.to_string();
    assert!(
        matches!(&error, ConnectError::TooWeak { weaknesses, .. }
            if matches!(weaknesses.as_slice(), [Weakness::Unknown { .. }])),
        "{error:?}"
    );
    assert!(
        message.contains("`ACL SETUSER app +config|get`"),
        "{message}"
    );
    let builder = RedisStore::builder(url).accept_weaker_durability();
    builder.connect().await.unwrap();
}

#[tokio::test]
async fn too_few_replicas_are_refused() {
    let server = with(Aof::Always);
    let (weaknesses, message) = refusal(&server, Durability::Replicated(1)).await;
    let (found, needed) = (0, 1);
    assert_eq!(weaknesses, [Weakness::TooFewReplicas { found, needed }]);
    assert!(message.contains("0 of 1 replicas"), "{message}");
}

#[tokio::test]
async fn an_append_is_confirmed_by_replicas() {
    let server = with(Aof::Always);
    let replica = RedisServer::builder()
        .replica_of(&server)
        .unwrap()
        .start()
        .unwrap();
    let store = builder(&server)
        .durability(Durability::Replicated(1))
        .connect()
        .await
        .unwrap();
    let first = to("gothic", Expected::Exact(0), numbered(&[1]));
    store.append(&first).await.unwrap();
    assert_eq!(replica.command(&["XLEN", "events:sdlc"]).unwrap(), "1");

    replica.freeze().unwrap();
    let second = to("gothic", Expected::Exact(1), numbered(&[2]));
    for repeated in ["first", "again"] {
        let error = store.append(&second).await.unwrap_err();
        assert!(
            matches!(
                error,
                AppendError::NotReplicated {
                    wanted: 1,
                    reached: 0
                }
            ),
            "{repeated}: {error:?}"
        );
    }
    // A conflict is one, whatever replicas say.
    let conflict = to("gothic", Expected::Exact(0), numbered(&[3]));
    let error = store.append(&conflict).await.unwrap_err();
    assert!(
        matches!(error, AppendError::Conflict { actual: 2, .. }),
        "{error:?}"
    );
    replica.thaw().unwrap();
    let again = store.append(&second).await.unwrap();
    assert!(again.events[0].repeated);
    assert_eq!(replica.command(&["XLEN", "events:sdlc"]).unwrap(), "2");
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "2");
}

#[tokio::test]
async fn a_replica_is_not_written_to() {
    let server = with(Aof::Always);
    let replica = RedisServer::builder()
        .aof(Aof::Always)
        .replica_of(&server)
        .unwrap()
        .start()
        .unwrap();
    let store = builder(&replica)
        .patience(Duration::from_millis(300))
        .connect()
        .await
        .unwrap();
    let append = to("gothic", Expected::Any, numbered(&[1]));
    let error = store.append(&append).await.unwrap_err();
    assert!(
        matches!(&error, AppendError::Store(StoreError::Unavailable { source, .. })
            if source.to_string().contains("READONLY")),
        "{error:?}"
    );
    // It waits for the replica to become a primary.
    let patient = builder(&replica).connect().await.unwrap();
    let appending = tokio::spawn(async move { patient.append(&append).await });
    until("a connection", || {
        let clients = replica.command(&["CLIENT", "LIST"]).unwrap();
        clients.contains("cmd=evalsha")
    })
    .await;
    replica.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    appending.await.unwrap().unwrap();
    assert_eq!(replica.command(&["XLEN", "events:sdlc"]).unwrap(), "1");
}

#[cfg(not(feature = "cluster"))]
#[tokio::test]
async fn a_cluster_needs_the_feature() {
    let server = RedisServer::builder();
    let server = server.config("cluster-enabled", "yes").start().unwrap();
    let error = RedisStore::connect(server.url()).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::WithoutCluster { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("feature `cluster`"), "{error}");
}
