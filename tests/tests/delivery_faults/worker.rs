//! A worker process that is frozen for longer than its lease, and goes on.

use std::io::Read as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event_core::Service;
use event_redis::RedisStore;
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::wire::{Fate, Wire};
use crate::{assert_exactly_once, order, read_all, server, store, until, writes};

/// Where the process of a worker finds its server.
const URL: &str = "EVENT_TESTS_WORKER_URL";

const LEASE: Duration = Duration::from_secs(1);

fn builder(store: RedisStore, instance: &str) -> Service {
    Service::builder("invoicing")
        .without_discovered_handlers()
        .store(store)
        .instance(instance)
        .lease(LEASE)
        .handler(writes(&Arc::default()))
        .build()
        .unwrap()
}

/// The worker: this program, started once more by the test below. Does nothing otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_process() {
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let (stop, stopped) = oneshot::channel();
    std::thread::spawn(move || {
        // It ends when the other end of this pipe does.
        let _ = std::io::stdin().read(&mut [0]);
        let _ = stop.send(());
    });
    let store = RedisStore::connect(url).await.unwrap();
    let stopped = async {
        let _ = stopped.await;
    };
    builder(store, "worker").run_until(stopped).await.unwrap();
}

fn start_worker(url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker::worker_process"])
        .env(URL, url)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Whoever dies while it is halted has the system end it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn signal(worker: &Child, name: &str) {
    let id = worker.id().unwrap().to_string();
    let kill = ["-c", r#"kill "-$0" "$1""#, name, &id];
    assert!(
        Command::new("sh")
            .args(kill)
            .status()
            .await
            .unwrap()
            .success()
    );
}

/// Whether all of it is halted.
fn is_halted(worker: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.id().unwrap()));
    let stat = stat.unwrap();
    let (_, state) = stat.rsplit_once(") ").unwrap();
    state.starts_with('T')
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_frozen_for_longer_than_its_lease_commits_nothing_and_goes_on() {
    const PROGRESS: &str = "{events:orders}:group:invoicing";
    // What a commit is replied where the partition is another's.
    const LOST: &[u8] = b"*1\r\n:2\r\n";
    let server = server();
    let holds = Arc::new(AtomicBool::new(false));
    let (goes_on, waiting) = watch::channel(false);
    let wire = {
        let holds = Arc::clone(&holds);
        let judge = move |sent: &[u8]| {
            let emitted = b"invoices.written";
            let is_commit = sent.windows(emitted.len()).any(|part| part == emitted);
            if is_commit && holds.load(Ordering::SeqCst) {
                Fate::Waits(waiting.clone())
            } else {
                Fate::Passes
            }
        };
        Wire::to(server.tcp_address().unwrap(), LOST, judge).await
    };
    let direct = store(&server).await;
    let shop = Service::builder("shop")
        .without_discovered_handlers()
        .store(direct.clone())
        .build()
        .unwrap();
    let publish = async |numbers: std::ops::Range<u64>| {
        for number in numbers {
            shop.publish(order(number)).await.unwrap();
        }
    };
    let invoiced = async |count: usize| {
        until(&format!("{count} invoices"), async || {
            read_all(&direct, "invoices").await.len() >= count
        })
        .await;
    };
    let owner = || server.command(&["HGET", PROGRESS, "owner"]).unwrap();
    let mut worker = start_worker(&wire.url());
    publish(0..64).await;
    invoiced(64).await;
    assert_eq!(owner(), "worker");

    // What it has done is on its way to the server when it is frozen.
    holds.store(true, Ordering::SeqCst);
    publish(64..128).await;
    until("a commit is on its way", async || wire.waits() > 0).await;
    signal(&worker, "STOP").await;
    until("it is halted", async || is_halted(&worker)).await;
    let stopping = CancellationToken::new();
    let other = {
        let (service, stopping) = (builder(direct.clone(), "other"), stopping.clone());
        tokio::spawn(async move { service.run_until(stopping.cancelled()).await })
    };
    invoiced(128).await;
    assert_eq!(owner(), "other");
    assert_eq!(wire.count(), 0);

    holds.store(false, Ordering::SeqCst);
    goes_on.send_replace(true);
    signal(&worker, "CONT").await;
    until("its commit is refused", async || wire.count() > 0).await;
    publish(128..192).await;
    invoiced(192).await;
    // It knows that it is not the owner; and it is again when the other is gone.
    assert_eq!(owner(), "other");
    stopping.cancel();
    other.await.unwrap().unwrap();
    publish(192..256).await;
    invoiced(256).await;
    assert_eq!(owner(), "worker");
    drop(worker.stdin.take());
    assert!(worker.wait().await.unwrap().success());
    assert_exactly_once(&direct, 256).await;
}
