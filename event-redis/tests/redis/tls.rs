//! `rediss://` against a server that speaks TLS, with an authority of the test's own.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use event_core::{EventStore, Expected, FeedEntry, Position, Realtime, RealtimeItem, Versions};
use event_redis::{ConnectError, RedisStore};
use event_tests::RedisServer;
use event_tests::redis_server::{Aof, Error, Listen};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::{event_as, id, numbered, project, sdlc, soon, to};

/// How many ports are tried, each of which somebody else may be faster to take.
const PORT_ATTEMPTS: usize = 20;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes what the server shows its clients, signed by the authority.
fn write_certificate(folder: &Path, authority: &CertifiedIssuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    for (name, pem) in [
        ("server.pem", certificate.pem()),
        ("server.key", key.serialize_pem()),
        ("ca.pem", authority.pem()),
    ] {
        std::fs::write(folder.join(name), pem).unwrap();
    }
}

/// A server that speaks TLS, and its URL; nothing where this server was built without it.
fn tls_server(folder: &Path) -> Option<(RedisServer, String)> {
    let path = |name: &str| format!("\"{}\"", folder.join(name).display());
    for _ in 0..PORT_ATTEMPTS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let server = RedisServer::builder()
            .listen(Listen::Unix)
            .aof(Aof::Always)
            .config("tls-port", port.to_string())
            .config("tls-cert-file", path("server.pem"))
            .config("tls-key-file", path("server.key"))
            .config("tls-ca-cert-file", path("ca.pem"))
            .config("tls-auth-clients", "no")
            .start();
        match server {
            Ok(server) => return Some((server, format!("rediss://127.0.0.1:{port}/"))),
            Err(Error::Exited { log, .. }) if log.contains("Bad directive") => return None,
            // Somebody else was faster to take the port.
            Err(Error::NoFreePort { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no free port");
}

#[tokio::test]
async fn a_tls_server_is_used_like_any_other() {
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path(), &authority);
    let Some((server, url)) = tls_server(folder.path()) else {
        eprintln!("this redis-server was built without TLS: only the client's side is tested");
        let error = trusting("rediss://127.0.0.1:1/", &authority).await;
        let error = error.unwrap_err();
        assert!(
            matches!(error, ConnectError::Unreachable { .. }),
            "{error:?}"
        );
        return;
    };

    let store = soon("a store", trusting(&url, &authority)).await.unwrap();
    let append = to("gothic", Expected::NoStream, numbered(&[1, 2]));
    soon("an append", store.append(&append)).await.unwrap();
    assert_eq!(server.command(&["XLEN", "events:sdlc"]).unwrap(), "2");
    let feed = store
        .read_feed(&sdlc().into(), Position::START, 10)
        .await
        .unwrap();
    assert!(
        matches!(&feed[..], [FeedEntry::Event(_), FeedEntry::Event(_)]),
        "{feed:?}"
    );
    let project = project("gothic");
    let history = store.read_aggregate(&project, &Versions::all()).await;
    assert_eq!(history.unwrap().len(), 2);
    // On a connection of its own, and by the newer protocol.
    let mut subscription = store.subscribe(&["sdlc.*".parse().unwrap()]).await.unwrap();
    let event = event_as(id(3), "sdlc.phase.changed", "3");
    store.publish_realtime(&[event]).await.unwrap();
    let item = soon("an event", subscription.next()).await;
    assert!(matches!(item, Some(RealtimeItem::Event(_))), "{item:?}");

    // A server that nobody vouches for is not trusted, whoever says that it is fine.
    for stranger in [
        RedisStore::connect(&url).await,
        trusting(&url, &self::authority()).await,
    ] {
        let error = stranger.unwrap_err();
        assert!(
            matches!(error, ConnectError::Unreachable { .. }),
            "{error:?}"
        );
        assert!(format!("{error:?}").contains("certificate"), "{error:?}");
    }
}

async fn trusting(
    url: &str,
    authority: &CertifiedIssuer<'static, KeyPair>,
) -> Result<RedisStore, ConnectError> {
    let builder = RedisStore::builder(url).root_certificate(authority.pem());
    builder.connect().await
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_refused() {
    let good = authority().pem();
    for (url, pem) in [
        ("rediss://127.0.0.1:1/", "no certificate"),
        ("redis://127.0.0.1:1/", good.as_str()),
    ] {
        let builder = RedisStore::builder(url).root_certificate(pem);
        let error = builder.connect().await.unwrap_err();
        assert!(
            matches!(error, ConnectError::InvalidCertificate { .. }),
            "{url}: {error:?}"
        );
    }
}
