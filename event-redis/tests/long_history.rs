//! An aggregate of a million events is loaded in bounded memory. It has a process of its own, whose
//! memory is looked at.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use event_core::prelude::*;
use event_redis::RedisStore;
use event_tests::RedisServer;
use serde::{Deserialize, Serialize};

const EVENTS: u64 = 1_000_000;

/// The elements alone take more than ten times as much.
const MOST_BYTES: usize = 16 << 20;

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
enum CounterEvent {
    #[event("counter.raised")]
    Raised { by: u64, note: String },
}

#[derive(Default)]
struct Counter {
    total: u64,
    notes: usize,
}

impl Aggregate for Counter {
    const TYPE: &'static str = "counter";
    type Event = CounterEvent;
    type Command = u64;
    type Error = std::convert::Infallible;

    fn apply(&mut self, CounterEvent::Raised { by, note }: &CounterEvent) {
        self.total += by;
        self.notes += note.len();
    }

    fn handle(&self, by: u64) -> Result<Vec<CounterEvent>, Self::Error> {
        let note = String::new();
        Ok(vec![CounterEvent::Raised { by, note }])
    }
}

/// Writes histories on the server's side, since a million appends would take long.
const FILL: &str = r#"
    local note = string.rep('x', 100)
    for version = tonumber(ARGV[1]), tonumber(ARGV[2]) do
        local counted = string.format('%d', version)
        redis.call('RPUSH', KEYS[1], '[1,' .. counted .. ',"'
            .. string.format('00000000-0000-7000-8000-%012d', version)
            .. '","counter.raised",{"by":1,"note":"' .. note .. '"},"' .. counted
            .. '-0",1700000000000000,0,0,1]')
    end
"#;

/// The most memory that this process has had in use, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_events_are_loaded_in_bounded_memory() {
    let server = RedisServer::start().unwrap();
    let key = "{events:counter}:history:counter:visits";
    for first in (1..EVENTS).step_by(50_000) {
        let (first, last) = (first.to_string(), (first + 49_999).to_string());
        server
            .command(&["EVAL", FILL, "1", key, &first, &last])
            .unwrap();
    }
    let counters = Repository::<Counter>::new(RedisStore::connect(server.url()).await.unwrap());
    // Whatever a load needs in any case is there before it is counted.
    counters
        .load_at("visits", At::Version(5_000))
        .await
        .unwrap();
    let before = peak();
    let loaded = counters.load("visits").await.unwrap();
    assert_eq!((loaded.version, loaded.state.total), (EVENTS, EVENTS));
    assert_eq!(loaded.state.notes, 100 * EVENTS as usize);
    let took = peak() - before;
    println!("a million events took {took} bytes more than 5,000");
    assert!(took < MOST_BYTES, "{took} bytes");
}
