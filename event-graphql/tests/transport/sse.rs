//! Server-sent events, as a plain client reads them.

use std::net::SocketAddr;
use std::time::Duration;

use event_graphql::{GraphqlTransport, Limits, Session};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::client::soon;
use super::server::{Mutation, Query, Server, Subscriptions};

/// An answer that is being read.
struct Answer {
    status: u16,
    stream: BufReader<TcpStream>,
}

#[derive(Debug, Default, PartialEq)]
struct Event {
    event: String,
    id: Option<String>,
    data: Option<String>,
    comment: bool,
}

impl Answer {
    /// HTTP/1.0 asks for a body without chunks, which ends with the connection.
    async fn ask(
        address: SocketAddr,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &str,
    ) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let headers: String = headers
            .iter()
            .map(|header| format!("{header}\r\n"))
            .collect();
        let request = format!(
            "{method} {target} HTTP/1.0\r\nHost: {address}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        soon(stream.read_line(&mut line)).await.unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        while line != "\r\n" {
            line.clear();
            soon(stream.read_line(&mut line)).await.unwrap();
        }
        Self { status, stream }
    }

    async fn post(address: SocketAddr, query: &str, headers: &[&str]) -> Self {
        let body = serde_json::json!({ "query": query }).to_string();
        let usual = [
            "Accept: text/event-stream",
            "Content-Type: application/json",
        ];
        Self::ask(
            address,
            "POST",
            "/graphql/stream",
            &[&usual, headers].concat(),
            &body,
        )
        .await
    }

    /// The next event or comment; nothing at the end.
    async fn event(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            if soon(self.stream.read_line(&mut line)).await.unwrap() == 0 {
                return None;
            }
            match line.trim_end().split_once(':') {
                None => return Some(event),
                Some(("event", name)) => event.event = name.trim().to_owned(),
                Some(("id", id)) => event.id = Some(id.trim().to_owned()),
                Some(("data", data)) => event.data = Some(data.trim().to_owned()),
                Some(_) => event.comment = true,
            }
        }
    }

    async fn next(&mut self) -> (Option<String>, Value) {
        let event = self.event().await.unwrap();
        assert_eq!(event.event, "next");
        (
            event.id,
            serde_json::from_str(&event.data.unwrap()).unwrap(),
        )
    }

    async fn completes(&mut self) {
        let event = self.event().await.unwrap();
        assert_eq!(event.event, "complete");
        // A browser passes over an event without a line of data.
        assert_eq!(event.data.as_deref(), Some("null"));
        assert_eq!(self.event().await, None);
    }

    async fn error_code(mut self) -> (u16, Value) {
        let mut body = String::new();
        soon(self.stream.read_to_string(&mut body)).await.unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        (self.status, body["errors"][0]["extensions"]["code"].clone())
    }
}

const LINES: &str = "subscription { lines(to: 3) { cursor } }";

#[tokio::test]
async fn each_response_has_the_id_that_was_noted_for_it() {
    let server = Server::start().await;
    let mut answer = Answer::post(server.address, LINES, &[]).await;
    assert_eq!(answer.status, 200);
    for number in 1..=3 {
        let (id, response) = answer.next().await;
        assert_eq!(id, Some(number.to_string()));
        assert_eq!(response["data"]["lines"]["cursor"], number);
    }
    answer.completes().await;
}

/// Who is cut off before anything has come can still go on from there.
#[tokio::test]
async fn where_it_begins_is_an_id_without_data() {
    let alone = Server::start().await;
    let shared = Server::with(|builder| {
        let builder = builder.share(["none"]);
        builder.on_sse(|_| async { Ok(Session::default().audience("all")) })
    })
    .await;
    let mut answers = Vec::new();
    // Of the two that share, one comes when it has begun.
    for server in [&alone, &shared, &shared] {
        let query = "subscription { none { cursor } }";
        let mut answer = Answer::post(server.address, query, &[]).await;
        let begun = Event {
            id: Some("7".to_owned()),
            ..Event::default()
        };
        assert_eq!(answer.event().await, Some(begun));
        answers.push(answer);
    }
    assert_eq!(alone.transport.shared_executions(), 0);
    assert_eq!(shared.transport.shared_executions(), 1);
}

#[tokio::test]
async fn a_client_goes_on_after_the_last_id_that_it_saw() {
    let server = Server::start().await;
    let mut answer = Answer::post(server.address, LINES, &["Last-Event-ID: 2"]).await;
    assert_eq!(answer.next().await.0.as_deref(), Some("3"));
    answer.completes().await;
}

#[tokio::test]
async fn get_works_too_but_for_mutations() {
    let server = Server::start().await;
    let accept = ["Accept: text/html, text/event-stream;q=0.9"];
    let get = |query: &str| {
        let target = format!("/graphql/stream?query={query}");
        async move { Answer::ask(server.address, "GET", &target, &accept, "").await }
    };
    let mut answer = get("subscription{count(to:1)}").await;
    let (id, response) = answer.next().await;
    assert_eq!((id, &response["data"]["count"]), (None, &0.into()));
    answer.completes().await;
    let mut answer = get("{name}").await;
    assert_eq!(answer.next().await.1["data"]["name"], "nobody");
    answer.completes().await;
    let mutation = get("mutation{double(number:1)}").await;
    assert_eq!(
        mutation.error_code().await,
        (405, "METHOD_NOT_ALLOWED".into())
    );
}

#[tokio::test]
async fn an_operation_that_is_not_begun_is_a_result_and_the_end() {
    let server = Server::start().await;
    let mut answer = Answer::post(server.address, "{ nothing }", &[]).await;
    assert!(answer.next().await.1["errors"][0]["message"].is_string());
    answer.completes().await;
}

#[tokio::test]
async fn headers_say_who_the_client_is() {
    let server = Server::start().await;
    let ask = |token| Answer::post(server.address, "{ name }", token);
    assert_eq!(
        ask(&["Authorization: ada"]).await.next().await.1["data"]["name"],
        "ada"
    );
    let unknown = ask(&["Authorization: unknown"]).await.error_code().await;
    assert_eq!(unknown, (401, "UNAUTHENTICATED".into()));
    let stolen = ask(&["Authorization: stolen"]).await.error_code().await;
    assert_eq!(stolen, (403, "FORBIDDEN".into()));
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let server = Server::with_limits(Limits {
        message_bytes: 1000,
        ..Limits::default()
    })
    .await;
    let accept = "Accept: text/event-stream";
    let json = "Content-Type: application/json";
    let long = "x".repeat(1001);
    for (headers, body, status) in [
        (vec![json], "{}", 406),
        (vec![accept], "{}", 415),
        (vec![accept, json], "no JSON", 400),
        (vec![accept, json], long.as_str(), 413),
    ] {
        let answer = Answer::ask(server.address, "POST", "/graphql/stream", &headers, body).await;
        assert_eq!(answer.error_code().await.0, status);
    }
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_until_the_shutdown() {
    let mut server = Server::with_limits(Limits {
        keep_alive: Duration::from_millis(20),
        connections: 1,
        ..Limits::default()
    })
    .await;
    let mut answer = Answer::post(server.address, "subscription { bell }", &[]).await;
    server.streams(1).await;
    assert!(answer.event().await.unwrap().comment);
    let another = Answer::post(server.address, "{ name }", &[])
        .await
        .error_code()
        .await;
    assert_eq!(another, (503, "TOO_MANY_CONNECTIONS".into()));
    soon(server.transport.shutdown()).await;
    assert_eq!(*server.alive.borrow(), 0);
    // It ends without a word, and so the client comes again.
    while let Some(event) = answer.event().await {
        assert!(event.comment);
    }
    let later = Answer::post(server.address, "{ name }", &[])
        .await
        .error_code()
        .await;
    assert_eq!(later, (503, "SERVICE_RESTART".into()));
}

#[tokio::test]
async fn a_client_that_leaves_stops_its_stream() {
    let mut server = Server::start().await;
    let answer = Answer::post(server.address, "subscription { bell }", &[]).await;
    server.streams(1).await;
    drop(answer);
    server.streams(0).await;
}

#[tokio::test]
async fn a_client_that_never_reads_stops_its_stream() {
    let mut server = Server::with_limits(Limits {
        write_timeout: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let answer = Answer::post(
        server.address,
        "subscription { forever(bytes: 100000) }",
        &[],
    )
    .await;
    server.streams(1).await;
    server.streams(0).await;
    // Its connection is closed too, though it could not be written to: who writes to it hears that it is gone.
    let mut stream = answer.stream.into_inner();
    soon(async { while stream.write_all(b" ").await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_request_that_does_not_come_to_its_end_is_given_up() {
    let server = Server::with_limits(Limits {
        init_timeout: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut stream = BufReader::new(unfinished(&server).await);
    let mut line = String::new();
    soon(stream.read_line(&mut line)).await.unwrap();
    assert!(line.starts_with("HTTP/1.1 408"), "{line}");
}

#[tokio::test]
async fn a_request_that_does_not_come_to_its_end_holds_up_no_shutdown() {
    let server = Server::with_limits(Limits {
        init_timeout: Duration::from_secs(600),
        ..Limits::default()
    })
    .await;
    let _stream = unfinished(&server).await;
    soon(server.transport.shutdown()).await;
}

/// A request whose body does not come.
async fn unfinished(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /graphql/stream HTTP/1.1\r\nHost: here\r\nAccept: text/event-stream\r\n\
                Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Where sockets are guarded, streams are not open.
#[tokio::test]
async fn a_hook_for_one_way_in_does_not_leave_the_other_open() {
    let schema = async_graphql::Schema::new(Query, Mutation, Subscriptions);
    let transport = GraphqlTransport::builder(schema)
        .on_init(|_| async { Ok(Session::default()) })
        .build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = transport.router();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let refused = Answer::post(address, "{ name }", &[]).await;
    assert_eq!(refused.error_code().await, (401, "UNAUTHENTICATED".into()));
}
