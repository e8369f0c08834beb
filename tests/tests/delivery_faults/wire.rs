//! A wire between services and a server, on which a test sees each request and decides what becomes of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// What becomes of a request.
pub(crate) enum Fate {
    /// It is passed on.
    Passes,
    /// It does not reach the server, and the wire falls.
    IsLost,
    /// The server does what it says, and the wire falls before anybody hears of it.
    LosesReply,
    /// It is passed on when this says so.
    Waits(watch::Receiver<bool>),
}

/// Says what becomes of what a client has sent at once.
pub(crate) type Judge = dyn Fn(&[u8]) -> Fate + Send + Sync;

/// All connections of some services to a server.
pub(crate) struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    judge: Box<Judge>,
    /// Whether nothing is passed on.
    is_down: AtomicBool,
    fell: Notify,
    /// Cuts the connections there are.
    cut: Mutex<CancellationToken>,
    /// How many requests wait, or have.
    waits: AtomicUsize,
    /// A reply that is counted, and how often there was one.
    counted: &'static [u8],
    count: AtomicUsize,
}

impl Wire {
    /// `counted` is a reply of which the wire tells how often it was.
    pub(crate) async fn to(
        server: SocketAddr,
        counted: &'static [u8],
        judge: impl Fn(&[u8]) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            judge: Box::new(judge),
            is_down: AtomicBool::new(false),
            fell: Notify::new(),
            cut: Mutex::default(),
            waits: AtomicUsize::new(0),
            counted,
            count: AtomicUsize::new(0),
        });
        let own = Arc::downgrade(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Some(shared) = own.upgrade() else {
                    return;
                };
                if shared.is_down.load(Ordering::SeqCst) {
                    continue;
                }
                let cut = shared.cut.lock().unwrap().clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = cut.cancelled() => {}
                        // However it ends, the connection has ended.
                        _ = shared.pass_on(client) => {}
                    }
                });
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Waits until it has fallen: nothing goes over it any more.
    pub(crate) async fn fell(&self) {
        self.shared.fell.notified().await;
    }

    /// Lets connections be made again.
    pub(crate) fn rise(&self) {
        *self.shared.cut.lock().unwrap() = CancellationToken::new();
        self.shared.is_down.store(false, Ordering::SeqCst);
    }

    /// How many requests wait, or have.
    pub(crate) fn waits(&self) -> usize {
        self.shared.waits.load(Ordering::SeqCst)
    }

    /// How often there was the reply that is counted.
    pub(crate) fn count(&self) -> usize {
        self.shared.count.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn pass_on(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut server = TcpStream::connect(self.server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let (mut request, mut reply) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                read = from_client.read(&mut request) => {
                    let sent = &request[..read?];
                    if sent.is_empty() {
                        return Ok(());
                    }
                    match (self.judge)(sent) {
                        Fate::Passes => to_server.write_all(sent).await?,
                        Fate::IsLost => {
                            self.fall();
                            return Ok(());
                        }
                        Fate::LosesReply => {
                            to_server.write_all(sent).await?;
                            self.is_done().await;
                            self.fall();
                            return Ok(());
                        }
                        Fate::Waits(mut goes_on) => {
                            self.waits.fetch_add(1, Ordering::SeqCst);
                            let _ = goes_on.wait_for(|goes_on| *goes_on).await;
                            to_server.write_all(sent).await?;
                        }
                    }
                }
                read = from_server.read(&mut reply) => {
                    let said = &reply[..read?];
                    if said.is_empty() {
                        return Ok(());
                    }
                    if said.windows(self.counted.len()).any(|part| part == self.counted) {
                        self.count.fetch_add(1, Ordering::SeqCst);
                    }
                    to_client.write_all(said).await?;
                }
            }
        }
    }

    /// Waits until the server has done what it was sent before: it answers whoever asks later only then.
    async fn is_done(&self) {
        let ask = async {
            let mut server = TcpStream::connect(self.server).await?;
            server.write_all(b"PING\r\n").await?;
            server.read(&mut [0; 16]).await
        };
        let _ = ask.await;
    }

    fn fall(&self) {
        self.is_down.store(true, Ordering::SeqCst);
        self.cut.lock().unwrap().cancel();
        self.fell.notify_one();
    }
}
