//! What lies between everybody and the server, and cuts connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long a request whose reply gets lost still has to reach the server. Closed with something
/// unread, a connection takes along what the server has not read yet.
const ARRIVES: Duration = Duration::from_millis(20);

/// A proxy on a port of its own.
pub(crate) struct Proxy {
    address: SocketAddr,
    wires: Arc<Wires>,
}

#[derive(Default)]
struct Wires {
    open: Mutex<BTreeMap<u64, Wire>>,
}

impl Wires {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Wire>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection.
#[derive(Clone, Default)]
struct Wire {
    cut: CancellationToken,
    loses_reply: Arc<AtomicBool>,
}

impl Proxy {
    /// Takes connections from now on, and passes them on to `server`.
    pub(crate) async fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let wires = Arc::new(Wires::default());
        let own = Arc::clone(&wires);
        tokio::spawn(async move {
            let mut number = 0;
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    continue;
                };
                number += 1;
                let (wires, wire) = (Arc::clone(&own), Wire::default());
                wires.open().insert(number, wire.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = wire.cut.cancelled() => {}
                        // However it ends, the connection has ended.
                        _ = pass_on(client, server, &wire) => {}
                    }
                    wires.open().remove(&number);
                });
            }
        });
        Ok(Self { address, wires })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Cuts one connection.
    pub(crate) fn cut_one(&self, random: &mut fastrand::Rng) {
        if let Some(wire) = self.choose(random) {
            wire.cut.cancel();
        }
    }

    /// Cuts all of them.
    pub(crate) fn cut_all(&self) {
        for wire in self.wires.open().values() {
            wire.cut.cancel();
        }
    }

    /// Has the next request on a connection reach the server, and its reply nobody.
    pub(crate) fn lose_reply(&self, random: &mut fastrand::Rng) {
        if let Some(wire) = self.choose(random) {
            wire.loses_reply.store(true, Ordering::Release);
        }
    }

    fn choose(&self, random: &mut fastrand::Rng) -> Option<Wire> {
        let open = self.wires.open();
        let place = random.usize(..open.len().max(1));
        open.values().nth(place).cloned()
    }
}

async fn pass_on(mut client: TcpStream, server: SocketAddr, wire: &Wire) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let (mut request, mut reply) = (vec![0; 65_536], vec![0; 65_536]);
    let mut is_sent = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut request) => match read? {
                0 => return Ok(()),
                count => {
                    let loses = wire.loses_reply.load(Ordering::Acquire);
                    to_server.write_all(&request[..count]).await?;
                    is_sent |= loses;
                }
            },
            read = from_server.read(&mut reply) => match read? {
                0 => return Ok(()),
                _ if is_sent => {
                    let _ = tokio::time::timeout(ARRIVES, async {
                        while from_server.read(&mut reply).await? > 0 {}
                        Ok::<_, std::io::Error>(())
                    })
                    .await;
                    return Ok(());
                }
                count => to_client.write_all(&reply[..count]).await?,
            },
        }
    }
}
