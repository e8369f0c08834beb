//! A WebSocket client, and plain TCP for what no good client does.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Gives up long after what is waited for should have happened.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("it did not happen")
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address, Some("graphql-transport-ws"))
            .await
            .unwrap()
    }

    pub(crate) async fn try_connect(
        address: SocketAddr,
        protocol: Option<&str>,
    ) -> Result<Self, Error> {
        let mut request = format!("ws://{address}/graphql/ws").into_client_request()?;
        request
            .headers_mut()
            .insert("user-agent", "test".parse().unwrap());
        if let Some(protocol) = protocol {
            let protocol = protocol.parse().unwrap();
            request
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
        }
        let (socket, _) = connect_async(request).await?;
        Ok(Self { socket })
    }

    /// Connects, and is let in.
    pub(crate) async fn init(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        client.say(json!({ "type": "connection_init" })).await;
        assert_eq!(client.hear().await, json!({ "type": "connection_ack" }));
        client
    }

    pub(crate) async fn say(&mut self, message: Value) {
        self.send(Message::Text(message.to_string().into())).await;
    }

    pub(crate) async fn send(&mut self, message: Message) {
        soon(self.socket.send(message)).await.unwrap();
    }

    pub(crate) async fn subscribe(&mut self, id: &str, query: &str) {
        self.say(json!({ "type": "subscribe", "id": id, "payload": { "query": query } }))
            .await;
    }

    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Message {
        soon(self.socket.next()).await.unwrap().unwrap()
    }

    /// The next message of the protocol.
    pub(crate) async fn hear(&mut self) -> Value {
        // Pings come whatever happens.
        soon(async {
            loop {
                match self.frame().await {
                    Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                    Message::Ping(_) => {}
                    other => panic!("it is no message: {other:?}"),
                }
            }
        })
        .await
    }

    /// The close frame, which is to come next, and the end of the connection.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let Message::Close(Some(frame)) = self.frame().await else {
            panic!("it is no close frame");
        };
        while let Some(Ok(_)) = soon(self.socket.next()).await {}
        (frame.code.into(), frame.reason.to_string())
    }
}

/// A client that upgrades and then writes frames as the test wants.
pub(crate) async fn raw(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /graphql/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
}

/// Writes a text frame, masked with zeros.
pub(crate) async fn raw_text(stream: &mut TcpStream, text: &str) {
    let length = u16::try_from(text.len()).unwrap();
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    stream.write_all(&frame).await.unwrap();
}
