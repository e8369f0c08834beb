//! Clients: plain HTTP, and `graphql-transport-ws`.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::harness::soon;

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// Sends a request, as HTTP/1.0, so that the answer comes in one piece and ends with the connection.
pub(crate) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses a body need not read it.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    http(address, "GET", path, &[], b"").await
}

/// A query or a mutation, whole.
pub(crate) async fn ask(address: SocketAddr, query: &str, variables: Value) -> Value {
    let body = json!({ "query": query, "variables": variables }).to_string();
    let headers = [("Content-Type", "application/json")];
    let answer = http(address, "POST", "/graphql", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The data of a query or a mutation that must succeed.
pub(crate) async fn data(address: SocketAddr, query: &str, variables: Value) -> Value {
    let mut answer = ask(address, query, variables).await;
    assert!(answer.get("errors").is_none(), "{answer}");
    answer["data"].take()
}

/// A socket with `graphql-transport-ws`.
pub(crate) struct Socket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut socket = Self::open(address, None).await;
        socket.say(json!({ "type": "connection_init" })).await;
        assert_eq!(socket.hear().await["type"], "connection_ack");
        socket
    }

    pub(crate) async fn open(address: SocketAddr, origin: Option<&str>) -> Self {
        let mut request = format!("ws://{address}/graphql/ws")
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        let protocol = "graphql-transport-ws".parse().unwrap();
        headers.insert("sec-websocket-protocol", protocol);
        if let Some(origin) = origin {
            headers.insert("origin", origin.parse().unwrap());
        }
        let (socket, _) = soon(connect_async(request)).await.unwrap();
        Self { socket }
    }

    pub(crate) async fn say(&mut self, message: Value) {
        let message = Message::Text(message.to_string().into());
        soon(self.socket.send(message)).await.unwrap();
    }

    pub(crate) async fn subscribe(&mut self, id: &str, query: &str, variables: Value) {
        let payload = json!({ "query": query, "variables": variables });
        self.say(json!({ "type": "subscribe", "id": id, "payload": payload }))
            .await;
    }

    /// The next message, or the code with which the server closes; `None` where it is just gone.
    pub(crate) async fn next(&mut self) -> Result<Value, Option<u16>> {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] == "ping" {
                        self.say(json!({ "type": "pong" })).await;
                    } else {
                        return Ok(message);
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(other)) => panic!("it is no message: {other:?}"),
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    pub(crate) async fn hear(&mut self) -> Value {
        self.next().await.unwrap()
    }

    /// The data of the next result, under its only field.
    pub(crate) async fn result(&mut self) -> Value {
        let mut message = self.hear().await;
        assert_eq!(message["type"], "next", "{message}");
        assert!(message["payload"].get("errors").is_none(), "{message}");
        let data = message["payload"]["data"].as_object_mut().unwrap();
        let first = data.values_mut().next().unwrap();
        first.take()
    }
}

/// A stream of server-sent events.
pub(crate) struct EventSource(BufReader<TcpStream>);

impl EventSource {
    /// Asks as a browser does that was cut off: with the id of the last event that it saw.
    pub(crate) async fn open(address: SocketAddr, query: &str, last: Option<&str>) -> Self {
        let body = json!({ "query": query }).to_string();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n"));
        // HTTP/1.0, so that there are no chunks.
        let request = format!(
            "POST /graphql/stream HTTP/1.0\r\nHost: {address}\r\nAccept: text/event-stream\r\n\
             Content-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{body}",
            last.unwrap_or_default(),
            body.len(),
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(stream))
    }

    /// The id and the data of the next event.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        let (mut id, mut data) = (None, None);
        loop {
            let mut line = String::new();
            let read = soon(self.0.read_line(&mut line)).await.unwrap();
            assert!(read > 0, "the stream has ended");
            if let Some(text) = line.strip_prefix("id:") {
                id = Some(text.trim().to_owned());
            } else if let Some(text) = line.strip_prefix("data:") {
                data = Some(serde_json::from_str(text.trim()).unwrap());
            } else if let (Some(_), Some(_), "") = (&id, &data, line.trim()) {
                return (id.unwrap(), data.unwrap());
            }
        }
    }
}
