//! The program is stopped, and killed, and started again: its clients miss nothing, and get nothing twice.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;

use event_core::{Category, EventStore, FeedEntry, Position};
use event_redis::RedisStore;
use event_tests::RedisServer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::{Socket, data};
use crate::harness::*;

const EVENTS: &str = "subscription ($after: Cursor) {
    events(after: $after) { cursor event { id type } }
}";

/// How often the program is started.
const STARTS: usize = 4;

/// How many deliveries come while it runs, each time.
const DELIVERIES: usize = 40;

/// The program, on a port of its own.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    async fn start(redis: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_github-live"))
            .args(["--port", "0", "--redis", redis])
            .env_remove("GITHUB_WEBHOOK_SECRET")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = soon(out.next_line()).await.unwrap().unwrap();
        let address = line.strip_prefix("listening on http://").unwrap();
        let address = address.trim_end_matches('/').parse().unwrap();
        until_healthy(address).await;
        Self { child, address }
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().await;
        assert!(sent.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_misses_nothing_and_gets_nothing_twice() {
    let server = RedisServer::start().unwrap();
    let mut seen: Vec<(String, String)> = Vec::new();
    let mut cursor = Value::Null;
    let mut delivered = 0;
    for start in 0..STARTS {
        let mut program = Program::start(&server.url()).await;
        if cursor.is_null() {
            let begin = data(program.address, "{ newest { cursor } }", json!({})).await;
            cursor = begin["newest"]["cursor"].clone();
        }
        let mut socket = Socket::connect(program.address).await;
        socket
            .subscribe("1", EVENTS, json!({ "after": cursor }))
            .await;
        let address = program.address;
        let delivering = tokio::spawn(async move {
            for number in 0..DELIVERIES {
                deliver(address, "issues", issue("opened", number as u64)).await;
            }
        });
        // While deliveries are under way, and some are neither handled nor shown.
        let stop_at = seen.len() + DELIVERIES / 2;
        while seen.len() < stop_at {
            take(&mut seen, &mut cursor, socket.result().await);
        }
        delivering.await.unwrap();
        delivered += DELIVERIES;
        if start % 2 == 0 {
            program.signal("-TERM").await;
            let code = loop {
                match socket.next().await {
                    Ok(message) if message["type"] == "next" => {
                        let edge = message["payload"]["data"]["events"].clone();
                        take(&mut seen, &mut cursor, edge);
                    }
                    Ok(_) => {}
                    Err(code) => break code,
                }
            };
            assert_eq!(code, Some(1012), "the server says that it restarts");
            assert!(soon(program.child.wait()).await.unwrap().success());
        } else {
            program.signal("-KILL").await;
            soon(program.child.wait()).await.unwrap();
        }
    }

    let program = Program::start(&server.url()).await;
    let mut socket = Socket::connect(program.address).await;
    socket
        .subscribe("1", EVENTS, json!({ "after": cursor }))
        .await;
    let count = |seen: &[(String, String)], wanted: &str| {
        seen.iter().filter(|(kind, _)| kind == wanted).count()
    };
    // Each delivery leads to one of these, whatever is refused.
    while count(&seen, "github.issues.opened") < delivered
        || count(&seen, "codebase.issue.opened") < delivered
    {
        take(&mut seen, &mut cursor, socket.result().await);
    }
    // All that the feeds have, in their order.
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut by_category: HashMap<&str, Vec<&str>> = HashMap::new();
    for (kind, id) in &seen {
        let category = kind.split('.').next().unwrap();
        by_category.entry(category).or_default().push(id);
    }
    for category in ["github", "codebase"] {
        let stored = store
            .read_feed(
                &Category::new(category).unwrap().into(),
                Position::START,
                10_000,
            )
            .await
            .unwrap();
        let stored: Vec<_> = stored
            .into_iter()
            .filter_map(|entry| match entry {
                FeedEntry::Event(event) => Some(event.metadata().event_id.to_string()),
                FeedEntry::Undecodable { .. } => None,
            })
            .collect();
        assert_eq!(by_category[category], stored[..by_category[category].len()]);
        assert!(stored.len() - by_category[category].len() < 2, "{category}");
    }
}

fn take(seen: &mut Vec<(String, String)>, cursor: &mut Value, mut edge: Value) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    seen.push((text(&edge["event"]["type"]), text(&edge["event"]["id"])));
    *cursor = edge["cursor"].take();
}
