//! Fan-out of realtime events within a process: deliveries for each second to 1,000 subscribers.
//!
//! Ours is one publisher that sends through Redis, and [`EventSubscriptionBridge::realtime`], which reads the
//! channel once and decodes each event once. The ceiling is a channel of tokio's `broadcast` with the event in an
//! `Arc`, which begins at no server. Both go in waves: the next is sent when all have got the one before.

use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use event_core::Service;
use event_graphql::EventSubscriptionBridge;
use futures::StreamExt;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::deliveries::Deliveries;
use crate::latency::Shown;
use crate::order;
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{in_turns, rate};
use crate::start_server;

const ROW: &str = "realtime.fanout";
const SUBSCRIBERS: usize = 1_000;

/// How many events a wave has: fewer than a subscriber may be behind.
const WAVE: usize = 1_000;

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if !plan.wants(ROW) {
        return Ok(());
    }
    let server = start_server()?;
    let store = order::store(&server, "").await?;
    let service = Service::builder("screens").store(store.clone()).build()?;
    let bridge = EventSubscriptionBridge::new(store);
    let (ours, bare) = (Arc::<Deliveries>::default(), Arc::<Deliveries>::default());

    let mut hearing = JoinSet::<anyhow::Result<()>>::new();
    for _ in 0..SUBSCRIBERS {
        let heard = Arc::clone(&ours);
        let subscribed = bridge.realtime::<Shown>().subscribe().await;
        let Ok(mut events) = subscribed else {
            bail!("the bridge does not listen");
        };
        hearing.spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) if event.lost() == 0 => heard.deliver(),
                    Ok(event) => bail!("{} events were lost", event.lost()),
                    Err(error) => bail!("{}", error.message),
                }
            }
            bail!("the subscription has ended")
        });
    }
    let sender = broadcast::Sender::<Arc<Shown>>::new(4_096);
    for _ in 0..SUBSCRIBERS {
        let (heard, mut events) = (Arc::clone(&bare), sender.subscribe());
        hearing.spawn(async move {
            loop {
                events.recv().await?;
                heard.deliver();
            }
        });
    }

    let waves = plan.amount(2, 5);
    let deliveries = WAVE * SUBSCRIBERS;
    let sides = in_turns(
        plan.few_rounds(),
        async || {
            let start = Instant::now();
            for _ in 0..waves {
                bare.expect(deliveries);
                let sender = sender.clone();
                // By a worker, as ours is.
                tokio::spawn(async move {
                    for _ in 0..WAVE {
                        sender.send(Arc::new(Shown::new(0)))?;
                    }
                    anyhow::Ok(())
                })
                .await??;
                bare.completed().await?;
            }
            Ok(rate(waves * deliveries, start.elapsed()))
        },
        async || {
            let start = Instant::now();
            for _ in 0..waves {
                ours.expect(deliveries);
                let service = service.clone();
                tokio::spawn(async move {
                    let wave: Vec<_> = (0..WAVE).map(|_| Shown::new(0)).collect();
                    service.publish(wave).await
                })
                .await??;
                ours.completed().await?;
            }
            Ok(rate(waves * deliveries, start.elapsed()))
        },
    )
    .await?;
    report.add(
        ROW,
        "deliveries/s",
        sides,
        Reach::ratio(Bound::AtLeast(0.5)),
    );
    Ok(())
}
