//! Connections that are written to at once, and not for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;

/// Accepts connections for a transport; see [`GraphqlTransport::listener`](super::GraphqlTransport::listener).
#[derive(Debug)]
pub struct TransportListener {
    listener: TcpListener,
    write_timeout: Duration,
}

impl TransportListener {
    pub(super) fn new(listener: TcpListener, write_timeout: Duration) -> Self {
        Self {
            listener,
            write_timeout,
        }
    }
}

impl Listener for TransportListener {
    type Io = Pin<Box<TimeoutStream<TcpStream>>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        // What cannot be accepted is tried again there.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small messages may wait for each other");
        }
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.write_timeout));
        (Box::pin(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
