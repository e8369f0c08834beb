//! News to screens, by WebSockets of `graphql-transport-ws` on this machine. The clients are plain connections that
//! do no more than cut frames apart, the same ones on both sides.
//!
//! - `graphql.p99`: from publishing a stored event, which is when a webhook is accepted, until the last of 100
//!   clients that all want it has it. The ceiling is XADD, a loop of XREAD BLOCK, and a broadcast of the same bytes
//!   by axum's WebSockets.
//! - `graphql.fanout`: deliveries for each second to 1,000 clients that ask for the same, in waves: the next wave
//!   is stored when all have got the one before. The ceiling is a broadcast of the same bytes by axum's WebSockets,
//!   which begins at no store.
//! - `graphql.client_bytes`: resident memory of a server's process for each client that is subscribed and hears
//!   nothing. All ask for the same, and share its execution.

mod client;
mod idle;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use event_core::Service;
use event_tests::RedisServer;
use tokio::task::JoinSet;

use self::client::Socket;
use self::server::{Screened, Server};
use crate::bare::{self, Follower};
use crate::deliveries::Deliveries;
use crate::latency::{Listener, METADATA, Pace};
use crate::order;
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::{Sides, in_turns, rate};
use crate::start_server;

pub(crate) use self::idle::serve;

const BARE_FEED: &str = "bare:screened";

/// How many events a wave has: fewer than a client may be behind.
const WAVE: usize = 64;

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let row = "graphql.p99";
    if plan.wants(row) {
        let pace = Pace {
            messages: plan.amount(1_000, 5_000),
            rate: 1_000,
        };
        let sides = latency(pace, 100, plan.few_rounds()).await?;
        report.add(row, "ms", sides, Reach::value(Bound::AtMost(10.0)));
    }
    let row = "graphql.fanout";
    if plan.wants(row) {
        let waves = plan.amount(2, 8);
        let sides = fanout(waves, 1_000, plan.few_rounds()).await?;
        report.add(
            row,
            "deliveries/s",
            sides,
            Reach::ratio(Bound::AtLeast(0.5)),
        );
    }
    let row = "graphql.client_bytes";
    if plan.wants(row) {
        let sides = Sides {
            ceiling: 40.0 * 1_024.0,
            ours: idle::client_bytes(1_000).await?,
        };
        report.add(
            row,
            "bytes",
            sides,
            Reach::value(Bound::AtMost(40.0 * 1_024.0)),
        );
    }
    Ok(())
}

/// A server of screens, a service that stores what they show, and the server of Redis below both.
struct Stage {
    service: Service,
    server: Server,
    redis: RedisServer,
}

impl Stage {
    async fn new() -> anyhow::Result<Self> {
        let redis = start_server()?;
        let store = order::store(&redis, "").await?;
        let service = Service::builder("screens").store(store.clone()).build()?;
        let server = Server::start(store).await?;
        Ok(Self {
            service,
            server,
            redis,
        })
    }

    /// Clients that have subscribed, and have been shown one event.
    async fn clients(&self, count: usize) -> anyhow::Result<(Vec<Socket>, String)> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(self.server.subscriber().await?);
        }
        self.server.begun().await?;
        self.service.publish(Screened::new(0, 0)).await?;
        let mut shown = String::new();
        for client in &mut clients {
            let message = client.next().await?;
            shown = String::from_utf8(message.to_vec())?;
            ensure!(shown.contains(r#""type":"next""#), "what came is {shown}");
        }
        Ok((clients, shown))
    }

    async fn bare_clients(&self, count: usize) -> anyhow::Result<Vec<Socket>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(Socket::connect(self.server.address(), "/bare").await?);
        }
        self.server.bare_listeners(count).await?;
        Ok(clients)
    }
}

/// Reads on, and has `heard` told of each message.
fn read_on(
    sockets: Vec<Socket>,
    heard: impl Fn(&[u8]) -> anyhow::Result<()> + Clone + Send + Sync + 'static,
) -> JoinSet<anyhow::Result<()>> {
    let mut reading = JoinSet::new();
    for mut socket in sockets {
        let heard = heard.clone();
        reading.spawn(async move {
            loop {
                let message = socket.next().await?;
                heard(message)?;
            }
        });
    }
    reading
}

/// Which of the messages of a round have come to how many clients.
struct Arrivals {
    listener: Listener,
    clients: usize,
    by_message: Vec<AtomicUsize>,
}

impl Arrivals {
    fn new(listener: Listener, clients: usize, messages: usize) -> Arc<Self> {
        let mut by_message = Vec::new();
        by_message.resize_with(messages, AtomicUsize::default);
        Arc::new(Self {
            listener,
            clients,
            by_message,
        })
    }

    /// The last client counts.
    fn arrive(&self, message: &[u8]) -> anyhow::Result<()> {
        let (number, due) = server::number_and_due(message)?;
        let count = self.by_message.get(number).context("an unknown message")?;
        let arrived = count.fetch_add(1, Ordering::Relaxed) + 1;
        if arrived == self.clients {
            count.store(0, Ordering::Relaxed);
            self.listener.hear(due);
        }
        Ok(())
    }
}

async fn latency(pace: Pace, clients: usize, rounds: usize) -> anyhow::Result<Sides> {
    let stage = Stage::new().await?;
    let (sockets, shown) = stage.clients(clients).await?;
    let listener = Listener::new();
    let arrivals = Arrivals::new(listener.clone(), clients, pace.messages);
    let heard = Arc::clone(&arrivals);
    let _reading = read_on(sockets, move |message| heard.arrive(message));

    let redis = &stage.redis;
    let connection = bare::connect(redis).await?;
    let follower = Follower::connect(redis, BARE_FEED).await?;
    let bare_arrivals = Arrivals::new(listener.clone(), clients, pace.messages);
    let heard = Arc::clone(&bare_arrivals);
    let sockets = stage.bare_clients(clients).await?;
    let _bare_reading = read_on(sockets, move |message| heard.arrive(message));
    let _following = stage.server.broadcast_feed(follower);
    let filling = shown.len();

    in_turns(
        rounds,
        async || {
            let connection = connection.clone();
            let mut number = 0;
            let said = listener.p99(pace, move |due| {
                let (mut connection, this) = (connection.clone(), number);
                number += 1;
                async move {
                    let payload = server::bare_message(this, due, filling);
                    let command = bare::add(BARE_FEED, "screen.shown", &payload, METADATA);
                    bare::ask(&mut connection, &command).await?;
                    Ok(())
                }
            });
            said.await
        },
        async || {
            let service = stage.service.clone();
            let mut number = 0;
            let said = listener.p99(pace, move |due| {
                let (service, this) = (service.clone(), number);
                number += 1;
                async move {
                    service.publish(Screened::new(this, due)).await?;
                    Ok(())
                }
            });
            said.await
        },
    )
    .await
}

async fn fanout(waves: usize, clients: usize, rounds: usize) -> anyhow::Result<Sides> {
    let stage = Stage::new().await?;
    let (sockets, shown) = stage.clients(clients).await?;
    let (ours, bare) = (Arc::<Deliveries>::default(), Arc::<Deliveries>::default());
    let heard = Arc::clone(&ours);
    let _reading = read_on(sockets, move |_| {
        heard.deliver();
        Ok(())
    });
    let heard = Arc::clone(&bare);
    let _bare_reading = read_on(stage.bare_clients(clients).await?, move |_| {
        heard.deliver();
        Ok(())
    });
    let deliveries = WAVE * clients;
    in_turns(
        rounds,
        async || {
            let start = Instant::now();
            for _ in 0..waves {
                bare.expect(deliveries);
                for _ in 0..WAVE {
                    stage.server.broadcast(&shown)?;
                }
                bare.completed().await?;
            }
            Ok(rate(waves * deliveries, start.elapsed()))
        },
        async || {
            let start = Instant::now();
            for _ in 0..waves {
                ours.expect(deliveries);
                let wave: Vec<_> = (0..WAVE).map(|_| Screened::new(0, 0)).collect();
                stage.service.publish(wave).await?;
                ours.completed().await?;
            }
            Ok(rate(waves * deliveries, start.elapsed()))
        },
    )
    .await
}
