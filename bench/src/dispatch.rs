//! Dispatching: what an event costs between the store and its handler, without a server.
//!
//! It is [`Service::run_until_idle`] over 100,000 events in a [`MemoryStore`], with a handler that
//! does nothing, divided by the number of events. There is nothing to compare it with.

use std::time::Instant;

use anyhow::ensure;
use event_core::prelude::*;
use event_core::{Append, Category, Codec, HandlerDefinition};

use crate::latency::Stored;
use crate::plan::Plan;
use crate::report::Report;
use crate::rounds;

const ROW: &str = "dispatch.ns";
const EVENTS: usize = 100_000;

/// Events of one append while the store is filled.
const FILLING_EVENTS: usize = 500;

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if plan.wants(ROW) {
        let value = rounds::alone(plan.few_rounds(), measure_round).await?;
        report.add_alone(ROW, "ns/event", value);
    }
    Ok(())
}

async fn measure_round() -> anyhow::Result<f64> {
    let store = MemoryStore::new();
    let codec = Codec::default();
    for _ in 0..EVENTS / FILLING_EVENTS {
        let events = (0..FILLING_EVENTS as u64).map(|number| codec.encode(&Stored::new(number)));
        let events = events.collect::<Result<_, _>>()?;
        let append = Append::to_feed(Category::new("latency")?, events);
        store.append(&append).await?;
    }
    let handler = HandlerDefinition::function("ignore", |_: RecordedEvent, _: Context| async {});
    let service = Service::builder("dispatch")
        .store(store)
        .handler(handler.on("latency.stored"))
        .build()?;
    // On a worker of the runtime, as everything that is measured.
    tokio::spawn(async move {
        let start = Instant::now();
        let handled = service.run_until_idle().await?.entries;
        let took = start.elapsed();
        ensure!(handled == EVENTS, "handled {handled} events");
        Ok(took.as_nanos() as f64 / EVENTS as f64)
    })
    .await?
}
