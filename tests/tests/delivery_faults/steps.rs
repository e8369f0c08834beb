//! A whole short life of a service, in which something goes wrong right before or after one step of it,
//! whichever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_core::prelude::*;
use event_core::{Category, Chosen, DeadLetters, HandlerDefinition, Partition, Retry};
use event_redis::{RedisStore, RedisStoreBuilder};
use event_tests::RedisServer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::wire::{Fate, Wire};
use crate::{Placed, Written, read_all, server, until};

const LEASE: Duration = Duration::from_millis(150);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The server is killed before it gets a request.
    KilledBefore,
    /// It is killed when it has done what the request says, and nobody has heard of it.
    KilledAfter,
    /// The connections are cut, the request lost.
    CutBefore,
    /// The connections are cut, the reply lost.
    CutAfter,
    /// The connections are cut, the reply is lost, and the instance is gone.
    GoneAfter,
}

/// Where it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the step of this number.
    Number(usize),
    /// At the first step of this name.
    First(&'static str),
}

/// What is done about the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Redrive,
    Discard,
}

/// What is known of the steps of a life.
#[derive(Default)]
struct Steps {
    names: BTreeMap<String, &'static str>,
    /// Whether they are counted yet.
    is_counting: AtomicBool,
    count: AtomicUsize,
    renewals: AtomicUsize,
    /// At which something went wrong.
    wrong_at: Mutex<Vec<&'static str>>,
}

macro_rules! script {
    ($($name:literal),+) => {
        concat!($(include_str!(concat!("../../../event-redis/src/scripts/", $name, ".lua"))),+)
    };
}

impl Steps {
    /// The server tells by which hashes it is asked for the scripts.
    fn of(server: &RedisServer) -> Self {
        let scripts = [
            (
                "open",
                concat!("#!lua\n", script!("stream", "trimmed", "open")),
            ),
            ("join", script!("join")),
            ("acquire", concat!("#!lua\n", script!("stream", "acquire"))),
            ("renew", script!("renew")),
            ("release", script!("release")),
            ("commit", script!("publish", "emit", "commit")),
            ("list", script!("list")),
            ("inspect", script!("inspect")),
            ("choose", script!("choose")),
        ];
        let hash = |text| server.command(&["SCRIPT", "LOAD", text]).unwrap();
        Self {
            names: scripts.map(|(name, text)| (hash(text), name)).into(),
            ..Self::default()
        }
    }

    /// The steps that a client asks for at once.
    fn named(&self, sent: &[u8]) -> Vec<&'static str> {
        let sent = String::from_utf8_lossy(sent);
        let mut words = sent.split("\r\n");
        let mut found = Vec::new();
        while let Some(word) = words.next() {
            match word {
                "XREAD" => found.push("read"),
                "EVALSHA" => {
                    let name = words.nth(1).and_then(|hash| self.names.get(hash));
                    found.push(name.copied().unwrap_or("another"));
                }
                _ => {}
            }
        }
        found
    }

    fn judge(&self, sent: &[u8], fault: Fault, at: At) -> Fate {
        let names = self.named(sent);
        if names.is_empty() {
            return Fate::Passes;
        }
        if names.contains(&"renew") {
            self.renewals.fetch_add(1, Ordering::SeqCst);
        }
        if !self.is_counting.load(Ordering::SeqCst) {
            return Fate::Passes;
        }
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let mut wrong_at = self.wrong_at.lock().unwrap();
        let is_it = match at {
            At::Number(number) => count == number,
            At::First(name) => wrong_at.is_empty() && names.contains(&name),
        };
        if !is_it {
            return Fate::Passes;
        }
        wrong_at.extend(names);
        match fault {
            Fault::KilledBefore | Fault::CutBefore => Fate::IsLost,
            Fault::KilledAfter | Fault::CutAfter | Fault::GoneAfter => Fate::LosesReply,
        }
    }
}

fn order(number: u64) -> Placed {
    Placed {
        customer: format!("customer {}", number % 2),
        number,
    }
}

/// Writes an invoice for each order, but for one that fails until it is mended.
fn writes(is_mended: &Arc<AtomicBool>) -> HandlerDefinition {
    let is_mended = Arc::clone(is_mended);
    HandlerDefinition::function("write", move |placed: Placed, _: Context| {
        let fails = placed.number == 1 && !is_mended.load(Ordering::SeqCst);
        async move {
            if fails {
                return Err("it is broken");
            }
            Ok(Written {
                customer: placed.customer,
                number: placed.number,
            })
        }
    })
    .on("orders.placed")
    .emits("invoices.written")
    .retry(Retry {
        max: 1,
        ..Retry::default()
    })
}

struct Instance {
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Instance {
    fn start(store: &RedisStore, name: &str, is_mended: &Arc<AtomicBool>) -> Self {
        let service = Service::builder("invoicing")
            .without_discovered_handlers()
            .store(store.clone())
            .instance(name)
            .lease(LEASE)
            .handler(writes(is_mended))
            .build()
            .unwrap();
        let stopping = CancellationToken::new();
        let stopped = stopping.clone();
        let task = tokio::spawn(async move {
            service.run_until(stopped.cancelled()).await.unwrap();
        });
        Self { stopping, task }
    }

    async fn stop(self) {
        self.stopping.cancel();
        self.task.await.unwrap();
    }

    /// Ends it on the spot.
    async fn vanish(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// One life, in which it goes wrong at one step. Gives the steps that were asked for at once there: none where
/// the life had no such step.
async fn live(
    server: &mut RedisServer,
    fault: Fault,
    decision: Decision,
    at: At,
    counts_from_decision: bool,
) -> Vec<&'static str> {
    let steps = Arc::new(Steps::of(server));
    let judging = Arc::clone(&steps);
    let address = server.tcp_address().unwrap();
    let wire = Wire::to(address, b"-", move |sent| judging.judge(sent, fault, at)).await;
    let prefixed =
        |builder: RedisStoreBuilder| builder.prefix(format!("{fault:?}{decision:?}{at:?}:"));
    let builder = prefixed(RedisStore::builder(wire.url()));
    let through_wire = builder.connect().await.unwrap();
    let direct = prefixed(RedisStore::builder(server.url()));
    let direct = direct.connect().await.unwrap();
    let is_mended = Arc::new(AtomicBool::new(false));
    steps
        .is_counting
        .store(!counts_from_decision, Ordering::SeqCst);
    let instance = Arc::new(tokio::sync::Mutex::new(Some(Instance::start(
        &through_wire,
        "a",
        &is_mended,
    ))));

    let going_wrong = async {
        wire.fell().await;
        match fault {
            Fault::KilledBefore | Fault::KilledAfter => {
                server.kill();
                server.restart().unwrap();
            }
            Fault::CutBefore | Fault::CutAfter => {}
            Fault::GoneAfter => {
                let mut instance = instance.lock().await;
                if let Some(gone) = instance.take() {
                    gone.vanish().await;
                    *instance = Some(Instance::start(&through_wire, "b", &is_mended));
                }
            }
        }
        wire.rise();
        std::future::pending::<()>().await;
    };
    let life = async {
        let partition = Partition::from(Category::new("orders").unwrap());
        let publisher = Service::builder("shop")
            .without_discovered_handlers()
            .store(direct.clone())
            .build()
            .unwrap();
        let publish = async |numbers: std::ops::Range<u64>| {
            let orders: Vec<_> = numbers.map(order).collect();
            publisher.publish(orders).await.unwrap();
        };
        let dead_letters = async || {
            let all = direct.list_dead_letters("invoicing", &partition, None, usize::MAX);
            all.await.unwrap().len()
        };
        let invoices = async || read_all(&direct, "invoices").await;
        publish(0..6).await;
        until("what fails, and what follows it, is parked", async || {
            dead_letters().await == 3 && invoices().await.len() == 3
        })
        .await;
        until("leases are prolonged", async || {
            steps.renewals.load(Ordering::SeqCst) > 0
        })
        .await;
        is_mended.store(true, Ordering::SeqCst);
        steps.is_counting.store(true, Ordering::SeqCst);
        match decision {
            Decision::Redrive => {
                let redriven =
                    through_wire.redrive_dead_letters("invoicing", &partition, &Chosen::All);
                redriven.await.unwrap();
            }
            Decision::Discard => {
                let discarded =
                    through_wire.discard_dead_letters("invoicing", &partition, &Chosen::All);
                discarded.await.unwrap();
            }
        }
        publish(6..10).await;
        let expected: BTreeSet<u64> = match decision {
            Decision::Redrive => (0..10).collect(),
            Decision::Discard => (0..10).filter(|n| ![1, 3, 5].contains(n)).collect(),
        };
        until("everything is handled", async || {
            dead_letters().await == 0 && invoices().await.len() >= expected.len()
        })
        .await;
        let last = instance.lock().await.take();
        if let Some(last) = last {
            last.stop().await;
        }
        let found: Vec<Written> = invoices()
            .await
            .iter()
            .map(|e| e.decode().unwrap())
            .collect();
        let numbers: BTreeSet<_> = found.iter().map(|invoice| invoice.number).collect();
        assert_eq!(numbers, expected, "{fault:?} at {at:?}: {found:?}");
        assert_eq!(
            found.len(),
            expected.len(),
            "{fault:?} at {at:?}: {found:?}"
        );
        for key in 0..2 {
            let of_key = found.iter().map(|invoice| invoice.number);
            let of_key: Vec<_> = of_key.filter(|number| number % 2 == key).collect();
            assert!(of_key.is_sorted(), "{fault:?} at {at:?}: {of_key:?}");
        }
        // Whoever comes next finds nothing left to do.
        let next = Service::builder("invoicing")
            .without_discovered_handlers()
            .store(direct.clone())
            .handler(writes(&is_mended))
            .build()
            .unwrap();
        until("nothing is left to do", async || {
            next.health().await.unwrap().partitions[0].lag == 0
        })
        .await;
        assert_eq!(dead_letters().await, 0, "{fault:?} at {at:?}");
        assert_eq!(
            invoices().await.len(),
            expected.len(),
            "{fault:?} at {at:?}"
        );
    };
    tokio::select! {
        () = life => {}
        () = going_wrong => {}
    }
    steps.wrong_at.lock().unwrap().clone()
}

/// Lives on, with one step after the other where it goes wrong, until lives do not have so many: each of the
/// names first. Gives the steps.
fn live_through_all(
    faults: &[Fault],
    names: &[&'static str],
    decision: Decision,
    counts_from_decision: bool,
) -> BTreeSet<&'static str> {
    /// A busy machine prolongs more leases meanwhile.
    const MOST: usize = 80;
    let live_through = |fault: Fault| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            let mut server = server();
            let (mut found, mut lives, mut in_vain) = (BTreeSet::new(), 0, 0);
            for name in names {
                let at = At::First(name);
                let steps = live(&mut server, fault, decision, at, counts_from_decision).await;
                assert!(!steps.is_empty(), "{fault:?}: no life without `{name}`");
                found.extend(steps);
                lives += 1;
            }
            // Not all lives have as many steps.
            for number in 1..=MOST {
                let at = At::Number(number);
                let steps = live(&mut server, fault, decision, at, counts_from_decision).await;
                lives += 1;
                in_vain = if steps.is_empty() { in_vain + 1 } else { 0 };
                found.extend(steps);
                if in_vain == 3 {
                    break;
                }
            }
            (found, lives)
        })
    };
    let (mut found, mut lives) = (BTreeSet::new(), 0);
    // Each waits most of the time.
    std::thread::scope(|scope| {
        let start = |fault: &Fault| {
            let fault = *fault;
            scope.spawn(move || live_through(fault))
        };
        let threads: Vec<_> = faults.iter().map(start).collect();
        for thread in threads {
            let (steps, count) = thread.join().unwrap();
            found.extend(steps);
            lives += count;
        }
    });
    println!("{lives} lives; it went wrong at {found:?}");
    found
}

#[test]
fn a_server_that_is_killed_between_any_two_steps_loses_nothing() {
    let faults = &[Fault::KilledBefore, Fault::KilledAfter];
    let names = &[
        "open", "join", "acquire", "read", "commit", "renew", "list", "choose", "release",
    ];
    let steps = live_through_all(faults, names, Decision::Redrive, false);
    assert!(!steps.contains("another"), "{steps:?}");
}

const ALL: &[Fault] = &[
    Fault::KilledBefore,
    Fault::KilledAfter,
    Fault::CutBefore,
    Fault::CutAfter,
    Fault::GoneAfter,
];

/// What is asked for from a decision on.
const OF_DECISION: &[&str] = &["choose", "list", "commit"];

#[test]
fn a_redrive_that_is_broken_off_at_any_step_loses_and_doubles_nothing() {
    live_through_all(ALL, OF_DECISION, Decision::Redrive, true);
}

#[test]
fn a_discard_that_is_broken_off_at_any_step_loses_and_doubles_nothing() {
    live_through_all(ALL, OF_DECISION, Decision::Discard, true);
}
