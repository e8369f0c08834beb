//! Replaying: what an event of the past costs until it was given to a handler once more, without a
//! server.
//!
//! It is [`Service::replay`] over 1,000,000 recorded events of 1,000 keys in a [`MemoryStore`], with a
//! handler that does nothing. There is nothing to compare it with.

use std::time::Instant;

use anyhow::ensure;
use event_core::prelude::*;
use event_core::{Category, Codec, HandlerDefinition, Partition, Replay, Restore};

use crate::latency::Stored;
use crate::plan::Plan;
use crate::report::Report;
use crate::rounds::{self, rate};

const ROW: &str = "replay.memory";
const KEYS: usize = 1_000;

/// Events that are restored at once while the store is filled.
const FILLING_EVENTS: usize = 500;

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if plan.wants(ROW) {
        let events = plan.amount(100_000, 1_000_000);
        let store = recorded(events).await?;
        let value = rounds::alone(plan.few_rounds(), async || {
            measure_round(store.clone(), events).await
        });
        report.add_alone(ROW, "events/s", value.await?);
    }
    Ok(())
}

/// A store with what was recorded.
async fn recorded(events: usize) -> anyhow::Result<MemoryStore> {
    let store = MemoryStore::new();
    let codec = Codec::default();
    let partition = Partition::from(Category::new("latency")?);
    for first in (0..events).step_by(FILLING_EVENTS) {
        let batch = (first..first + FILLING_EVENTS).map(|number| {
            let mut event = codec.encode(&Stored::new(number as u64))?;
            event.metadata_mut().key = Some((number % KEYS).to_string());
            anyhow::Ok(RecordedEvent::new(
                event.event_type(),
                event.payload(),
                Position::new(1 + number as u64, 0),
                None,
                event.metadata().clone(),
            ))
        });
        let batch = batch.collect::<Result<_, _>>()?;
        let restore = Restore::new(partition.clone(), batch)?;
        store.restore(&restore).await?;
    }
    Ok(store)
}

async fn measure_round(store: MemoryStore, events: usize) -> anyhow::Result<f64> {
    let handler = HandlerDefinition::function("ignore", |_: RecordedEvent, _: Context| async {});
    let service = Service::builder("replay")
        .store(store)
        .handler(handler.on("latency.stored").allow_replay())
        .build()?;
    // On a worker of the runtime, as everything that is measured.
    tokio::spawn(async move {
        let start = Instant::now();
        let report = service.replay(Replay::all()).await?;
        let took = start.elapsed();
        let handled = report.handled["ignore"];
        ensure!(handled == events as u64, "handled {handled} events");
        Ok(rate(events, took))
    })
    .await?
}
