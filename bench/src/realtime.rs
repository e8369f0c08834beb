//! Realtime: from publishing an event that is kept nowhere to its subscriber, at 1,000/s.
//!
//! Ours is [`Realtime::publish_realtime`] of an event with its metadata and its number, and a
//! [`RealtimeSubscription`] that counts what it missed. The ceiling
//! is PUBLISH of the payload alone, and the client's own subscriber.

use std::sync::Arc;

use anyhow::bail;
use event_core::{Codec, Pattern, Realtime, RealtimeItem, RealtimeSubscription};
use futures::StreamExt;
use redis::aio::PubSub;

use crate::bare;
use crate::latency::{Listener, Pace, Shown};
use crate::order;
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::in_turns;
use crate::start_server;

const ROW: &str = "realtime.p99";
const BARE_CHANNEL: &str = "bare.shown";

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if !plan.wants(ROW) {
        return Ok(());
    }
    let server = start_server()?;
    let listener = Listener::new();
    let pace = Pace {
        messages: plan.amount(500, 2_000),
        rate: 1_000,
    };

    let connection = bare::connect(&server).await?;
    let mut pubsub = bare::client(&server)?.get_async_pubsub().await?;
    pubsub.subscribe(BARE_CHANNEL).await?;
    let bare_hearing = tokio::spawn(hear_bare(pubsub, listener.clone()));

    let store = order::store(&server, "").await?;
    let codec = Arc::new(Codec::default().with_source("bench"));
    let pattern: Pattern = "latency.shown".parse()?;
    let subscription = store.subscribe(&[pattern]).await?;
    let hearing = tokio::spawn(hear(subscription, listener.clone()));

    let sides = in_turns(
        plan.rounds(),
        async || {
            let connection = connection.clone();
            listener
                .p99(pace, move |due| {
                    let mut connection = connection.clone();
                    async move {
                        let payload = serde_json::to_string(&Shown::new(due))?;
                        let mut command = redis::cmd("PUBLISH");
                        command.arg(BARE_CHANNEL).arg(payload);
                        bare::ask(&mut connection, &command).await?;
                        Ok(())
                    }
                })
                .await
        },
        async || {
            let (store, codec) = (store.clone(), Arc::clone(&codec));
            listener
                .p99(pace, move |due| {
                    let (store, codec) = (store.clone(), Arc::clone(&codec));
                    async move {
                        let event = codec.encode(&Shown::new(due))?;
                        store.publish_realtime(&[event]).await?;
                        Ok(())
                    }
                })
                .await
        },
    )
    .await?;
    bare_hearing.abort();
    hearing.abort();
    let reach = Reach::ratio(Bound::AtMost(2.0));
    report.add(ROW, "ms", sides, reach);
    Ok(())
}

async fn hear(mut subscription: RealtimeSubscription, listener: Listener) -> anyhow::Result<()> {
    while let Some(item) = subscription.next().await {
        match item {
            RealtimeItem::Event(event) => listener.hear(event.decode::<Shown>()?.due),
            RealtimeItem::Missed { count, .. } => bail!("missed {count} messages"),
        }
    }
    bail!("the subscription has ended")
}

async fn hear_bare(mut pubsub: PubSub, listener: Listener) -> anyhow::Result<()> {
    let mut messages = pubsub.on_message();
    while let Some(message) = messages.next().await {
        let shown: Shown = serde_json::from_slice(message.get_payload_bytes())?;
        listener.hear(shown.due);
    }
    bail!("the bare subscription has ended")
}
