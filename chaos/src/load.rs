//! Publishes: each customer's orders one after the other, in bursts, until each is stored.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_core::prelude::*;
use event_redis::{Durability, RedisStore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::events::{self, OrderPlaced};

/// So many publish side by side.
const PUBLISHERS: u32 = 16;

/// Orders come in bursts that are so far apart.
const BURSTS: Duration = Duration::from_millis(400);

/// What there is to publish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) events: u32,
    pub(crate) keys: u32,
}

impl Load {
    /// All customers, and how many orders each places.
    pub(crate) fn customers(self) -> impl Iterator<Item = (String, u32)> {
        (0..self.keys).map(move |key| {
            let count = self.events / self.keys + u32::from(key < self.events % self.keys);
            (format!("c{key:04}"), count)
        })
    }

    /// Publishes everything, spread over `duration`.
    pub(crate) async fn publish(self, url: &str, duration: Duration) -> anyhow::Result<()> {
        let mut builder = RedisStore::builder(url)
            .durability(Durability::Fsync)
            // What is not stored by then is published again here, under the same id.
            .patience(Duration::from_secs(1));
        for (category, count) in events::partitions()? {
            builder = builder.partitions(category, count);
        }
        let store = builder.connect().await?;
        let service = Service::builder("shop")
            .without_discovered_handlers()
            .store(store)
            .build()?;
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for publisher in 0..PUBLISHERS {
            let customers: Arc<[_]> = self
                .customers()
                .skip(publisher as usize)
                .step_by(PUBLISHERS as usize)
                .collect();
            let service = service.clone();
            tasks.spawn(async move {
                let total: u32 = customers.iter().map(|(_, count)| count).sum();
                let most = customers.iter().map(|(_, count)| *count).max();
                let mut published = 0;
                for number in 1..=most.unwrap_or(0) {
                    for (customer, count) in customers.iter() {
                        if number > *count {
                            continue;
                        }
                        let due = duration * published / total;
                        let bursts = due.as_millis() / BURSTS.as_millis();
                        let bursts = u32::try_from(bursts).unwrap_or(u32::MAX);
                        sleep_until(start + BURSTS * bursts).await;
                        let order = OrderPlaced {
                            customer: customer.clone(),
                            number,
                        };
                        publish(&service, &order).await;
                        published += 1;
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("a publisher has ended by itself")?;
        }
        Ok(())
    }
}

async fn publish(service: &Service, order: &OrderPlaced) {
    let id = order.id();
    while service
        .publish(Envelope::of(order.clone()).event_id(id))
        .await
        .is_err()
    {
        sleep(Duration::from_millis(50)).await;
    }
}
