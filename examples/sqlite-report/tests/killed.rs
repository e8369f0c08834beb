//! The process that fills the report is killed again and again, and each order is in it once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use event_core::{Append, Category, Codec, EventStore};
use event_redis::RedisStore;
use event_tests::RedisServer;
use sqlite_report::{Line, OrderPlaced, Report};

const CUSTOMERS: i64 = 7;
const ORDERS: i64 = 14_000;

fn command(server: &RedisServer, database: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sqlite-report"));
    command
        .args(["--redis", &server.url(), "--database"])
        .arg(database);
    command.args(["--lease", "300"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn place_orders(server: &RedisServer) {
    let store = RedisStore::connect(server.url()).await.unwrap();
    let codec = Codec::default();
    for first in (0..ORDERS).step_by(500) {
        let orders = (first..first + 500).map(|number| {
            let customer = format!("customer-{}", number % CUSTOMERS);
            codec
                .encode(&OrderPlaced {
                    customer,
                    cents: number,
                })
                .unwrap()
        });
        let category = Category::new("order").unwrap();
        let append = Append::to_feed(category, orders.collect());
        store.append(&append).await.unwrap();
    }
}

fn orders_in(report: &Report) -> i64 {
    report.lines().unwrap().iter().map(|line| line.orders).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_is_in_the_report_once() {
    let server = RedisServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("report.db");
    place_orders(&server).await;
    let report = Report::open(&database).unwrap();

    // Two at a time, of which one is killed as soon as there is more in the report than before.
    let mut other = command(&server, &database).spawn().unwrap();
    let since = Instant::now();
    let mut kills = 0;
    while orders_in(&report) < ORDERS && since.elapsed() < Duration::from_secs(60) {
        let child = command(&server, &database).spawn().unwrap();
        let before = orders_in(&report);
        let seen = Instant::now();
        while orders_in(&report) == before && seen.elapsed() < Duration::from_secs(12) {
            std::thread::yield_now();
        }
        kill(std::mem::replace(&mut other, child));
        kills += 1;
    }
    kill(other);
    assert!(kills > 1, "it must be killed in between");

    let output = command(&server, &database).arg("--once").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let expected = (0..CUSTOMERS).map(|customer| {
        let numbers = (0..ORDERS).filter(|number| number % CUSTOMERS == customer);
        Line {
            customer: format!("customer-{customer}"),
            orders: ORDERS / CUSTOMERS,
            cents: numbers.sum(),
        }
    });
    assert_eq!(report.lines().unwrap(), expected.collect::<Vec<_>>());
}
