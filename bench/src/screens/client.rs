//! A client that does no more than cut frames apart.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A WebSocket.
pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What of the buffer was given out already.
    given: usize,
}

impl Socket {
    pub(crate) async fn connect(address: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        ensure!(
            head.starts_with(b"HTTP/1.1 101"),
            "no socket: {}",
            String::from_utf8_lossy(&head)
        );
        Ok(Self {
            stream,
            buffer: Vec::new(),
            given: 0,
        })
    }

    pub(crate) async fn say(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(TEXT, text.as_bytes()).await
    }

    /// The text of the next message.
    pub(crate) async fn next(&mut self) -> anyhow::Result<&[u8]> {
        self.buffer.drain(..self.given);
        self.given = 0;
        loop {
            match self.frame()? {
                Some((kind, begin, end)) if kind == PING => {
                    let payload = self.buffer.get(begin..end).unwrap_or_default().to_vec();
                    self.write(PONG, &payload).await?;
                    self.buffer.drain(..end);
                }
                Some((_, begin, end)) => {
                    self.given = end;
                    return self.buffer.get(begin..end).context("a frame is cut");
                }
                None => {
                    if self.stream.read_buf(&mut self.buffer).await? == 0 {
                        bail!("the server has closed the socket");
                    }
                }
            }
        }
    }

    /// The kind of the first frame in the buffer, and where its payload lies.
    fn frame(&self) -> anyhow::Result<Option<(u8, usize, usize)>> {
        let [kind, short, ..] = *self.buffer.as_slice() else {
            return Ok(None);
        };
        ensure!(
            kind == TEXT || kind == PING,
            "the server sends frames of kind {kind:#x}"
        );
        let (begin, length) = match (short, self.buffer.get(2..4)) {
            (0..126, _) => (2, usize::from(short)),
            (126, Some(&[high, low])) => (4, usize::from(u16::from_be_bytes([high, low]))),
            (126, _) => return Ok(None),
            _ => bail!("the server sends a long frame"),
        };
        let end = begin + length;
        Ok((self.buffer.len() >= end).then_some((kind, begin, end)))
    }

    /// Masked with zeros.
    async fn write(&mut self, kind: u8, payload: &[u8]) -> anyhow::Result<()> {
        let length = u16::try_from(payload.len()).context("a long message")?;
        let mut frame = vec![kind, 0x80 | 126];
        frame.extend(length.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame).await?;
        Ok(())
    }
}
