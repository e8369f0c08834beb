//! A process that handles events, and does so badly at times.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use event_core::prelude::*;
use event_core::{OnExhausted, Policy, Retry};
use event_redis::{Durability, RedisStore};
use uuid::Uuid;

use crate::Plant;
use crate::events::{
    self, AuditNoted, AuditTallied, Bill, InvoiceIssued, Ledger, LedgerBooked, OrderPlaced, Part,
    ReceiptIssued, bill_of, is_tallied, ledger_of,
};

/// What a worker is to do.
#[derive(Args, Clone, Debug)]
pub(crate) struct Job {
    #[arg(long)]
    group: String,
    #[arg(long)]
    instance: String,
    #[arg(long)]
    url: String,
    #[arg(long)]
    lease: u64,
    #[arg(long)]
    slots: bool,
    #[arg(long)]
    plant: Option<Plant>,
}

/// Handles events until it is asked to end, or whoever has started it is gone.
pub(crate) async fn work(job: Job) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .init();
    // On a thread of its own, since the runtime would wait at its end for what reads.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(3);
    });
    let store = connect(&job).await?;
    let service = Service::builder("chaos")
        .group(job.group)
        .instance(job.instance)
        .store(store)
        .lease(Duration::from_millis(job.lease))
        .shutdown_deadline(Duration::from_secs(10))
        .default_policy(Policy {
            retry: Retry {
                max: 1_000,
                base: Duration::from_millis(10),
                max_delay: Duration::from_millis(200),
            },
            timeout: Some(Duration::from_secs(2)),
            on_exhausted: OnExhausted::Park,
        })
        .build()?;
    service.run_until(shutdown_signal()).await?;
    Ok(ExitCode::SUCCESS)
}

/// The server may be down right now.
async fn connect(job: &Job) -> anyhow::Result<RedisStore> {
    loop {
        let mut builder = RedisStore::builder(&job.url).durability(Durability::Fsync);
        for (category, count) in events::partitions()? {
            builder = builder.partitions(category, count);
        }
        builder = match job.plant {
            Some(Plant::Epoch) => builder.without_epoch_check(),
            Some(Plant::Dedup) => builder.without_commit_numbers(),
            Some(Plant::Marks) => builder.without_delivery_marks(),
            None => builder,
        };
        if job.slots {
            builder = builder.without_shared_slots();
        }
        match builder.connect().await {
            Ok(store) => return Ok(store),
            Err(error) => tracing::warn!(%error, "not connected yet"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What goes wrong in a handler now and then.
#[derive(Debug, thiserror::Error)]
#[error("it failed by chance")]
struct ByChance;

/// Takes its time, as handlers do, and fails at times.
async fn take_part() -> Result<(), ByChance> {
    match fastrand::u32(..100) {
        // Through without waiting once.
        0..=64 => {}
        65..=92 => tokio::time::sleep(Duration::from_millis(fastrand::u64(1..5))).await,
        _ => tokio::time::sleep(Duration::from_millis(fastrand::u64(20..150))).await,
    }
    match fastrand::u32(..1_000) {
        0..=19 => Err(ByChance),
        #[expect(clippy::panic, reason = "handlers panic, too")]
        20 => panic!("it panicked by chance"),
        _ => Ok(()),
    }
}

/// The parts of a run: another one each time, even for the same event.
fn parts(count: u32) -> impl Iterator<Item = Part> {
    let run = Uuid::now_v7();
    (0..count).map(move |ordinal| Part {
        run,
        ordinal,
        of: count,
    })
}

#[event_handler]
struct Billing;

#[event_handler(group = "billing")]
impl Billing {
    #[on("order.placed")]
    #[emits("invoice.issued", "audit.noted")]
    async fn bill(
        &self,
        event: OrderPlaced,
    ) -> Result<(Vec<InvoiceIssued>, Option<AuditNoted>), ByChance> {
        take_part().await?;
        let bill = bill_of(event.number);
        let count = match bill {
            Bill::Nothing => 0,
            Bill::Invoice => 1,
            Bill::InvoiceAndAudit | Bill::TwoInvoices => 2,
            Bill::AsTheRunLikes => fastrand::u32(1..=3),
        };
        let mut parts: Vec<_> = parts(count).collect();
        let audit = match bill {
            Bill::InvoiceAndAudit => parts.pop(),
            _ => None,
        };
        let invoices = parts.into_iter().map(|part| InvoiceIssued {
            customer: event.customer.clone(),
            number: event.number,
            part,
        });
        let audit = audit.map(|part| AuditNoted {
            customer: event.customer.clone(),
            number: event.number,
            part,
        });
        Ok((invoices.collect(), audit))
    }

    #[on("order.placed")]
    #[emits("audit.tallied")]
    async fn tally(&self, event: OrderPlaced) -> Result<Option<AuditTallied>, ByChance> {
        take_part().await?;
        let part = parts(1).next().filter(|_| is_tallied(event.number));
        Ok(part.map(|part| AuditTallied {
            customer: event.customer,
            number: event.number,
            part,
        }))
    }

    #[on("order.placed")]
    #[emits("ledger.booked")]
    async fn book(&self, event: OrderPlaced) -> Result<Option<To<Ledger>>, ByChance> {
        take_part().await?;
        let ledger = ledger_of(&event.customer).to_owned();
        Ok(parts(1).next().map(|part| {
            let booked = LedgerBooked {
                customer: event.customer,
                number: event.number,
                part,
            };
            To(ledger, booked)
        }))
    }
}

#[event_handler]
struct Receipts;

#[event_handler(group = "receipts")]
impl Receipts {
    #[on("invoice.issued")]
    #[emits("receipt.issued")]
    async fn receive(&self, event: InvoiceIssued) -> Result<Option<ReceiptIssued>, ByChance> {
        take_part().await?;
        Ok(parts(1).next().map(|part| ReceiptIssued {
            customer: event.customer,
            number: event.number,
            invoice: event.part.ordinal,
            part,
        }))
    }
}
